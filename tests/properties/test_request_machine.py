"""Random histories of two users and two lawyers who are asked first: requests, answers from several devices, joins, waiting, time,
and a process that dies at any call. After every step the file must hold together; in the end everybody is free.
"""

import asyncio
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any, Final

from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from billing_engine.consultations.billing import hold_id_of
from billing_engine.consultations.model import ASKED, BILLED, LIVE, Session, Status
from billing_engine.errors import BillingError
from billing_engine.ledger.accounts import earnings_of, wallet_of
from server.storage.sqlite.engine import SqliteOptions, open_database
from tests.support.consult_checks import check_books, check_sessions
from tests.support.consult_paths import survived
from tests.support.faults import Fuse, Moment
from tests.support.request_paths import AskingStage

USERS: Final = ("u1", "u2")
LAWYERS: Final = ("l1", "l2")
PEOPLE: Final = (*USERS, *LAWYERS)
FUNDS: Final = 20_000
EVERYTHING: Final = frozenset(Status)

#: What may happen, the usual more often; each with who does it, to whom, and how much time there is.
STEPS: Final = (
    ["ask"] * 4 + ["accept"] * 4 + ["come"] * 8 + ["wait"] * 3 + ["pass_time"] * 3 + ["refuse", "end", "leave", "come_online"]
)  # fmt: skip
#: At which call of the step the process dies; mostly it does not.
deaths = st.one_of(*[st.none()] * 3, st.tuples(st.integers(0, 14), st.sampled_from(list(Moment))))
steps = st.tuples(
    st.sampled_from(STEPS),
    st.sampled_from(USERS),
    st.sampled_from(LAWYERS),
    st.booleans(),
    st.sampled_from([1, 20, 45, 60, 120]),
    deaths,
)

Act = Callable[[AskingStage], Coroutine[Any, Any, Any]]


class History:
    """One file, one process after the other."""

    def __init__(self) -> None:
        self.runner = asyncio.Runner()
        self.stack = AsyncExitStack()
        self.directory = tempfile.TemporaryDirectory()
        self.count = 0
        self.joined: dict[str, set[str]] = {}

    def open(self) -> None:
        async def opened() -> None:
            path = Path(self.directory.name) / "requests.db"
            db = await self.stack.enter_async_context(open_database(path, SqliteOptions(synchronous="OFF")))
            self.stage = AskingStage(db, atomic=True, fuse=Fuse(counting=False))
            for lawyer in LAWYERS:
                self.stage.lawyers.add(lawyer, 600, auto_accept=False, has_waiting_list=True)
            await self.stage.boot()
            for user in USERS:
                await self.stage.recharge(user, f"pay-{user}", FUNDS)

        self.runner.run(opened())

    def do(self, act: Act, death: tuple[int, Moment] | None) -> None:
        """Run the act, or die in it and start again; what it is refused for is an outcome, too."""

        async def done() -> None:
            stage = self.stage
            stage.fuse = fuse = Fuse(counting=False)
            if death is not None:
                # The ports of this process know its first fuse only: die with another process's.
                await stage.world.stop()
                stage.fuse = fuse = Fuse(at=death[0], moment=death[1], counting=False)
                await stage.boot()
                fuse.counting = True
            with suppress(BillingError):
                await survived(stage, act)  # type: ignore[arg-type]  # the same stage
            await stage.world.idle()
            if fuse.burnt:
                event("died")
                await stage.die()
                stage.clock.jump_ms(2_000)
                await stage.reborn()
            fuse.counting = False

        self.runner.run(done())

    def session_of(self, person: str) -> Session | None:
        async def found() -> Session | None:
            world = self.stage.world
            held = await world.claims.held([f"user:{person}", f"lawyer:{person}"])
            sessions = await world.sessions.get_many(list(held.values()))
            return next((s for s in sessions.values() if s.status in ASKED | LIVE), None)

        return self.runner.run(found())

    def ask(self, user: str, lawyer: str, death: tuple[int, Moment] | None) -> None:
        self.count += 1
        key = f"s{self.count}"
        self.do(lambda stage: stage.start(key, user, lawyer), death)

    def accept(self, lawyer: str, device: str, death: tuple[int, Moment] | None) -> None:
        session = self.session_of(lawyer)
        if session is not None:
            self.do(
                lambda stage: stage.world.requests.accept(session.id, lawyer_id=lawyer, device=device), death
            )

    def refuse(self, person: str, death: tuple[int, Moment] | None) -> None:
        session = self.session_of(person)
        if session is not None:
            requests = lambda stage: stage.world.requests  # noqa: E731  looked up when it runs
            if person == session.user_id:
                self.do(lambda stage: requests(stage).cancel(session.id, user_id=person), death)
            else:
                self.do(lambda stage: requests(stage).decline(session.id, lawyer_id=person), death)

    def come(self, person: str, death: tuple[int, Moment] | None) -> None:
        session = self.session_of(person)
        if session is not None:
            self.joined.setdefault(session.id, set()).add(person)
            self.do(lambda stage: stage.joined(person, session.id), death)

    def end(self, person: str, death: tuple[int, Moment] | None) -> None:
        session = self.session_of(person)
        if session is not None:
            self.do(lambda stage: stage.end(person, session.id), death)

    def wait(self, user: str, lawyer: str, death: tuple[int, Moment] | None) -> None:
        self.do(lambda stage: stage.join(user, lawyer), death)

    def leave(self, user: str, lawyer: str, death: tuple[int, Moment] | None) -> None:
        self.do(lambda stage: stage.world.waiting.leave(user_id=user, lawyer_id=lawyer), death)

    def pass_time(self, seconds: int, death: tuple[int, Moment] | None) -> None:
        self.do(lambda stage: stage.world.advance(seconds), death)

    def come_online(self, lawyer: str) -> None:
        at_ms = self.stage.clock.now_ms()
        self.stage.lawyers.add(lawyer, 600, auto_accept=False, has_waiting_list=True, online_at_ms=at_ms)

    def it_holds_together(self) -> None:
        if self.count:
            self.runner.run(self._check())

    async def _check(self) -> None:
        world = self.stage.world
        await self.stage.look()
        sessions = await world.sessions.in_states(EVERYTHING)
        assert not [s for s in sessions if s.status is Status.STARTING]
        busy = [s for s in sessions if s.status in ASKED | LIVE]
        turns = [s for s in sessions if s.status is Status.TURN]
        booked = Counter(s.user_id for s in busy) + Counter(s.lawyer_id for s in (*busy, *turns))
        assert all(number == 1 for number in booked.values()), "somebody is booked twice"
        expected = {f"user:{s.user_id}": s.id for s in busy}
        expected |= {f"lawyer:{s.lawyer_id}": s.id for s in (*busy, *turns)}
        assert await world.claims.everyone() == expected, (
            "somebody is busy for ever, or a session has lost its claim"
        )
        documents = await check_books(world)
        holds = {hold for account in documents.values() for hold in account.holds}
        assert holds == {hold_id_of(s.id) for s in sessions if s.status in LIVE}
        now_ms = self.stage.clock.now_ms()
        for session in sessions:
            if session.status in LIVE | BILLED:
                assert session.accepted_at_ms is not None, "billed without the lawyer's yes"
                assert self.joined[session.id] == {session.user_id, session.lawyer_id}, (
                    "billed, and not both came"
                )
                event("served")
            if session.status in ASKED | {Status.TURN}:
                assert session.deadline_ms is not None
                assert session.deadline_ms > now_ms, "nobody has looked at a deadline"
            event(session.status.value)
        for lawyer in LAWYERS:
            for place in await world.waiting.of_lawyer(lawyer):
                assert (place.waiting.turn_id != "") == (
                    place.waiting.turn_id in {turn.id for turn in turns}
                ), "a turn and its row disagree"

    def close(self) -> None:
        async def closed() -> None:
            stage = self.stage
            for _ in range(4):
                await stage.world.advance(130)
                await stage.look()
            for session in await stage.world.sessions.in_states(LIVE):
                await stage.world.consultations.end(session.id, caller_id="admin", is_admin=True)
            for _ in range(3):
                await stage.world.advance(130)
                await stage.look()
            world = stage.world
            assert await world.claims.everyone() == {}
            sessions = await check_sessions(world, [f"s{n}" for n in range(1, self.count + 1)], PEOPLE)
            paid = Counter({s.user_id: 0 for s in sessions})
            for session in sessions:
                paid[session.user_id] += session.total_minor
            for user in USERS:
                account = await world.ledger.account(wallet_of(user), "INR")
                assert (account.held, account.spendable) == (0, FUNDS - paid[user])
            earned = [await world.ledger.balance(earnings_of(lawyer), "INR") for lawyer in LAWYERS]
            commission = await world.ledger.balance("revenue:consultations", "INR")
            assert sum(earned) + commission == sum(paid.values())
            await world.stop()

        if hasattr(self, "stage"):
            self.runner.run(closed())
        self.runner.run(self.stack.aclose())
        self.runner.close()
        self.directory.cleanup()


@settings(
    max_examples=int(os.environ.get("REQUEST_HISTORIES", "30")),
    deadline=None,
    database=None,
    derandomize="REQUEST_HISTORIES" not in os.environ,
    suppress_health_check=list(HealthCheck),
)
@given(st.lists(steps, min_size=20, max_size=40))
def test_however_it_goes_nobody_is_booked_twice_left_busy_or_billed_alone(history: list[Any]) -> None:
    """`REQUEST_HISTORIES=1000` tells other ones, and more of them."""
    town = History()
    try:
        town.open()
        for name, user, lawyer, is_user, seconds, death in history:
            person = user if is_user else lawyer
            match name:
                case "ask":
                    town.ask(user, lawyer, death)
                case "accept":
                    town.accept(lawyer, "phone" if is_user else "tablet", death)
                case "come":
                    town.come(person, death)
                case "refuse":
                    town.refuse(person, death)
                case "end":
                    town.end(person, death)
                case "wait":
                    town.wait(user, lawyer, death)
                case "leave":
                    town.leave(user, lawyer, death)
                case "pass_time":
                    town.pass_time(seconds, death)
                case _:
                    town.come_online(lawyer)
            town.it_holds_together()
    finally:
        town.close()
