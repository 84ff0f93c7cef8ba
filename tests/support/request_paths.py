"""Requests and turns to be killed in: what comes before, what is disturbed, and what must hold whatever went wrong."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from billing_engine.consultations.errors import LawyerBusy, UserBusy
from billing_engine.consultations.model import ASKED, BILLED, FINISHED, LIVE, SessionView, Status
from billing_engine.consultations.waiting_model import TurnGiven
from billing_engine.ledger.accounts import earnings_of, wallet_of
from billing_engine.ledger.model import Movement, Transfer
from tests.support.consult import Terms, World
from tests.support.consult_checks import check_sessions
from tests.support.consult_paths import FUNDS, PEOPLE, Stage


@dataclass
class AskingStage(Stage):
    """l1 wants to be asked, l2 has a waiting list. What a lawyer says outlives processes."""

    lawyers: Terms = field(default_factory=Terms)

    async def boot(self) -> None:
        if not self.lawyers.by_id:
            self.lawyers.add("l1", 6_000, auto_accept=False)
            self.lawyers.add("l2", 7, has_waiting_list=True)
        world = World(self.db, self.clock, self.rules, atomic=self.atomic)
        world.rooms, world.lawyers = self.rooms, self.lawyers
        self._world = world
        await world.build(self.fuse.wrap)
        await world.start()
        await world.idle()

    async def look(self) -> None:
        """What every process does once in a while."""
        await self.world.requests.sweep()
        await self.world.waiting.sweep()
        await self.world.idle()

    async def join(self, user_id: str, lawyer_id: str = "l2") -> None:
        await self.world.waiting.join(user_id=user_id, lawyer_id=lawyer_id)

    async def accept(self, key: str = "s1") -> None:
        await self.world.requests.accept(key, lawyer_id="l1", device="phone")

    async def joined(self, person_id: str, key: str = "s1") -> None:
        await self.world.requests.joined(key, person_id)


Step = Callable[[AskingStage], Awaitable[None]]


@dataclass(frozen=True)
class RequestPath:
    """What comes before, what is disturbed, the calls that it must at least have made."""

    name: str
    before: Step
    act: Step
    touches: frozenset[str] = field(default_factory=frozenset)


async def funded(stage: AskingStage) -> None:
    await stage.boot()
    await stage.recharge()
    await stage.recharge("u2", "pay-2")


async def asking(stage: AskingStage) -> None:
    await stage.start()


async def asked(stage: AskingStage) -> None:
    await funded(stage)
    await asking(stage)


async def accepting(stage: AskingStage) -> None:
    await stage.accept()


async def accepted(stage: AskingStage) -> None:
    await asked(stage)
    await stage.accept()


async def one_there(stage: AskingStage) -> None:
    await accepted(stage)
    await stage.joined("u1")


async def both_there(stage: AskingStage) -> None:
    await asked(stage)
    await stage.joined("u1")
    await stage.joined("l1")


async def coming(stage: AskingStage) -> None:
    await stage.joined("l1")


async def impoverished(stage: AskingStage) -> None:
    await one_there(stage)
    wallet = wallet_of("u1")
    spent = Transfer(wallet, "revenue:elsewhere", FUNDS - 100, "elsewhere")
    await stage.world.ledger.post(Movement(wallet, "elsewhere", "elsewhere", "INR", "x", (spent,)))


async def declining(stage: AskingStage) -> None:
    await stage.world.requests.decline("s1", lawyer_id="l1")


async def cancelling(stage: AskingStage) -> None:
    await stage.world.requests.cancel("s1", user_id="u1")


async def ringing_out(stage: AskingStage) -> None:
    await stage.world.advance(45)


async def missed_once(stage: AskingStage) -> None:
    await funded(stage)
    await stage.start("s0")
    await stage.world.advance(45)
    await asking(stage)


async def waiting_in_vain(stage: AskingStage) -> None:
    await stage.world.advance(60)


async def l2_busy(stage: AskingStage) -> None:
    await funded(stage)
    await stage.start("s1", "u1", "l2")


async def queueing(stage: AskingStage) -> None:
    await stage.join("u2")


async def queued(stage: AskingStage) -> None:
    await l2_busy(stage)
    await queueing(stage)


async def becoming_free(stage: AskingStage) -> None:
    await stage.end("l2")
    await stage.world.idle()


async def in_turn(stage: AskingStage) -> None:
    await queued(stage)
    await becoming_free(stage)


async def using_the_turn(stage: AskingStage) -> None:
    await stage.start("s2", "u2", "l2")


async def losing_the_turn(stage: AskingStage) -> None:
    await stage.world.advance(120)


async def leaving_the_turn(stage: AskingStage) -> None:
    await stage.world.waiting.leave(user_id="u2", lawyer_id="l2")


MOVED: Final = frozenset({"sessions.change"})
CLOSED: Final = MOVED | {"rooms.close", "claims.release", "locks.release"}

PATHS: Final = (
    RequestPath("request", funded, asking, MOVED | {"sessions.add", "claims.take", "rooms.open"}),
    RequestPath("accept", asked, accepting, MOVED),
    RequestPath("accept, both there", both_there, accepting, MOVED | {"ledger.commit_all"}),
    RequestPath("the last one comes", one_there, coming, MOVED | {"ledger.commit_all"}),
    RequestPath("the money is gone by then", impoverished, coming, CLOSED),
    RequestPath("decline", asked, declining, CLOSED),
    RequestPath("decline after the yes", one_there, declining, CLOSED | {"ledger.commit_all"}),
    RequestPath("cancel", asked, cancelling, CLOSED),
    RequestPath("missed", asked, ringing_out, CLOSED),
    RequestPath("missed again", missed_once, ringing_out, CLOSED),
    RequestPath("nobody comes", accepted, waiting_in_vain, CLOSED),
    RequestPath("queue", l2_busy, queueing, frozenset({"waiting.add"})),
    RequestPath("turn", queued, becoming_free, frozenset({"waiting.give_turn", "claims.take"})),
    RequestPath("turn used", in_turn, using_the_turn, frozenset({"claims.replace", "waiting.drop"})),
    RequestPath("turn over", in_turn, losing_the_turn, frozenset({"waiting.drop", "claims.release"})),
    RequestPath("turn left", in_turn, leaving_the_turn, frozenset({"waiting.drop", "claims.release"})),
)

IDS: Final = ("s0", "s1", "s2", "s3", "s4")


async def nothing_is_lost(stage: AskingStage, path: RequestPath) -> None:
    """Right after the new process has started: what was answered is there, and can go on."""
    world = stage.world
    for view in stage.views:
        session = await world.sessions.get(view.session.id)
        assert session is not None, "a session that its user has seen is gone"
        assert session.status is not Status.ABORTED, session
        if view.status is Status.REQUESTED and session.status is Status.REQUESTED:
            assert session.deadline_ms == view.session.deadline_ms
            assert world.asked.states(session.id)[:1] == ["RINGING"], "the new process has not rung"
    session = await world.sessions.get("s1")
    if session is not None and session.status in ASKED:
        if session.status is Status.REQUESTED:
            await stage.accept()
        await stage.joined("u1")
        await stage.joined("l1")
        await world.idle()
        session = await world.sessions.get("s1")
        assert session is not None
        assert session.status in (LIVE if path.before is not impoverished else {Status.CANCELLED}), session
    waiting = await world.waiting.of_lawyer("l2")
    served = await world.sessions.get(await world.claims.holder("lawyer:l2") or "")
    if served is not None and served.status in LIVE:
        assert served.user_id not in {place.waiting.user_id for place in waiting}, "served, and waiting still"
    if waiting and (await world.claims.holder("user:u2")) is None:
        for live in ("s1",):
            found = await world.sessions.get(live)
            if found is not None and found.status in LIVE and found.lawyer_id == "l2":
                await stage.end("l2", live)
                await world.idle()
        if waiting[0].waiting.turn_id:
            assert any(isinstance(told, TurnGiven) for told in world.asked.events), (
                "nobody has told of the turn"
            )
            assert await world.claims.holder("lawyer:l2") == waiting[0].waiting.turn_id
        # Whoever waited is next, and gets in; nobody else does.
        stranger = await attempt(stage, "s3", "u1")
        assert isinstance(stranger, LawyerBusy), stranger
        assert isinstance(await attempt(stage, "s4", "u2"), SessionView)
        assert await world.waiting.of_lawyer("l2") == []


async def attempt(stage: AskingStage, key: str, user_id: str) -> SessionView | LawyerBusy | UserBusy:
    try:
        return await stage.world.consultations.start(user_id=user_id, lawyer_id="l2", operation_id=key)
    except (LawyerBusy, UserBusy) as exc:
        return exc


async def everybody_is_free_in_the_end(stage: AskingStage, path: RequestPath) -> None:
    """However it went on: after every deadline nobody is busy, no money is held, and it is where the bills say."""
    world = stage.world
    for _ in range(4):
        await world.advance(130)
        await stage.look()
    for key in IDS:
        session = await world.sessions.get(key)
        if session is not None and session.status in LIVE:
            await world.consultations.end(key, caller_id="admin", is_admin=True)
    await world.advance(130)
    await stage.look()
    sessions = await check_sessions(world, IDS, PEOPLE)
    assert await world.claims.everyone() == {}
    assert await world.sessions.in_states(frozenset({Status.TURN, Status.STARTING, *ASKED, *LIVE})) == []
    assert await world.waiting.of_lawyer("l2") == []
    assert all(session.status in FINISHED for session in sessions)
    bills = dict.fromkeys(PEOPLE, 0)
    for session in sessions:
        if session.status in BILLED:
            bills[session.user_id] += session.total_minor
            bills[session.lawyer_id] += session.total_minor - session.commission_minor
        else:
            assert session.total_minor == 0
    spent = FUNDS - 100 if path.before is impoverished else 0
    for user in ("u1", "u2"):
        account = await world.ledger.account(wallet_of(user), "INR")
        assert account.held == 0
        assert account.spendable == FUNDS - bills[user] - (spent if user == "u1" else 0)
    for lawyer in ("l1", "l2"):
        assert await world.ledger.balance(earnings_of(lawyer), "INR") == bills[lawyer]
    if path.name == "missed again":
        assert not world.lawyers.by_id["l1"].is_online, "a death has saved the lawyer from being set away"
        world.lawyers.add("l1", 6_000, auto_accept=False)
    # As free as before.
    await stage.recharge("u2", "pay-more", 10_000)
    await stage.start("s9", "u2", "l1")
    await world.requests.cancel("s9", user_id="u2")
    await stage.start("s10", "u2", "l2")
    await stage.end("u2", "s10")
