"""A lawyer's earnings, read from the ledger's rows."""

from billing_engine.consultations.billing import NET
from billing_engine.ledger.accounts import earnings_of
from billing_engine.ledger.service import Ledger
from billing_engine.money import Asset
from server.people.ports import EarningRow, EarningsSummary


class LedgerEarnings:
    """`server.people.ports.Earnings` over the ledger. Totals are net of commission; payouts will lower `available` only."""

    def __init__(self, ledger: Ledger, asset: Asset) -> None:
        self._ledger = ledger
        self._asset = asset

    async def summary(self, lawyer_id: str, *, day: str, month: str) -> EarningsSummary:
        account_id = earnings_of(lawyer_id)
        total = await self._ledger.total_credited(account_id, kinds=(NET,))
        today = await self._ledger.total_credited(account_id, kinds=(NET,), day_prefix=day)
        this_month = await self._ledger.total_credited(account_id, kinds=(NET,), day_prefix=month)
        account = await self._ledger.account(account_id, self._asset.code)
        return EarningsSummary(
            total_minor=total.amount_minor,
            today_minor=today.amount_minor,
            month_minor=this_month.amount_minor,
            available_minor=max(0, account.spendable),
            sessions=total.rows,
        )

    async def rows(self, lawyer_id: str, *, limit: int, before: tuple[int, str] | None) -> list[EarningRow]:
        lines = await self._ledger.lines(earnings_of(lawyer_id), limit=limit, before=before, kinds=(NET,))
        return [
            EarningRow(
                session_id=line.facts["sessionId"],
                gross_minor=line.facts["gross"],
                commission_minor=line.facts["commission"],
                net_minor=line.facts["net"],
                at_ms=line.at_ms,
                key=line.key,
            )
            for line in lines
        ]
