"""The room of metered usage: its use cases, built over one database."""

from dataclasses import dataclass

from billing_engine.clock import Clock
from billing_engine.ledger.service import Ledger
from billing_engine.money import Asset
from billing_engine.payments.methods import PaymentMethods
from billing_engine.payments.service import PaymentService
from billing_engine.usage.charging import Charging
from billing_engine.usage.ledger_lines import LedgerLines
from billing_engine.usage.ports import Companies, CompanyNews, Jobs, Prices
from billing_engine.usage.recharges import RechargeRules, Recharges
from billing_engine.usage.rollups import Rollups
from billing_engine.usage.service import UsageService
from billing_engine.usage.usage_refunds import UsageRefunds
from server.ids import new_id
from server.storage.collection import Collections
from server.storage.repositories.usage_counters import CollectionCounters
from server.storage.repositories.usages import CollectionJobs, CollectionUsages


@dataclass(frozen=True, slots=True)
class UsageRoom:
    """What routes and chores call."""

    asset: Asset
    clock: Clock
    companies: Companies
    meter: UsageService
    recharges: Recharges
    rollups: Rollups
    lines: LedgerLines
    refunds: UsageRefunds
    jobs: Jobs

    async def stop(self) -> None:
        """Wait for what is being charged."""
        await self.meter.stop()
        await self.recharges.stop()


async def open_usage(
    collections: Collections,
    *,
    ledger: Ledger,
    clock: Clock,
    payments: PaymentService,
    methods: PaymentMethods,
    companies: Companies,
    prices: Prices,
    news: CompanyNews,
    rules: RechargeRules,
) -> UsageRoom:
    """Open its collections and wire it. `payments` tells it from then on what companies paid."""
    recharges = Recharges(
        ledger=ledger,
        clock=clock,
        payments=payments,
        methods=methods,
        companies=companies,
        news=news,
        rules=rules,
        new_id=new_id,
    )
    rows = await CollectionUsages.open(collections)
    jobs = await CollectionJobs.open(collections)
    rollups = Rollups(
        ledger=ledger, counters=await CollectionCounters.open(collections), asset=rules.asset.code
    )
    meter = UsageService(
        rows=rows,
        jobs=jobs,
        companies=companies,
        prices=prices,
        charging=Charging(ledger=ledger, clock=clock, recharges=recharges, asset=rules.asset.code),
        rollups=rollups,
        news=news,
        clock=clock,
        asset=rules.asset,
        new_id=new_id,
    )
    return UsageRoom(
        asset=rules.asset,
        clock=clock,
        companies=companies,
        meter=meter,
        recharges=recharges,
        rollups=rollups,
        lines=LedgerLines(ledger=ledger, asset=rules.asset.code),
        refunds=UsageRefunds(
            ledger=ledger, clock=clock, rows=rows, companies=companies, news=news, asset=rules.asset.code
        ),
        jobs=jobs,
    )
