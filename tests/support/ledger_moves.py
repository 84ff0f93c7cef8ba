"""The ledger's operations as a product makes them: each decided inside the write, each harmless to repeat."""

from typing import Any

from billing_engine.ledger.accounts import gateway_of
from billing_engine.ledger.model import (
    Account,
    Entry,
    Fenced,
    Hold,
    HoldGone,
    KeyState,
    KeyVoided,
    Movement,
    Transfer,
    adopt_hold,
    close_hold,
    extend_hold,
    fenced_hold,
    open_hold,
)
from billing_engine.ledger.service import Ledger

INR = "INR"
GATEWAY = gateway_of("test")


def recharge(wallet: str, source: str, amount_minor: int, *, kind: str = "recharge") -> Movement:
    """Money from outside into a wallet."""
    return Movement(wallet, source, kind, INR, source, (Transfer(GATEWAY, wallet, amount_minor, kind),))


def payment(wallet: str, source: str, *parts: tuple[str, int], kind: str = "fee") -> Movement:
    """A guarded debit of the wallet: `parts` are (account, amount)."""
    transfers = tuple(Transfer(wallet, to, amount, kind) for to, amount in parts)
    return Movement(wallet, source, kind, INR, source, transfers)


async def open_(
    ledger: Ledger, wallet: str, hold_id: str, amount_minor: int, *, owner: str = "me", **facts: Any
) -> Hold:
    """Open a hold, or find it open; refused when its key has ended."""

    def decide(account: Account, known: Entry | None) -> tuple[Account, Hold]:
        if known is not None:
            raise KeyVoided(key=known.key) if known.state is KeyState.VOIDED else HoldGone(hold=hold_id)
        if hold_id in account.holds:
            return account, account.holds[hold_id]
        return open_hold(account, hold_id=hold_id, amount_minor=amount_minor, owner=owner, facts=facts)

    hold: Hold = await ledger.change(wallet, INR, decide, source=hold_id)
    return hold


async def extend(
    ledger: Ledger,
    wallet: str,
    hold_id: str,
    *,
    n: int,
    to_minor: int,
    epoch: int = 1,
    owner: str = "me",
    **facts: Any,
) -> Hold:
    """Set the hold's amount with write number `n`, fenced."""

    def decide(account: Account, _known: Entry | None) -> tuple[Account, Hold]:
        hold = fenced_hold(account, hold_id, epoch=epoch, owner=owner)
        return extend_hold(account, hold, n=n, amount_minor=to_minor, facts=facts)

    hold: Hold = await ledger.change(wallet, INR, decide)
    return hold


async def adopt(ledger: Ledger, wallet: str, hold_id: str, *, from_epoch: int, owner: str) -> Hold:
    """Take the hold over; a repeat after a lost reply finds its own adoption."""

    def decide(account: Account, _known: Entry | None) -> tuple[Account, Hold]:
        hold = account.holds.get(hold_id)
        if hold is None:
            raise HoldGone(hold=hold_id)
        if (hold.epoch, hold.owner) == (from_epoch + 1, owner):
            return account, hold
        if hold.epoch != from_epoch:
            raise Fenced(hold=hold_id, epoch=hold.epoch)
        return adopt_hold(account, hold, owner=owner, facts=hold.facts)

    hold: Hold = await ledger.change(wallet, INR, decide)
    return hold


async def close(
    ledger: Ledger,
    wallet: str,
    hold_id: str,
    *parts: tuple[str, int],
    fence: tuple[int, str] | None = None,
    **facts: Any,
) -> Entry:
    """Close the hold and pay `parts` from it, or answer how its key ended first."""

    def decide(account: Account, known: Entry | None) -> tuple[Account, Entry]:
        if known is not None:
            return account, known
        hold = account.holds.get(hold_id)
        if hold is None:
            raise HoldGone(hold=hold_id)
        if fence is not None:
            fenced_hold(account, hold_id, epoch=fence[0], owner=fence[1])
        return close_hold(
            account,
            hold,
            kind="session",
            transfers=tuple(Transfer(wallet, to, amount, "session") for to, amount in parts),
            facts=facts,
            at_ms=ledger._clock.now_ms(),
            day=ledger.day_of(ledger._clock.now_ms()),
        )

    entry: Entry = await ledger.change(wallet, INR, decide, source=hold_id)
    return entry
