"""What `verify-ledger` must find of companies' wallets: each rule is broken once, and open work is told from broken books."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import pytest

from billing_engine.clock import Moment
from billing_engine.ledger.accounts import company_wallet_of
from billing_engine.ledger.model import Account, Entry, KeyState, Transfer
from billing_engine.payments.model import Payment, PaymentStatus, Purpose
from billing_engine.usage.audit import UsageRecords, audit_usage
from billing_engine.usage.book import (
    AUTO_RECHARGE,
    OWED_COLLECTED,
    RECHARGE,
    REFUND,
    AutoRecharge,
    Credit,
    OpenRecharge,
    charge,
    credit,
    refund,
    set_auto,
)
from billing_engine.usage.model import Usage, UsageStatus
from billing_engine.usage.recharges import AUTO, BY_HAND, recharge_of
from billing_engine.usage.rollups import Counter, added, scopes_of
from billing_engine.usage.series import Kind, Series, Spending
from billing_engine.usage.service import settled_by
from billing_engine.verification import Findings, Verdict

US = "c1"
WALLET = company_wallet_of(US)
MAX = 10**12
LATER_MS = 1_000_000


@dataclass
class Room:
    """A company's books in which all is well, to be spoilt: a recharge by hand; usages in two months, one of them owed; an automatic
    recharge that paid the debt; a refund; a draft and a free usage; counters up to the last entry.
    """

    account: Account = field(default_factory=lambda: Account(WALLET, "USD"))
    entries: dict[str, Entry] = field(default_factory=dict)
    usages: dict[str, Usage] = field(default_factory=dict)
    payments: dict[str, Payment] = field(default_factory=dict)
    counters: list[Counter] = field(default_factory=list)
    counted: dict[str, int] = field(default_factory=dict)

    def says(self, now_ms: int = LATER_MS) -> Findings:
        records = UsageRecords(self.usages.values(), self.counters, self.counted)
        return audit_usage(records, self.payments, {WALLET: self.account}, self.entries, now_ms=now_ms)

    def note(self, account: Account) -> None:
        self.account = account
        self.entries |= {entry.key: entry for entry in account.tail if entry.key not in self.entries}

    def record(self, id_: str, cost: int, status: UsageStatus = UsageStatus.QUEUED) -> Usage:
        self.usages[id_] = Usage(
            id=id_,
            company_id=US,
            event_id=f"e-{id_}",
            job_id="j1" if id_ == "u1" else None,
            type="cv-parsing",
            entry_type="CV_PARSE",
            unit="cv",
            quantity=1 if cost else 0,
            cost_minor=cost,
            list_name="tokens",
            status=status,
            at_ms=1_000,
            created_at_ms=1_000,
            details={"priceList": "tokens", "priceMinor": cost or 500, "per": 1},
        )
        return self.usages[id_]

    def use(self, id_: str, cost: int, day: str) -> None:
        usage = self.record(id_, cost)
        account, entry = charge(
            self.account,
            None,
            usage=usage,
            moment=Moment(2_000, day),
            recharge_id="r",
            largest_recharge_minor=MAX,
            waits=False,
        )
        assert isinstance(entry, Entry)
        self.note(account)
        self.usages[id_] = settled_by(usage, entry)

    def pay(self, id_: str, amount: int, day: str, item: str) -> None:
        payment = self.payments[id_] = Payment(
            id=id_,
            purpose=Purpose.COMPANY,
            payer_id=US,
            account=WALLET,
            amount_minor=amount,
            currency="USD",
            gateway="stripe",
            status=PaymentStatus.PAID,
            created_at_ms=1_000,
            collected_id=f"pi_{id_}",
            item=item,
        )
        paid = Credit(
            payment_id=id_,
            company_id=US,
            source=recharge_of(payment).source,
            gateway="stripe",
            gateway_payment_id=f"pi_{id_}",
            amount_minor=amount,
            is_auto=item == AUTO,
        )
        account, _ = credit(
            self.account,
            None,
            paid=paid,
            moment=Moment(2_500, day),
            next_id="n",
            largest_recharge_minor=MAX,
        )
        self.note(account)

    def give_back(self, id_: str) -> None:
        account, _ = refund(
            self.account,
            None,
            charged=self.entry(f"usage:{id_}"),
            company_id=US,
            reason="Why.",
            by="an admin",
            moment=Moment(3_000, "2026-02-03"),
        )
        self.note(account)

    def entry(self, source: str) -> Entry:
        return self.entries[f"{WALLET}|{source}"]

    def spoil(self, of: str, /, **changes: Any) -> None:
        """Change the first entry of that kind."""
        key = next(key for key, entry in self.entries.items() if entry.kind == of)
        self.entries[key] = replace(self.entries[key], **changes)

    def drop(self, kind: str) -> None:
        del self.entries[next(key for key, entry in self.entries.items() if entry.kind == kind)]

    def usage(self, id_: str, **changes: Any) -> None:
        self.usages[id_] = replace(self.usages[id_], **changes)

    def payment(self, id_: str, **changes: Any) -> None:
        self.payments[id_] = replace(self.payments[id_], **changes)

    def facts(self, **changes: Any) -> None:
        self.account = self.account._replace(facts={**self.account.facts, **changes})

    def open(self, id_: str, amount: int = 700, at_ms: int = 5_000) -> None:
        self.facts(open=asdict(OpenRecharge(id_, 1, amount, "m", at_ms)), recharges=2)

    def count(self, month: str, scope: str, upto: int) -> None:
        mine = [
            one
            for one in self.entries.values()
            if one.day[:7] == month and scope in scopes_of(one) and one.seq <= upto
        ]
        self.counters.append(Counter(US, month, scope, max(one.seq for one in mine), added({}, mine)))


USAGE = "usage:CV_PARSE"


@pytest.fixture
def room() -> Room:
    room = Room()
    room.pay("p1", 1_000, "2026-01-30", BY_HAND)
    room.use("u1", 600, "2026-01-31")
    room.use("u2", 300, "2026-02-01")
    room.use("u3", 500, "2026-02-02")
    assert room.usages["u3"].status is UsageStatus.OWED
    auto = AutoRecharge(True, 800, "m")
    room.note(set_auto(room.account, auto=auto, at_ms=2_000, next_id="p2", largest_recharge_minor=MAX)[0])
    room.pay("p2", 800, "2026-02-03", AUTO)
    room.give_back("u2")
    room.record("d1", 400, UsageStatus.DRAFT)
    room.record("f1", 0, UsageStatus.FREE)
    for month, scope in (("2026-01", ""), ("2026-01", "j1"), ("2026-02", "")):
        room.count(month, scope, room.account.seq)
    room.counted[US] = room.account.seq
    found = room.says()
    assert found.verdict is Verdict.CLEAN, found
    assert found.counted == {"usages": 5, "company recharges": 2, "usage counters": 3}
    assert room.account.posted == 1_000 - 600 - 300 + 800 - 500 + 300
    return room


def transfers(room: Room, kind: str, **changes: Any) -> tuple[Transfer, ...]:
    entry = next(entry for entry in room.entries.values() if entry.kind == kind)
    return (replace(entry.transfers[0], **changes),)


def facts_of(room: Room, kind: str, **changes: Any) -> dict[str, Any]:
    entry = next(entry for entry in room.entries.values() if entry.kind == kind)
    return {**entry.facts, **changes}


def counter(room: Room, number: int, **changes: Any) -> None:
    room.counters[number] = replace(room.counters[number], **changes)


def series(room: Room, total: Spending, days: str) -> None:
    counter(room, 0, series={Kind("cv-parsing", "cv"): Series(total, days)})


def debt_moved_by_somebody_else(room: Room) -> None:
    room.entries["x"] = replace(
        room.entry("usage:u3"), key="wallet:x|y", account="wallet:x", kind="else", reference="z"
    )


def rekey(room: Room, kind: str, source: str) -> None:
    key = next(key for key, entry in room.entries.items() if entry.kind == kind)
    entry = room.entries.pop(key)
    room.entries[f"{WALLET}|{source}"] = replace(entry, key=f"{WALLET}|{source}")


OF_USAGE = "a usage's entry is of its cost, type, job and quantity"
COPY = "a charged usage is the copy of its entry"
TOTALS = "a company's totals are the sums of its entries"
COUNTER = "a counter is the sum of its entries"
IN_EVERY = "what is counted is in every counter"
CREDITS = "a company's recharge credits its amount"
PAID = "a company's recharge was paid"
#: What is done to the books, and the rule that must name it.
BROKEN: dict[str, tuple[Callable[[Room], Any], str]] = {
    "a charged usage without its entry": (lambda room: room.drop(USAGE), "a charged usage has its entry"),
    "an entry without its usage": (lambda room: room.usages.pop("u1"), "a usage's entry has its record"),
    "an entry of another company's usage": (
        lambda room: room.usage("u1", company_id="c2"),
        "a usage's entry has its record",
    ),
    "a usage of another cost": (
        lambda room: room.usage("u1", cost_minor=601, details={}),
        OF_USAGE,
    ),
    "an entry of another cost": (
        lambda room: room.spoil(USAGE, transfers=transfers(room, USAGE, amount_minor=601)),
        OF_USAGE,
    ),
    "an entry that pays somebody else": (
        lambda room: room.spoil(USAGE, transfers=transfers(room, USAGE, credit="revenue:credits")),
        OF_USAGE,
    ),
    "an entry of another type": (lambda room: room.spoil(USAGE, kind="usage:OTHER"), OF_USAGE),
    "an entry of another job": (
        lambda room: room.spoil(USAGE, facts=facts_of(room, USAGE, job="j2")),
        OF_USAGE,
    ),
    "an entry of another quantity": (
        lambda room: room.spoil(USAGE, facts=facts_of(room, USAGE, quantity=2)),
        OF_USAGE,
    ),
    "an entry in another unit": (
        lambda room: room.spoil(USAGE, facts=facts_of(room, USAGE, unit="token")),
        OF_USAGE,
    ),
    "an entry that moved nothing": (lambda room: room.spoil(USAGE, state=KeyState.REFUSED), OF_USAGE),
    "a row that says charged of what is owed": (
        lambda room: room.usage("u3", status=UsageStatus.CHARGED),
        COPY,
    ),
    "a row that says owed of what is charged": (lambda room: room.usage("u1", status=UsageStatus.OWED), COPY),
    "another balance": (lambda room: room.usage("u1", balance_minor=1), COPY),
    "another instant": (lambda room: room.usage("u1", charged_at_ms=1), COPY),
    "another place in the debts": (lambda room: room.usage("u3", owed_upto=1), COPY),
    "a draft that was charged": (
        lambda room: room.usage("u1", status=UsageStatus.DRAFT),
        "a draft or a free usage is not charged",
    ),
    "a free usage that was charged": (
        lambda room: room.usage("u1", status=UsageStatus.FREE),
        "a draft or a free usage is not charged",
    ),
    "a free usage that costs": (
        lambda room: room.usage("d1", status=UsageStatus.FREE),
        "a usage is free if it costs nothing",
    ),
    "a draft that costs nothing": (
        lambda room: room.usage("f1", status=UsageStatus.DRAFT),
        "a usage is free if it costs nothing",
    ),
    "a quantity that does not cost that": (
        lambda room: room.usage("d1", quantity=2),
        "a usage costs its quantity at its price",
    ),
    **{
        f"another {name}": (lambda room, name=name, value=value: room.facts(**{name: value}), TOTALS)  # type: ignore[misc]
        for name, value in {
            "day": "2026-02-01",
            "spent_minor": 1_401,
            "month_spent_minor": 1_400,
            "owed_ever_minor": 501,
            "collected_minor": 499,
            "refunded_minor": 0,
            "invoices": 3,
        }.items()
    },
    "a debt that is not receivable": (
        debt_moved_by_somebody_else,
        "a company's debt is what is receivable of it",
    ),
    "more was collected than was owed": (
        lambda room: room.facts(collected_minor=501),
        "a company's debt is what is receivable of it",
    ),
    "more automatic recharges than were opened": (
        lambda room: room.facts(recharges=0),
        "an automatic recharge was opened",
    ),
    "totals that nobody can read": (
        lambda room: room.facts(nonsense=1),
        "a company's totals can be read",
    ),
    "an invoice's number twice": (
        lambda room: room.spoil(AUTO_RECHARGE, facts=facts_of(room, AUTO_RECHARGE, invoice=1)),
        "invoices are numbered without a gap",
    ),
    "a usage that is owed out of order": (
        lambda room: room.entries.update(
            {
                room.entry("usage:u3").key: replace(
                    room.entry("usage:u3"), facts={**room.entry("usage:u3").facts, "owedUpto": 1}
                )
            }
        ),
        "a debt has its place in the order",
    ),
    "a debt that was paid out of order": (
        lambda room: room.spoil(OWED_COLLECTED, facts=facts_of(room, OWED_COLLECTED, collectedUpto=1)),
        "a debt has its place in the order",
    ),
    "a debt that was paid from nothing": (
        lambda room: rekey(room, OWED_COLLECTED, "collect:payment:stripe:pi_p1"),
        "a debt is paid in the write of what came in",
    ),
    "a debt that was paid after a usage": (
        lambda room: room.drop(AUTO_RECHARGE),
        "a debt is paid in the write of what came in",
    ),
    "a line that begins elsewhere": (
        lambda room: room.spoil(AUTO_RECHARGE, posted_before=99),
        "a company's ledger line begins where the last one ended",
    ),
    "a first line that begins with money": (
        lambda room: room.spoil(RECHARGE, posted_before=1),
        "a company's ledger line begins where the last one ended",
    ),
    "a refund of more": (
        lambda room: room.spoil(REFUND, transfers=transfers(room, REFUND, amount_minor=301)),
        "a refund gives back what its usage cost, once",
    ),
    "a refund of nothing": (
        lambda room: room.spoil(REFUND, reference="u9"),
        "a refund gives back what its usage cost, once",
    ),
    "a refund under another name": (
        lambda room: rekey(room, REFUND, "refund:u2:again"),
        "a refund gives back what its usage cost, once",
    ),
    "a paid recharge without its entry": (
        lambda room: room.drop(RECHARGE),
        "a paid recharge of a company has its entry",
    ),
    "a recharge that came back, without its entry": (
        lambda room: (room.payment("p1", status=PaymentStatus.REFUNDED), room.drop(RECHARGE)),
        "a paid recharge of a company has its entry",
    ),
    "a recharge of another amount": (lambda room: room.payment("p1", amount_minor=1), CREDITS),
    "a recharge of another kind": (lambda room: room.payment("p1", item=AUTO), CREDITS),
    "a recharge of another company's payment": (lambda room: room.payment("p1", payer_id="c2"), CREDITS),
    "a recharge that nobody paid": (lambda room: room.payments.pop("p1"), PAID),
    "a recharge of a payment that brought nothing": (
        lambda room: room.payment("p1", collected_id=None, status=PaymentStatus.PENDING),
        PAID,
    ),
    "a recharge that was paid in another purpose": (
        lambda room: room.payment("p1", purpose=Purpose.WALLET),
        PAID,
    ),
    "a recharge under another payment's name": (
        lambda room: rekey(room, RECHARGE, "payment:stripe:pi_other"),
        PAID,
    ),
    "a recharge that names another payment of the gateway": (
        lambda room: room.spoil(RECHARGE, facts=facts_of(room, RECHARGE, gatewayPayment="pi_other")),
        PAID,
    ),
    "a refund of what was not taken": (
        lambda room: room.entries.update(
            {room.entry("usage:u2").key: replace(room.entry("usage:u2"), state=KeyState.REFUSED)}
        ),
        "a refund gives back what its usage cost, once",
    ),
    "a debt that was paid from what is no recharge": (
        lambda room: room.spoil(AUTO_RECHARGE, kind="something_else"),
        "a debt is paid in the write of what came in",
    ),
    "a recharge that is paid, and open": (
        lambda room: room.open("p2", 800),
        "a paid recharge is not open any more",
    ),
    "an open recharge of another amount": (
        lambda room: room.open("p2", 801),
        "an open recharge is of its payment's amount",
    ),
    "a counter of another cost": (lambda room: series(room, Spending(1, 1, 601), "31:1:1:600"), COUNTER),
    "a counter of another number": (lambda room: series(room, Spending(2, 1, 600), "31:1:1:600"), COUNTER),
    "a counter of another day": (lambda room: series(room, Spending(1, 1, 600), "30:1:1:600"), COUNTER),
    "a counter of a day's other cost": (
        lambda room: series(room, Spending(1, 1, 600), "31:1:1:601"),
        COUNTER,
    ),
    "a counter of something else": (lambda room: counter(room, 0, series={}), COUNTER),
    "a counter that counts less than it says": (lambda room: counter(room, 2, seq=3), COUNTER),
    "a counter of nobody": (lambda room: counter(room, 0, company_id="c2"), COUNTER),
    "a counter that is gone": (lambda room: room.counters.pop(1), IN_EVERY),
    "a counter that lags behind": (
        lambda room: (room.counters.pop(2), room.count("2026-02", "", 3)),
        IN_EVERY,
    ),
    "more is counted than there is": (
        lambda room: room.counted.update({US: room.account.seq + 1}),
        "only entries are counted",
    ),
    "a company's counting without a ledger": (
        lambda room: room.counted.update({"c2": 1}),
        "only entries are counted",
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_broken_books_are_named(room: Room, what: str) -> None:
    spoil, rule = BROKEN[what]
    spoil(room)
    found = room.says()
    assert found.verdict is Verdict.BROKEN
    assert rule in {one.rule for one in found.broken}, found.broken


def collected(room: Room) -> None:
    """The gateway has the money, the wallet not yet; what followed in the books has not happened."""
    room.__init__()  # type: ignore[misc]
    room.pay("p1", 1_000, "2026-01-30", BY_HAND)
    room.account, room.entries = Account(WALLET, "USD"), {}
    room.payment("p1", status=PaymentStatus.COLLECTED)


#: What a crash leaves, and what it is called until it is finished.
UNFINISHED: dict[str, tuple[Callable[[Room], Any], str, str]] = {
    "a usage that is not charged": (
        lambda room: room.record("q1", 400),
        "a usage is charged",
        "recorded 999 s ago, still QUEUED",
    ),
    "a charge that its record does not know": (
        lambda room: room.usage(
            "u1", status=UsageStatus.QUEUED, charged_at_ms=None, balance_minor=None, owed_upto=None
        ),
        "a charged usage is marked",
        "charged 998 s ago, its record says QUEUED",
    ),
    "a payment that is not credited": (
        collected,
        "a collected recharge of a company is credited",
        f"{WALLET}|payment:stripe:pi_p1",
    ),
    "a payment that is only not marked": (
        lambda room: room.payment("p1", status=PaymentStatus.COLLECTED),
        "a collected recharge of a company is credited",
        f"{WALLET}|payment:stripe:pi_p1",
    ),
    "an open recharge that nobody carries out": (
        lambda room: room.open("p9"),
        "an open recharge has its payment",
        f"opened 995 s ago on {WALLET}",
    ),
    **{
        f"an open recharge whose payment is {status}": (
            lambda room, status=status: (  # type: ignore[misc]
                room.open("p9"),
                room.payments.update(
                    p9=replace(
                        room.payments["p2"], id="p9", amount_minor=700, status=status, collected_id=None
                    )
                ),
            ),
            "a recharge that failed is closed",
            f"{status}, opened 995 s ago",
        )
        for status in (PaymentStatus.FAILED, PaymentStatus.EXPIRED)
    },
}


@pytest.mark.parametrize("what", UNFINISHED)
def test_what_a_crash_leaves_is_unfinished_and_not_broken(room: Room, what: str) -> None:
    leave, rule, detail = UNFINISHED[what]
    leave(room)
    found = room.says()
    assert found.verdict is Verdict.UNFINISHED, found.broken
    assert (rule, detail) in {(one.rule, one.detail) for one in found.unfinished}


def test_a_charge_that_its_record_does_not_know_is_checked_all_the_same(room: Room) -> None:
    room.usage("u1", status=UsageStatus.QUEUED, charged_at_ms=None, balance_minor=None, job_id="j2")
    assert OF_USAGE in {one.rule for one in room.says().broken}


def test_a_recharge_under_way_is_no_unfinished_work(room: Room) -> None:
    """It has just been opened, or the gateway has not decided."""
    room.open("p9")
    assert room.says(5_000 + 59_999).verdict is Verdict.CLEAN
    pending = replace(
        room.payments["p2"], id="p9", amount_minor=700, status=PaymentStatus.PENDING, collected_id=None
    )
    room.payments["p9"] = pending
    assert room.says().verdict is Verdict.CLEAN


def test_counters_may_lag_behind_or_run_ahead_of_what_all_have_counted(room: Room) -> None:
    """Somebody is counting: readers add what is missing."""
    room.counted[US] = 1
    room.counters.pop(1)
    assert room.says().verdict is Verdict.CLEAN
    room.counters.clear()
    room.counted.clear()
    assert room.says().verdict is Verdict.CLEAN
