"""The credits room, wired: prices and purchases, projects and applications, and the book that all of it is read from."""

from dataclasses import dataclass

from billing_engine.clock import Clock
from billing_engine.credits.applications import Applications
from billing_engine.credits.book import CreditBook
from billing_engine.credits.ports import PurchaseNews, Standing, UnpaidOrders
from billing_engine.credits.prices import CreditPrices
from billing_engine.credits.projects import Projects
from billing_engine.credits.purchases import CreditPurchases, PurchaseRules
from billing_engine.ledger.service import Ledger
from billing_engine.payments.model import Purpose
from billing_engine.payments.service import PaymentService
from server.settings import Settings
from server.storage.collection import Collections
from server.storage.repositories.credits import (
    CollectionApplications,
    CollectionPriceLog,
    CollectionProjects,
)


@dataclass(frozen=True, slots=True)
class CreditsRoom:
    """The room's use cases. One instance a process."""

    prices: CreditPrices
    purchases: CreditPurchases
    book: CreditBook
    applications: Applications
    projects: Projects

    async def heal(self) -> int:
        """Finish what a crash cut short."""
        return await self.projects.heal() + await self.applications.heal()


async def open_credits(
    settings: Settings,
    collections: Collections,
    *,
    ledger: Ledger,
    clock: Clock,
    payments: PaymentService,
    unpaid: UnpaidOrders,
    standing: Standing,
    news: PurchaseNews,
) -> CreditsRoom:
    """The room; `payments` tells it from then on what was paid for credits. Raises `PackagesInvalid`."""
    project_rows = await CollectionProjects.open(collections)
    applications = Applications(
        ledger=ledger,
        rows=await CollectionApplications.open_in(collections),
        projects=project_rows,
        clock=clock,
    )
    prices = CreditPrices(
        log=await CollectionPriceLog.open(collections),
        clock=clock,
        asset=settings.asset,
        first_minor=settings.credit_price_minor,
        packages=settings.packages(),
    )
    purchases = CreditPurchases(
        ledger=ledger,
        payments=payments,
        unpaid=unpaid,
        prices=prices,
        standing=standing,
        news=news,
        rules=PurchaseRules(settings.payment_gateway, settings.credit_unpaid_orders_max),
    )
    payments.fulfil[Purpose.CREDITS] = purchases.fulfil
    return CreditsRoom(
        prices=prices,
        purchases=purchases,
        book=CreditBook(ledger=ledger, clock=clock),
        applications=applications,
        projects=Projects(rows=project_rows, applications=applications, clock=clock),
    )
