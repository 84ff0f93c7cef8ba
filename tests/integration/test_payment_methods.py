"""Saved means of payment: kept once, seen and charged by their owner alone, never charged twice, gone when they are deleted."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from billing_engine.errors import InvariantBroken
from billing_engine.payments.errors import (
    GatewayRefused,
    GatewayUnavailable,
    NotSupported,
    PaymentMethodNotFound,
)
from billing_engine.payments.method_records import GIVE_UP_WISH_MS
from billing_engine.payments.methods import IN_FLIGHT_MS, REPEAT_WITHIN_MS
from billing_engine.payments.model import AttemptStatus, GatewayEvent, MethodNews, Order, PaymentStatus, Wish
from tests.support.api import Api, open_api
from tests.support.http import PASSWORD
from tests.support.methods import LABEL, CardTill, a_card_till
from tests.support.payments import AMOUNT

_DAY_MS = 24 * 3_600_000


@pytest.fixture
async def till(tmp_path: Path) -> AsyncIterator[CardTill]:
    async with a_card_till(tmp_path / "till.db") as till:
        yield till


# -- keeping ---------------------------------------------------------------------------------------------------------


async def test_a_paid_recharge_keeps_the_card_that_its_payer_agreed_to_leave(till: CardTill) -> None:
    payment = await till.saving()
    attempt = till.cards.pay(payment.order_id or "")

    assert (await till.verify(payment, attempt.id)).status is PaymentStatus.PAID
    await till.hear("e1", attempt)

    assert await till.labels() == [LABEL]


async def test_without_the_payers_word_nothing_is_kept(till: CardTill) -> None:
    """Else a card could be charged whose owner never agreed to it."""
    payment = await till.order()
    attempt = till.cards.pay(payment.order_id or "")
    till.cards.tries[attempt.id] = replace(attempt, method=till.cards.card("card_offered"))

    assert (await till.verify(payment, attempt.id)).status is PaymentStatus.PAID

    assert await till.labels() == []


async def test_news_without_the_card_makes_us_ask_for_it(till: CardTill) -> None:
    """A webhook of Razorpay's names no card: it stands in a token that is asked for."""
    payment = await till.saving()
    attempt = till.cards.pay(payment.order_id or "")
    till.gateway.tries[attempt.id] = replace(attempt, method=None)
    await till.hear("e1", attempt)
    await till.chores()
    assert (await till.stored()).status is PaymentStatus.PAID
    assert await till.labels() == []

    till.gateway.tries[attempt.id] = attempt
    await till.pass_time(60_000)

    assert await till.labels() == [LABEL]


async def test_a_card_that_is_never_named_is_given_up(till: CardTill) -> None:
    payment = await till.saving()
    attempt = till.cards.pay(payment.order_id or "")
    till.gateway.tries[attempt.id] = replace(attempt, method=None)
    await till.verify(payment, attempt.id)

    await till.pass_time(GIVE_UP_WISH_MS + _DAY_MS)

    assert (await till.labels(), await till._dues()) == ([], [])


async def test_the_second_payment_of_an_order_keeps_no_card(till: CardTill) -> None:
    """It goes back to its payer, and nothing of it stays."""
    payment = await till.saving()
    first, second = (till.cards.pay(payment.order_id or "") for _ in range(2))
    await till.verify(payment, first.id)

    await till.hear("e2", second)

    assert [one.gateway_id for one in await till.methods.list_for("u1", limit=10, before=None)] == [
        f"card_of_{first.id}"
    ]


async def test_later_orders_name_the_payers_customer_and_a_repeat_says_the_same(till: CardTill) -> None:
    """A gateway takes a repeat with other words for another request, and refuses it."""
    await till.order("before")
    early = till.cards.orders["order_before"]
    await till.a_card()
    await till.order("after")

    assert early.customer_id is None
    assert till.cards.orders["order_after"].customer_id == "customer_of_card_u1"

    till.gateway.is_down = True
    with pytest.raises(GatewayUnavailable):
        await till.order("torn", user_id="u2")
    till.gateway.is_down = False
    await till.a_card("u2")
    await till.order("torn", user_id="u2")
    assert till.cards.orders["order_torn"].customer_id is None


@pytest.mark.parametrize("asks", ["order", "page"])
async def test_a_customer_whom_the_gateway_has_deleted_keeps_nobody_from_paying(
    till: CardTill, monkeypatch: pytest.MonkeyPatch, asks: str
) -> None:
    await till.a_card()

    async def refuse(wish: Wish) -> Order:
        assert wish.customer_id == "customer_of_card_u1"
        raise GatewayRefused(reason="resource_missing")

    monkeypatch.setattr(till.cards, "create_order", refuse)
    monkeypatch.setattr(till.cards, "setup_order", refuse)
    with pytest.raises(GatewayRefused):
        await (till.order("refused") if asks == "order" else setup(till, "refused"))
    monkeypatch.undo()

    await till.order("again")
    assert till.cards.orders["order_again"].customer_id is None
    assert (await setup(till)).customer_id is None
    assert await till.labels() == [LABEL]


async def test_a_page_without_payment_keeps_what_is_left_there(till: CardTill) -> None:
    wish = await setup(till)
    assert (wish.method_id, wish.shown["checkoutUrl"]) == (None, "https://pay.example/s1")
    assert (await setup(till)).order_id == wish.order_id

    till.cards.left[wish.order_id or ""] = till.cards.card("left")
    await till.pass_time(60_000)

    assert (await setup(till)).method_id is not None
    assert await till.labels() == [LABEL]
    assert await till._dues() == []


async def test_the_gateways_own_news_keep_and_delete(till: CardTill) -> None:
    wish = await setup(till)
    card = till.cards.card("told")
    name = till.gateway.name

    assert await till.methods.hear(name, MethodNews(card, is_usable=True, reference=wish.id))
    assert await till.labels() == [LABEL]
    # From now on the customer is known to be the payer's.
    other = replace(till.cards.card("other"), customer_id=card.customer_id)
    assert await till.methods.hear(name, MethodNews(other, is_usable=True))
    assert len(await till.labels()) == 2

    assert await till.methods.hear(name, MethodNews(card, is_usable=False))
    assert len(await till.labels()) == 1
    assert not await till.methods.hear(name, MethodNews(till.cards.card("foreign"), is_usable=True))
    assert not await till.methods.hear(name, MethodNews(till.cards.card("foreign"), is_usable=False))
    assert not await till.methods.hear("stripe", MethodNews(other, is_usable=False))
    assert till.cards.forgotten == [], "the gateway knows it already"


async def test_news_of_a_card_survive_the_inbox(till: CardTill, monkeypatch: pytest.MonkeyPatch) -> None:
    wish = await setup(till)
    news = MethodNews(till.cards.card("told"), is_usable=True, reference=wish.id)
    monkeypatch.setattr(
        till.gateway,
        "read_webhook",
        lambda *_: GatewayEvent("e1", "setup_intent.succeeded", 0, method=news),
    )

    await till.world.webhooks.take(till.gateway.name, body=b"{}", headers={})
    await till.die()
    await till.reborn()
    till.clock.jump_ms(6_000)
    await till.chores()

    assert await till.labels() == [LABEL]


async def setup(till: CardTill, key: str = "s1", user_id: str = "u1"):
    return await till.methods.setup(
        payer_id=user_id,
        email="u@example.com",
        gateway=till.gateway.name,
        currency="INR",
        operation_id=key,
    )


# -- charging --------------------------------------------------------------------------------------------------------


async def test_a_charge_credits_once_however_often_it_is_asked_for(till: CardTill) -> None:
    card = await till.a_card()

    payments = [await till.charge(card) for _ in range(3)]

    assert {payment.status for payment in payments} == {PaymentStatus.PAID}
    assert await till.check_paid_once_of(payments[0])
    assert till.cards.charged == ["c1"]
    (asked,) = till.cards.asked_to_charge
    assert (asked[0].reference, asked[1].id) == ("c1", "card_u1")


async def test_a_declined_charge_is_failed_with_the_banks_reason(till: CardTill) -> None:
    """Auto-recharge waits longer after a decline: it must know that no money is under way."""
    till.cards.declines = "insufficient_funds"
    card = await till.a_card()

    for _ in range(2):
        payment = await till.charge(card)
        assert (payment.status, payment.failure) == (PaymentStatus.FAILED, "insufficient_funds")
    till.cards.declines = None
    await till.pass_time(2 * _DAY_MS)

    assert len(till.cards.asked_to_charge) == 1, "what has failed is not tried again under the same name"
    assert (till.cards.charged, await till.wallet()) == ([], 0)
    assert (await till.charge(card, "c2")).status is PaymentStatus.PAID


async def test_a_charge_whose_answer_was_lost_is_looked_up_and_not_repeated(till: CardTill) -> None:
    card = await till.a_card()
    till.cards.lost_answers = 1

    assert (await till.charge(card)).status is PaymentStatus.PENDING
    await till.pass_time(5_000)

    await till.check_paid_once_of(await till.stored("c1"))
    assert len(till.cards.asked_to_charge) == 1


async def test_a_repeat_of_a_charge_in_doubt_looks_it_up(till: CardTill) -> None:
    card = await till.a_card()
    till.cards.lost_answers = 1
    assert (await till.charge(card)).status is PaymentStatus.PENDING

    assert (await till.charge(card)).status is PaymentStatus.PAID
    assert till.cards.charged == ["c1"]


async def test_a_charge_that_never_arrived_is_asked_for_again_when_nobody_can_be_at_it(
    till: CardTill,
) -> None:
    card = await till.a_card()
    till.gateway.is_down = True
    assert (await till.charge(card)).status is PaymentStatus.PENDING
    till.gateway.is_down = False

    await till.pass_time(IN_FLIGHT_MS - 2_000)
    assert (await till.charge(card)).status is PaymentStatus.PENDING
    assert till.cards.asked_to_charge == [], "the first request may still be on its way"

    await till.pass_time(IN_FLIGHT_MS)
    await till.check_paid_once_of(await till.stored("c1"))
    assert till.cards.charged == ["c1"]


async def test_two_who_ask_again_at_the_same_time_are_one(till: CardTill) -> None:
    card = await till.a_card()
    till.gateway.is_down = True
    stale = await till.charge(card)
    till.gateway.is_down = False
    till.clock.jump_ms(IN_FLIGHT_MS)

    first = await till.methods.ask_charge(stale)
    second = await till.methods.ask_charge(stale)

    assert (first.status, second.status) == (PaymentStatus.PAID, PaymentStatus.PAID)
    assert len(till.cards.asked_to_charge) == 1


async def test_when_the_gateway_forgets_keys_a_charge_is_looked_up_only(till: CardTill) -> None:
    """The gateway was away for a day, and has the charge: to ask again would take the money twice."""
    card = await till.a_card()
    till.cards.lost_answers = 1
    assert (await till.charge(card)).status is PaymentStatus.PENDING
    till.gateway.is_down = True
    await till.pass_time(REPEAT_WITHIN_MS + 2 * 3_600_000)
    assert (await till.stored("c1")).status is PaymentStatus.PENDING
    till.gateway.is_down = False

    await till.pass_time(3_600_000)

    await till.check_paid_once_of(await till.stored("c1"))
    assert till.cards.charged == ["c1"]


async def test_what_the_gateway_has_never_heard_of_is_failed_after_its_keys_are_forgotten(
    till: CardTill,
) -> None:
    card = await till.a_card()
    till.gateway.is_down = True
    await till.charge(card)
    await till.pass_time(REPEAT_WITHIN_MS)
    till.gateway.is_down = False

    await till.pass_time(3_600_000)

    payment = await till.stored("c1")
    assert (payment.status, payment.failure) == (PaymentStatus.FAILED, "NEVER_CHARGED")
    assert till.cards.asked_to_charge == []


async def test_a_charge_that_failed_and_comes_late_is_credited(till: CardTill) -> None:
    card = await till.a_card()
    till.cards.declines = "do_not_honour"
    await till.charge(card)
    (attempt,) = till.cards.tries.values()
    late = till.cards.becomes(attempt.id, AttemptStatus.COLLECTED)

    await till.hear("e1", late)

    await till.check_paid_once_of(await till.stored("c1"))


async def test_a_charge_that_takes_days_is_pending_until_then(till: CardTill) -> None:
    """Razorpay tells a card's owner first: a charge takes up to a day and a half."""
    card = await till.a_card()
    till.cards.charges_end = AttemptStatus.PENDING
    assert (await till.charge(card)).status is PaymentStatus.PENDING
    await till.pass_time(36 * 3_600_000)
    assert (await till.stored("c1")).status is PaymentStatus.PENDING

    (attempt,) = till.cards.tries.values()
    till.cards.becomes(attempt.id, AttemptStatus.COLLECTED)
    await till.pass_time(3_600_000)

    await till.check_paid_once_of(await till.stored("c1"))
    assert till.cards.charged == ["c1"]


async def test_one_operation_is_one_charge(till: CardTill) -> None:
    card = await till.a_card()
    await till.charge(card)

    with pytest.raises(InvariantBroken):
        await till.charge(card, amount_minor=AMOUNT + 1)
    assert till.cards.charged == ["c1"]


# -- whose it is, and deleting ---------------------------------------------------------------------------------------


async def test_one_payer_never_sees_charges_or_deletes_anothers(till: CardTill) -> None:
    card = await till.a_card("u1")

    assert await till.labels("u2") == []
    with pytest.raises(PaymentMethodNotFound):
        await till.charge(card, user_id="u2")
    with pytest.raises(PaymentMethodNotFound):
        await till.methods.forget(card, payer_id="u2")
    assert await till.labels("u1") == [LABEL]
    assert (till.cards.asked_to_charge, till.cards.forgotten) == ([], [])


async def test_a_deleted_card_is_charged_no_more_and_the_gateway_is_told_once(till: CardTill) -> None:
    card = await till.a_card()

    for _ in range(2):
        await till.methods.forget(card, payer_id="u1")

    assert (await till.labels(), till.cards.forgotten) == ([], ["card_u1"])
    with pytest.raises(PaymentMethodNotFound):
        await till.charge(card)
    assert await till._dues() == []


async def test_a_gateway_that_does_not_answer_is_told_later(till: CardTill) -> None:
    card = await till.a_card()
    till.gateway.is_down = True
    await till.methods.forget(card, payer_id="u1")
    assert await till.labels() == []
    till.gateway.is_down = False

    await till.pass_time(_DAY_MS)

    assert till.cards.forgotten == ["card_u1"]


async def test_late_news_do_not_bring_a_deleted_card_back(till: CardTill) -> None:
    payment = await till.saving()
    attempt = till.cards.pay(payment.order_id or "")
    await till.verify(payment, attempt.id)
    (method,) = await till.methods.list_for("u1", limit=10, before=None)
    await till.methods.forget(method.id, payer_id="u1")

    await till.hear("late", attempt)
    await till.verify(payment, attempt.id)

    assert await till.labels() == []


async def test_a_charge_in_doubt_of_a_card_deleted_meanwhile_is_looked_up_and_not_repeated(
    till: CardTill,
) -> None:
    arrived, lost = await till.a_card(id_="a"), await till.a_card(id_="b")
    till.cards.lost_answers = 1
    await till.charge(arrived, "arrived")
    till.gateway.is_down = True
    await till.charge(lost, "lost")
    till.gateway.is_down = False
    for card in (arrived, lost):
        await till.methods.forget(card, payer_id="u1")

    await till.pass_time(2 * IN_FLIGHT_MS)

    payment = await till.stored("lost")
    assert (payment.status, payment.failure) == (PaymentStatus.FAILED, "METHOD_DELETED")
    assert (await till.stored("arrived")).status is PaymentStatus.PAID
    assert (till.cards.charged, await till.taken()) == (["arrived"], AMOUNT)


# -- over HTTP -------------------------------------------------------------------------------------------------------


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with open_api(tmp_path) as api:
        yield api
        await api.books_are_clean()


async def test_a_recharge_with_save_method_shows_it_among_the_saved_ones(api: Api) -> None:
    user, other = await api.a_user(), await api.a_user()

    assert (await user.post("/wallet/recharge", {"amount": "50.00", "saveMethod": True})).status == 201
    assert (await user.post("/wallet/recharge", {"amount": "50.00"})).status == 201

    (saved,) = (await user.get("/payment-methods")).json["items"]
    assert (saved["gateway"], saved["label"]) == ("simulated", "simulated •••• 4242")
    assert (await other.get("/payment-methods")).json["items"] == []
    refused = await other.call("DELETE", f"/payment-methods/{saved['paymentMethodId']}")
    assert (refused.status, refused.code) == (404, "NOT_FOUND")
    for _ in range(2):
        deleted = await user.call("DELETE", f"/payment-methods/{saved['paymentMethodId']}")
        assert (deleted.status, deleted.json) == (200, {"deleted": True})
    assert (await user.get("/payment-methods")).json["items"] == []


async def test_a_deleted_account_leaves_no_card_that_could_be_charged(api: Api) -> None:
    user = await api.a_user()
    for _ in range(2):
        await user.post("/payment-methods/setup")
    assert len((await user.get("/payment-methods")).json["items"]) == 2

    assert (await user.call("DELETE", "/auth/me", json={"password": PASSWORD})).status == 200

    methods = api.services.payment_methods
    assert await methods.list_for(user.id, limit=10, before=None) == []
    (rows,) = (rows for table, rows in api.everything().items() if table.endswith("payment_methods"))
    assert len(rows) == 2
    assert "4242" not in repr(rows)


async def test_setting_one_up_is_done_once_per_key(api: Api) -> None:
    user = await api.a_user()

    first = await user.post("/payment-methods/setup", key="k1")
    again = await user.post("/payment-methods/setup", key="k1")

    assert (first.status, first.json["status"], first.json["checkoutUrl"]) == (201, "SAVED", None)
    assert again.json == first.json
    assert len((await user.get("/payment-methods")).json["items"]) == 1
    assert (await user.get("/wallet/balance")).json["walletBalance"] == "0.00"


async def test_saved_methods_come_in_pages(api: Api) -> None:
    user = await api.a_user()
    made = []
    for _ in range(3):
        made.append((await user.post("/payment-methods/setup")).json["paymentMethodId"])
        await api.advance(1)

    first = (await user.get("/payment-methods?limit=2")).json
    second = (await user.get(f"/payment-methods?limit=2&cursor={first['nextCursor']}")).json

    shown = [one["paymentMethodId"] for one in (*first["items"], *second["items"])]
    assert (shown, second["nextCursor"]) == (made[::-1], None)


async def test_a_gateway_that_keeps_one_with_a_payment_alone_says_so(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    def not_able(gateway: object) -> None:
        raise NotSupported(gateway="razorpay")

    monkeypatch.setattr("billing_engine.payments.methods._able", not_able)
    answer = await (await api.a_user()).post("/payment-methods/setup")
    assert (answer.status, answer.code) == (409, "NOT_SUPPORTED")
