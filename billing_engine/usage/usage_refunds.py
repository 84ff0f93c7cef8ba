"""Giving a usage's cost back: by an admin, whole and once. The wallet has it again, and a debt is paid from it first.

Whether a usage was charged is the ledger's word, not its record's: the record may lag behind. What has cost nothing, or nothing yet,
has nothing to give back.
"""

from dataclasses import dataclass

from billing_engine.clock import Clock, Moment
from billing_engine.errors import NotFound
from billing_engine.ledger.accounts import company_wallet_of
from billing_engine.ledger.model import Account, Entry, KeyState
from billing_engine.ledger.service import Ledger
from billing_engine.usage.book import refund, refund_source
from billing_engine.usage.days import day_in
from billing_engine.usage.errors import NotCharged, UsageNotFound
from billing_engine.usage.model import Usage
from billing_engine.usage.ports import Companies, CompanyNews, Usages
from billing_engine.usage.service import settled_by


@dataclass(frozen=True, slots=True)
class RefundedUsage:
    """What was given back, and how the wallet stood right after it, in smallest units: the same at every repeat."""

    usage: Usage
    amount_minor: int
    balance_minor: int
    owed_minor: int
    reason: str
    by: str
    at_ms: int


class UsageRefunds:
    """The use case."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        clock: Clock,
        rows: Usages,
        companies: Companies,
        news: CompanyNews,
        asset: str,
    ) -> None:
        self._ledger = ledger
        self._clock = clock
        self._rows = rows
        self._companies = companies
        self._news = news
        self._asset = asset

    async def refund(self, usage_id: str, *, reason: str, by: str) -> RefundedUsage:
        """Give the usage's cost back; again, whatever the reason, it answers what was done.

        Raises:
            UsageNotFound: no such usage.
            NotCharged: a draft, free, or not charged yet; nothing is changed.
            Unavailable: nobody knows; a repeat finds what there is.
        """
        usage = await self.usage(usage_id)
        account_id = company_wallet_of(usage.company_id)
        charged = await self._ledger.entry(account_id, usage.source)
        if charged is None or charged.state is not KeyState.POSTED:
            raise NotCharged(usage=usage_id, status=usage.status.value)
        time_zone = await self._time_zone(usage.company_id)

        def change(account: Account, known: Entry | None) -> tuple[Account, Entry]:
            at_ms = self._clock.now_ms()
            return refund(
                account,
                known,
                charged=charged,
                company_id=usage.company_id,
                reason=reason,
                by=by,
                moment=Moment(at_ms, day_in(time_zone, at_ms)),
            )

        entry: Entry = await self._ledger.change(
            account_id, self._asset, change, source=refund_source(usage_id)
        )
        self._news.changed(usage.company_id)
        return _told(usage, charged, entry)

    async def usage(self, usage_id: str) -> Usage:
        """Any company's usage. Raises `UsageNotFound`."""
        usage = await self._rows.get(usage_id)
        if usage is None:
            raise UsageNotFound(usage=usage_id)
        return usage

    async def refunded_minor(self, usage: Usage) -> int:
        """What of it was given back."""
        entry = await self._ledger.entry(company_wallet_of(usage.company_id), refund_source(usage.id))
        return 0 if entry is None else entry.transfers[0].amount_minor

    async def _time_zone(self, company_id: str) -> str:
        try:
            return (await self._companies.terms(company_id)).time_zone
        except NotFound:
            # A company that is closed may be given back to all the same.
            return "UTC"


def _told(usage: Usage, charged: Entry, entry: Entry) -> RefundedUsage:
    return RefundedUsage(
        usage=settled_by(usage, charged),
        amount_minor=entry.transfers[0].amount_minor,
        balance_minor=entry.facts["balance"],
        owed_minor=entry.facts["owed"],
        reason=entry.facts["reason"],
        by=entry.facts["by"],
        at_ms=entry.at_ms,
    )
