"""A subscriber's credits, by the document's numbers: cycles, calls, limits and upgrades. Nothing is stored here."""

from decimal import Decimal
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing_engine.subscriptions.account import GRACE_MS
from billing_engine.subscriptions.errors import (
    LimitExceeded,
    ModelNotAvailable,
    NotEnoughCredits,
    ProviderNotAvailable,
    TooManyCalls,
)
from billing_engine.subscriptions.model import CYCLE_MS, ModelPrice, Provider, Tokens, cost_of
from billing_engine.subscriptions.upgrades import quote, quote_reset
from tests.support.ai_accounts import DAY_MS, MINI, START_MS, TIERS, TURBO, Subscriber, paid

CALL = Tokens(500, 2_000)
CLAUDE = ModelPrice(Provider.ANTHROPIC, "claude", Decimal("0.003"), Decimal("0.015"), 200_000, 4_096)


def tier(name: str):  # type: ignore[no-untyped-def]
    return TIERS.get(name)


# -- the document's numbers


def test_a_call_of_the_document_costs_six_and_a_half_credits() -> None:
    cost = cost_of(CALL, TURBO, Decimal(1))
    assert (cost.usd_minor, cost.credits_milli) == (65_000, 6_500)


def test_fifty_calls_cost_325_credits_of_9900() -> None:
    """Rounded to six each, the platform would lose 25 credits."""
    subscriber = paid()
    assert subscriber.left == 9_900_000
    for number in range(50):
        subscriber.call(f"c{number}", CALL)
    assert subscriber.left == 9_575_000
    plan = subscriber.plan
    assert (plan.requests, plan.tokens, plan.cost_minor) == (50, 125_000, 3_250_000)


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.decimals("0.000001", "1", places=6))
def test_credits_are_rounded_up_once_a_call(tokens_in: int, tokens_out: int, per_1k: Decimal) -> None:
    price = ModelPrice(Provider.OPENAI, "m", per_1k, per_1k, 0, 0)
    exact = (tokens_in + tokens_out) * per_1k / 1000 * 100_000
    assert 0 <= cost_of(Tokens(tokens_in, tokens_out), price, Decimal(1)).credits_milli - exact < 1


def test_an_upgrade_in_the_middle_costs_forty_and_brings_4000_credits() -> None:
    found = quote(tier("starter"), tier("professional"), remaining_ms=15 * DAY_MS)
    assert (found.amount_minor, found.credits_milli) == (40_000_000, 4_000_000)


def test_an_upgrade_on_the_last_day_brings_as_little_as_it_costs() -> None:
    found = quote(tier("starter"), tier("professional"), remaining_ms=DAY_MS)
    assert (found.amount_minor, found.credits_milli) == (2_670_000, 266_666)


@pytest.mark.parametrize(
    ("days", "unused_milli", "amount_minor"),
    [
        (15, 1_900_000, 89_500_000),  # half of the time is left: 9.50
        (30, 475_000, 94_250_000),  # a quarter of the credits is: 4.75
        (0, 1_900_000, 99_000_000),
        (15, 0, 99_000_000),
        # More than the allowance was never paid by this price.
        (30, 9_000_000, 80_000_000),
    ],
)
def test_a_new_cycle_costs_less_by_what_is_unused_of_time_and_credits(
    days: int, unused_milli: int, amount_minor: int
) -> None:
    found = quote_reset(
        tier("starter"), tier("professional"), remaining_ms=days * DAY_MS, unused_milli=unused_milli
    )
    assert (found.amount_minor, found.credits_milli) == (amount_minor, 9_900_000)


# -- upgrades


def test_an_upgrade_lifts_the_limits_and_keeps_what_was_used() -> None:
    subscriber = paid("starter")
    subscriber.call("c1", Tokens(1_000, 0), MINI)
    used = subscriber.plan.tokens, subscriber.plan.requests
    entry = subscriber.upgrade("p1", "professional", 4_000_000)
    plan = subscriber.plan
    assert (plan.tier, plan.end_ms, plan.allowance_milli) == ("professional", START_MS + CYCLE_MS, 5_900_000)
    assert (plan.tokens, plan.requests) == used
    assert subscriber.left == 5_900_000 - 1_000
    assert (entry.facts["was"], entry.facts["tier"]) == ("starter", "professional")


def test_an_upgrade_that_is_told_twice_is_one() -> None:
    subscriber = paid("starter")
    subscriber.upgrade("p1", "professional", 4_000_000)
    subscriber.upgrade("p1", "professional", 4_000_000)
    assert subscriber.left == 5_900_000


def test_of_two_upgrades_paid_in_the_wrong_order_the_higher_stays() -> None:
    subscriber = paid("starter")
    subscriber.upgrade("p2", "enterprise", 10_000)
    entry = subscriber.upgrade("p1", "professional", 4_000)
    assert subscriber.plan.tier == "enterprise"
    assert subscriber.left == 1_914_000
    # Else it would be counted as a downgrade.
    assert (entry.facts["was"], entry.facts["tier"]) == ("enterprise", "enterprise")


def test_a_reset_begins_a_cycle_and_is_one_change_of_tier() -> None:
    subscriber = paid("starter")
    subscriber.call("c1", Tokens(1_000, 0), MINI)
    subscriber.now_ms += 10 * DAY_MS
    subscriber.upgrade("p1", "professional", 9_900_000, resets=True)
    plan = subscriber.plan
    assert (plan.tier, plan.start_ms, plan.end_ms) == (
        "professional",
        subscriber.now_ms,
        subscriber.now_ms + CYCLE_MS,
    )
    assert (subscriber.left, plan.tokens, plan.requests) == (9_900_000, 0, 0)
    changes = [
        entry
        for entry in subscriber.entries.values()
        if "tier" in entry.facts and entry.facts.get("was") == "starter" != entry.facts["tier"]
    ]
    assert len(changes) == 1
    subscriber.upgrade("p1", "professional", 9_900_000, resets=True)
    assert subscriber.plan == plan


# -- limits


def refusal(subscriber: Subscriber, most: Tokens, price: ModelPrice = MINI) -> Exception:
    before = subscriber.account
    with pytest.raises(
        (NotEnoughCredits, LimitExceeded, TooManyCalls, ProviderNotAvailable, ModelNotAvailable)
    ) as caught:
        subscriber.begin("refused", most, price)
    assert subscriber.account == before
    return caught.value


def with_plan(subscriber: Subscriber, **facts: int) -> Subscriber:
    subscriber.account = subscriber.account._replace(facts={**subscriber.account.facts, **facts})
    return subscriber


def test_the_last_request_is_served_and_the_next_is_refused() -> None:
    subscriber = with_plan(paid("starter"), requests=999)
    subscriber.begin("last", Tokens(1, 0), MINI)
    # What is under way counts: a limit cannot be passed together.
    refused = refusal(subscriber, Tokens(1, 0))
    assert isinstance(refused, LimitExceeded)
    assert refused.facts["limit"] == "requests"
    assert (refused.facts["used"], refused.facts["allowed"]) == (1_000, 1_000)
    assert refused.facts["upgrade"] == "professional"
    assert refused.facts["resets_at_ms"] == START_MS + CYCLE_MS


def test_tokens_are_reserved_for_the_most_that_a_call_can_need() -> None:
    subscriber = with_plan(paid("starter"), tokens=499_000)
    subscriber.begin("one", Tokens(400, 100), MINI)
    subscriber.begin("two", Tokens(500, 0), MINI)
    refused = refusal(subscriber, Tokens(1, 0))
    assert isinstance(refused, LimitExceeded)
    assert refused.facts["limit"] == "tokens"
    subscriber.end("one", Tokens(10, 0), MINI)
    subscriber.begin("three", Tokens(490, 0), MINI)


def test_checks_come_in_the_documents_order() -> None:
    """Credits, limits, parallel calls, provider, model, and at last the cost: the first that fails is told."""
    subscriber = paid("starter")
    everything = with_plan(subscriber, requests=1_000)
    everything.account = everything.account._replace(posted=0)
    assert isinstance(refusal(everything, CALL, CLAUDE), NotEnoughCredits)
    everything.account = everything.account._replace(posted=1)
    assert isinstance(refusal(everything, CALL, CLAUDE), LimitExceeded)
    with_plan(everything, requests=0)
    refused = refusal(everything, CALL, CLAUDE)
    assert isinstance(refused, ProviderNotAvailable)
    assert refused.facts["upgrade"] == "professional"
    refused = refusal(everything, CALL, TURBO)
    assert isinstance(refused, ModelNotAvailable)
    assert refused.facts["upgrade"] == "professional"
    refused = refusal(everything, Tokens(200, 0), MINI)
    assert isinstance(refused, NotEnoughCredits)
    assert (refused.facts["required"], refused.facts["available"]) == ("0.20", "0.001")


def test_so_many_calls_at_once_and_no_more() -> None:
    subscriber = paid("starter")
    for number in range(5):
        subscriber.begin(f"c{number}", Tokens(1, 0), MINI)
    assert isinstance(refusal(subscriber, Tokens(1, 0)), TooManyCalls)
    subscriber.end("c0", None, MINI)
    subscriber.begin("c5", Tokens(1, 0), MINI)


def test_a_call_that_failed_costs_nothing_and_is_no_request() -> None:
    subscriber = paid("starter")
    subscriber.begin("c1", Tokens(500, 500), MINI)
    assert subscriber.left == 1_899_000
    subscriber.end("c1", None, MINI)
    assert (subscriber.left, subscriber.plan.requests, subscriber.plan.tokens) == (1_900_000, 0, 0)


# -- the end of a call


def test_a_call_is_ended_once() -> None:
    subscriber = paid()
    subscriber.begin("c1", CALL)
    first = subscriber.end("c1", CALL)
    assert subscriber.end("c1", Tokens(9_999, 9_999)) is first
    assert (subscriber.left, subscriber.plan.requests) == (9_893_500, 1)


def test_what_a_provider_counts_above_the_hold_is_taken_from_the_rest() -> None:
    subscriber = paid()
    subscriber.begin("c1", Tokens(0, 1_000))
    entry = subscriber.end("c1", Tokens(0, 2_000))
    assert (entry.facts["creditsMilli"], entry.facts["lossMilli"]) == (6_000, 0)
    assert subscriber.left == 9_894_000


def test_what_is_not_there_is_the_platforms_loss() -> None:
    subscriber = Subscriber()
    subscriber.begin("c1", Tokens(9_999, 0), MINI)
    entry = subscriber.end("c1", Tokens(200_000, 0), MINI)
    assert (entry.facts["creditsMilli"], entry.facts["lossMilli"]) == (100_000, 100_000)
    assert (subscriber.left, subscriber.account.posted) == (0, 0)


# -- cycles


@pytest.mark.parametrize("missed", [1, 2, 3])
def test_however_many_boundaries_have_passed_credits_are_reset_once(missed: int) -> None:
    subscriber = Subscriber()
    subscriber.call("c1", Tokens(1_000, 0), MINI)
    subscriber.now_ms += missed * CYCLE_MS + DAY_MS
    subscriber.roll()
    subscriber.roll()
    plan = subscriber.plan
    assert (subscriber.left, plan.requests, plan.tokens, plan.cost_minor) == (100_000, 0, 0, 0)
    assert (plan.start_ms, plan.end_ms) == (START_MS + missed * CYCLE_MS, START_MS + (missed + 1) * CYCLE_MS)
    kinds = [entry.kind for entry in subscriber.entries.values()]
    assert (kinds.count("ai_grant"), kinds.count("ai_expire")) == (2, 1)


def test_the_last_millisecond_of_a_cycle_is_of_that_cycle() -> None:
    subscriber = Subscriber()
    subscriber.roll()
    first = subscriber.plan
    subscriber.now_ms = first.end_ms - 1
    subscriber.roll()
    assert subscriber.plan == first
    subscriber.now_ms += 1
    subscriber.roll()
    assert subscriber.plan.start_ms == first.end_ms


def test_an_unpaid_cycle_goes_on_for_its_grace_and_then_is_free() -> None:
    subscriber = paid()
    subscriber.call("c1", CALL)
    end_ms = START_MS + CYCLE_MS
    subscriber.now_ms = end_ms + GRACE_MS - 1
    subscriber.roll()
    assert (subscriber.plan.tier, subscriber.left) == ("professional", 9_893_500)
    subscriber.now_ms += 1
    subscriber.roll()
    assert (subscriber.plan.tier, subscriber.left, subscriber.plan.start_ms) == ("free", 100_000, end_ms)


def test_a_cancelled_cycle_has_no_grace() -> None:
    subscriber = paid()
    subscriber.stop()
    subscriber.now_ms = START_MS + CYCLE_MS - 1
    subscriber.roll()
    assert subscriber.plan.tier == "professional"
    subscriber.now_ms += 1
    subscriber.roll()
    assert subscriber.plan.tier == "free"


def test_a_cancellation_that_was_taken_back_changes_nothing() -> None:
    subscriber = paid()
    before = subscriber.plan
    subscriber.stop()
    subscriber.stop(ends=False)
    assert subscriber.plan == before


def test_a_gateway_that_has_given_up_ends_it_at_once() -> None:
    subscriber = paid()
    subscriber.now_ms += DAY_MS
    subscriber.stop(at_once=True)
    assert (subscriber.plan.tier, subscriber.plan.start_ms) == ("free", subscriber.now_ms)
    assert subscriber.left == 100_000


def test_a_late_payment_begins_its_cycle_where_it_would_have_begun() -> None:
    subscriber = paid()
    subscriber.now_ms = START_MS + CYCLE_MS + GRACE_MS + DAY_MS
    subscriber.roll()
    subscriber.pay("professional", START_MS + CYCLE_MS)
    plan = subscriber.plan
    assert (plan.tier, plan.start_ms, plan.end_ms) == (
        "professional",
        START_MS + CYCLE_MS,
        START_MS + 2 * CYCLE_MS,
    )
    assert subscriber.left == 9_900_000


@pytest.mark.parametrize("order", list(permutations((0, 1, 1, 2, 0))))
def test_invoices_in_any_order_and_again_leave_the_newest_cycle(order: tuple[int, ...]) -> None:
    """Told in the third cycle. An older invoice never takes a newer cycle's credits, and none grants twice."""
    subscriber = Subscriber(now_ms=START_MS + 2 * CYCLE_MS + DAY_MS)
    for number in order:
        subscriber.pay("starter", START_MS + number * CYCLE_MS)
    assert subscriber.plan.start_ms == START_MS + 2 * CYCLE_MS
    assert subscriber.left == 1_900_000
    granted = [entry for entry in subscriber.entries.values() if entry.kind == "ai_grant"]
    assert len({entry.key for entry in granted}) == len(granted)


def test_a_repeated_invoice_gives_nothing_back() -> None:
    subscriber = paid()
    subscriber.call("c1", CALL)
    first = subscriber.pay("professional", START_MS)
    assert first is not None
    assert subscriber.left == 9_893_500


def test_a_call_over_the_boundary_is_paid_from_what_it_held_and_the_rest_expires() -> None:
    subscriber = paid()
    subscriber.begin("c1", Tokens(0, 2_000))  # holds 6 credits
    subscriber.now_ms = START_MS + CYCLE_MS
    subscriber.pay("professional", START_MS + CYCLE_MS)
    assert subscriber.left == 9_900_000
    entry = subscriber.end("c1", Tokens(0, 1_000))
    assert entry.facts["creditsMilli"] == 3_000
    # Neither what it used nor what it gives back is of the new cycle.
    assert (subscriber.left, subscriber.account.posted) == (9_900_000, 9_900_000)
    assert (subscriber.plan.requests, subscriber.plan.tokens) == (0, 0)


def test_a_call_over_the_boundary_does_not_count_against_the_new_limits() -> None:
    subscriber = Subscriber()
    subscriber.begin("old", Tokens(9_999, 0), MINI)
    subscriber.now_ms += CYCLE_MS
    subscriber.begin("new", Tokens(9_999, 0), MINI)
    assert len(subscriber.account.holds) == 2


def test_the_last_thousandth_expires_too() -> None:
    subscriber = Subscriber()
    subscriber.roll()
    subscriber.account = subscriber.account._replace(posted=1)
    subscriber.now_ms += CYCLE_MS
    subscriber.roll()
    assert subscriber.left == 100_000


def test_an_estimate_takes_no_more_than_was_held() -> None:
    """What the provider has counted is owed; what we guess of a stream that was left is not."""
    guessed, counted = paid("starter"), paid("starter")
    for subscriber, is_counted in ((guessed, False), (counted, True)):
        before = subscriber.account.spendable
        subscriber.begin("one", Tokens(100, 0), MINI)
        held = before - subscriber.account.spendable
        subscriber.end("one", Tokens(1_000_000, 0), MINI, is_counted=is_counted)
        taken = before - subscriber.account.spendable
        assert (taken == held) is not is_counted
        assert taken >= held
