"""Application credits to be disturbed: one freelancer, one company, and the processes that live on one file one after the other."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

from billing_engine.credits.applications import Applications
from billing_engine.credits.book import CreditBalance, CreditBook
from billing_engine.credits.model import Adjustment, Application, ApplicationStatus, Project
from billing_engine.credits.prices import CreditPrices
from billing_engine.credits.pricing import PriceChange
from billing_engine.credits.projects import Projects
from billing_engine.credits.purchases import CreditPurchases, Purchase, PurchaseRules
from billing_engine.ledger.accounts import REVENUE_CREDITS
from billing_engine.money import INR
from billing_engine.payments.model import Payment, Purpose
from server.credit_packages import load_packages
from server.storage.repositories.credits import (
    CollectionApplications,
    CollectionPriceLog,
    CollectionProjects,
)
from server.storage.sqlite.collection import SqliteCollections
from server.storage.sqlite.engine import SqliteOptions, open_database
from tests.support.desk_paths import DeskStage

FREELANCER: Final = "f1"
COMPANY: Final = "c1"


class Receipts:
    """What was sent, by payment, as a durable outbox keeps it."""

    def __init__(self, letters: dict[str, Any]) -> None:
        self._letters = letters

    async def credits_purchased(self, payment: Payment, *, credits_after: int) -> None:
        self._letters.setdefault(f"credits:{payment.id}", credits_after)


class Everybody:
    """In good standing, but for those in `shut`."""

    def __init__(self) -> None:
        self.shut: set[str] = set()

    async def any_shut(self, person_ids: tuple[str, ...]) -> bool:
        return bool(self.shut & set(person_ids))


class Meddled:
    """Applications' rows; `then` happens once, right after the next one is added."""

    def __init__(self, rows: Any) -> None:
        self._rows = rows
        self.then: Callable[[], Awaitable[Any]] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._rows, name)

    async def add(self, application: Application) -> bool:
        added: bool = await self._rows.add(application)
        if self.then is not None:
            then, self.then = self.then, None
            await then()
        return added


class Snapshot(NamedTuple):
    """What everybody can see, and the money."""

    balance: CreditBalance
    mine: tuple[str, ...]
    on_the_list: tuple[str, ...]
    closed: bool
    sold_minor: int
    letters: int


@dataclass
class CreditStage(DeskStage):
    """A stage where credits are sold and spent."""

    standing: Everybody = field(default_factory=Everybody)

    async def boot(self) -> None:
        await super().boot()
        wrap, collections = self.fuse.wrap, SqliteCollections(self.world.db)
        project_rows = wrap("projects", await CollectionProjects.open(collections))
        self.rows = Meddled(wrap("applications", await CollectionApplications.open_in(collections)))
        self.applications = Applications(
            ledger=self.world.ledger, rows=self.rows, projects=project_rows, clock=self.clock
        )
        self.projects = Projects(rows=project_rows, applications=self.applications, clock=self.clock)
        self.book = CreditBook(ledger=self.world.ledger, clock=self.clock)
        self.prices = CreditPrices(
            log=wrap("prices", await CollectionPriceLog.open(collections)),
            clock=self.clock,
            asset=INR,
            first_minor=5_000,
            packages=load_packages(),
        )
        self.purchases = CreditPurchases(
            ledger=self.world.ledger,
            payments=self.world.payments,
            unpaid=self.world.payments._payments,
            prices=self.prices,
            standing=self.standing,
            news=wrap("news", Receipts(self.told.letters)),
            rules=PurchaseRules(self.world.gateway.name, max_unpaid=3),
        )
        self.world.payments.fulfil[Purpose.CREDITS] = self.purchases.fulfil

    async def heal(self) -> int:
        """What housekeeping does, a while later; and the worker's questions about payments."""
        self.clock.jump_ms(3_000)
        await self.world.payments.ask_about_due()
        return await self.heal_credits()

    async def heal_credits(self) -> int:
        return await self.projects.heal() + await self.applications.heal()

    async def buy(self, key: str = "b1", package: int = 1, user_id: str = FREELANCER) -> Purchase:
        return await self.purchases.initiate(user_id=user_id, email="", package_id=package, operation_id=key)

    async def verify(self, key: str = "b1") -> Purchase:
        """The payer's client says that the order's only try has paid it."""
        (paid,) = self.gateway.tries.values()
        order_id = (await self.purchases.purchase(key, user_id=FREELANCER)).payment.order_id or ""
        return await self.purchases.verify(
            user_id=FREELANCER,
            order_id=order_id,
            attempt_id=paid.id,
            signature=self.gateway.signature(order_id, paid.id),
        )

    async def hear(self, event_id: str = "e1") -> None:
        """The gateway says so, and that is worked off."""
        (paid,) = self.gateway.tries.values()
        body, headers = self.gateway.event(event_id, paid)
        await self.world.webhooks.take(self.gateway.name, body=body, headers=headers)
        for task in list(self.world.webhooks._working):
            await task

    async def die(self) -> None:
        self.fuse.burnt = True
        await self.world.webhooks.stop()
        await super().die()

    async def post(self, key: str = "p1") -> Project:
        return await self.projects.post(company_id=COMPANY, title="T", description="D", operation_id=key)

    async def close(self, key: str = "p1") -> Project:
        return await self.projects.close(key, company_id=COMPANY)

    async def apply(self, key: str = "a1", project: str = "p1", user_id: str = FREELANCER) -> Application:
        return await self.applications.apply(user_id=user_id, project_id=project, operation_id=key)

    async def withdraw(self, key: str = "w1", attempt: int = 1, project: str = "p1") -> Application:
        return await self.applications.withdraw(
            f"{FREELANCER}:{project}:{attempt}", user_id=FREELANCER, operation_id=key
        )

    async def adjust(self, amount: int, key: str = "j1") -> Any:
        return await self.book.adjust(Adjustment(key, FREELANCER, amount, "Because.", "an admin"))

    async def price(self, minor: int) -> PriceChange:
        return await self.prices.change(minor, by="an admin")

    async def snapshot(self, project: str = "p1") -> Snapshot:
        mine = await self.applications.list_for(FREELANCER, limit=100, before=None)
        found = await self.projects._rows.get(project)
        there = []
        if found is not None:
            there = await self.applications.of_project(project, company_id=COMPANY, limit=100, before=None)
        return Snapshot(
            await self.book.balance(FREELANCER),
            # Which try it was does not matter: one that was given up has cost nothing.
            tuple(sorted(f"{one.project_id} {one.status}" for one in mine)),
            tuple(sorted(one.user_id for one in there)),
            found is not None and found.status == "CLOSED",
            await self.world.ledger.balance(REVENUE_CREDITS, "INR"),
            len(self.told.letters),
        )

    async def credit_is_its_application(self) -> None:
        """Never a credit without its application or the other way round; and the balance is what it is made of."""
        told = await self.book.balance(FREELANCER)
        assert told.balance == told.purchased - told.used + told.refunded + told.adjusted >= 0
        mine = await self.applications.list_for(FREELANCER, limit=10_000, before=None)
        active = sum(one.status is ApplicationStatus.ACTIVE for one in mine)
        assert told.used - told.refunded == active
        assert told.used == len(mine)


@asynccontextmanager
async def a_credit_stage(path: Path, *, atomic: bool, gateway: Any = None) -> AsyncIterator[CreditStage]:
    async with open_database(path, SqliteOptions(synchronous="OFF")) as db:
        stage = CreditStage(db, atomic, gateway=gateway)
        stage.fuse.counting = False
        yield stage
