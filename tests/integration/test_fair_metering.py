"""Somebody who had joined is lost: paused from the last sign of life, resumed when both are there, ended when they stay away.

Numbers: 100 paise a second, a tick every 10 s, 15 s of grace, 120 s until it ends.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from billing_engine.consultations.audit import audit_consultations
from billing_engine.consultations.model import EndReason, Status
from billing_engine.consultations.rules import Rules
from billing_engine.ledger.model import Entry
from server.storage.errors import StoreUnavailable
from server.storage.sqlite.ledger import all_accounts, all_rows
from tests.support.consult import World, open_world
from tests.support.consult_checks import check_sessions
from tests.support.faults import Outage
from tests.support.manual_clock import ManualClock

PEOPLE = ("u1", "l1")


@dataclass
class Scene:
    world: World
    session_id: str
    started_ms: int

    async def go_to(self, second: float) -> None:
        await self.world.advance(second - (self.world.clock.now_ms() - self.started_ms) / 1000)

    async def come(self, *people: str) -> None:
        for person in people:
            self.world.sockets.come(person, self.session_id)
        await self.world.advance(0)

    async def go(self, person: str, *, ago_s: float = 0) -> None:
        self.world.sockets.go(person, self.session_id, ago_s=ago_s)
        await self.world.advance(0)

    async def end(self, caller_id: str = "u1") -> int:
        view = await self.world.consultations.end(self.session_id, caller_id=caller_id)
        return view.total_minor

    async def status(self) -> Status:
        return (await self.world.consultations.get(self.session_id, caller_id="u1")).status

    async def timeline(self) -> list[tuple[float, str, str | None]]:
        rows = await self.world.consultations.timeline(self.session_id)
        return [((row.at_ms - self.started_ms) / 1000, row.event, row.reason) for row in rows]

    def told(self, name: str) -> list[tuple[dict[str, Any], int]]:
        """What was told with events of this name, and the bill in each."""
        return [(e.extra, e.view.total_minor) for e in self.world.heard.events if e.name == name]

    def seconds(self, at_ms: int) -> float:
        return (at_ms - self.started_ms) / 1000


@asynccontextmanager
async def a_scene(
    tmp_path: Path,
    *,
    funds: int = 100_000,
    outage: Outage | None = None,
    clock: ManualClock | None = None,
    rules: Rules | None = None,
) -> AsyncIterator[Scene]:
    wrap = {"wrap": outage.wrap} if outage is not None else {}
    async with open_world(tmp_path / "tarazu.db", clock=clock or ManualClock(), rules=rules, **wrap) as world:
        world.lawyers.add("l1", 6_000)
        await world.recharge("u1", funds)
        scene = Scene(world, await world.begin(), world.clock.now_ms())
        yield scene
        if not world.crashed:
            await check_sessions(world, [scene.session_id], PEOPLE)


@pytest.mark.parametrize(("person", "reason"), [("u1", "USER_LOST"), ("l1", "LAWYER_LOST")])
async def test_who_is_lost_pauses_it_and_who_comes_back_resumes_it(
    person: str, reason: str, tmp_path: Path
) -> None:
    async with a_scene(tmp_path) as scene:
        await scene.come(*PEOPLE)
        await scene.go_to(21.5)
        await scene.go(person)
        await scene.go_to(36.499)
        assert await scene.status() is Status.ACTIVE
        assert scene.world.consultations.is_open(scene.session_id)
        await scene.go_to(36.5)
        assert await scene.status() is Status.PAUSED
        assert not scene.world.consultations.is_open(scene.session_id)
        assert scene.world.consultations.is_paused(scene.session_id)
        ((paused, bill),) = scene.told("session:paused")
        assert (paused["reason"], scene.seconds(paused["ends_at_ms"]), bill) == (reason, 141.5, 2_100)
        await scene.go_to(60.25)
        await scene.come(person)
        assert await scene.status() is Status.ACTIVE
        assert scene.world.consultations.is_open(scene.session_id)
        assert scene.told("session:resumed") == [({"reason": reason}, 2_100)]
        await scene.go_to(70)
        # 21.5 s, and 9.75 s after the pause.
        assert await scene.end() == 3_100
        assert await scene.timeline() == [
            (0.0, "start", None),
            (21.5, "pause", reason),
            (60.25, "resume", reason),
            (70.0, "end", "USER_ENDED"),
        ]


async def test_who_comes_back_within_the_grace_has_not_been_lost(tmp_path: Path) -> None:
    async with a_scene(tmp_path) as scene:
        await scene.come(*PEOPLE)
        for second in (10, 30, 50):
            await scene.go_to(second)
            await scene.go("u1")
            await scene.go_to(second + 14.9)
            await scene.come("u1")
        await scene.go_to(100)
        assert await scene.end() == 10_000
        assert scene.told("session:paused") == []


async def test_who_never_joined_pauses_nothing(tmp_path: Path) -> None:
    """Over REST alone, or the lawyer alone is there: served from its start, as it always was."""
    async with a_scene(tmp_path) as scene:
        await scene.go_to(60)
        await scene.come("l1")
        await scene.go_to(400)
        assert await scene.end() == 40_000
        assert scene.told("session:paused") == []


async def test_who_stays_away_ends_it(tmp_path: Path) -> None:
    async with a_scene(tmp_path) as scene:
        await scene.come(*PEOPLE)
        await scene.go_to(30)
        await scene.go("l1")
        await scene.go_to(149.999)
        assert await scene.status() is Status.PAUSED
        await scene.go_to(150)
        session = await scene.world.sessions.get(scene.session_id)
        assert session is not None
        assert (session.status, session.end_reason) == (Status.FORCE_ENDED, EndReason.PEER_GONE)
        assert session.total_minor == 3_000
        assert (await scene.timeline())[-2:] == [(30.0, "pause", "LAWYER_LOST"), (150.0, "end", "PEER_GONE")]
        assert len(scene.told("session:ended")) == 1


async def test_silence_counts_from_the_last_frame_and_not_from_when_it_was_noticed(tmp_path: Path) -> None:
    """A dead network is noticed after 18 s, and ticks have proven service meanwhile. They did not serve anybody."""
    async with a_scene(tmp_path) as scene:
        await scene.come(*PEOPLE)
        await scene.go_to(41)
        await scene.go("u1", ago_s=17.5)
        assert await scene.status() is Status.PAUSED
        ((paused, bill),) = scene.told("session:paused")
        assert (scene.seconds(paused["ends_at_ms"]), bill) == (143.5, 2_300)
        await scene.go_to(143.5)
        assert (await scene.timeline())[1:] == [(23.5, "pause", "USER_LOST"), (143.5, "end", "PEER_GONE")]


async def test_the_latest_sign_of_all_of_a_persons_devices_counts(tmp_path: Path) -> None:
    async with a_scene(tmp_path) as scene:
        await scene.come("u1", "u1", "l1")
        await scene.go_to(20)
        await scene.go("u1")
        await scene.go_to(26)
        # Its last frame is older than the other device's goodbye.
        await scene.go("u1", ago_s=9)
        await scene.go_to(35)
        assert (await scene.timeline())[1:] == [(20.0, "pause", "USER_LOST")]


async def test_both_are_lost_and_one_comes_back_first(tmp_path: Path) -> None:
    """The pause is the first one's; it goes on for the other, and each is waited for from his own last sign of life."""
    async with a_scene(tmp_path) as scene:
        await scene.come(*PEOPLE)
        await scene.go_to(20)
        await scene.go("u1")
        await scene.go_to(50)
        await scene.go("l1")
        await scene.go_to(60)
        await scene.come("u1")
        assert await scene.status() is Status.PAUSED
        await scene.go_to(169.999)
        assert await scene.status() is Status.PAUSED
        await scene.go_to(170)
        assert await scene.timeline() == [
            (0.0, "start", None),
            (20.0, "pause", "USER_LOST"),
            (170.0, "end", "PEER_GONE"),
        ]


@pytest.mark.parametrize(("after_s", "cost"), [(14.999, 3_499), (15, 2_000)])
async def test_an_end_leaves_out_a_loss_that_is_due_and_no_other(
    after_s: float, cost: int, tmp_path: Path
) -> None:
    """Whichever write comes first, the pause or the end, the bill is the same."""
    async with a_scene(tmp_path) as scene:
        await scene.come(*PEOPLE)
        await scene.go_to(20)
        await scene.go("u1")
        # The engine's own look at 35.0 has not run yet.
        await scene.go_to(30)
        scene.world.clock.jump_ms(round((after_s - 10) * 1000))
        assert await scene.end("l1") == cost // 100 * 100
        rows = await scene.timeline()
        assert ((20.0, "pause", "USER_LOST") in rows) is (after_s == 15)


async def test_money_that_a_pause_saves_keeps_the_session_from_its_forced_end(tmp_path: Path) -> None:
    """60 s are paid. The user is lost at 45, so that 15 s are left when the paid time is over: at that instant it is paused."""
    async with a_scene(tmp_path, funds=6_000) as scene:
        await scene.come(*PEOPLE)
        await scene.go_to(45)
        await scene.go("u1")
        await scene.go_to(60)
        assert await scene.status() is Status.PAUSED
        await scene.go_to(100)
        await scene.come("u1")
        await scene.go_to(114.999)
        assert await scene.status() is Status.ACTIVE
        await scene.go_to(115)
        session = await scene.world.sessions.get(scene.session_id)
        assert session is not None
        assert (session.end_reason, session.total_minor) == (EndReason.WALLET_EMPTY, 6_000)


async def test_a_loss_within_the_grace_does_not_keep_it_from_its_forced_end(tmp_path: Path) -> None:
    async with a_scene(tmp_path, funds=6_000) as scene:
        await scene.come(*PEOPLE)
        await scene.go_to(45.001)
        await scene.go("u1")
        await scene.go_to(61)
        session = await scene.world.sessions.get(scene.session_id)
        assert session is not None
        assert (session.end_reason, session.total_minor) == (EndReason.WALLET_EMPTY, 6_000)


async def test_what_nobody_knows_changes_nothing(tmp_path: Path) -> None:
    async with a_scene(tmp_path) as scene:
        await scene.come(*PEOPLE)
        await scene.go_to(20)
        scene.world.sockets.is_known = False
        await scene.go("u1")
        await scene.go_to(300)
        assert await scene.status() is Status.ACTIVE
        scene.world.sockets.is_known = True
        # By now the last sign is forgotten: lost since the last look that did not know it.
        await scene.go_to(320)
        assert (await scene.timeline())[1:] == [(300.0, "pause", "USER_LOST")]
        scene.world.sockets.is_known = False
        await scene.come("u1")
        await scene.go_to(600)
        assert await scene.status() is Status.PAUSED
        scene.world.sockets.is_known = True
        await scene.go_to(602)
        assert await scene.status() is Status.ACTIVE
        assert await scene.end() == 30_000


async def test_while_paused_ticks_go_on_and_no_money_moves(tmp_path: Path) -> None:
    async with a_scene(tmp_path) as scene:
        await scene.come(*PEOPLE)
        await scene.go_to(20)
        await scene.go("u1")
        await scene.go_to(35)
        before = await scene.world.wallets.balance("u1")
        scene.world.heard.events.clear()
        await scene.go_to(100)
        ticks = [e.view for e in scene.world.heard.events if e.name == "session:tick"]
        assert len(ticks) == 7
        assert {(t.status, t.total_minor, t.remaining_s, t.pause_reason) for t in ticks} == {
            (Status.PAUSED, 2_000, 980, "USER_LOST")
        }
        assert await scene.world.wallets.balance("u1") == before
        assert scene.world.heard.names() == ["session:tick"] * 7
        await scene.world.recharge("u1", 1_000)
        await scene.world.advance(0)
        assert scene.world.heard.events[-1].name == "session:recharged"
        assert scene.world.heard.events[-1].view.remaining_s == 990


async def test_a_new_process_knows_who_had_joined_and_waits_for_them_anew(tmp_path: Path) -> None:
    """A crash takes everybody's sockets along. Nobody is lost since before the meter runs again."""
    clock = ManualClock()
    async with a_scene(tmp_path, clock=clock) as scene:
        await scene.come(*PEOPLE)
        await scene.go_to(25)
        await scene.world.crash()
    clock.jump_ms(4_000)
    async with open_world(tmp_path / "tarazu.db", clock=clock) as world:
        scene.world = world
        await scene.go_to(35)
        world.sockets.come("l1", scene.session_id)
        await scene.go_to(44)
        assert await scene.timeline() == [
            (0.0, "start", None),
            (20.0, "pause", "SERVER"),
            (29.0, "resume", "SERVER"),
            (29.0, "pause", "USER_LOST"),
        ]
        await scene.go_to(149)
        assert (await scene.timeline())[-1] == (149.0, "end", "PEER_GONE")


async def test_a_restart_while_paused_lets_the_lost_one_come_back(tmp_path: Path) -> None:
    """The time without a server is not his."""
    clock = ManualClock()
    async with a_scene(tmp_path, clock=clock) as scene:
        await scene.come(*PEOPLE)
        await scene.go_to(20)
        await scene.go("u1")
        await scene.go_to(100)
        await scene.world.crash()
    clock.jump_ms(60_000)
    async with open_world(tmp_path / "tarazu.db", clock=clock) as world:
        scene.world = world
        await scene.go_to(279)
        assert await scene.status() is Status.PAUSED
        world.sockets.come("u1", scene.session_id)
        world.sockets.come("l1", scene.session_id)
        await scene.go_to(290)
        assert await scene.end() == 3_100
        assert (await scene.timeline())[1:3] == [(20.0, "pause", "USER_LOST"), (279.0, "resume", "USER_LOST")]


@pytest.mark.parametrize("trouble", ["fails", "loses answers"])
@pytest.mark.parametrize("what", ["the pause", "the resumption", "the end"])
async def test_a_store_that_is_late_changes_the_time_of_the_news_and_not_the_bill(
    what: str, trouble: str, tmp_path: Path
) -> None:
    outage = Outage(StoreUnavailable, only=lambda label: label.startswith("ledger.commit"))

    async def down(until_s: float) -> None:
        outage.failing, outage.lost_answers = True, int(trouble != "fails")
        await scene.go_to(until_s)
        outage.over()
        await scene.go_to(until_s + 0.5)

    async with a_scene(tmp_path, outage=outage) as scene:
        await scene.come(*PEOPLE)
        await scene.go_to(20)
        await scene.go("u1")
        await scene.go_to(34.9)
        if what == "the pause":
            await down(41)
        await scene.go_to(60)
        assert await scene.status() is Status.PAUSED
        if what == "the end":
            await scene.go_to(139.9)
            await down(145)
            assert (await scene.timeline())[1:2] == [(20.0, "pause", "USER_LOST")]
            assert await scene.end() == 2_000
            return
        if what == "the resumption":
            outage.failing, outage.lost_answers = True, int(trouble != "fails")
            await scene.come("u1")
            await scene.go_to(68)
            assert not scene.world.consultations.is_open(scene.session_id)
            outage.over()
            await scene.go_to(68.5)
        else:
            await scene.come("u1")
        assert scene.world.consultations.is_open(scene.session_id)
        served_from = 60 if what == "the pause" else 68
        await scene.go_to(80)
        cost = await scene.end()
        assert 2_000 + 100 * (80 - served_from - 1) <= cost <= 2_000 + 100 * (80 - served_from)
        rows = await scene.timeline()
        assert rows[1] == (20.0, "pause", "USER_LOST")
        assert len(scene.told("session:paused")) == len(scene.told("session:resumed")) == 1


async def test_the_audit_recomputes_each_bill_and_names_a_pause_that_nobody_watches(tmp_path: Path) -> None:
    async with a_scene(tmp_path) as scene:
        await scene.come(*PEOPLE)
        await scene.go_to(20)
        await scene.go("u1")
        await scene.go_to(40)
        found = await audit(scene, scene.world.clock.now_ms())
        assert (found.broken, found.unfinished) == ([], [])
        found = await audit(scene, scene.world.clock.now_ms() + 150_000)
        assert [finding.rule for finding in found.unfinished] == ["a live session has an owner"]
        await scene.go_to(150)
        assert (await audit(scene, scene.world.clock.now_ms())).broken == []


async def audit(scene: Scene, now_ms: int) -> Any:
    world = scene.world
    session = await world.sessions.get(scene.session_id)
    assert session is not None
    documents = await world.db.scan(lambda conn: [v.account for v in all_accounts(conn)])
    rows: list[Entry] = await world.db.scan(lambda conn: [row.entry for row in all_rows(conn)])
    return audit_consultations(
        [session],
        await world.timeline.of(scene.session_id),
        {account.id: account for account in documents},
        {entry.key: entry for entry in rows},
        abandon_ms=world.rules.abandon_ms,
        now_ms=now_ms,
    )
