"""What money on its way back to the payer does to the account that the payment was credited to. Pure: each decided inside the write
that commits it.

Money is first set aside under a hold, and the close takes it or gives it back. Where it leaves without our doing (a dispute that is
lost, a refund from the gateway's dashboard), the wallet gives what it can spare, and what it cannot is the platform's loss.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from billing_engine.errors import Conflict, InvariantBroken
from billing_engine.ledger.accounts import REVENUE_CHARGEBACKS
from billing_engine.ledger.model import (
    Account,
    Entry,
    Hold,
    KeyState,
    Movement,
    Transfer,
    close_hold,
    effect_on,
    extend_hold,
    open_hold,
    post,
)

#: Kinds of entries. Those that end a hold and take nothing are no lines of the wallet.
PAYER_REFUND: Final = "payer_refund"
PAYER_REFUND_FAILED: Final = "payer_refund_failed"
PAYER_REFUND_RETURNED: Final = "payer_refund_returned"
CHARGEBACK: Final = "chargeback"
DISPUTE_WON: Final = "dispute_won"
CHARGEBACK_RETURNED: Final = "chargeback_returned"
#: Those that are lines of a wallet.
RETURN_KINDS: Final = (PAYER_REFUND, PAYER_REFUND_RETURNED, CHARGEBACK, CHARGEBACK_RETURNED)
#: Kind of the transfer, beside those, that the platform pays.
CHARGEBACK_LOSS: Final = "chargeback_loss"
#: What the holder may take, in a hold's facts; the hold itself may be less.
BOUND: Final = "bound"


class HoldMoved(Conflict):
    """A hold that was to be changed with another one is gone; look again."""

    code = "HOLD_MOVED"


@dataclass(frozen=True, slots=True)
class Return:
    """Money that leaves `account` for `gateway` (a system account) under one hold. `facts` say whose it is, for the audit."""

    account: str
    gateway: str
    asset: str
    amount_minor: int
    source: str
    facts: Mapping[str, Any]

    def transfers(self, held_minor: int, kind: str) -> tuple[Transfer, ...]:
        """The whole amount to the gateway: what was held from the account, the rest from the platform."""
        missing_minor = self.amount_minor - held_minor
        return _positive(
            Transfer(self.account, self.gateway, held_minor, kind),
            Transfer(REVENUE_CHARGEBACKS, self.gateway, missing_minor, CHARGEBACK_LOSS),
        )

    def movement(self, transfers: tuple[Transfer, ...], kind: str, source: str, reference: str) -> Movement:
        return Movement(
            account=self.account,
            source=source,
            kind=kind,
            asset=self.asset,
            reference=reference,
            transfers=transfers,
            facts=self.facts,
        )


def set_aside_all(
    account: Account, known: Entry | None, *, wanted: Return, at_ms: int, day: str
) -> tuple[Account, Hold | Entry]:
    """Hold the whole amount, or commit that it is refused for ever: whoever else runs this refund then finds it refused, too."""
    if known is not None:
        return account, known
    if (hold := account.holds.get(wanted.source)) is not None:
        return account, hold
    if account.spendable < wanted.amount_minor:
        refused = wanted.movement(
            wanted.transfers(wanted.amount_minor, PAYER_REFUND), PAYER_REFUND, wanted.source, wanted.source
        )
        return post(account, refused, at_ms=at_ms, day=day)
    return _opened(account, wanted, wanted.amount_minor, wanted.amount_minor)


def set_aside_spare(
    account: Account,
    known: Entry | None,
    *,
    wanted: Return,
    bound_minor: int,
    disputes: Mapping[str, int] | None = None,
) -> tuple[Account, Hold | Entry]:
    """Hold what the account can spare, up to the bound; a hold of nothing remembers that there was nothing.

    `disputes` are the new bounds of open holds about the same payment, changed in the same write, so that nobody spends in between
    what they give up. Raises `HoldMoved` when one is gone.
    """
    if known is not None:
        return account, known
    if (hold := account.holds.get(wanted.source)) is not None:
        return account, hold
    account = bounded(account, disputes or {})
    return _opened(account, wanted, min(bound_minor, max(0, account.spendable)), bound_minor)


def bounded(account: Account, bounds: Mapping[str, int]) -> Account:
    """The account with these holds at new bounds: less is given back at once, more is taken as far as there is any."""
    for hold_id, bound_minor in bounds.items():
        hold = account.holds.get(hold_id)
        if hold is None:
            raise HoldMoved(hold=hold_id)
        if hold.facts[BOUND] == bound_minor:
            continue
        amount_minor = min(bound_minor, hold.amount_minor + max(0, account.spendable))
        account, _ = extend_hold(
            account, hold, n=hold.n + 1, amount_minor=amount_minor, facts={**hold.facts, BOUND: bound_minor}
        )
    return account


def end(
    account: Account,
    known: Entry | None,
    *,
    wanted: Return,
    kind: str,
    takes: bool,
    facts: Mapping[str, Any],
    at_ms: int,
    day: str,
) -> tuple[Account, Entry]:
    """Close the hold: take the amount, or give back what was held. The first close stands; a later one answers it."""
    if known is not None:
        return account, known
    hold = account.holds.get(wanted.source)
    if hold is None:
        raise InvariantBroken(rule="what is on its way back has its hold", hold=wanted.source)
    transfers = wanted.transfers(hold.amount_minor, kind) if takes else ()
    return close_hold(
        account, hold, kind=kind, transfers=transfers, facts={**hold.facts, **facts}, at_ms=at_ms, day=day
    )


def put_back(wanted: Return, taken: Entry, *, kind: str, source: str, facts: Mapping[str, Any]) -> Movement:
    """What came back to the gateway, to those who had paid for it."""
    reversed_ = tuple(
        Transfer(transfer.credit, transfer.debit, transfer.amount_minor, kind) for transfer in taken.transfers
    )
    movement = wanted.movement(reversed_, kind, source, wanted.source)
    return replace(movement, facts={**wanted.facts, **facts})


def take_again(
    account: Account,
    known: Entry | None,
    *,
    wanted: Return,
    bound_minor: int,
    source: str,
    facts: Mapping[str, Any],
    at_ms: int,
    day: str,
) -> tuple[Account, Entry]:
    """After a dispute that was won is lost: what the account can spare now, up to the bound, and the rest from the platform."""
    if known is not None:
        return account, known
    spare_minor = min(bound_minor, max(0, account.spendable))
    movement = wanted.movement(wanted.transfers(spare_minor, CHARGEBACK), CHARGEBACK, source, wanted.source)
    again = replace(movement, facts={**wanted.facts, **facts})
    return post(account, again, at_ms=at_ms, day=day)


def taken_minor(entry: Entry) -> int:
    """What the entry took out of its own account."""
    return -effect_on(entry.account, entry.transfers) if entry.state is KeyState.POSTED else 0


def _opened(account: Account, wanted: Return, amount_minor: int, bound_minor: int) -> tuple[Account, Hold]:
    # Nobody owns it: whichever process hears of it may close it.
    return open_hold(
        account,
        hold_id=wanted.source,
        amount_minor=amount_minor,
        owner="",
        facts={**wanted.facts, BOUND: bound_minor},
    )


def _positive(*transfers: Transfer) -> tuple[Transfer, ...]:
    return tuple(transfer for transfer in transfers if transfer.amount_minor > 0)
