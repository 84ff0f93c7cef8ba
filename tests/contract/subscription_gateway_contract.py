"""What an adapter for subscriptions promises, whichever gateway it speaks to. Subclass and supply `world`.

`SubscriptionGatewayContract` is what every one keeps, the simulated one included; `RemoteSubscriptionGatewayContract` is for those that
are asked over a network, where payments fail.
"""

from collections.abc import Awaitable, Callable, Collection
from contextlib import AbstractContextManager
from typing import Any, Final, Protocol

import pytest

from billing_engine.payments.errors import GatewayRefused, GatewayUnavailable
from billing_engine.subscriptions.model import CYCLE_MS
from billing_engine.subscriptions.ports import (
    CheckoutPage,
    GatewaySubscription,
    SubscriptionGateway,
    SubscriptionStatus,
    SubscriptionWish,
)
from tests.support.gateway_faults import Fault
from tests.support.manual_clock import ManualClock

DAY_MS: Final = 86_400_000
STARTER, PROFESSIONAL = 19_000_000, 99_000_000
WISH: Final = SubscriptionWish("op_1", "user_1", "payer@example.com", "starter", STARTER, "USD")


class SubscriptionWorld(Protocol):
    """An adapter and the gateway that it speaks to, as the tests drive them. `clock` is the gateway's."""

    gateway: SubscriptionGateway
    clock: ManualClock

    async def pay(self, page: CheckoutPage) -> None:
        """The payer subscribes at the page, if there is anything to do there."""
        ...

    async def advance(self, duration_ms: int) -> None:
        """Time goes by at the gateway; every renewal that is due is paid unless it was told otherwise."""
        ...


class RemoteSubscriptionWorld(SubscriptionWorld, Protocol):
    """A gateway behind a network."""

    faults: Collection[Fault]

    def broken(self, fault: Fault) -> AbstractContextManager[None]:
        """Every request meets this fault while it is open."""
        ...

    def decline(self, subscription_id: str) -> None:
        """The payer's bank declines from now on."""
        ...

    def accept(self, subscription_id: str) -> None:
        """It does not any more."""
        ...

    async def hesitate(self, page: CheckoutPage) -> str:
        """The payer begins to pay, and is to confirm it; the subscription's id."""
        ...

    def end(self, subscription_id: str) -> None:
        """The operator ends it at once at the gateway."""
        ...

    def sold(self, reference: str) -> int:
        """How many pages the gateway has made for our reference."""
        ...


#: A renewal may take this long until it is paid.
SETTLED_MS: Final = 2 * 3_600_000


async def subscribed(world: SubscriptionWorld, wish: SubscriptionWish = WISH) -> str:
    page = await world.gateway.checkout(wish)
    await world.pay(page)
    found = await world.gateway.subscription_of(page.id)
    assert found is not None
    return found


async def found(world: SubscriptionWorld, id_: str) -> GatewaySubscription:
    subscription = await world.gateway.subscription(id_)
    assert subscription is not None
    return subscription


async def upgrade(world: SubscriptionWorld, id_: str, **changes: Any) -> None:
    facts: dict[str, Any] = {
        "tier": "professional",
        "amount_minor": PROFESSIONAL,
        "currency": "USD",
        "cycle_ends_ms": None,
        "key": "change_1",
    }
    await world.gateway.change_tier(id_, **{**facts, **changes})


async def paid(world: SubscriptionWorld, id_: str) -> list[tuple[str, int, int, int]]:
    """Tier, amount and period of each paid invoice, oldest first."""
    return [
        (one.tier, one.amount_minor, one.period_start_ms, one.period_end_ms)
        for one in await world.gateway.invoices(id_)
        if one.is_paid
    ]


class SubscriptionGatewayContract:
    """Every adapter."""

    # -- subscribing -------------------------------------------------------------------------------------------------

    async def test_who_has_paid_is_subscribed_for_thirty_days(self, world: SubscriptionWorld) -> None:
        now_ms = world.clock.now_ms()

        id_ = await subscribed(world)

        assert await found(world, id_) == GatewaySubscription(
            id=id_,
            user_id="user_1",
            tier="starter",
            status=SubscriptionStatus.ACTIVE,
            period_start_ms=now_ms,
            period_end_ms=now_ms + CYCLE_MS,
            cancels=False,
            created_at_ms=now_ms,
        )

    async def test_the_first_period_has_one_paid_invoice(self, world: SubscriptionWorld) -> None:
        now_ms = world.clock.now_ms()

        id_ = await subscribed(world)

        (invoice,) = await world.gateway.invoices(id_)
        assert (invoice.subscription_id, invoice.tier, invoice.is_paid) == (id_, "starter", True)
        assert (invoice.amount_minor, invoice.currency, invoice.at_ms) == (STARTER, "USD", now_ms)
        assert (invoice.period_start_ms, invoice.period_end_ms) == (now_ms, now_ms + CYCLE_MS)

    async def test_a_repeated_wish_is_one_page_and_one_subscription(self, world: SubscriptionWorld) -> None:
        """Two subscriptions would charge twice every month."""
        first = await world.gateway.checkout(WISH)
        again = await world.gateway.checkout(WISH)
        await world.pay(first)
        after = await world.gateway.checkout(WISH)

        assert first == again == after
        id_ = await world.gateway.subscription_of(first.id)
        assert id_ is not None
        assert len(await world.gateway.invoices(id_)) == 1

    async def test_two_wishes_are_two(self, world: SubscriptionWorld) -> None:
        first = await subscribed(world)
        other = await subscribed(
            world, SubscriptionWish("op_2", "user_2", "", "professional", PROFESSIONAL, "USD")
        )

        assert first != other
        assert ((await found(world, first)).user_id, (await found(world, other)).user_id) == (
            "user_1",
            "user_2",
        )
        assert [one.amount_minor for one in await world.gateway.invoices(other)] == [PROFESSIONAL]

    async def test_what_there_is_not_is_none(self, world: SubscriptionWorld) -> None:
        assert await world.gateway.subscription("sub_nobody") is None
        assert list(await world.gateway.invoices("sub_nobody")) == []

    async def test_what_there_is_not_cannot_be_changed(self, world: SubscriptionWorld) -> None:
        with pytest.raises(GatewayRefused):
            await world.gateway.set_cancels("sub_nobody", cancels=True)
        with pytest.raises(GatewayRefused):
            await upgrade(world, "sub_nobody")
        with pytest.raises(GatewayRefused):
            await world.gateway.subscription_of("nothing")

    # -- time --------------------------------------------------------------------------------------------------------

    async def test_periods_follow_each_other_without_a_gap(self, world: SubscriptionWorld) -> None:
        start_ms = world.clock.now_ms()
        id_ = await subscribed(world)

        await world.advance(3 * CYCLE_MS + SETTLED_MS)

        assert await paid(world, id_) == [
            ("starter", STARTER, start_ms + n * CYCLE_MS, start_ms + (n + 1) * CYCLE_MS) for n in range(4)
        ]
        now = await found(world, id_)
        assert (now.period_start_ms, now.period_end_ms) == (start_ms + 3 * CYCLE_MS, start_ms + 4 * CYCLE_MS)
        assert len({one.id for one in await world.gateway.invoices(id_)}) == 4

    async def test_just_before_its_end_a_period_is_still_the_same(self, world: SubscriptionWorld) -> None:
        id_ = await subscribed(world)

        await world.advance(CYCLE_MS - 1000)

        assert len(await world.gateway.invoices(id_)) == 1
        assert (await found(world, id_)).status is SubscriptionStatus.ACTIVE

    # -- ending ------------------------------------------------------------------------------------------------------

    async def test_what_is_cancelled_runs_to_the_end_of_its_cycle(self, world: SubscriptionWorld) -> None:
        id_ = await subscribed(world)

        await world.gateway.set_cancels(id_, cancels=True)
        await world.gateway.set_cancels(id_, cancels=True)
        await world.advance(CYCLE_MS - 1000)
        before = await found(world, id_)
        await world.advance(1000 + 3 * CYCLE_MS)

        assert (before.cancels, before.status) == (True, SubscriptionStatus.ACTIVE)
        assert (await found(world, id_)).status is SubscriptionStatus.ENDED
        assert len(await world.gateway.invoices(id_)) == 1

    async def test_a_cancellation_can_be_taken_back(self, world: SubscriptionWorld) -> None:
        id_ = await subscribed(world)
        await world.gateway.set_cancels(id_, cancels=True)

        await world.gateway.set_cancels(id_, cancels=False)
        await world.advance(CYCLE_MS + SETTLED_MS)

        now = await found(world, id_)
        assert (now.cancels, now.status) == (False, SubscriptionStatus.ACTIVE)
        assert len(await paid(world, id_)) == 2

    async def test_what_has_ended_does_not_come_back(self, world: SubscriptionWorld) -> None:
        id_ = await subscribed(world)
        await world.gateway.set_cancels(id_, cancels=True)
        await world.advance(CYCLE_MS)

        with pytest.raises(GatewayRefused):
            await world.gateway.set_cancels(id_, cancels=False)
        with pytest.raises(GatewayRefused):
            await upgrade(world, id_)
        assert (await found(world, id_)).status is SubscriptionStatus.ENDED

    # -- changing ----------------------------------------------------------------------------------------------------

    async def test_another_tier_is_charged_from_the_next_invoice_on(self, world: SubscriptionWorld) -> None:
        """The invoice that was paid stays one for the tier it was paid for: a late look at it grants nothing more."""
        start_ms = world.clock.now_ms()
        id_ = await subscribed(world)
        await world.advance(15 * DAY_MS)

        await upgrade(world, id_)

        first = ("starter", STARTER, start_ms, start_ms + CYCLE_MS)
        assert await paid(world, id_) == [first]
        now = await found(world, id_)
        assert (now.tier, now.period_end_ms, now.status) == (
            "professional",
            start_ms + CYCLE_MS,
            SubscriptionStatus.ACTIVE,
        )
        await world.advance(15 * DAY_MS + SETTLED_MS)
        second = ("professional", PROFESSIONAL, start_ms + CYCLE_MS, start_ms + 2 * CYCLE_MS)
        assert await paid(world, id_) == [first, second]

    async def test_a_repeated_change_is_one(self, world: SubscriptionWorld) -> None:
        id_ = await subscribed(world)
        await upgrade(world, id_)
        await world.advance(2 * DAY_MS)
        before = await found(world, id_)

        await upgrade(world, id_)

        assert await found(world, id_) == before
        assert len(await world.gateway.invoices(id_)) == 1

    async def test_there_and_back_again_is_what_was_said_last(self, world: SubscriptionWorld) -> None:
        id_ = await subscribed(world)
        await upgrade(world, id_)
        await upgrade(world, id_, tier="starter", amount_minor=STARTER, key="change_2")

        await world.advance(CYCLE_MS + SETTLED_MS)

        assert [(tier, amount) for tier, amount, _, _ in await paid(world, id_)] == [("starter", STARTER)] * 2

    async def test_the_end_of_a_cycle_can_be_moved_and_nothing_is_charged(
        self, world: SubscriptionWorld
    ) -> None:
        """What Stripe calls a trial has an invoice of nothing: taken for a paid period it would give a month away."""
        start_ms = world.clock.now_ms()
        id_ = await subscribed(world)
        await world.advance(10 * DAY_MS)
        ends_ms = world.clock.now_ms() + CYCLE_MS

        await upgrade(world, id_, cycle_ends_ms=ends_ms)

        now = await found(world, id_)
        assert (now.period_end_ms, now.status, now.tier) == (
            ends_ms,
            SubscriptionStatus.ACTIVE,
            "professional",
        )
        first = ("starter", STARTER, start_ms, start_ms + CYCLE_MS)
        assert await paid(world, id_) == [first]
        await world.advance(CYCLE_MS - 1000)
        assert await paid(world, id_) == [first]
        await world.advance(1000 + SETTLED_MS)
        assert await paid(world, id_) == [first, ("professional", PROFESSIONAL, ends_ms, ends_ms + CYCLE_MS)]
        assert (await found(world, id_)).status is SubscriptionStatus.ACTIVE

    async def test_a_moved_end_is_where_a_cancelled_one_ends(self, world: SubscriptionWorld) -> None:
        id_ = await subscribed(world)
        await world.gateway.set_cancels(id_, cancels=True)
        ends_ms = world.clock.now_ms() + CYCLE_MS + DAY_MS

        await upgrade(world, id_, cycle_ends_ms=ends_ms)
        await world.advance(CYCLE_MS)
        before = await found(world, id_)
        await world.advance(DAY_MS)

        assert (before.status, before.cancels) == (SubscriptionStatus.ACTIVE, True)
        assert (await found(world, id_)).status is SubscriptionStatus.ENDED
        assert len(await world.gateway.invoices(id_)) == 1

    async def test_an_end_in_the_past_is_refused(self, world: SubscriptionWorld) -> None:
        id_ = await subscribed(world)
        await world.advance(DAY_MS)

        with pytest.raises(GatewayRefused):
            await upgrade(world, id_, cycle_ends_ms=world.clock.now_ms() - 1000)
        assert (await found(world, id_)).tier == "starter"


#: What asks or does something at the gateway.
CALLS: Final[dict[str, Callable[[SubscriptionWorld, str, str], Awaitable[Any]]]] = {
    "checkout": lambda world, _page, _id: world.gateway.checkout(
        SubscriptionWish("op_9", "user_9", "", "starter", STARTER, "USD")
    ),
    "subscription_of": lambda world, page, _id: world.gateway.subscription_of(page),
    "subscription": lambda world, _page, id_: world.gateway.subscription(id_),
    "invoices": lambda world, _page, id_: world.gateway.invoices(id_),
    "set_cancels": lambda world, _page, id_: world.gateway.set_cancels(id_, cancels=True),
    "change_tier": lambda world, _page, id_: upgrade(world, id_),
}


class RemoteSubscriptionGatewayContract(SubscriptionGatewayContract):
    """Those behind a network."""

    async def test_before_anybody_has_paid_there_is_no_subscription(
        self, world: RemoteSubscriptionWorld
    ) -> None:
        page = await world.gateway.checkout(WISH)

        assert page.url is not None
        assert await world.gateway.subscription_of(page.id) is None

    async def test_a_payment_to_be_confirmed_is_pending_and_ends(
        self, world: RemoteSubscriptionWorld
    ) -> None:
        id_ = await world.hesitate(await world.gateway.checkout(WISH))
        pending = await found(world, id_)
        unpaid = await paid(world, id_)
        await world.advance(DAY_MS)

        assert (pending.status, unpaid) == (SubscriptionStatus.PENDING, [])
        assert (await found(world, id_)).status is SubscriptionStatus.ENDED
        assert await paid(world, id_) == []

    async def test_a_declined_renewal_is_past_due_until_it_is_paid(
        self, world: RemoteSubscriptionWorld
    ) -> None:
        start_ms = world.clock.now_ms()
        id_ = await subscribed(world)
        world.decline(id_)

        await world.advance(CYCLE_MS + SETTLED_MS)

        assert (await found(world, id_)).status is SubscriptionStatus.PAST_DUE
        first, second = await world.gateway.invoices(id_)
        assert (first.is_paid, second.is_paid) == (True, False)
        assert (second.amount_minor, second.period_start_ms) == (STARTER, start_ms + CYCLE_MS)
        world.accept(id_)
        await world.advance(4 * DAY_MS)
        assert (await found(world, id_)).status is SubscriptionStatus.ACTIVE
        _, second = await world.gateway.invoices(id_)
        assert second.is_paid
        # Paid late, it is for the period that it was made for.
        assert (second.period_start_ms, second.period_end_ms) == (
            start_ms + CYCLE_MS,
            start_ms + 2 * CYCLE_MS,
        )

    async def test_a_renewal_that_is_never_paid_ends_it(self, world: RemoteSubscriptionWorld) -> None:
        id_ = await subscribed(world)
        world.decline(id_)

        await world.advance(CYCLE_MS + 10 * DAY_MS)

        assert (await found(world, id_)).status is SubscriptionStatus.ENDED
        assert len(await paid(world, id_)) == 1

    async def test_what_the_operator_ends_there_has_ended(self, world: RemoteSubscriptionWorld) -> None:
        id_ = await subscribed(world)

        world.end(id_)

        assert (await found(world, id_)).status is SubscriptionStatus.ENDED

    @pytest.mark.parametrize("call", CALLS)
    @pytest.mark.parametrize("fault", list(Fault))
    async def test_what_does_not_answer_is_unavailable(
        self, world: RemoteSubscriptionWorld, fault: Fault, call: str
    ) -> None:
        """Never `None`, never an empty list: nobody loses a tier because the gateway is away."""
        if fault not in world.faults:
            pytest.skip("the world cannot make this fault")
        page = await world.gateway.checkout(WISH)
        await world.pay(page)
        id_ = await world.gateway.subscription_of(page.id)
        assert id_ is not None

        with world.broken(fault), pytest.raises(GatewayUnavailable):
            await CALLS[call](world, page.id, id_)

    async def test_a_lost_answer_and_a_repeat_are_one_of_each(self, world: RemoteSubscriptionWorld) -> None:
        with world.broken(Fault.LOST_REPLY), pytest.raises(GatewayUnavailable):
            await world.gateway.checkout(WISH)
        id_ = await subscribed(world)
        assert world.sold(WISH.reference) == 1
        ends_ms = world.clock.now_ms() + CYCLE_MS + DAY_MS
        with world.broken(Fault.LOST_REPLY), pytest.raises(GatewayUnavailable):
            await upgrade(world, id_, cycle_ends_ms=ends_ms)

        await upgrade(world, id_, cycle_ends_ms=ends_ms)

        now = await found(world, id_)
        assert (now.tier, now.period_end_ms) == ("professional", ends_ms)
        assert len(await world.gateway.invoices(id_)) == 1

    @pytest.mark.parametrize(
        ("amount_minor", "currency"), [(19_000_001, "USD"), (0, "USD"), (1_900, "JPY"), (-1, "USD")]
    )
    async def test_what_cannot_be_charged_is_refused(
        self, world: RemoteSubscriptionWorld, amount_minor: int, currency: str
    ) -> None:
        with pytest.raises(GatewayRefused):
            await world.gateway.checkout(
                SubscriptionWish("op_8", "user_1", "", "starter", amount_minor, currency)
            )
        id_ = await subscribed(world)
        with pytest.raises(GatewayRefused):
            await upgrade(world, id_, amount_minor=amount_minor, currency=currency)
