"""The usage meter as benchmarks run it: the real store, ledger and service; companies and prices are made up."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.support import BenchClock
from billing_engine.ledger.accounts import company_wallet_of, gateway_of
from billing_engine.ledger.model import Movement, Transfer
from billing_engine.ledger.service import Ledger
from billing_engine.money import USD
from billing_engine.payments.methods import PaymentMethods
from billing_engine.payments.model import Payment
from billing_engine.payments.service import PaymentService
from billing_engine.usage.model import CV_PARSING, Price
from billing_engine.usage.ports import CompanyEvent, CompanyTerms, ListChoice
from billing_engine.usage.recharges import RechargeRules
from billing_engine.usage.service import UsageService
from server.gateways.simulated import SimulatedGateway
from server.storage.repositories.payment_methods import CollectionMethods
from server.storage.repositories.payments import CollectionPayments
from server.storage.sqlite.collection import SqliteCollections
from server.storage.sqlite.engine import SqliteOptions, open_database
from server.storage.sqlite.ledger import SqliteLedgerStore
from server.usage_room import open_usage

#: Document 001: half a dollar a CV.
PRICE: Final = Price("tokens", CV_PARSING, "CV_PARSE", "cv", USD.scale // 2, 1, 0)


class AnyCompany:
    """Every id is a company in UTC."""

    async def terms(self, company_id: str) -> CompanyTerms:
        return CompanyTerms(company_id, "Acme", "UTC", (ListChoice("tokens", 0),))


class OnePrice:
    """Everything costs the same."""

    async def price_at(self, list_name: str, type_: str, at_ms: int) -> Price:
        return PRICE


class NoPayments:
    """Nobody recharges through a gateway here."""

    def credited(self, payment: Payment) -> None: ...

    def trouble(self, what: str, payment: Payment, **facts: object) -> None:
        raise AssertionError((what, payment, facts))


class Quiet:
    """Nobody listens."""

    async def tell(self, events: Sequence[CompanyEvent]) -> None: ...

    def changed(self, company_id: str) -> None: ...


@dataclass(frozen=True, slots=True)
class UsageWorld:
    """The meter, and a shortcut to money."""

    meter: UsageService
    ledger: Ledger

    async def recharge(self, company_id: str, amount_minor: int) -> None:
        wallet = company_wallet_of(company_id)
        transfer = Transfer(gateway_of("simulated"), wallet, amount_minor, "company_recharge")
        await self.ledger.post(
            Movement(wallet, "bench-recharge", "company_recharge", USD.code, "bench", (transfer,))
        )


@asynccontextmanager
async def usages_on(path: Path, clock: BenchClock) -> AsyncIterator[UsageWorld]:
    """A started meter on a durable SQLite file."""
    async with open_database(path, SqliteOptions(synchronous="FULL")) as db:
        store = SqliteLedgerStore(db)
        await store.prepare()
        collections = SqliteCollections(db)
        ledger = Ledger(store, clock, lambda _ms: "2026-01-01")
        await ledger.start()
        rows = await CollectionPayments.open(collections)
        payments = PaymentService(
            ledger=ledger,
            clock=clock,
            payments=rows,
            gateways={"simulated": SimulatedGateway()},
            movements={},
            observer=NoPayments(),
        )
        methods = PaymentMethods(
            rows=await CollectionMethods.open(collections), payments=rows, service=payments, clock=clock
        )
        room = await open_usage(
            collections,
            ledger=ledger,
            clock=clock,
            payments=payments,
            methods=methods,
            companies=AnyCompany(),
            prices=OnePrice(),
            news=Quiet(),
            rules=RechargeRules(USD, 1, 10**12, "simulated"),
        )
        yield UsageWorld(room.meter, ledger)
        await room.stop()
        await ledger.stop()
