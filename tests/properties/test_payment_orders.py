"""One truth under any delivery: every order of the same news, repeated or not, leaves one payment, one credit and the same state."""

import itertools
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final

import pytest

from billing_engine.ledger.accounts import gateway_of
from billing_engine.payments.errors import SignatureInvalid, WebhookInvalid
from billing_engine.payments.model import Attempt, AttemptStatus, Payment, PaymentStatus
from billing_engine.payments.schedule import GIVE_UP_AFTER_MS
from tests.support.consult_checks import check_books
from tests.support.payments import AMOUNT, Till, a_till

C: Final = AttemptStatus.COLLECTED
A: Final = AttemptStatus.AUTHORIZED
F: Final = AttemptStatus.FAILED
P: Final = AttemptStatus.PENDING

News = Callable[[Till, Payment, dict[str, Attempt]], Awaitable[None]]


def event(name: str, attempt: str, status: AttemptStatus) -> News:
    """A webhook about a try, saying what was true when it was sent."""

    async def hear(till: Till, payment: Payment, tries: dict[str, Attempt]) -> None:
        old = tries[attempt]
        told = Attempt(old.id, old.order_id, None, old.amount_minor, old.currency, status, 0)
        await till.hear(f"{payment.id}-{name}", told)

    return hear


def callback(attempt: str) -> News:
    async def verify(till: Till, payment: Payment, tries: dict[str, Attempt]) -> None:
        await till.verify(payment, tries[attempt].id, payment.payer_id)

    return verify


async def question(till: Till, payment: Payment, _tries: dict[str, Attempt]) -> None:
    """We ask by ourselves."""
    await till.world.payments._ask(await till.stored(payment.id))


async def forgery(till: Till, payment: Payment, tries: dict[str, Attempt]) -> None:
    """Somebody without the secret says that it is paid, by callback and by webhook, and changes a true event."""
    paid = next(iter(tries.values()))
    with pytest.raises(SignatureInvalid):
        await till.world.payments.verify(
            gateway=till.gateway.name,
            payer_id=payment.payer_id,
            order_id=payment.order_id or "",
            attempt_id=paid.id,
            signature="0" * 64,
        )
    body, headers = till.gateway.event(f"{payment.id}-forged", paid)
    with pytest.raises(WebhookInvalid):
        await till.world.webhooks.take(till.gateway.name, body=body + b" ", headers=headers)


#: name → (how the tries end at the gateway, what we may hear of it, in any order)
SETS: Final[dict[str, tuple[dict[str, AttemptStatus], list[News]]]] = {
    "paid": (
        {"a": C},
        [
            event("authorized", "a", A),
            event("captured", "a", C),
            event("order.paid", "a", C),
            callback("a"),
            question,
            forgery,
        ],
    ),
    "failed, and authorised late": (
        {"a": C},
        [
            event("created", "a", P),
            event("failed", "a", F),
            event("authorized", "a", A),
            event("captured", "a", C),
            event("order.paid", "a", C),
            question,
        ],
    ),
    "failed, then paid by another try": (
        {"a": F, "b": C},
        [
            event("failed", "a", F),
            event("pending", "b", P),
            event("authorized", "b", A),
            event("captured", "b", C),
            callback("b"),
            question,
        ],
    ),
}


def with_repeats(news: Sequence[News]) -> list[tuple[News, ...]]:
    """Every order, and every order in which each one comes twice in a row or all come again at the end."""
    orders = list(itertools.permutations(news))
    return [
        *orders,
        *(tuple(one for one in order for _ in range(2)) for order in orders[::7]),
        *(order + order for order in orders[::7]),
    ]


@pytest.mark.parametrize("name", SETS)
async def test_every_order_of_the_news_leaves_one_credit(name: str, tmp_path: Path) -> None:
    ends, news = SETS[name]
    async with a_till(tmp_path / "till.db") as till:
        for number, order in enumerate(with_repeats(news)):
            payment = await till.order(f"r{number}", f"u{number}")
            assert payment.order_id is not None
            tries = {key: till.gateway.pay(payment.order_id, status=end) for key, end in ends.items()}
            for one in order:
                await one(till, payment, tries)
            await till.check_paid_once_of(payment)
        assert till.world.troubles == []
        number += 1
        await check_books(till.world)
        assert await till.world.ledger.balance(gateway_of("razorpay"), "INR") == -AMOUNT * number


async def test_an_order_that_is_paid_twice_is_credited_once_and_the_second_money_goes_back(
    tmp_path: Path,
) -> None:
    news = [
        event("a", "a", C),
        event("b", "b", C),
        event("again a", "a", C),
        callback("a"),
        callback("b"),
        question,
    ]
    async with a_till(tmp_path / "till.db") as till:
        for number, order in enumerate(itertools.permutations(news)):
            payment = await till.order(f"r{number}", f"u{number}")
            assert payment.order_id is not None
            tries = {key: till.gateway.pay(payment.order_id) for key in "ab"}
            till.gateway.sent_back.clear()
            for one in order:
                await one(till, payment, tries)
            stored = await till.check_paid_once_of(payment)
            (back,) = till.gateway.sent_back.values()
            assert {back.payment_id, stored.collected_id} == {tries["a"].id, tries["b"].id}
            assert back.amount_minor == AMOUNT
        await check_books(till.world)
        assert len(till.world.troubles) >= number


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
async def test_what_nobody_pays_is_failed_until_it_expires_and_is_taken_even_then(
    order: tuple[int, ...], tmp_path: Path
) -> None:
    async with a_till(tmp_path / "till.db") as till:
        payment = await till.order()
        assert payment.order_id is not None
        tries = {
            "a": till.gateway.pay(payment.order_id, status=F),
            "b": till.gateway.pay(payment.order_id, status=F),
        }
        news = [event("created", "a", P), event("failed a", "a", F), event("failed b", "b", F)]
        for index in order:
            await news[index](till, payment, tries)
        assert (await till.stored()).status is PaymentStatus.FAILED
        await till.settle()
        assert (await till.stored()).status is PaymentStatus.EXPIRED
        assert till.clock.now_ms() - payment.created_at_ms >= GIVE_UP_AFTER_MS
        # Days later the bank answers after all.
        late = till.gateway.becomes(tries["a"].id, C)
        await till.hear("late", late)
        await till.check_paid_once()


@pytest.mark.parametrize(
    ("amount_minor", "currency"), [(AMOUNT - 1, "INR"), (AMOUNT + 1, "INR"), (AMOUNT, "USD")]
)
@pytest.mark.parametrize("status", [A, C])
async def test_money_that_is_not_the_orders_is_nobodys_to_credit(
    amount_minor: int, currency: str, status: AttemptStatus, tmp_path: Path
) -> None:
    async with a_till(tmp_path / "till.db") as till:
        payment = await till.order()
        assert payment.order_id is not None
        paid = till.gateway.pay(payment.order_id, status=status)
        wrong = Attempt(paid.id, paid.order_id, None, amount_minor, currency, status, 0)
        till.gateway.tries[paid.id] = wrong
        await till.hear("e1", wrong)
        await till.verify(payment, paid.id)
        assert await till.wallet() == 0
        assert till.gateway.captures == []
        assert set(till.world.troubles) == {"a payment is not of its order's amount"}
