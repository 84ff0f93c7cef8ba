"""What Stripe tells of subscriptions, in every order: the real adapter, the real inbox, a Stripe of our own."""

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from itertools import permutations
from pathlib import Path
from typing import Any, Final

import pytest

from billing_engine.errors import Unavailable
from billing_engine.payments.errors import WebhookInvalid
from billing_engine.payments.model import SubscriptionHint, SubscriptionNews
from billing_engine.payments.ports import InboxState
from billing_engine.payments.webhooks import Webhooks
from billing_engine.subscriptions.model import CYCLE_MS
from billing_engine.subscriptions.ports import GatewayInvoice, GatewaySubscription, SubscriptionWish
from server.gateways.stripe import StripeGateway
from server.gateways.stripe_subscriptions import StripeSubscriptions
from server.storage.repositories.gateway_events import GATEWAY_EVENTS, CollectionInbox
from server.storage.sqlite.collection import SqliteCollections
from server.storage.sqlite.engine import SqliteOptions, open_database
from tests.support.fake_stripe import FakeStripe
from tests.support.returns import Desk

Signed = tuple[bytes, dict[str, str]]

FIRST: Final = (
    "checkout.session.completed",
    "customer.subscription.created",
    "customer.subscription.updated",
    "invoice.paid",
    "payment_intent.succeeded",
)
PAGES: Final = {"success_url": "https://app.example/paid", "cancel_url": "https://app.example/back"}


@dataclass
class Ear:
    """A server's inbox, and who hears of subscriptions there: asks the gateway what is true, as the product does."""

    desk: Desk
    fake: FakeStripe
    gateway: StripeGateway
    subscriptions: StripeSubscriptions
    news: list[SubscriptionNews] = field(default_factory=list)
    truths: list[tuple[GatewaySubscription, tuple[GatewayInvoice, ...]]] = field(default_factory=list)
    is_deaf: bool = False

    async def hear(self, gateway: str, news: SubscriptionNews) -> bool:
        assert gateway == "stripe"
        if self.is_deaf:
            raise Unavailable(reason="deaf")
        found = await self.subscriptions.subscription(news.subscription_id)
        if found is None:
            return False
        self.news.append(news)
        self.truths.append((found, tuple(await self.subscriptions.invoices(found.id))))
        return True

    async def subscribe(self, reference: str = "op_1", user_id: str = "u1") -> str:
        wish = SubscriptionWish(reference, user_id, "", "starter", 19_000_000, "USD")
        page = await self.subscriptions.checkout(wish)
        self.fake.pay(page.id)
        return str(self.fake.subscription_at(page.id))

    def advance(self, duration_ms: int) -> None:
        self.desk.clock.jump_ms(duration_ms)
        self.fake.advance()

    def told(self, since: int = 0) -> dict[str, Signed]:
        """The events since then, by type: of several, the last."""
        events = self.fake.books.happened[since:]
        return {json.loads(body)["type"]: self.fake.sign(body.encode()) for body in events}

    async def take(self, events: Sequence[Signed]) -> list[InboxState]:
        """Deliver them one by one; how each was worked off."""
        states = []
        for body, headers in events:
            await self.desk.world.webhooks.take("stripe", body=body, headers=headers)
            event_id = json.loads(body)["id"]
            await self.desk.world.webhooks.worked_off("stripe", event_id)
            letter = await self.inbox.get(f"stripe:{event_id}")
            assert letter is not None
            states.append(letter.state)
        return states

    @property
    def inbox(self) -> Any:
        return self.desk.world.webhooks._inbox


@pytest.fixture
async def ear(tmp_path: Path) -> AsyncIterator[Ear]:
    async with (
        open_database(tmp_path / "t.db", SqliteOptions(synchronous="OFF")) as db,
        # Of the desk's clock, which is not there yet.
        FakeStripe(lambda: desk.clock.now_ms() / 1000) as fake,
    ):
        desk = Desk(db)
        gateway = StripeGateway(
            fake.key,
            fake.webhook_secret,
            base_url=fake.url,
            now_s=lambda: desk.clock.now_ms() / 1000,
            **PAGES,
        )
        desk.gateway = gateway  # type: ignore[assignment]
        await desk.boot()
        ear = Ear(desk, fake, gateway, StripeSubscriptions(gateway.connection, **PAGES))
        desk.world.webhooks._on_subscription = ear.hear
        yield ear
        await desk.world.webhooks.stop()
        await desk.world.stop()
        await gateway.close()


async def test_every_order_of_a_first_payments_events_leaves_the_same(ear: Ear) -> None:
    """Stripe promises no order. Every event is delivered twice, and only the first of the two is heard."""
    outcomes = set()
    for number, order in enumerate(permutations(FIRST)):
        since = len(ear.fake.books.happened)
        id_ = await ear.subscribe(f"op_{number}", f"u{number}")
        told = ear.told(since)
        ear.news.clear()
        ear.truths.clear()

        states = await ear.take([told[kind] for kind in order for _ in range(2)])

        assert all(found.id == id_ for found, _ in ear.truths)
        outcomes.add(
            (
                frozenset(dict(zip([k for k in order for _ in range(2)], states, strict=True)).items()),
                tuple(sorted(news.kind for news in ear.news)),
                # At each of them the gateway says the same.
                tuple({(found.status, found.tier, invoices[0].is_paid) for found, invoices in ear.truths}),
                {news.subscription_id for news in ear.news} == {id_},
            )
        )

    ((states_by_kind, kinds, truths, is_its_own),) = outcomes
    assert dict(states_by_kind) == dict.fromkeys(FIRST, InboxState.DONE) | {
        "payment_intent.succeeded": InboxState.IGNORED
    }
    assert kinds == (*[SubscriptionHint.CHANGED] * 3, SubscriptionHint.INVOICE_PAID)
    assert truths == (("ACTIVE", "starter", True),)
    assert is_its_own


async def test_a_subscriptions_money_is_no_payment_of_ours(ear: Ear) -> None:
    """Taken for one, it would credit a wallet, or freeze one."""
    await ear.subscribe()
    intent = next(iter(ear.fake.books.intents))
    refund = ear.fake.create_refund({"payment_intent": intent, "amount": "500"})
    ear.fake.finish_refund(refund["id"])
    ear.fake.dispute(intent, "lost")

    told = {
        kind: signed for kind, signed in ear.told().items() if not kind.startswith(("customer", "invoice"))
    }
    states = dict(zip(told, await ear.take(list(told.values())), strict=True))

    assert states.pop("checkout.session.completed") is InboxState.DONE
    assert {"payment_intent.succeeded", "charge.refunded", "refund.created", "refund.updated"} < states.keys()
    assert {"charge.dispute.created", "charge.dispute.closed"} < states.keys()
    assert set(states.values()) == {InboxState.IGNORED}


async def test_a_renewal_that_fails_and_is_paid_is_told(ear: Ear) -> None:
    id_ = await ear.subscribe()
    since = len(ear.fake.books.happened)
    ear.fake.books.declining.add(id_)
    ear.advance(CYCLE_MS + 7_200_000)
    await ear.take(list(ear.told(since).values()))
    since = len(ear.fake.books.happened)
    ear.fake.pay_invoice(id_)
    await ear.take(list(ear.told(since).values()))

    kinds = [news.kind for news in ear.news]
    assert SubscriptionHint.PAYMENT_FAILED in kinds
    assert SubscriptionHint.INVOICE_PAID in kinds
    assert {news.subscription_id for news in ear.news} == {id_}
    assert [one.is_paid for one in ear.truths[-1][1]] == [True, True]
    assert ear.truths[-1][0].status == "ACTIVE"


async def test_a_payment_that_waits_for_the_payer_and_an_end_are_told(ear: Ear) -> None:
    wish = SubscriptionWish("op_1", "u1", "", "starter", 19_000_000, "USD")
    id_ = ear.fake.begin((await ear.subscriptions.checkout(wish)).id)
    await ear.take(list(ear.told().values()))
    since = len(ear.fake.books.happened)
    ear.fake.end(id_)

    states = await ear.take(list(ear.told(since).values()))

    assert SubscriptionHint.ACTION_REQUIRED in {news.kind for news in ear.news}
    assert states == [InboxState.DONE]
    assert ear.truths[-1][0].status == "ENDED"


async def test_somebody_elses_subscription_is_none_of_ours(ear: Ear) -> None:
    """One Stripe account may sell other things."""
    id_ = await ear.subscribe()
    ear.fake.books.subscriptions[id_]["metadata"] = {}

    states = await ear.take(list(ear.told().values()))

    assert set(states) == {InboxState.IGNORED}
    assert ear.news == []


async def test_what_could_not_be_heard_waits_in_the_store_as_it_was_told(ear: Ear) -> None:
    """The process that hears of it may be another one."""
    id_ = await ear.subscribe()
    ear.is_deaf = True
    (state,) = await ear.take([ear.told()["invoice.paid"]])
    assert state is InboxState.NEW
    ear.is_deaf = False
    ear.desk.clock.jump_ms(60_000)
    other = Webhooks(
        payments=ear.desk.world.payments,
        inbox=await CollectionInbox.open(SqliteCollections(ear.desk.db)),
        clock=ear.desk.clock,
        on_subscription=ear.hear,
    )

    assert await other.work_off() == 1

    assert ear.news == [SubscriptionNews(id_, SubscriptionHint.INVOICE_PAID)]
    assert await other.work_off() == 0


async def test_a_letter_from_before_there_were_subscriptions_is_read(ear: Ear) -> None:
    ear.is_deaf = True
    await ear.subscribe()
    await ear.take([ear.told()["invoice.paid"]])
    rows = await SqliteCollections(ear.desk.db).open(GATEWAY_EVENTS)
    (doc,) = await rows.find({})
    del doc["event"]["subscription"]
    await rows.upsert(doc)

    letter = await ear.inbox.get(doc["_id"])

    assert letter.event.subscription is None


@pytest.mark.parametrize(
    "kind", ["invoice.paid", "customer.subscription.deleted", "checkout.session.completed"]
)
async def test_what_stripe_did_not_sign_is_not_heard(ear: Ear, kind: str) -> None:
    """An ended subscription or a paid invoice is worth money to whoever can make one up."""
    id_ = await ear.subscribe()
    ear.fake.end(id_)
    body, headers = ear.told()[kind]
    signature = headers["stripe-signature"]
    for forged in (
        (body.replace(b"sub_", b"sub_x"), headers),
        (body + b" ", headers),
        (body, {}),
        (body, {"stripe-signature": signature[:-1] + ("0" if signature[-1] != "0" else "1")}),
        (body, ear.fake.sign(body, at_s=ear.fake.books.now_s() - 301)[1]),
    ):
        with pytest.raises(WebhookInvalid):
            await ear.take([forged])

    assert ear.news == []
    assert await (await SqliteCollections(ear.desk.db).open(GATEWAY_EVENTS)).count({}) == 0


async def test_events_of_tomorrow_are_ignored(ear: Ear) -> None:
    id_ = await ear.subscribe()
    body, _ = ear.told()["customer.subscription.updated"]
    events = [
        ear.fake.sign(body.replace(b"customer.subscription.updated", kind).replace(b'"evt_', b'"evt_x%d' % n))
        for n, kind in enumerate(
            [b"customer.subscription.trial_will_end", b"customer.subscription.of_tomorrow", b"invoice.voided"]
        )
    ]

    assert set(await ear.take(events)) == {InboxState.IGNORED}
    assert ear.news == []
    assert id_
