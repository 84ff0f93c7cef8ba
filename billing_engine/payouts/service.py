"""Requesting, paying and failing payouts. The ledger's write decides each; record and letter follow and are healed."""

from dataclasses import dataclass
from functools import partial
from typing import Final

from billing_engine.clock import Clock
from billing_engine.ledger.model import Account, Entry, HoldGone
from billing_engine.ledger.service import Ledger
from billing_engine.money import Asset, format_minor
from billing_engine.payouts.errors import PayoutNotFound, PayoutTooSmall
from billing_engine.payouts.model import (
    PREFIX,
    Payout,
    PayoutStatus,
    Verdict,
    account_of,
    decide,
    hold_id_of,
    payout_of_entry,
    payout_of_hold,
    reserve,
)
from billing_engine.payouts.ports import OpenPayouts, PayoutNews, PayoutRows

_PAGE: Final = 500


@dataclass(frozen=True, slots=True)
class PayoutRules:
    """The smallest payout, in smallest units of `asset`."""

    asset: Asset
    min_minor: int


class Payouts:
    """The use cases of payouts (SPEC 11)."""

    def __init__(
        self, *, ledger: Ledger, rows: PayoutRows, news: PayoutNews, clock: Clock, rules: PayoutRules
    ) -> None:
        self._ledger = ledger
        self._rows = rows
        self._news = news
        self._clock = clock
        self._rules = rules

    @property
    def asset(self) -> Asset:
        """What earnings are paid out in."""
        return self._rules.asset

    # -- the lawyer --------------------------------------------------------------------------------------------------

    async def request(self, *, lawyer_id: str, amount_minor: int, operation_id: str) -> Payout:
        """Set earnings aside to be paid out; the payout's id is the operation's, so that a repeat finds the first.

        Raises:
            PayoutTooSmall: below the minimum; names `amount`.
            EarningsTooLow: less may be paid out; nothing is changed.
            Unavailable: it may be requested or not; repeat with the same operation.
        """
        least = max(1, self._rules.min_minor)
        if amount_minor < least:
            raise PayoutTooSmall(
                field="amount", problem=f"must be at least {format_minor(least, self.asset)}"
            )
        wanted = Payout(
            id=operation_id,
            lawyer_id=lawyer_id,
            amount_minor=amount_minor,
            currency=self.asset.code,
            created_at_ms=self._clock.now_ms(),
        )
        payout: Payout = await self._ledger.change(
            account_of(wanted), wanted.currency, partial(reserve, wanted=wanted), source=hold_id_of(wanted.id)
        )
        # Money first: a hold without its record is found and copied, a record without its hold would promise what is not there.
        await self._rows.add(payout)
        return payout

    async def list_for(self, lawyer_id: str, *, limit: int, before: tuple[int, str] | None) -> list[Payout]:
        """The lawyer's payouts, newest first."""
        return await self._rows.list_for(lawyer_id, limit=limit, before=before)

    # -- the admins --------------------------------------------------------------------------------------------------

    async def get(self, payout_id: str) -> Payout:
        """Raises `PayoutNotFound`."""
        found = await self._rows.get(payout_id)
        if found is None:
            raise PayoutNotFound(payout=payout_id)
        return found

    async def queue(
        self, status: PayoutStatus | None, *, limit: int, after: tuple[int, str] | None
    ) -> list[Payout]:
        """Everybody's payouts: requested ones oldest first, others newest first."""
        return await self._rows.queue(status, limit=limit, after=after)

    async def open_total(self) -> OpenPayouts:
        """What is requested and not decided."""
        return await self._rows.open_total()

    async def decide(self, payout_id: str, verdict: Verdict) -> Payout:
        """Pay a payout or let it fail. Whoever comes first decides; the same verdict again answers the first one's.

        Raises:
            PayoutNotFound, PayoutDecided: nothing is changed.
            Unavailable: it may be decided or not; ask again.
        """
        payout = await self.get(payout_id)

        def change(account: Account, known: Entry | None) -> tuple[Account, Entry]:
            at_ms = self._clock.now_ms()
            day = self._ledger.day_of(at_ms)
            return decide(account, known, payout=payout, verdict=verdict, at_ms=at_ms, day=day)

        try:
            entry: Entry = await self._ledger.change(
                account_of(payout), payout.currency, change, source=hold_id_of(payout.id)
            )
        except HoldGone as exc:
            raise PayoutNotFound(payout=payout_id) from exc
        return await self._settle(entry)

    async def _settle(self, entry: Entry) -> Payout:
        """What follows a decision. The record is last: while it says REQUESTED, healing does all of this again."""
        payout = payout_of_entry(entry)
        await self._news.payout_decided(payout)
        await self._rows.settle(payout)
        return payout

    # -- healing -----------------------------------------------------------------------------------------------------

    async def heal(self) -> int:
        """Finish what a crash cut short: holds without a record, and decisions that no record tells. How many there were."""
        healed = 0
        after: tuple[int, str] | None = None
        requested: list[Payout] = []
        # Records before holds: a hold that is gone by then has been closed, since it was there before its record.
        while True:
            page = await self._rows.queue(PayoutStatus.REQUESTED, limit=_PAGE, after=after)
            requested += page
            if len(page) < _PAGE:
                break
            after = page[-1].created_at_ms, page[-1].id
        holds = {
            hold.hold_id.removeprefix(PREFIX): hold.account_id
            for hold in await self._ledger.open_holds(PREFIX)
        }
        for payout in requested:
            if payout.id in holds:
                continue
            entry = await self._ledger.entry(account_of(payout), hold_id_of(payout.id))
            if entry is not None:
                await self._settle(entry)
                healed += 1
        unknown = holds.keys() - {payout.id for payout in requested}
        known = await self._rows.get_many(sorted(unknown))
        for payout_id in sorted(unknown - known.keys()):
            account = await self._ledger.account(holds[payout_id], self.asset.code)
            hold = account.holds.get(hold_id_of(payout_id))
            if hold is not None:
                await self._rows.add(payout_of_hold(account, hold))
                healed += 1
        return healed
