"""Saved means of payment on a till: a gateway that keeps cards, and the service over it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from billing_engine.ledger.accounts import gateway_of, wallet_of
from billing_engine.payments.errors import GatewayRefused
from billing_engine.payments.methods import PaymentMethods
from billing_engine.payments.model import Attempt, AttemptStatus, Order, Payment, Purpose, SavedMethod, Wish
from billing_engine.payments.service import Due
from server.storage.repositories.payment_methods import CollectionMethods
from server.storage.sqlite.collection import SqliteCollections
from server.storage.sqlite.engine import SqliteOptions, open_database
from tests.support.manual_clock import ManualClock
from tests.support.payments import AMOUNT, Till
from tests.support.scripted_gateway import ScriptedGateway

KEYS_LIVE_MS: Final = 24 * 3_600_000
_FOR_EVER_MS: Final = 10**15
LABEL: Final = "visa •••• 4242"


@dataclass
class CardGateway(ScriptedGateway):
    """Keeps cards, and charges them once per key for as long as it remembers keys; after that, once more. It looks nothing up itself."""

    clock: ManualClock = field(default_factory=ManualClock)
    #: The bank's word for every charge from now on.
    declines: str | None = None
    #: How the next charges end that are not declined.
    charges_end: AttemptStatus = AttemptStatus.COLLECTED
    #: References, once for each time that money was taken.
    charged: list[str] = field(default_factory=list)
    #: Every request to charge.
    asked_to_charge: list[tuple[Wish, SavedMethod]] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)
    #: What was left at a page, by its order.
    left: dict[str, SavedMethod] = field(default_factory=dict)
    setups: dict[str, Wish] = field(default_factory=dict)
    _keys: dict[str, tuple[int, str]] = field(default_factory=dict)

    def pay(self, order_id: str, *, status: AttemptStatus = AttemptStatus.COLLECTED) -> Attempt:
        attempt = super().pay(order_id, status=status)
        attempt = self.tries[attempt.id] = replace(attempt, at_ms=self.clock.now_ms())
        if self.orders[order_id].save_method:
            attempt = replace(attempt, method=self.card(f"card_of_{attempt.id}"))
            self.tries[attempt.id] = attempt
        return attempt

    def card(self, id_: str) -> SavedMethod:
        return SavedMethod(id=id_, customer_id=f"customer_of_{id_}", label=LABEL)

    async def charge_saved(self, wish: Wish, method: SavedMethod) -> Attempt:
        self._answer()
        self.asked_to_charge.append((wish, method))
        if method.id in self.forgotten:
            raise GatewayRefused(reason="METHOD_GONE")
        at_ms, attempt_id = self._keys.get(wish.reference, (-KEYS_LIVE_MS, ""))
        if self.clock.now_ms() - at_ms >= KEYS_LIVE_MS:
            attempt_id = self._charge(wish, method)
        self._answered()
        attempt = self.tries[attempt_id]
        if attempt.status is AttemptStatus.FAILED:
            raise GatewayRefused(reason=attempt.failure)
        return attempt

    def _charge(self, wish: Wish, method: SavedMethod) -> str:
        attempt = Attempt(
            id=f"pay_{next(self._numbers)}",
            order_id=None,
            reference=wish.reference,
            amount_minor=wish.amount_minor,
            currency=wish.currency,
            status=self.charges_end if self.declines is None else AttemptStatus.FAILED,
            at_ms=self.clock.now_ms(),
            failure=self.declines,
            method=method,
        )
        if attempt.status is not AttemptStatus.FAILED:
            self.charged.append(wish.reference)
        self.tries[attempt.id] = attempt
        self._keys[wish.reference] = (self.clock.now_ms(), attempt.id)
        return attempt.id

    async def find_charge(self, wish: Wish, method: SavedMethod) -> Attempt | None:
        self._answer()
        del method
        found = [
            one for one in self.tries.values() if (one.reference, one.order_id) == (wish.reference, None)
        ]
        return found[0] if found else None

    async def forget_method(self, method: SavedMethod) -> None:
        self._answer()
        self.forgotten.append(method.id)
        self._answered()

    async def setup_order(self, wish: Wish) -> Order:
        self._answer()
        assert self.setups.setdefault(wish.reference, wish) == wish, "the same reference with another wish"
        self._answered()
        return Order(f"setup_{wish.reference}", {"checkoutUrl": f"https://pay.example/{wish.reference}"})

    async def kept_method(self, order_id: str) -> SavedMethod | None:
        self._answer()
        return self.left.get(order_id)


@dataclass
class CardTill(Till):
    """A till whose payers may leave their cards."""

    _methods: PaymentMethods | None = None

    @property
    def cards(self) -> CardGateway:
        assert isinstance(self.gateway, CardGateway)
        return self.gateway

    @property
    def methods(self) -> PaymentMethods:
        assert self._methods is not None
        return self._methods

    async def boot(self) -> None:
        await super().boot()
        world = self.world
        rows = await CollectionMethods.open(SqliteCollections(world.db))
        self._methods = PaymentMethods(
            rows=self.fuse.wrap("methods", rows),
            payments=world.payments._payments,
            service=world.payments,
            clock=self.clock,
        )
        world.webhooks._on_method = self._methods.hear

    async def saving(self, key: str = "r1", user_id: str = "u1") -> Payment:
        """A recharge whose payer agrees that the card is kept."""
        return await self.world.wallets.recharge(
            user_id=user_id, amount_minor=AMOUNT, operation_id=key, save_method=True
        )

    async def a_card(self, user_id: str = "u1", id_: str = "card") -> str:
        """The id of a card that the payer has left."""
        return await self.methods._keep(user_id, self.gateway.name, self.cards.card(f"{id_}_{user_id}"))

    async def charge(
        self, method_id: str, key: str = "c1", user_id: str = "u1", amount_minor: int = AMOUNT
    ) -> Payment:
        due = Due(
            purpose=Purpose.WALLET,
            payer_id=user_id,
            payer_email="u@example.com",
            account=wallet_of(user_id),
            amount_minor=amount_minor,
            currency="INR",
            description="Wallet recharge",
        )
        return await self.methods.charge(due, method_id=method_id, operation_id=key)

    async def labels(self, user_id: str = "u1") -> list[str]:
        return [method.label for method in await self.methods.list_for(user_id, limit=10, before=None)]

    async def chores(self) -> None:
        await super().chores()
        await self.methods.work_off()

    async def pass_time(self, duration_ms: int) -> None:
        """The chores are done whenever something is due."""
        until_ms = self.clock.now_ms() + duration_ms
        while self.clock.now_ms() < until_ms:
            await self.chores()
            dues = await self._dues()
            self.clock.jump_ms(max(1_000, min([until_ms, *dues]) - self.clock.now_ms()))
        await self.chores()

    async def _dues(self) -> list[int]:
        rows: Any = self.methods._rows
        payments = await self.world.payments._payments.due(_FOR_EVER_MS, limit=10)
        wishes = await rows.due_wishes(_FOR_EVER_MS, limit=10)
        untold = await rows.untold(_FOR_EVER_MS, limit=10)
        return [
            *(payment.check_at_ms or 0 for payment in payments),
            *(wish.check_at_ms or 0 for wish in wishes),
            *(method.tell_at_ms or 0 for method in untold),
        ]

    async def taken(self) -> int:
        """What our books say that came through the gateway."""
        return -await self.world.ledger.balance(gateway_of(self.gateway.name), "INR")


@asynccontextmanager
async def a_card_till(path: Path, *, atomic: bool = True) -> AsyncIterator[CardTill]:
    """Booted."""
    async with open_database(path, SqliteOptions(synchronous="OFF")) as db:
        clock = ManualClock()
        till = CardTill(db, atomic, gateway=CardGateway(clock=clock), clock=clock)
        await till.boot()
        try:
            yield till
        finally:
            await till.world.webhooks.stop()
            if not till.world.crashed:
                await till.world.stop()
