"""A company's wallet beside a model of plain numbers: usages, recharges by hand and by itself, declines, refunds, holds, months and time zones
in any order, each step sent again.

The account goes through JSON after every step, as it does in the store.
"""

from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from billing_engine.clock import Moment
from billing_engine.ledger.accounts import REVENUE_USAGE, company_wallet_of, gateway_of, receivable_of
from billing_engine.ledger.model import (
    Account,
    Entry,
    Transfer,
    close_hold,
    drop_tail,
    effect_on,
    open_hold,
)
from billing_engine.usage.book import (
    AUTO_RECHARGE,
    BACK_OFF_MS,
    OWED_COLLECTED,
    RECHARGE,
    REFUND,
    AutoRecharge,
    Credit,
    Short,
    book_of,
    charge,
    credit,
    declined,
    is_owed,
    refund,
    refund_source,
    set_auto,
    set_thresholds,
)
from billing_engine.usage.days import day_in
from billing_engine.usage.model import Usage, UsageStatus, is_usage_kind

COMPANY = "c1"
WALLET = company_wallet_of(COMPANY)
LARGEST = 2_000
ZONES = ("UTC", "Pacific/Kiritimati", "Pacific/Niue", "Asia/Kolkata")
_MINUTE_MS = 60_000

MONEY = st.integers(1, 1_500)


@dataclass
class Model:
    """What must be so, in plain numbers."""

    cash: int = 0
    held: int = 0
    owed: int = 0
    spent: int = 0
    by_month: dict[str, int] = field(default_factory=dict)
    #: The newest day on which anything was used; days never go back.
    day: str = ""
    refunded: int = 0
    invoices: int = 0
    auto: AutoRecharge = field(default_factory=AutoRecharge)
    open: str | None = None
    opened: int = 0
    declines: int = 0
    not_before_ms: int = 0
    thresholds: tuple[int, ...] = ()

    @property
    def spendable(self) -> int:
        return self.cash - self.held

    def may_open(self, now_ms: int) -> bool:
        wants = self.auto.is_enabled and self.auto.method_id is not None
        return wants and self.open is None and self.declines < 3 and now_ms >= self.not_before_ms

    def collect(self) -> None:
        paid = min(self.owed, self.spendable)
        self.owed -= paid
        self.cash -= paid


class WalletMachine(RuleBasedStateMachine):
    """The pure functions, as the ledger calls them: the newest account and the key's entry in, the next account out."""

    def __init__(self) -> None:
        super().__init__()
        self.account = Account(WALLET, "USD")
        self.entries: dict[str, Entry] = {}
        self.model = Model()
        self.now_ms = 1_772_000_000_000
        self.zone = "UTC"
        self.names = 0
        self.usages: list[Usage] = []
        self.waiting: list[Usage] = []
        #: Recharges that were declined, with their amounts, and those that were paid.
        self.lapsed: dict[str, int] = {}
        self.holds: list[str] = []
        self.given_back: set[str] = set()
        self.credits: list[Credit] = []

    # -- how the ledger does it

    @property
    def moment(self) -> Moment:
        return Moment(self.now_ms, day_in(self.zone, self.now_ms))

    def known(self, source: str) -> Entry | None:
        return self.entries.get(f"{WALLET}|{source}")

    def take(self, account: Account) -> None:
        """Commit: the tail is copied out, the facts are stored as JSON."""
        for entry in account.tail:
            assert entry.key not in self.entries, "a key ends once"
            assert entry.seq == len(self.entries) + 1
            self.entries[entry.key] = entry
        facts = orjson.loads(orjson.dumps(dict(account.facts)))
        self.account = drop_tail(account, frozenset(entry.key for entry in account.tail))._replace(
            facts=facts
        )

    def name(self, kind: str) -> str:
        self.names += 1
        return f"{kind}{self.names}"

    def changes_nothing(self, account: Account) -> None:
        assert account == self.account

    # -- usages

    def decide(self, usage: Usage, *, waits: bool) -> None:
        recharge_id = self.name("p")
        model = self.model
        short_of = usage.cost_minor + model.owed - model.spendable
        account, answer = charge(
            self.account,
            self.known(usage.source),
            usage=usage,
            moment=self.moment,
            recharge_id=recharge_id,
            largest_recharge_minor=LARGEST,
            waits=waits,
        )
        before = self.account
        self.take(account)
        covered = model.spendable >= usage.cost_minor
        if not covered and waits and (model.open is not None or model.may_open(self.now_ms)):
            assert isinstance(answer, Short)
            assert (self.account.posted, self.account.seq) == (before.posted, before.seq)
            if model.open is None:
                self.opens(recharge_id, short_of)
            assert answer.recharge == book_of(self.account).open
            self.waiting.append(usage)
            return
        assert isinstance(answer, Entry)
        assert is_owed(answer) == (not covered)
        crossed = [t for t in model.thresholds if model.spendable >= t > model.spendable - usage.cost_minor]
        assert answer.facts.get("crossed", []) == (crossed if covered else [])
        assert bool(answer.facts.get("owing")) == (not covered and model.owed == 0)
        day = max(model.day, self.moment.day)
        assert answer.day == day
        model.day = day
        model.spent += usage.cost_minor
        model.by_month[day[:7]] = model.by_month.get(day[:7], 0) + usage.cost_minor
        if covered:
            model.cash -= usage.cost_minor
        else:
            model.owed += usage.cost_minor
        self.usages.append(usage)

    def opens(self, id_: str, need: int) -> None:
        """The smallest multiple that covers the need, and no more than may be."""
        model = self.model
        model.open, model.opened = id_, model.opened + 1
        opened = book_of(self.account).open
        assert opened is not None
        step = model.auto.amount_minor
        assert (opened.id, opened.no, opened.method_id) == (id_, model.opened, model.auto.method_id)
        assert opened.amount_minor % step == 0
        assert opened.amount_minor - step < max(need, 1)
        assert opened.amount_minor >= need or opened.amount_minor + step > LARGEST
        assert opened.amount_minor <= max(LARGEST, step)

    @rule(cost=MONEY, waits=st.booleans(), used_ago_ms=st.integers(0, 10**9))
    def use(self, cost: int, waits: bool, used_ago_ms: int) -> None:
        id_ = self.name("u")
        usage = Usage(
            id_, COMPANY, None, "j1", "t", "T", "unit", cost, cost, "tokens",
            UsageStatus.QUEUED, self.now_ms - used_ago_ms, self.now_ms,
        )  # fmt: skip
        self.decide(usage, waits=waits)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data(), waits=st.booleans())
    def try_again(self, data: st.DataObject, waits: bool) -> None:
        usage = self.waiting.pop(data.draw(st.integers(0, len(self.waiting) - 1)))
        self.decide(usage, waits=waits)

    @precondition(lambda self: self.usages)
    @rule(data=st.data())
    def charge_again(self, data: st.DataObject) -> None:
        usage = data.draw(st.sampled_from(self.usages))
        first = self.known(usage.source)
        account, again = charge(
            self.account, first, usage=usage, moment=self.moment, recharge_id="x", largest_recharge_minor=1
        )
        self.changes_nothing(account)
        assert again is first

    # -- money that comes

    def pay(self, paid: Credit) -> None:
        next_id = self.name("p")
        model = self.model
        model.cash += paid.amount_minor
        model.invoices += 1
        if model.open == paid.payment_id:
            model.open, model.declines, model.not_before_ms = None, 0, 0
        model.collect()
        account, entry = credit(
            self.account,
            self.known(paid.source),
            paid=paid,
            moment=self.moment,
            next_id=next_id,
            largest_recharge_minor=LARGEST,
        )
        self.take(account)
        assert entry.kind == (AUTO_RECHARGE if paid.is_auto else RECHARGE)
        assert entry.facts["invoice"] == model.invoices
        if model.owed > 0 and model.may_open(self.now_ms):
            self.opens(next_id, model.owed - model.spendable)
        self.credits.append(paid)

    @precondition(lambda self: self.model.open is not None)
    @rule()
    def the_recharge_is_paid(self) -> None:
        opened = book_of(self.account).open
        assert opened is not None
        self.pay(self.credit_of(opened.id, opened.amount_minor, is_auto=True))

    @rule(amount=MONEY)
    def recharge_by_hand(self, amount: int) -> None:
        self.pay(self.credit_of(self.name("hand"), amount, is_auto=False))

    @precondition(lambda self: self.lapsed)
    @rule()
    def a_declined_one_is_paid_after_all(self) -> None:
        """Whatever is open meanwhile stays open."""
        id_, amount = self.lapsed.popitem()
        self.pay(self.credit_of(id_, amount, is_auto=True))

    def credit_of(self, id_: str, amount: int, *, is_auto: bool) -> Credit:
        return Credit(id_, COMPANY, f"payment:gw:{id_}", "gw", f"pay_{id_}", amount, is_auto)

    @precondition(lambda self: self.credits)
    @rule(data=st.data())
    def credit_again(self, data: st.DataObject) -> None:
        paid = data.draw(st.sampled_from(self.credits))
        first = self.known(paid.source)
        account, again = credit(
            self.account, first, paid=paid, moment=self.moment, next_id="x", largest_recharge_minor=LARGEST
        )
        self.changes_nothing(account)
        assert again is first

    @precondition(lambda self: self.model.open is not None)
    @rule()
    def the_recharge_is_declined(self) -> None:
        model = self.model
        opened = book_of(self.account).open
        assert opened is not None
        account, book = declined(self.account, payment_id=opened.id, at_ms=self.now_ms)
        self.take(account)
        self.lapsed[opened.id] = opened.amount_minor
        model.open, model.declines = None, model.declines + 1
        model.not_before_ms = self.now_ms + (BACK_OFF_MS[0] if model.declines == 1 else BACK_OFF_MS[1])
        assert book.is_stopped == (model.declines >= 3)

    @rule(times=st.integers(2, 4), early=st.booleans())
    def the_bank_says_no_again_and_again(self, times: int, early: bool) -> None:
        """Each time as soon as it may be asked again, or a moment before that."""
        for _ in range(times):
            self.now_ms = max(self.now_ms, self.model.not_before_ms - early)
            self.use(self.model.spendable + 1, waits=True, used_ago_ms=0)
            if self.model.open is not None:
                self.the_recharge_is_declined()

    @rule(id_=st.sampled_from(("p1", "p2", "p3", "nobody's")))
    def news_of_another_is_declined(self, id_: str) -> None:
        if id_ != self.model.open:
            account, _ = declined(self.account, payment_id=id_, at_ms=self.now_ms)
            self.changes_nothing(account)

    # -- what the company asks for

    @rule(
        auto=st.builds(
            AutoRecharge, st.sampled_from((True, True, True, False)), st.integers(1, 700), st.sampled_from(("m1", "m2", "m1", None))
        )
    )  # fmt: skip
    def ask_for_automatic_recharges(self, auto: AutoRecharge) -> None:
        next_id = self.name("p")
        model = self.model
        model.auto, model.declines, model.not_before_ms = auto, 0, 0
        may = model.owed > 0 and model.may_open(self.now_ms)
        account, _ = set_auto(
            self.account, auto=auto, at_ms=self.now_ms, next_id=next_id, largest_recharge_minor=LARGEST
        )
        self.take(account)
        if may:
            self.opens(next_id, model.owed - model.spendable)

    @rule(thresholds=st.lists(st.integers(1, 900), max_size=3))
    def ask_for_warnings(self, thresholds: list[int]) -> None:
        account, _ = set_thresholds(self.account, thresholds)
        self.take(account)
        self.model.thresholds = tuple(sorted(set(thresholds), reverse=True))

    # -- money that goes elsewhere

    @precondition(lambda self: len(self.given_back) < len(self.usages))
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        """Once per usage; and what is repeated changes nothing."""
        left = [usage for usage in self.usages if usage.id not in self.given_back]
        usage = data.draw(st.sampled_from(left))
        charged = self.known(usage.source)
        assert charged is not None
        words: Any = {
            "charged": charged,
            "company_id": COMPANY,
            "reason": "bad",
            "by": "an admin",
            "moment": self.moment,
        }
        account, entry = refund(self.account, None, **words)
        self.take(account)
        self.given_back.add(usage.id)
        self.model.cash += usage.cost_minor
        self.model.refunded += usage.cost_minor
        self.model.collect()
        assert self.known(refund_source(usage.id)) == entry
        account, again = refund(self.account, entry, **words)
        self.changes_nothing(account)
        assert again is entry

    @precondition(lambda self: self.model.spendable > 0)
    @rule(data=st.data())
    def hold(self, data: st.DataObject) -> None:
        """Money that is on its way back to the payer's card, or disputed."""
        amount = data.draw(st.integers(1, self.model.spendable))
        id_ = self.name("hold")
        account, _ = open_hold(self.account, hold_id=id_, amount_minor=amount, owner="", facts={})
        self.take(account)
        self.holds.append(id_)
        self.model.held += amount

    @precondition(lambda self: self.holds)
    @rule(goes=st.booleans())
    def close(self, goes: bool) -> None:
        hold = self.account.holds[self.holds.pop()]
        transfers = (Transfer(WALLET, gateway_of("gw"), hold.amount_minor, "payer_refund"),) if goes else ()
        account, _ = close_hold(
            self.account, hold, kind="payer_refund", transfers=transfers, facts={}, at_ms=self.now_ms, day=self.moment.day
        )  # fmt: skip
        self.take(account)
        self.model.held -= hold.amount_minor
        self.model.cash -= hold.amount_minor if goes else 0

    # -- time

    @rule(minutes=st.sampled_from((1, 4, 5, 6, 59, 60, 600, 24 * 60, 20 * 24 * 60)))
    def wait(self, minutes: int) -> None:
        self.now_ms += minutes * _MINUTE_MS

    @rule(zone=st.sampled_from(ZONES))
    def move(self, zone: str) -> None:
        self.zone = zone

    # -- what must always be so

    @invariant()
    def the_book_is_the_model(self) -> None:
        account, book, model = self.account, book_of(self.account), self.model
        assert (account.posted, account.held) == (model.cash, model.held)
        assert account.spendable >= 0
        assert (book.spent_minor, book.owed_minor, book.refunded_minor) == (
            model.spent,
            model.owed,
            model.refunded,
        )
        assert book.spent_in(model.day[:7]) == model.by_month.get(model.day[:7], 0)
        assert book.day == model.day
        # A month that has only begun has nothing yet.
        assert book.spent_in("2999-01") == 0
        assert (None if book.open is None else book.open.id) == model.open
        assert (book.recharges, book.invoices) == (model.opened, model.invoices)
        assert (book.declines, book.not_before_ms) == (model.declines, model.not_before_ms)
        assert (book.auto, tuple(book.thresholds)) == (model.auto, model.thresholds)

    @invariant()
    def the_book_is_the_sum_of_the_entries(self) -> None:
        book, entries = book_of(self.account), list(self.entries.values())
        used = [entry for entry in entries if is_usage_kind(entry.kind)]
        sold = [entry.transfers[0].amount_minor for entry in used]
        assert book.spent_minor == sum(sold)
        assert book.month_spent_minor == sum(
            entry.transfers[0].amount_minor for entry in used if entry.day[:7] == book.day[:7]
        )
        assert [entry.day for entry in used] == sorted(entry.day for entry in used)
        assert self.account.posted == sum(effect_on(WALLET, entry.transfers) for entry in entries)
        transfers = tuple(transfer for entry in entries for transfer in entry.transfers)
        assert book.owed_minor == -effect_on(receivable_of(COMPANY), transfers)
        assert book.spent_minor - book.refunded_minor == effect_on(REVENUE_USAGE, transfers)
        owed = [entry for entry in used if is_owed(entry)]
        assert book.owed_ever_minor == sum(entry.transfers[0].amount_minor for entry in owed)
        # Its place in everything that was ever owed, and how far that is paid.
        upto = [entry.facts["owedUpto"] for entry in owed]
        assert upto == sorted(upto)
        assert upto[-1:] == ([book.owed_ever_minor] if owed else [])
        collected = [entry for entry in entries if entry.kind == OWED_COLLECTED]
        assert [entry.facts["collectedUpto"] for entry in collected][-1:] == (
            [book.collected_minor] if collected else []
        )
        invoices = [entry.facts["invoice"] for entry in entries if entry.kind in (RECHARGE, AUTO_RECHARGE)]
        assert invoices == list(range(1, book.invoices + 1))
        assert sum(entry.kind == REFUND for entry in entries) == len(self.given_back)
        before = 0
        for entry in entries:
            assert entry.posted_before == before
            before = entry.posted_after

    @invariant()
    def a_company_that_has_just_paid_has_either_money_or_debts(self) -> None:
        """What is owed was collected from all that there was; later usages that fit are charged all the same."""
        last = next(reversed(self.entries.values()), None)
        if last is not None and last.kind == OWED_COLLECTED:
            assert self.model.owed == 0 or last.posted_after == last.facts.get("held", 0)


STANDARD = settings(
    max_examples=100,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
WalletMachine.TestCase.settings = STANDARD
TestWalletMachine = WalletMachine.TestCase


class DeepWalletMachine(WalletMachine):
    """The same for longer."""


DeepWalletMachine.TestCase.settings = settings(STANDARD, max_examples=800, stateful_step_count=60)
TestDeepWalletMachine = pytest.mark.exhaustive(DeepWalletMachine.TestCase)
