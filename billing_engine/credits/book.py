"""What a freelancer has, and how it came: read from the ledger's entries, and from nothing else (SPEC 8)."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from billing_engine.clock import Clock
from billing_engine.credits.errors import AdjustmentInvalid
from billing_engine.credits.model import ADJUSTED, PURCHASED, REFUNDED, USED, Adjustment, adjust
from billing_engine.errors import Unavailable
from billing_engine.ledger.accounts import application_credits_of
from billing_engine.ledger.model import Account, Entry
from billing_engine.ledger.ports import Line
from billing_engine.ledger.rivals import ATTEMPTS, let_rivals_finish
from billing_engine.ledger.service import Ledger
from billing_engine.money import APPLICATION_CREDIT

_ASSET: Final = APPLICATION_CREDIT.code
#: No admin adds or takes more at once: a slip of the hand.
ADJUSTMENT_MAX: Final = 100_000


class CreditType(StrEnum):
    """What changed the balance, as people are told."""

    PURCHASE = "purchase"
    USED = "used"
    REFUND = "refund"
    ADJUSTMENT = "adjustment"


KINDS: Final = {
    CreditType.PURCHASE: PURCHASED,
    CreditType.USED: USED,
    CreditType.REFUND: REFUNDED,
    CreditType.ADJUSTMENT: ADJUSTED,
}
TYPES: Final = {kind: type_ for type_, kind in KINDS.items()}


@dataclass(frozen=True, slots=True)
class CreditBalance:
    """`balance` is `purchased` - `used` + `refunded` + `adjusted`, always: it is of one moment."""

    balance: int
    purchased: int
    used: int
    refunded: int
    adjusted: int


class CreditBook:
    """Balances, histories and the admins' adjustments."""

    def __init__(self, *, ledger: Ledger, clock: Clock) -> None:
        self._ledger = ledger
        self._clock = clock

    async def balance(self, user_id: str) -> CreditBalance:
        """The balance and what it is made of. Raises `Unavailable`: unknown is never 0."""
        id_ = application_credits_of(user_id)
        account = await self._ledger.account(id_, _ASSET)
        for attempt in range(ATTEMPTS):
            purchased = await self._ledger.total_credited(id_, kinds=(PURCHASED,))
            used = await self._ledger.total_debited(id_, kinds=(USED,))
            refunded = await self._ledger.total_credited(id_, kinds=(REFUNDED,))
            added = await self._ledger.total_credited(id_, kinds=(ADJUSTED,))
            removed = await self._ledger.total_debited(id_, kinds=(ADJUSTED,))
            after = await self._ledger.account(id_, _ASSET)
            if after.seq == account.seq:
                return CreditBalance(
                    balance=account.spendable,
                    purchased=purchased.amount_minor,
                    used=used.amount_minor,
                    refunded=refunded.amount_minor,
                    adjusted=added.amount_minor - removed.amount_minor,
                )
            # The sums may be of two moments: read them again.
            account = after
            await let_rivals_finish(attempt)
        raise Unavailable(reason="the account keeps moving", account=id_)

    async def history(
        self, user_id: str, *, page: int, limit: int, type_: CreditType | None = None
    ) -> tuple[list[Line], int]:
        """One page (from 1) of the entries, newest first, and how many there are of all pages."""
        id_ = application_credits_of(user_id)
        kinds = tuple(KINDS.values()) if type_ is None else (KINDS[type_],)
        await self._ledger.account(id_, _ASSET)
        # Each entry has one transfer.
        into = await self._ledger.total_credited(id_, kinds=kinds)
        out_of = await self._ledger.total_debited(id_, kinds=kinds)
        total = into.rows + out_of.rows
        first = (page - 1) * limit
        if first >= total:
            return [], total
        lines = await self._ledger.lines(id_, limit=first + limit, kinds=kinds)
        return lines[first:], total

    async def adjust(self, wanted: Adjustment) -> Entry:
        """Add or take credits, once per operation.

        Raises:
            AdjustmentInvalid: nothing, or too many at once; names `amount`.
            InsufficientCredits: there are fewer to take; nothing was changed.
            Unavailable: it may be done or not; repeat with the same operation.
        """
        if wanted.amount == 0 or abs(wanted.amount) > ADJUSTMENT_MAX:
            problem = f"must be from -{ADJUSTMENT_MAX} to {ADJUSTMENT_MAX}, and not 0"
            raise AdjustmentInvalid(field="amount", problem=problem)

        def change(account: Account, known: Entry | None) -> tuple[Account, Entry]:
            at_ms = self._clock.now_ms()
            return adjust(account, known, wanted=wanted, at_ms=at_ms, day=self._ledger.day_of(at_ms))

        entry: Entry = await self._ledger.change(wanted.account, _ASSET, change, source=wanted.source)
        return entry
