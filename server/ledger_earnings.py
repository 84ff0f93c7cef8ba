"""A lawyer's earnings, read from the ledger's rows."""

from billing_engine.consultations.billing import NET
from billing_engine.ledger.accounts import earnings_of
from billing_engine.ledger.service import Ledger
from billing_engine.money import Asset
from billing_engine.refunds.model import REFUND_NET
from server.people.ports import EarningRow, EarningsSummary


class LedgerEarnings:
    """`server.people.ports.Earnings` over the ledger. Totals are net of commission and refunds; payouts lower `available` only."""

    def __init__(self, ledger: Ledger, asset: Asset) -> None:
        self._ledger = ledger
        self._asset = asset

    async def summary(self, lawyer_id: str, *, day: str, month: str) -> EarningsSummary:
        account_id = earnings_of(lawyer_id)
        total_minor, sessions = await self._earned(account_id, "")
        today_minor, _ = await self._earned(account_id, day)
        month_minor, _ = await self._earned(account_id, month)
        account = await self._ledger.account(account_id, self._asset.code)
        return EarningsSummary(
            total_minor=total_minor,
            today_minor=today_minor,
            month_minor=month_minor,
            available_minor=max(0, account.spendable),
            receivable_minor=max(0, -account.spendable),
            sessions=sessions,
        )

    async def _earned(self, account_id: str, day_prefix: str) -> tuple[int, int]:
        """What consultations brought less what refunds took on these days, and how many consultations there were."""
        earned = await self._ledger.total_credited(account_id, kinds=(NET,), day_prefix=day_prefix)
        returned = await self._ledger.total_debited(account_id, kinds=(REFUND_NET,), day_prefix=day_prefix)
        return earned.amount_minor - returned.amount_minor, earned.rows

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
