"""A subscriber's account driven through any order of payments, calls, upgrades and days, beside a model of plain numbers."""

from dataclasses import dataclass
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from billing_engine.errors import BillingError
from billing_engine.ledger.model import KeyState, effect_on
from billing_engine.subscriptions.account import GRACE_MS, hold_id_of
from billing_engine.subscriptions.errors import (
    LimitExceeded,
    NotEnoughCredits,
    TooManyCalls,
)
from billing_engine.subscriptions.model import CYCLE_MS, Tokens
from tests.support.ai_accounts import DAY_MS, MINI, START_MS, TIERS, Subscriber

PAID = ("starter", "professional", "enterprise")
#: Of the small model: thousandths of a credit for a token.
MILLI = 1


@dataclass
class Call:
    """A call under way, as the model knows it."""

    held: int
    tokens: int
    cycle: int


@dataclass
class Cycle:
    """Which cycle it is: a number of the model's own, and what the document says of it."""

    number: int = 0
    tier: str = ""
    start_ms: int = 0
    end_ms: int = 0
    ends: bool = False
    tokens: int = 0
    requests: int = 0


class AiAccountMachine(RuleBasedStateMachine):
    """granted - used - expired = balance; never below nothing; nothing is granted twice; limits hold with calls under way."""

    calls = Bundle("calls")

    def __init__(self) -> None:
        super().__init__()
        self.them = Subscriber()
        self.cycle = Cycle()
        self.balance = self.granted = self.used = self.expired = self.lost = 0
        self.under_way: dict[str, Call] = {}
        self.begun: set[str] = set()
        self.upgraded: set[str] = set()
        self.ended: dict[str, Any] = {}
        self.number = 0

    # -- the model

    @property
    def held(self) -> int:
        return sum(call.held for call in self.under_way.values())

    def begins(self, tier: str, start_ms: int, end_ms: int) -> None:
        left = self.balance - self.held
        self.expired += left
        self.granted += TIERS.get(tier).credits_milli
        self.balance += TIERS.get(tier).credits_milli - left
        self.cycle = Cycle(self.cycle.number + 1, tier, start_ms, end_ms)

    def rolls(self) -> None:
        now_ms, cycle = self.them.now_ms, self.cycle
        if cycle.tier == "":
            self.begins("free", now_ms, now_ms + CYCLE_MS)
            return
        grace_ms = GRACE_MS if cycle.tier != "free" and not cycle.ends else 0
        if now_ms < cycle.end_ms + grace_ms:
            return
        start_ms = cycle.end_ms
        while start_ms + CYCLE_MS <= now_ms:
            start_ms += CYCLE_MS
        self.begins("free", start_ms, start_ms + CYCLE_MS)

    # -- what happens

    @rule(ms=st.sampled_from((1, DAY_MS, GRACE_MS, CYCLE_MS - 1, CYCLE_MS, 2 * CYCLE_MS + DAY_MS)))
    def time_passes(self, ms: int) -> None:
        self.them.now_ms += ms

    @rule()
    def is_looked_at(self) -> None:
        self.rolls()
        self.them.roll()

    @rule(tier=st.sampled_from(PAID), back=st.integers(0, 2))
    def is_paid(self, tier: str, back: int) -> None:
        """The invoice of this period of the calendar, or of an older one."""
        period = (self.them.now_ms - START_MS) // CYCLE_MS - back
        start_ms = START_MS + period * CYCLE_MS
        name = f"sub-{period}"
        if name not in self.begun:
            is_older = self.cycle.tier not in ("", "free") and start_ms <= self.cycle.start_ms
            is_over = start_ms + CYCLE_MS <= self.them.now_ms and start_ms <= self.cycle.start_ms
            if not is_older and not is_over:
                self.begun.add(name)
                self.begins(tier, start_ms, start_ms + CYCLE_MS)
        self.them.pay(tier, start_ms, name=name)

    @rule(at_once=st.booleans(), ends=st.booleans())
    def is_cancelled(self, at_once: bool, ends: bool) -> None:
        if self.cycle.tier not in ("", "free"):
            if at_once:
                self.cycle.end_ms = min(self.cycle.end_ms, self.them.now_ms)
            self.cycle.ends = ends
            self.rolls()
        self.them.stop(ends=ends, at_once=at_once)

    @rule(
        id_=st.integers(0, 4), tier=st.sampled_from(PAID), milli=st.integers(0, 10**6), resets=st.booleans()
    )
    def is_upgraded(self, id_: int, tier: str, milli: int, resets: bool) -> None:
        self.rolls()
        name = f"p{id_}"
        if name not in self.upgraded:
            self.upgraded.add(name)
            if resets:
                self.begins(tier, self.them.now_ms, self.them.now_ms + CYCLE_MS)
            else:
                self.granted += milli
                self.balance += milli
                # A subscription that has ended is not waited for again.
                self.cycle.ends = self.cycle.ends or self.cycle.tier == "free"
                if TIERS.get(tier).rank > TIERS.get(self.cycle.tier).rank:
                    self.cycle.tier = tier
        self.them.upgrade(name, tier, milli, resets=resets)

    @rule(target=calls, tokens=st.sampled_from((1, 100, 5_000, 9_999, 60_000, 400_000)))
    def begins_a_call(self, tokens: int) -> str:
        self.number += 1
        name = f"c{self.number}"
        expected = self.refusal(tokens)
        before = self.them.account
        try:
            self.them.begin(name, Tokens(tokens, 0), MINI)
        except BillingError as exc:
            assert type(exc) is expected, (exc, expected)  # noqa: PT017  (or it is not refused at all)
            # Not even the cycle: the next one who asks rolls it.
            assert self.them.account == before
            return name
        assert expected is None
        self.rolls()
        self.under_way[name] = Call(tokens * MILLI, tokens, self.cycle.number)
        return name

    def refusal(self, tokens: int) -> type[BillingError] | None:
        """What a call of so many tokens would be told, in the cycle of now; the model stays as it is."""
        kept = self.cycle, self.balance, self.granted, self.expired
        self.rolls()
        cycle, tier, left = self.cycle, TIERS.get(self.cycle.tier), self.balance - self.held
        self.cycle, self.balance, self.granted, self.expired = kept
        ours = [call for call in self.under_way.values() if call.cycle == cycle.number]
        if left <= 0:
            return NotEnoughCredits
        if cycle.requests + len(ours) >= tier.monthly_requests:
            return LimitExceeded
        if cycle.tokens + sum(call.tokens for call in ours) + tokens > tier.monthly_tokens:
            return LimitExceeded
        if len(self.under_way) >= tier.parallel_calls:
            return TooManyCalls
        return NotEnoughCredits if left < tokens * MILLI else None

    @rule(name=consumes(calls), counted=st.none() | st.sampled_from((0, 1, 50, 5_000, 9_999, 500_000)))
    def ends_a_call(self, name: str, counted: int | None) -> None:
        call = self.under_way.pop(name, None)
        if call is None:
            return
        cost = (counted or 0) * MILLI
        spendable = self.balance - self.held - call.held
        taken = min(cost, call.held)
        over = min(cost - taken, spendable)
        self.used += taken + over
        self.lost += cost - taken - over
        self.balance -= taken + over
        if call.cycle != self.cycle.number:
            self.balance -= call.held - taken
            self.expired += call.held - taken
        elif counted is not None:
            self.cycle.tokens += counted
            self.cycle.requests += 1
        self.ended[name] = self.them.end(name, None if counted is None else Tokens(counted, 0), MINI)

    @rule(counted=st.integers(0, 10**6))
    def is_ended_again(self, counted: int) -> None:
        for name, entry in self.ended.items():
            assert self.them.end(name, Tokens(counted, 0), MINI) is entry

    # -- what must be so

    @invariant()
    def the_account_is_the_models(self) -> None:
        account, plan = self.them.account, self.them.plan
        assert self.granted - self.used - self.expired == self.balance
        assert (account.posted, account.held, account.spendable) == (
            self.balance,
            self.held,
            self.balance - self.held,
        )
        assert account.spendable >= 0
        assert {hold.id for hold in account.holds.values()} == set(map(hold_id_of, self.under_way))
        assert (plan.tier, plan.start_ms, plan.end_ms, plan.ends) == (
            self.cycle.tier,
            self.cycle.start_ms,
            self.cycle.end_ms,
            self.cycle.ends,
        )
        assert (plan.tokens, plan.requests) == (self.cycle.tokens, self.cycle.requests)
        assert plan.cost_minor == plan.tokens * 10

    @invariant()
    def the_entries_say_the_same(self) -> None:
        entries = self.them.entries.values()
        assert all(entry.state is KeyState.POSTED for entry in entries)
        sums: dict[str, int] = {}
        for entry in entries:
            for transfer in entry.transfers:
                moved = effect_on(self.them.account.id, (transfer,))
                sums[transfer.kind] = sums.get(transfer.kind, 0) + moved
        assert sums.get("ai_grant", 0) + sums.get("ai_upgrade", 0) == self.granted
        assert sums.get("ai_call", 0) + sums.get("ai_over", 0) == -self.used
        assert sums.get("ai_expire", 0) == -self.expired
        assert sum(entry.facts.get("lossMilli", 0) for entry in entries) == self.lost
        assert sum(entry.facts.get("creditsMilli", 0) for entry in entries) == self.used


TestAiAccount = AiAccountMachine.TestCase
TestAiAccount.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
