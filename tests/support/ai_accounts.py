"""A subscriber's account, to be driven by hand: the shipped tiers, a price that makes round numbers, and what tests say of both."""

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

from billing_engine.clock import Moment
from billing_engine.ledger.accounts import ai_credits_of
from billing_engine.ledger.model import Account, Entry, Hold, key_of
from billing_engine.money import AI_CREDIT
from billing_engine.subscriptions.account import (
    Outcome,
    PaidCycle,
    Plan,
    Upgrade,
    Wanted,
    apply_upgrade,
    begin_call,
    begin_paid,
    end_call,
    end_with_cycle,
    grant_source,
    hold_id_of,
    plan_of,
    rolled,
    upgrade_source,
)
from billing_engine.subscriptions.model import CYCLE_MS, ModelPrice, Provider, Tokens
from server.tier_file import SHIPPED, load_tiers

TIERS: Final = load_tiers(SHIPPED)
DAY_MS: Final = 86_400_000
START_MS: Final = 1_767_225_600_000
#: gpt-4-turbo as the document has it.
TURBO: Final = ModelPrice(Provider.OPENAI, "gpt-4-turbo", Decimal("0.01"), Decimal("0.03"), 128_000, 4_096)
#: A small model that every tier may use: a hundred tokens in cost a tenth of a credit, and out the same.
MINI: Final = ModelPrice(Provider.OPENAI, "gpt-4o-mini", Decimal("0.01"), Decimal("0.01"), 128_000, 4_096)


@dataclass
class Subscriber:
    """One account and its clock. What is committed is remembered by key, as the ledger does."""

    now_ms: int = START_MS
    account: Account = field(default_factory=lambda: Account(ai_credits_of("u1"), AI_CREDIT.code))
    entries: dict[str, Entry] = field(default_factory=dict)

    @property
    def plan(self) -> Plan:
        return plan_of(self.account)

    @property
    def left(self) -> int:
        """Thousandths of a credit that can be spent."""
        return self.account.spendable

    @property
    def moment(self) -> Moment:
        return Moment(self.now_ms, f"day-{self.now_ms // DAY_MS}")

    def _store(self, account: Account) -> None:
        for entry in account.tail:
            self.entries.setdefault(entry.key, entry)
        self.account = account._replace(tail=())

    def _known(self, source: str) -> Entry | None:
        return self.entries.get(key_of(self.account.id, source))

    def roll(self) -> None:
        self._store(rolled(self.account, TIERS, self.moment))

    def pay(
        self, tier: str, start_ms: int, *, name: str | None = None, invoice: str = "stripe:in_1"
    ) -> Entry | None:
        cycle = PaidCycle(name or f"sub-{start_ms}", tier, start_ms, start_ms + CYCLE_MS, invoice)
        known = self._known(grant_source(cycle.name))
        account, entry = begin_paid(self.account, known, paid=cycle, tiers=TIERS, moment=self.moment)
        self._store(account)
        return entry

    def stop(self, *, ends: bool = True, at_once: bool = False) -> None:
        self._store(end_with_cycle(self.account, ends=ends, at_once=at_once, moment=self.moment, tiers=TIERS))

    def upgrade(self, id_: str, tier: str, credits_milli: int, *, resets: bool = False) -> Entry:
        upgrade = Upgrade(id_, tier, credits_milli, resets)
        account = rolled(self.account, TIERS, self.moment)
        account, entry = apply_upgrade(
            account, self._known(upgrade_source(id_)), upgrade=upgrade, tiers=TIERS, moment=self.moment
        )
        self._store(account)
        return entry

    def begin(self, call_id: str, most: Tokens, price: ModelPrice = TURBO) -> Hold:
        wanted = Wanted(call_id, "me", price, most)
        account, hold = begin_call(self.account, None, wanted=wanted, tiers=TIERS, moment=self.moment)
        self._store(account)
        return hold

    def end(
        self,
        call_id: str,
        tokens: Tokens | None,
        price: ModelPrice = TURBO,
        *,
        is_counted: bool = True,
        **facts: Any,
    ) -> Entry:
        hold_id = hold_id_of(call_id)
        known = self._known(hold_id)
        hold = self.account.holds.get(hold_id) or Hold(hold_id, 0, 1, 1, "me", {})
        account, entry = end_call(
            self.account,
            known,
            hold=hold,
            outcome=Outcome(tokens, facts or {"outcome": "OK", "latencyMs": 5}, is_counted),
            price=price,
            markup=Decimal(1),
            moment=self.moment,
        )
        self._store(account)
        return entry

    def call(self, call_id: str, tokens: Tokens, price: ModelPrice = TURBO) -> Entry:
        self.begin(call_id, tokens, price)
        return self.end(call_id, tokens, price)


def paid(tier: str = "professional") -> Subscriber:
    """Somebody whose paid cycle begins now."""
    subscriber = Subscriber()
    subscriber.pay(tier, START_MS)
    return subscriber
