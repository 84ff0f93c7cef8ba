"""The bill is a function of the timeline: whatever ticks, pauses, restarts and replies do on the way, and at any rate.

The first half drives the pure decisions on an account in memory; the second half runs the engine for what only it decides.
"""

import asyncio
import tempfile
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path

import orjson
from hypothesis import example, given, settings
from hypothesis import strategies as st

from billing_engine.consultations.billing import (
    Bill,
    Close,
    Tick,
    adopt,
    close,
    extend,
    hold_id_of,
    last_evidence_ms,
    needed_minor,
    next_tick_ms,
    open_session,
)
from billing_engine.consultations.errors import StillFunded, Unattended
from billing_engine.consultations.meter import Meter, served_ms_of
from billing_engine.consultations.model import EndReason
from billing_engine.consultations.rules import Rules
from billing_engine.ledger.model import Account, Entry
from billing_engine.money import affordable_seconds, commission_of, price
from server.storage.ledger_codec import holds_of_json, holds_to_json
from tests.support.consult import World, open_world
from tests.support.manual_clock import ManualClock

START_MS = 1_767_225_600_000
SID = "s1"

rates = st.one_of(
    st.integers(1, 10_000_000), st.integers(1, 130), st.sampled_from([1, 59, 60, 61, 6_000, 10_000_000])
)


# -- price and its inverse --------------------------------------------------------------------------------------------


@given(rates, st.lists(st.integers(0, 100_000), max_size=30))
def test_however_the_time_is_cut_the_charges_add_up_to_one_price(rate: int, gaps: list[int]) -> None:
    """Telescoping: each charge is price(now) less what was charged before. Rounding every slice would lose paise."""
    now_s = charged = 0
    for gap in gaps:
        now_s += gap
        step = price(rate, now_s) - charged
        assert step >= 0
        charged += step
    assert charged == price(rate, sum(gaps)) == rate * sum(gaps) // 60


@given(rates, st.integers(0, 10**15))
@example(1, 0)
@example(10_000_000, 0)
def test_money_reaches_exactly_the_last_second_that_it_pays(rate: int, minor: int) -> None:
    seconds = affordable_seconds(rate, minor)
    assert price(rate, seconds) <= minor < price(rate, seconds + 1)


@given(rates, st.integers(0, 10**9))
def test_the_price_of_a_time_pays_at_least_that_time(rate: int, seconds: int) -> None:
    assert affordable_seconds(rate, price(rate, seconds)) >= seconds


@given(st.integers(0, 10**15), st.integers(0, 10_000))
def test_commission_and_net_are_the_whole_and_neither_is_negative(gross: int, basis_points: int) -> None:
    commission = commission_of(gross, basis_points)
    assert 0 <= commission <= gross
    assert commission * 10_000 <= gross * basis_points < (commission + 1) * 10_000


# -- one session's life on an account in memory -----------------------------------------------------------------------


@dataclass
class Life:
    """A session as an engine without defects would drive it, and the served segments as this test understands them."""

    rate: int
    funds: int
    rules: Rules
    commission_bp: int = 0
    max_minor: int | None = None
    now_ms: int = START_MS
    owner: str = "p1"
    known: Entry | None = None
    #: Rows that were copied out, by place: a row must never change once it was seen.
    rows: dict[int, tuple[int, str, str | None]] = field(default_factory=dict)
    #: (from, to) of the pauses, as this test understands what happened.
    pauses: list[tuple[int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.account = Account("wallet:u1", "INR", posted=self.funds)
        self.proof_ms = self.now_ms
        self.resumed_ms = self.now_ms
        meter = Meter(
            "u1",
            "l1",
            self.rate,
            self.commission_bp,
            self.max_minor,
            self.now_ms,
            0,
            self.now_ms,
            self.now_ms,
        )
        self.account, self.bill = open_session(
            self.account, None, session_id=SID, meter=meter, owner=self.owner, rules=self.rules
        )
        self._check()

    @property
    def until_ms(self) -> int:
        until = self.bill.paid_until_ms
        assert until is not None
        return until

    def tick(self, wait_ms: int, *, reply_lost: bool = False, copied: bool = False) -> None:
        """Extend after `wait_ms`. If that is after paid-until, the time in between was not served."""
        self.now_ms += wait_ms
        copied_k = max(self.rows, default=-1) + 1 if copied else 0
        tick = Tick(SID, self.bill.fence, self.bill.n + 1, self.now_ms, copied_k)
        if self.now_ms > self.until_ms:
            self._pause(self.until_ms)
        self.proof_ms = self.now_ms
        for _ in range(2 if reply_lost else 1):  # a lost reply is asked for again: the same n changes nothing
            self.account, self.bill = extend(self.account, None, tick=tick, rules=self.rules)
            self._store()
        self._check()

    def late_reply(self, wait_ms: int, late_ms: int) -> None:
        """The write of a tick comes back `late_ms` after it was asked for: shut from the old paid-until on."""
        gate_ms = self.until_ms
        self.tick(wait_ms)
        asked_ms = self.now_ms
        self.now_ms += late_ms
        shut_ms = max(gate_ms, asked_ms)
        if self.now_ms <= shut_ms:
            return
        self._pause(shut_ms)
        tick = Tick(SID, self.bill.fence, self.bill.n + 1, self.now_ms, 0, gap_from_ms=shut_ms)
        self.account, self.bill = extend(self.account, None, tick=tick, rules=self.rules)
        self.proof_ms = self.now_ms
        self._store()
        self._check()

    def crash(self, gap_ms: int, chat_ms: int) -> bool:
        """No process for `gap_ms`; the chat's last word was `chat_ms` after the last tick. False: left alone for too long."""
        self.now_ms += gap_ms
        chat_at_ms = self.proof_ms + chat_ms
        evidence_ms = max(self.proof_ms, min(chat_at_ms, self.until_ms, self.now_ms))
        hold = self.account.holds[hold_id_of(SID)]
        assert last_evidence_ms(hold, chat_at_ms, self.now_ms) == evidence_ms
        epoch = self.bill.fence.epoch
        self.owner += "'"
        # Who read the hold before somebody else adopted it comes too late, whatever the clock says.
        stale = {"from_epoch": epoch - 1, "owner": "late", "evidence_ms": 0, "now_ms": self.now_ms}
        _refused(lambda: adopt(self.account, None, session_id=SID, rules=self.rules, **stale))  # type: ignore[arg-type]
        try:
            self.account, self.bill = adopt(
                self.account, None, session_id=SID, from_epoch=epoch, owner=self.owner,
                evidence_ms=chat_at_ms, now_ms=self.now_ms, rules=self.rules,
            )  # fmt: skip
        except Unattended:
            assert self.now_ms - evidence_ms > self.rules.abandon_ms
            self.now_ms = evidence_ms
            self.end(EndReason.ABANDONED)
            return False
        assert self.now_ms - evidence_ms <= self.rules.abandon_ms
        assert self.bill.fence.epoch == epoch + 1
        self._pause(evidence_ms)
        self.proof_ms = self.now_ms
        self._store()
        self._check()
        return True

    def recharge(self, amount: int) -> None:
        self.account = self.account._replace(posted=self.account.posted + amount)

    def end(self, reason: EndReason = EndReason.USER_ENDED, *, only_if_short: bool = False) -> Entry:
        order = Close(SID, reason, self.now_ms, only_if_short=only_if_short)
        ended_ms = max(self.proof_ms, min(self.now_ms, self.until_ms))
        before = self.account
        self.account, entry = close(
            self.account, None, order=order, day="2026-01-01", booked_at_ms=self.now_ms
        )
        self._see(entry.facts["trail"])
        served_ms = ended_ms - START_MS - sum(to - since for since, to in self.pauses)
        gross = price(self.rate, served_ms // 1000)
        facts = entry.facts
        assert facts["endedAt"] == ended_ms
        assert (facts["servedMs"], facts["durationS"], facts["gross"]) == (
            served_ms,
            served_ms // 1000,
            gross,
        )
        rows = [self.rows[k] for k in sorted(self.rows)]
        assert sorted(self.rows) == list(range(len(rows)))
        assert served_ms_of((at_ms, event) for at_ms, event, _ in rows) == served_ms
        assert facts["commission"] + facts["net"] == gross
        assert facts["commission"] == gross * self.commission_bp // 10_000
        assert sum(t.amount_minor for t in entry.transfers) == gross
        assert all(t.amount_minor > 0 for t in entry.transfers)
        assert before.posted - self.account.posted == gross
        assert self.account.held == 0
        assert self.account.posted >= 0
        if self.max_minor is not None:
            assert gross <= self.max_minor
        self.known = entry
        # The first close is the outcome, whoever comes second and whatever he asks for.
        later = Close(SID, EndReason.ADMIN_ENDED, self.now_ms + 99_000)
        assert close(self.account, entry, order=later, day="", booked_at_ms=0) == (self.account, entry)
        return entry

    def _pause(self, since_ms: int) -> None:
        self.pauses.append((since_ms, self.now_ms))

    def _store(self) -> None:
        """What is written and read again must be the same account: JSON has no tuples."""
        holds = holds_of_json(orjson.loads(orjson.dumps(holds_to_json(self.account.holds))))
        self.account = self.account._replace(holds=holds)
        self._see(holds[hold_id_of(SID)].facts["trail"])

    def _see(self, trail: list[list[object]]) -> None:
        for k, at_ms, event, reason in trail:
            assert self.rows.setdefault(k, (at_ms, event, reason)) == (at_ms, event, reason)  # type: ignore[arg-type]  # JSON

    def _check(self) -> None:
        """After every write: nothing below zero, and paid-until is exactly what the hold pays."""
        bill, account = self.bill, self.account
        assert account.held == sum(hold.amount_minor for hold in account.holds.values()) == bill.held_minor
        assert account.posted - account.held >= 0
        payable = bill.held_minor if self.max_minor is None else min(bill.held_minor, self.max_minor)
        assert price(self.rate, bill.paid_s) <= payable < price(self.rate, bill.paid_s + 1)
        # The price of the slice, also of the last one: what no second can be bought for stays spendable.
        assert bill.held_minor == price(self.rate, bill.paid_s)
        paused_ms = sum(to - since for since, to in self.pauses)
        assert self.until_ms == START_MS + paused_ms + bill.paid_s * 1000
        assert self.until_ms >= self.proof_ms
        facts = account.holds[hold_id_of(SID)].facts
        assert facts["paidUntil"] == self.until_ms
        assert facts["evidenceAt"] == self.proof_ms
        funds = account.posted if self.max_minor is None else min(account.posted, self.max_minor)
        assert bill.short == (affordable_seconds(self.rate, funds) <= bill.paid_s)
        horizon_ms = next_tick_ms(START_MS, self.now_ms, self.rules) + self.rules.lead_ms
        assert bill.short or self.until_ms >= horizon_ms


def rules_of(**more: int) -> Rules:
    return Rules(**({"min_balance_minor": 0} | more))  # type: ignore[arg-type]  # a few integers


events = st.one_of(
    st.tuples(st.just("tick"), st.integers(0, 40_000), st.booleans(), st.booleans()),
    st.tuples(st.just("late"), st.integers(0, 15_000), st.integers(0, 90_000)),
    st.tuples(st.just("crash"), st.integers(0, 60_000), st.integers(-5_000, 60_000)),
    st.tuples(st.just("crash"), st.integers(0, 180_000), st.integers(-5_000, 180_000)),
    st.tuples(st.just("recharge"), st.integers(1, 10**7)),
)


@settings(max_examples=400, deadline=None)
@given(
    rate=rates,
    more=st.integers(0, 10**8),
    commission_bp=st.integers(0, 10_000),
    capped=st.one_of(st.none(), st.integers(0, 10**6)),
    tick_ms=st.integers(100, 60_000),
    lead_ms=st.integers(0, 10_000),
    story=st.lists(events, max_size=12),
    last_ms=st.integers(0, 30_000),
)
def test_the_bill_is_the_price_of_the_timeline_whatever_happened(
    rate: int, more: int, commission_bp: int, capped: int | None, tick_ms: int, lead_ms: int,
    story: list[tuple[object, ...]], last_ms: int,
) -> None:  # fmt: skip
    """Ticks of any spacing, late and lost replies, crashes (also twice in a row), recharges: the bill is
    price(rate, floor(served ms / 1000)), recomputed from the rows alone."""
    rules = rules_of(tick_ms=tick_ms, lead_ms=lead_ms)
    needed = needed_minor(rate, rules)
    cap = None if capped is None else needed + capped
    life = Life(rate, needed + more, rules, commission_bp, cap)
    for kind, *args in story:
        match kind:
            case "tick":
                wait_ms, lost, copied = args
                life.tick(wait_ms, reply_lost=lost, copied=copied)  # type: ignore[arg-type]  # by the strategy
            case "late":
                life.late_reply(*args)  # type: ignore[arg-type]
            case "recharge":
                life.recharge(*args)  # type: ignore[arg-type]
            case "crash":
                if not life.crash(*args):  # type: ignore[arg-type]
                    return
    life.now_ms += last_ms
    life.end()


@settings(max_examples=60, deadline=None)
@given(
    rate=rates,
    length_ms=st.integers(0, 200_000),
    cuts=st.lists(st.lists(st.integers(700, 13_000), min_size=1, max_size=30), min_size=2, max_size=3),
)
def test_tick_spacing_never_changes_the_bill(rate: int, length_ms: int, cuts: list[list[int]]) -> None:
    """The same session, ticked in other rhythms, costs the same paise: TICK_SECONDS is no tariff."""
    grosses = set()
    for gaps in cuts:
        life = Life(rate, price(rate, 3_600) + 1, rules_of(tick_ms=10_000, lead_ms=3_000))
        left_ms = length_ms
        for gap_ms in cycle(gaps):
            wait_ms = min(gap_ms, life.until_ms - life.now_ms, left_ms)
            life.tick(wait_ms)
            left_ms -= wait_ms
            if left_ms == 0:
                break
        assert life.pauses == []
        grosses.add(life.end().facts["gross"])
    assert grosses == {price(rate, length_ms // 1000)}


@given(rate=rates, more=st.integers(0, 10**7), early_ms=st.integers(1, 5_000), recharge=st.integers(1, 10**7))
def test_a_session_without_money_ends_at_its_last_paid_second_and_not_a_millisecond_earlier(
    rate: int, more: int, early_ms: int, recharge: int
) -> None:
    rules = rules_of(tick_ms=10_000_000_000_000, lead_ms=0)  # one slice for the whole wallet
    life = Life(rate, needed_minor(rate, rules) + more, rules)
    assert life.bill.short
    started = life.now_ms
    life.now_ms = life.until_ms - early_ms
    _refused(lambda: life.end(EndReason.WALLET_EMPTY, only_if_short=True))
    life.now_ms = life.until_ms
    before = life.account
    life.recharge(recharge)
    if affordable_seconds(rate, life.account.posted) > life.bill.paid_s:
        _refused(
            lambda: life.end(EndReason.WALLET_EMPTY, only_if_short=True)
        )  # the recharge of that instant wins
    life.account = before
    entry = life.end(EndReason.WALLET_EMPTY, only_if_short=True)
    assert entry.facts["endedAt"] == started + 1000 * affordable_seconds(rate, before.posted)
    assert entry.facts["reason"] == "WALLET_EMPTY"
    assert life.account.posted < price(rate, entry.facts["durationS"] + 1) - price(
        rate, entry.facts["durationS"]
    )


def _refused(act: Callable[[], object]) -> None:
    try:
        act()
    except StillFunded:
        return
    raise AssertionError("closed, though it is paid")


@given(st.integers(1, 10**6), st.integers(0, 10**8), st.integers(1, 10**5), st.integers(0, 10**5))
def test_the_grid_of_ticks_hangs_on_the_start_alone(
    tick_ms: int, after_ms: int, step_ms: int, lead_ms: int
) -> None:
    """Ticks that followed the restart would align all sessions of a process for ever."""
    rules = Rules(tick_ms=tick_ms, lead_ms=lead_ms)
    first = next_tick_ms(START_MS, START_MS + after_ms, rules)
    assert (first - START_MS) % tick_ms == 0
    assert 0 < first - (START_MS + after_ms) <= tick_ms
    assert next_tick_ms(START_MS, START_MS + after_ms + step_ms, rules) >= first


def test_the_hold_is_the_price_of_the_slice_and_not_what_is_left() -> None:
    """Holding the leftover would hide up to one second's price from the user's spendable balance."""
    life = Life(7, 1_000, rules_of())
    bill: Bill = life.bill
    assert bill.held_minor == price(7, 13)
    assert bill.paid_s == affordable_seconds(7, bill.held_minor) >= 13


# -- what only the engine decides -------------------------------------------------------------------------------------


def play(scenario: Callable[[Path], Coroutine[None, None, None]]) -> None:
    """Run one example on a database of its own."""
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(scenario(Path(folder) / "tarazu.db"))


@settings(max_examples=40, deadline=None)
@given(
    rate=st.sampled_from([7, 59, 6_000, 49_999]),
    tick_ms=st.integers(300, 40_000),
    lead_ms=st.integers(2_000, 9_000),
    slot_ms=st.sampled_from([1, 50, 250]),
    waits_ms=st.lists(st.integers(0, 40_000), max_size=4),
)
def test_neither_tick_nor_lead_nor_slot_is_a_tariff(
    rate: int, tick_ms: int, lead_ms: int, slot_ms: int, waits_ms: list[int]
) -> None:
    """The engine itself, with any settings: the same seconds cost the same paise, and the gate never shuts by itself."""

    async def scenario(file: Path) -> None:
        rules = Rules(tick_ms=tick_ms, lead_ms=lead_ms, slot_ms=slot_ms)
        async with open_world(file, rules=rules) as world:
            world.lawyers.add("l1", rate)
            await world.recharge("u1", price(rate, 3_600) + 5_000)
            session_id = await world.begin()
            for wait_ms in waits_ms:
                await world.advance(wait_ms / 1000)
                assert world.consultations.is_open(session_id)
            view = await world.consultations.end(session_id, caller_id="l1")
            assert view.total_minor == price(rate, sum(waits_ms) // 1000)
            assert [row.event for row in await world.consultations.timeline(session_id)] == ["start", "end"]

    play(scenario)


def warnings_of(rate: int, funds: int, recharges: dict[int, int], until_ms: int) -> list[tuple[int, int]]:
    """(instant since the start, threshold): each threshold once, as the time that the wallet lasts passes it going down."""
    told: list[tuple[int, int]] = []
    warned: int | None = None
    for now_ms in range(0, until_ms + 1, 500):
        funds += recharges.get(now_ms, 0)
        remaining_s = affordable_seconds(rate, funds) - now_ms // 1000
        if remaining_s <= 0:
            break
        crossed = min((limit for limit in (120, 60, 30) if remaining_s <= limit), default=None)
        if crossed is not None and (warned is None or crossed < warned):
            told.append((now_ms, crossed))
        warned = crossed
    return told


async def warned(
    world: World, started_ms: int, until_ms: int, recharges: dict[int, int]
) -> list[tuple[int, int]]:
    seen: list[tuple[int, int]] = []
    for now_ms in sorted({*recharges, *range(0, until_ms + 1, 1_000)}):
        await world.advance((started_ms + now_ms - world.clock.now_ms()) / 1000)
        if now_ms in recharges:
            await world.recharge("u1", recharges[now_ms])
            await world.idle()
        for event in world.heard.events:
            if event.name == "session:low_balance":
                assert event.view.remaining_s <= event.extra["threshold"]
                seen.append((world.clock.now_ms() - started_ms, event.extra["threshold"]))
        world.heard.events.clear()
    return seen


@settings(max_examples=40, deadline=None)
@given(
    start_s=st.integers(60, 200),
    recharges=st.dictionaries(
        st.integers(1, 120).map(lambda s: s * 1_000 + 500),
        st.integers(1, 150).map(lambda s: s * 100),
        max_size=3,
    ),
)
@example(135, {})
@example(60, {})
@example(120, {31_500: 10_000})
@example(125, {70_500: 2_000, 100_500: 20_000})
def test_each_warning_comes_once_at_its_second_and_again_after_a_recharge(
    start_s: int, recharges: dict[int, int]
) -> None:
    async def scenario(file: Path) -> None:
        async with open_world(file) as world:
            world.lawyers.add("l1", 6_000)
            await world.recharge("u1", start_s * 100)
            await world.begin()
            seen = await warned(world, world.clock.now_ms(), 200_000, recharges)
        assert seen == warnings_of(6_000, start_s * 100, recharges, 200_000)

    play(scenario)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 35_000), st.integers(0, 20_000), st.booleans()), min_size=1, max_size=4)
)
@example([(1_050, 0, True), (50, 0, False)])
def test_restarts_do_not_move_the_grid_of_ticks(restarts: list[tuple[int, int, bool]]) -> None:
    """Ticks stand at start + k x TICK whatever process makes them, or a restart would align all sessions at once."""

    async def scenario(file: Path) -> None:
        clock = ManualClock()
        clock.jump_ms(1_234)
        started_ms = clock.now_ms()
        ticks: list[int] = []
        session_id = ""
        for served_ms, gap_ms, cleanly in restarts:
            async with open_world(file, clock=clock) as world:
                world.lawyers.add("l1", 6_000)
                if not session_id:
                    await world.recharge("u1", 1_000_000)
                    session_id = await world.begin()
                for _ in range(served_ms // 50):
                    await clock.advance_ms(50, idle=world.idle)
                    ticks += [clock.now_ms() for event in world.heard.events if event.name == "session:tick"]
                    world.heard.events.clear()
                if not cleanly:
                    await world.crash()
            clock.jump_ms(gap_ms)
        late_ms = Rules().slot_ms + 50  # the end of the slot, and the step of this test
        assert all((at_ms - started_ms) % 10_000 < late_ms for at_ms in ticks)
        assert len(ticks) == len({(at_ms - started_ms) // 10_000 for at_ms in ticks})

    play(scenario)
