"""What a payment gateway's adapter promises, whichever gateway it speaks to. Subclass and supply `world`.

`GatewayContract` is what every gateway keeps, the simulated one included; `RemoteGatewayContract` is for those that are asked over a
network, are paid by somebody else and send signed events.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from itertools import count
from typing import Any, Final, Protocol

import pytest

from billing_engine.payments.errors import GatewayRefused, GatewayUnavailable, NotSupported, WebhookInvalid
from billing_engine.payments.model import (
    Attempt,
    AttemptStatus,
    DisputeStatus,
    GatewayEvent,
    GatewayRefund,
    Order,
    RefundStatus,
    SavedMethod,
    Wish,
)
from billing_engine.payments.ports import Gateway
from tests.support.gateway_faults import Fault

__all__ = [
    "Fault",
    "GatewayContract",
    "GatewayWorld",
    "Paid",
    "RemoteGatewayContract",
    "RemoteWorld",
    "SignedEvent",
]


@dataclass(frozen=True, slots=True)
class SignedEvent:
    """An event as the gateway would deliver it. Header names are in lower case."""

    body: bytes
    headers: dict[str, str]


@dataclass(frozen=True, slots=True)
class Paid:
    """What a payer's client brings back. `signature` is None where the gateway signs no callback."""

    attempt_id: str
    signature: str | None


class GatewayWorld(Protocol):
    """A gateway's adapter and the gateway that it speaks to, as the tests drive them."""

    gateway: Gateway
    #: An amount that the gateway can express, in our smallest units, and its currency. At least ten of the gateway's own units.
    amount_minor: int
    currency: str
    #: The least amount in our smallest units by which amounts may differ at the gateway (1 paisa; 1 cent = 10,000).
    step_minor: int
    #: Whether a means of payment can be saved and charged again.
    saves_methods: bool

    async def pay(self, order_id: str, *, save_method: bool = False) -> Paid:
        """A payer pays the order; the money is collected."""
        ...


class RemoteWorld(GatewayWorld, Protocol):
    """A gateway behind a network."""

    #: Faults that the world can make.
    faults: Collection[Fault]
    #: Whether an attempt can be authorised and not captured.
    authorises: bool
    #: Whether the payer's client brings back a signature (Razorpay) or not (Stripe).
    signs_callbacks: bool
    #: An id in the gateway's form, of no attempt.
    unknown_attempt_id: str

    async def fail(self, order_id: str) -> str:
        """A payer tries and fails; the attempt's id."""
        ...

    async def authorise(self, order_id: str) -> str:
        """A payer's bank agrees and the gateway does not capture by itself; the attempt's id."""
        ...

    async def dispute(self, attempt_id: str, outcome: DisputeStatus = DisputeStatus.OPEN) -> None:
        """The payer's bank asks for the money back, and the dispute comes to this outcome."""
        ...

    async def finish_refund(self, refund_id: str, *, succeeds: bool = True) -> None:
        """The refund arrives, or fails."""
        ...

    async def orders_of(self, reference: str) -> int:
        """How many orders the gateway has for our reference."""
        ...

    def broken(self, fault: Fault) -> AbstractContextManager[None]:
        """Every request meets this fault while it is open."""
        ...

    def events(self) -> Sequence[SignedEvent]:
        """Every event so far, in the order of happening."""
        ...

    def sign(self, body: bytes) -> SignedEvent:
        """Any body, signed as the gateway would."""
        ...


#: What clients send in a signature's place.
NO_SIGNATURES: Sequence[Any] = [
    pytest.param("", id="empty"),
    pytest.param("0" * 64, id="zeros"),
    pytest.param("signature", id="word"),
    pytest.param("Übergröße ☃", id="not ASCII"),
    pytest.param("\ud800", id="no character"),
    pytest.param("\x00", id="nul"),
    pytest.param("a" * 1_000_000, id="a megabyte"),
    pytest.param(None, id="none"),
    pytest.param(b"0" * 64, id="bytes"),
    pytest.param(7, id="number"),
]
LONG_LIST: Final = 103
FAR_AWAY_MS: Final = 4_000_000_000_000
_numbers = count(1)


class Helpers:
    """What the tests of both classes share."""

    def wish(self, world: GatewayWorld, **changes: Any) -> Wish:
        # Opaque and sortable, like the server's ids: 26 characters.
        wish = Wish(
            reference=f"01K{next(_numbers):023d}",
            amount_minor=world.amount_minor,
            currency=world.currency,
            description="Wallet recharge",
            payer_email="payer@example.com",
        )
        return replace(wish, **changes)

    async def paid(self, world: GatewayWorld, **changes: Any) -> tuple[Wish, Order, Attempt]:
        wish = self.wish(world, **changes)
        order = await world.gateway.create_order(wish)
        await world.pay(order.id, save_method=wish.save_method)
        (attempt,) = await world.gateway.attempts(order.id)
        return wish, order, attempt


class GatewayContract(Helpers):
    """What every gateway keeps."""

    async def test_it_says_who_it_is_and_what_it_can_be_paid_in(self, world: GatewayWorld) -> None:
        assert world.gateway.name
        assert world.currency in world.gateway.currencies
        assert isinstance(world.gateway.is_instant, bool)

    async def test_an_order_has_an_id_and_what_the_payer_needs(self, world: GatewayWorld) -> None:
        order = await world.gateway.create_order(self.wish(world))

        assert order.id
        assert all(isinstance(value, str) for value in order.shown.values())

    async def test_the_same_reference_is_the_same_order(self, world: GatewayWorld) -> None:
        """Else a payer whose reply was lost would be asked to pay twice."""
        wish = self.wish(world)

        first = await world.gateway.create_order(wish)
        again = await world.gateway.create_order(wish)

        assert again.id == first.id
        assert dict(again.shown) == dict(first.shown)

    async def test_other_references_are_other_orders(self, world: GatewayWorld) -> None:
        orders = [await world.gateway.create_order(self.wish(world)) for _ in range(3)]

        assert len({order.id for order in orders}) == 3

    async def test_a_paid_order_has_one_collected_attempt(self, world: GatewayWorld) -> None:
        wish, order, attempt = await self.paid(world)

        assert attempt.status is AttemptStatus.COLLECTED
        assert (attempt.amount_minor, attempt.currency) == (wish.amount_minor, wish.currency)
        assert attempt.order_id == order.id
        # A gateway may know it from the order alone.
        assert attempt.reference in {wish.reference, None}
        assert attempt.refunded_minor == 0
        assert attempt.failure is None

    async def test_an_attempt_can_be_asked_for_by_its_id(self, world: GatewayWorld) -> None:
        _wish, _order, attempt = await self.paid(world)

        known = await world.gateway.attempt(attempt.id)

        # A gateway may not repeat the order's id when it is asked for the attempt alone.
        assert replace(known, order_id=attempt.order_id) == attempt
        assert known.order_id in {attempt.order_id, None}

    async def test_what_is_collected_is_captured_already(self, world: GatewayWorld) -> None:
        _wish, _order, attempt = await self.paid(world)

        captured = await world.gateway.capture(attempt)

        assert (captured.id, captured.status) == (attempt.id, AttemptStatus.COLLECTED)

    async def test_a_refund_is_made_once_per_reference(self, world: GatewayWorld) -> None:
        """Else a repeat after a lost reply pays the payer twice, from our pocket."""
        wish, _order, attempt = await self.paid(world)

        async def refund() -> GatewayRefund:
            return await world.gateway.refund(
                attempt.id,
                amount_minor=wish.amount_minor,
                currency=wish.currency,
                reference="refund-" + wish.reference,
            )

        first, again = await refund(), await refund()

        assert again.id == first.id
        assert first.payment_id == attempt.id
        assert first.reference == "refund-" + wish.reference
        assert (first.amount_minor, first.currency) == (wish.amount_minor, wish.currency)
        assert first.status in {RefundStatus.PENDING, RefundStatus.DONE}

    @pytest.mark.parametrize("signature", NO_SIGNATURES)
    async def test_what_is_no_signature_is_none(self, world: GatewayWorld, signature: Any) -> None:
        """A client sends what it likes: it is told no, and nothing falls over."""
        _wish, order, attempt = await self.paid(world)

        assert world.gateway.verify_callback(order.id, attempt.id, signature) is False

    @pytest.mark.parametrize(
        "body", [b"", b"{}", b"not JSON", b"\xff\xfe", b"[" * 100_000, b"x" * 1_000_000], ids=len
    )
    async def test_what_is_not_signed_is_no_event(self, world: GatewayWorld, body: bytes) -> None:
        """Anybody may post to the address of the webhooks."""
        with pytest.raises(WebhookInvalid):
            world.gateway.read_webhook(body, {})


class RemoteGatewayContract(GatewayContract):
    """What every gateway behind a network keeps besides."""

    # --- states ---

    async def test_an_order_that_nobody_paid_has_no_money(self, world: RemoteWorld) -> None:
        order = await world.gateway.create_order(self.wish(world))

        attempts = await world.gateway.attempts(order.id)

        assert all(attempt.status is AttemptStatus.PENDING for attempt in attempts)

    async def test_a_try_that_failed_says_why(self, world: RemoteWorld) -> None:
        wish = self.wish(world)
        order = await world.gateway.create_order(wish)
        attempt_id = await world.fail(order.id)

        (attempt,) = await world.gateway.attempts(order.id)

        assert attempt.id == attempt_id
        assert attempt.status is AttemptStatus.FAILED
        assert attempt.failure
        assert attempt.reference in {wish.reference, None}

    async def test_an_order_can_be_paid_after_a_try_failed(self, world: RemoteWorld) -> None:
        order = await world.gateway.create_order(self.wish(world))
        await world.fail(order.id)
        paid = await world.pay(order.id)

        attempts = await world.gateway.attempts(order.id)

        collected = [attempt for attempt in attempts if attempt.status is AttemptStatus.COLLECTED]
        assert [attempt.id for attempt in collected] == [paid.attempt_id]

    async def test_an_authorised_attempt_is_captured_once(self, world: RemoteWorld) -> None:
        """The bank has agreed, perhaps days late: the money is ours only when it is captured."""
        if not world.authorises:
            return
        wish = self.wish(world)
        order = await world.gateway.create_order(wish)
        attempt_id = await world.authorise(order.id)
        attempt = await world.gateway.attempt(attempt_id)
        assert attempt.status is AttemptStatus.AUTHORIZED

        captured = [await world.gateway.capture(attempt) for _ in range(2)]

        assert [one.status for one in captured] == [AttemptStatus.COLLECTED] * 2
        assert captured[0].amount_minor == wish.amount_minor
        assert (await world.gateway.attempt(attempt_id)).status is AttemptStatus.COLLECTED

    async def test_an_attempt_that_failed_cannot_be_captured(self, world: RemoteWorld) -> None:
        order = await world.gateway.create_order(self.wish(world))
        await world.fail(order.id)
        (attempt,) = await world.gateway.attempts(order.id)

        with pytest.raises(GatewayRefused):
            await world.gateway.capture(attempt)

    async def test_what_does_not_exist_is_refused(self, world: RemoteWorld) -> None:
        with pytest.raises(GatewayRefused):
            await world.gateway.attempt(world.unknown_attempt_id)
        with pytest.raises(GatewayRefused):
            await world.gateway.refund(
                world.unknown_attempt_id,
                amount_minor=world.amount_minor,
                currency=world.currency,
                reference="refund-of-nothing",
            )

    @pytest.mark.parametrize("name", ["", "../orders", "a/b", "a?b=c", "pay_1#x", "ü", "a b", "%2e%2e"])
    async def test_an_id_is_never_a_path(self, world: RemoteWorld, name: str) -> None:
        """Ids of a payer's callback go into addresses: no other call may be made of them."""
        for ask in (world.gateway.attempts, world.gateway.attempt, world.gateway.refunds):
            with pytest.raises(GatewayRefused):
                await ask(name)

    async def test_callbacks_are_signed_for_one_order_and_one_attempt(self, world: RemoteWorld) -> None:
        wish = self.wish(world)
        order = await world.gateway.create_order(wish)
        other = await world.gateway.create_order(self.wish(world))
        paid = await world.pay(order.id)
        check = world.gateway.verify_callback
        if not world.signs_callbacks:
            assert paid.signature is None
            return
        assert paid.signature is not None

        assert check(order.id, paid.attempt_id, paid.signature) is True
        assert check(other.id, paid.attempt_id, paid.signature) is False
        assert check(order.id, paid.attempt_id + "x", paid.signature) is False
        assert (
            check(
                order.id, paid.attempt_id, paid.signature[:-1] + ("0" if paid.signature[-1] != "0" else "1")
            )
            is False
        )
        assert check(order.id, paid.attempt_id, paid.signature + " ") is False

    # --- refunds ---

    async def test_refunds_add_up_and_never_pass_what_was_paid(self, world: RemoteWorld) -> None:
        wish, _order, attempt = await self.paid(world)
        part_minor = 4 * world.step_minor
        rest_minor = wish.amount_minor - part_minor

        async def refund(amount_minor: int, name: str) -> GatewayRefund:
            return await world.gateway.refund(
                attempt.id,
                amount_minor=amount_minor,
                currency=wish.currency,
                reference=f"refund-{name}-{wish.reference}",
            )

        part = await refund(part_minor, "part")
        with pytest.raises(GatewayRefused):
            await refund(rest_minor + world.step_minor, "too-much")
        rest = await refund(rest_minor, "rest")
        with pytest.raises(GatewayRefused):
            await refund(world.step_minor, "one-more")

        known = await world.gateway.refunds(attempt.id)
        assert sorted((one.id, one.amount_minor, one.reference) for one in known) == sorted(
            (one.id, one.amount_minor, one.reference) for one in (part, rest)
        )
        after = await world.gateway.attempt(attempt.id)
        assert after.refunded_minor == wish.amount_minor
        assert after.status is AttemptStatus.COLLECTED

    async def test_a_refund_that_arrives_is_done(self, world: RemoteWorld) -> None:
        wish, _order, attempt = await self.paid(world)
        refund = await world.gateway.refund(
            attempt.id,
            amount_minor=wish.amount_minor,
            currency=wish.currency,
            reference="refund-" + wish.reference,
        )
        await world.finish_refund(refund.id)

        (known,) = await world.gateway.refunds(attempt.id)

        assert (known.id, known.status) == (refund.id, RefundStatus.DONE)

    async def test_refunds_at_the_same_time_are_one(self, world: RemoteWorld) -> None:
        wish, _order, attempt = await self.paid(world)

        async def refund() -> GatewayRefund:
            return await world.gateway.refund(
                attempt.id,
                amount_minor=world.step_minor,
                currency=wish.currency,
                reference="refund-" + wish.reference,
            )

        answers = await asyncio.gather(*(refund() for _ in range(6)), return_exceptions=True)

        refunds = {answer.id for answer in answers if isinstance(answer, GatewayRefund)}
        # "It is just being done" is an answer, too: the outcome is not known.
        assert all(isinstance(answer, GatewayRefund | GatewayUnavailable) for answer in answers)
        assert len(refunds | {(await refund()).id}) == 1
        assert len(await world.gateway.refunds(attempt.id)) == 1

    async def test_orders_at_the_same_time_are_one(self, world: RemoteWorld) -> None:
        wish = self.wish(world)

        answers = await asyncio.gather(
            *(world.gateway.create_order(wish) for _ in range(6)), return_exceptions=True
        )

        assert all(isinstance(answer, Order | GatewayUnavailable) for answer in answers)
        orders = {answer.id for answer in answers if isinstance(answer, Order)}
        assert len(orders | {(await world.gateway.create_order(wish)).id}) == 1
        assert await world.orders_of(wish.reference) == 1

    # --- saved means of payment ---

    async def test_a_saved_method_is_charged_once_per_reference(self, world: RemoteWorld) -> None:
        """Auto-recharge repeats after a crash: the payer's card is charged once."""
        if not world.saves_methods:
            with pytest.raises(NotSupported):
                await world.gateway.charge_saved(self.wish(world), SavedMethod("method", "customer", "label"))
            return
        _wish, _order, attempt = await self.paid(world, save_method=True)
        assert attempt.method is not None
        assert attempt.method.label
        wish = self.wish(world)

        first = await world.gateway.charge_saved(wish, attempt.method)
        again = await world.gateway.charge_saved(wish, attempt.method)

        assert again.id == first.id != attempt.id
        assert first.status is not AttemptStatus.FAILED
        assert (first.amount_minor, first.currency) == (wish.amount_minor, wish.currency)
        assert first.reference == wish.reference

    async def test_what_became_of_a_charge_can_be_asked_for(self, world: RemoteWorld) -> None:
        """A charge whose reply was lost is looked for before anything is charged again."""
        if not world.saves_methods:
            return
        _wish, _order, attempt = await self.paid(world, save_method=True)
        assert attempt.method is not None
        wish = self.wish(world)

        assert await world.gateway.find_charge(wish, attempt.method) is None
        assert await world.gateway.find_charge(wish, attempt.method) is None
        charged = await world.gateway.charge_saved(wish, attempt.method)
        found = await world.gateway.find_charge(wish, attempt.method)

        assert found is not None
        assert (found.id, found.amount_minor, found.reference) == (
            charged.id,
            wish.amount_minor,
            wish.reference,
        )
        assert await world.gateway.find_charge(self.wish(world), attempt.method) is None

    async def test_a_forgotten_method_is_charged_no_more(self, world: RemoteWorld) -> None:
        if not world.saves_methods:
            return
        _wish, _order, attempt = await self.paid(world, save_method=True)
        assert attempt.method is not None

        await world.gateway.forget_method(attempt.method)
        await world.gateway.forget_method(attempt.method)

        with pytest.raises(GatewayRefused):
            await world.gateway.charge_saved(self.wish(world), attempt.method)

    async def test_a_payment_that_saves_nothing_has_no_method(self, world: RemoteWorld) -> None:
        """A card that its owner has not agreed to is never charged again."""
        _wish, _order, attempt = await self.paid(world)

        assert attempt.method is None

    # --- lists ---

    async def test_lists_hold_what_was_begun_between(self, world: RemoteWorld) -> None:
        """The daily comparison: every payment belongs to one day and no day is longer than it is."""
        wish, _order, attempt = await self.paid(world)
        refund = await world.gateway.refund(
            attempt.id,
            amount_minor=world.step_minor,
            currency=wish.currency,
            reference="refund-" + wish.reference,
        )

        async def attempts(from_ms: int, to_ms: int) -> list[str]:
            return [one.id for one in await world.gateway.attempts_between(from_ms, to_ms)]

        async def refunds(from_ms: int, to_ms: int) -> list[str]:
            return [one.id for one in await world.gateway.refunds_between(from_ms, to_ms)]

        for ask, item in ((attempts, attempt), (refunds, refund)):
            assert item.id in await ask(item.at_ms, item.at_ms + 1)
            assert item.id in await ask(item.at_ms - 86_400_000, item.at_ms + 86_400_000)
            assert item.id not in await ask(item.at_ms - 86_400_000, item.at_ms)
            assert item.id not in await ask(item.at_ms + 1, item.at_ms + 86_400_000)

    async def test_lists_go_on_over_pages(self, world: RemoteWorld) -> None:
        """A gateway answers a hundred at a time; the hundred and first is money, too."""
        # One after the other: a busy machine must not make them wait for each other until they give up.
        orders = [await world.gateway.create_order(self.wish(world)) for _ in range(LONG_LIST)]
        paid = {(await world.pay(order.id)).attempt_id for order in orders}

        listed = [one.id for one in await world.gateway.attempts_between(0, FAR_AWAY_MS)]

        assert paid <= set(listed)
        assert len(listed) == len(set(listed))

    # --- the wire ---

    @pytest.mark.parametrize("fault", Fault)
    async def test_an_answer_that_is_none_leaves_the_outcome_unknown(
        self, world: RemoteWorld, fault: Fault
    ) -> None:
        """Whoever takes silence for a no refunds what was paid."""
        if fault not in world.faults:
            pytest.skip("this world cannot make it")
        wish, order, attempt = await self.paid(world)
        gateway, method = world.gateway, SavedMethod("token_1", "cust_1", "a card")
        calls: dict[str, Callable[[], Awaitable[object]]] = {
            "create_order": lambda: gateway.create_order(self.wish(world)),
            "attempts": lambda: gateway.attempts(order.id),
            "attempt": lambda: gateway.attempt(attempt.id),
            "capture": lambda: gateway.capture(replace(attempt, status=AttemptStatus.AUTHORIZED)),
            "refund": lambda: gateway.refund(
                attempt.id,
                amount_minor=world.step_minor,
                currency=wish.currency,
                reference="refund-" + wish.reference,
            ),
            "refunds": lambda: gateway.refunds(attempt.id),
            "attempts_between": lambda: gateway.attempts_between(0, FAR_AWAY_MS),
            "refunds_between": lambda: gateway.refunds_between(0, FAR_AWAY_MS),
        }
        if world.saves_methods:
            calls["charge_saved"] = lambda: gateway.charge_saved(self.wish(world), method)
            calls["find_charge"] = lambda: gateway.find_charge(self.wish(world), method)
            calls["forget_method"] = lambda: gateway.forget_method(method)
        with world.broken(fault):
            answers = await asyncio.gather(*(call() for call in calls.values()), return_exceptions=True)

        answered = dict(zip(calls, answers, strict=True))
        assert {
            name: answer for name, answer in answered.items() if not isinstance(answer, GatewayUnavailable)
        } == {}
        # And it speaks again when the wire is mended.
        assert (await gateway.attempt(attempt.id)).id == attempt.id

    async def test_an_order_whose_reply_was_lost_is_found_again(self, world: RemoteWorld) -> None:
        wish = self.wish(world)
        with world.broken(Fault.LOST_REPLY), pytest.raises(GatewayUnavailable):
            await world.gateway.create_order(wish)

        await world.gateway.create_order(wish)

        assert await world.orders_of(wish.reference) == 1

    async def test_a_refund_whose_reply_was_lost_is_found_again(self, world: RemoteWorld) -> None:
        wish, _order, attempt = await self.paid(world)

        async def refund() -> GatewayRefund:
            return await world.gateway.refund(
                attempt.id,
                amount_minor=world.step_minor,
                currency=wish.currency,
                reference="refund-" + wish.reference,
            )

        with world.broken(Fault.LOST_REPLY), pytest.raises(GatewayUnavailable):
            await refund()
        # Which of its requests was lost is the adapter's business: it may have asked something before.
        known = await world.gateway.refunds(attempt.id)

        again = await refund()
        assert [one.id for one in await world.gateway.refunds(attempt.id)] == [again.id]
        assert {one.id for one in known} <= {again.id}

    async def test_a_charge_whose_reply_was_lost_is_found_again(self, world: RemoteWorld) -> None:
        if not world.saves_methods:
            return
        _wish, _order, attempt = await self.paid(world, save_method=True)
        assert attempt.method is not None
        wish = self.wish(world)
        with world.broken(Fault.LOST_REPLY), pytest.raises(GatewayUnavailable):
            await world.gateway.charge_saved(wish, attempt.method)

        first = await world.gateway.charge_saved(wish, attempt.method)
        again = await world.gateway.charge_saved(wish, attempt.method)

        assert first.id == again.id
        mine = [
            one
            for one in await world.gateway.attempts_between(0, FAR_AWAY_MS)
            if one.reference == wish.reference
        ]
        assert [one.id for one in mine] == [first.id]

    # --- events ---

    def read(self, world: RemoteWorld) -> list[GatewayEvent]:
        return [world.gateway.read_webhook(event.body, event.headers) for event in world.events()]

    async def test_a_payment_is_told_in_an_event(self, world: RemoteWorld) -> None:
        wish, order, attempt = await self.paid(world)

        told = [event.attempt for event in self.read(world) if event.attempt is not None]

        collected = [one for one in told if one.status is AttemptStatus.COLLECTED]
        assert collected
        for one in collected:
            assert (one.id, one.amount_minor, one.currency) == (attempt.id, wish.amount_minor, wish.currency)
        # One of them says which order and payment of ours it is for.
        assert order.id in {one.order_id for one in collected}
        assert wish.reference in {one.reference for one in collected}

    async def test_a_failure_is_told_in_an_event(self, world: RemoteWorld) -> None:
        order = await world.gateway.create_order(self.wish(world))
        attempt_id = await world.fail(order.id)

        told = [event.attempt for event in self.read(world) if event.attempt is not None]

        assert {(one.id, one.status) for one in told} == {(attempt_id, AttemptStatus.FAILED)}

    @pytest.mark.parametrize("succeeds", [True, False])
    async def test_a_refund_is_told_in_events(self, world: RemoteWorld, succeeds: bool) -> None:
        wish, _order, attempt = await self.paid(world)
        refund = await world.gateway.refund(
            attempt.id,
            amount_minor=world.step_minor,
            currency=wish.currency,
            reference="refund-" + wish.reference,
        )
        await world.finish_refund(refund.id, succeeds=succeeds)

        told = [event.refund for event in self.read(world) if event.refund is not None]

        assert {(one.id, one.payment_id, one.amount_minor) for one in told} == {
            (refund.id, attempt.id, world.step_minor)
        }
        assert {one.reference for one in told} == {"refund-" + wish.reference}
        assert told[-1].status is (RefundStatus.DONE if succeeds else RefundStatus.FAILED)

    @pytest.mark.parametrize("outcome", DisputeStatus)
    async def test_a_dispute_is_told_in_events(self, world: RemoteWorld, outcome: DisputeStatus) -> None:
        wish, _order, attempt = await self.paid(world)
        await world.dispute(attempt.id, outcome)

        told = [event.dispute for event in self.read(world) if event.dispute is not None]

        assert {(one.payment_id, one.amount_minor, one.currency) for one in told} == {
            (attempt.id, wish.amount_minor, wish.currency)
        }
        assert len({one.id for one in told}) == 1
        assert told[0].status is DisputeStatus.OPEN
        assert told[-1].status is outcome

    async def test_an_event_is_about_one_thing_at_most_and_has_an_id_of_its_own(
        self, world: RemoteWorld
    ) -> None:
        wish, _order, attempt = await self.paid(world)
        await world.gateway.refund(
            attempt.id,
            amount_minor=world.step_minor,
            currency=wish.currency,
            reference="refund-" + wish.reference,
        )
        await world.dispute(attempt.id)

        events, again = self.read(world), self.read(world)

        assert events == again
        assert len({event.id for event in events}) == len(events)
        for event in events:
            assert event.kind
            assert event.at_ms > 1_600_000_000_000
            assert [event.attempt, event.refund, event.dispute, event.method].count(None) >= 3

    async def test_an_edited_event_is_none(self, world: RemoteWorld) -> None:
        """The signature is over the very bytes."""
        await self.paid(world)
        event = world.events()[-1]
        body = event.body
        edited = [
            body + b" ",
            body[:-1],
            b" " + body,
            body.replace(b'"id"', b'"iD"', 1),
            body.replace(b":", b": ", 1),
            *(
                body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]
                for at in range(0, len(body), max(1, len(body) // 50))
            ),
        ]
        for other in edited:
            with pytest.raises(WebhookInvalid):
                world.gateway.read_webhook(other, event.headers)

    async def test_a_signature_of_another_event_is_none(self, world: RemoteWorld) -> None:
        await self.paid(world)
        await self.paid(world)
        events = world.events()

        with pytest.raises(WebhookInvalid):
            world.gateway.read_webhook(events[0].body, events[-1].headers)

    @pytest.mark.parametrize("signature", NO_SIGNATURES)
    async def test_a_forged_signature_is_none(self, world: RemoteWorld, signature: Any) -> None:
        await self.paid(world)
        event = world.events()[-1]
        names = [name for name in event.headers if "signature" in name]
        assert names

        with pytest.raises(WebhookInvalid):
            world.gateway.read_webhook(event.body, {**event.headers, **dict.fromkeys(names, signature)})
        with pytest.raises(WebhookInvalid):
            world.gateway.read_webhook(
                event.body, {key: value for key, value in event.headers.items() if key not in names}
            )

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"null",
            b"[]",
            b"{}",
            b"7",
            b'"text"',
            b"{",
            b"\xff",
            b"[" * 100_000,
            b"x" * 1_000_000,
            b'{"event": 1}',
        ],
        ids=range(11),
    )
    async def test_a_signed_body_that_is_no_event_is_none(self, world: RemoteWorld, body: bytes) -> None:
        event = world.sign(body)

        with pytest.raises(WebhookInvalid):
            world.gateway.read_webhook(event.body, event.headers)
