"""Every command that an operation sends to MongoDB goes wrong, in its turn and in every way that a wire and a replica set have.

The list of commands is not written down here: each operation runs once untroubled behind a proxy that takes notes, then once for
each command and fault. Its caller does what callers do: hears an answer, or hears that nobody knows and repeats by its key.
Either way the answer and what is stored must be those of the untroubled run: nothing lost, nothing doubled, and never
a "no" that only meant that nobody knew.
"""

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

import pymongo.common
import pytest

from billing_engine.errors import Unavailable
from billing_engine.ledger.model import KeyState
from billing_engine.ledger.service import Ledger
from server.storage.collection import CollectionSpec
from server.storage.mongo.client import Driver, MongoDatabase, MongoOptions, open_mongo
from server.storage.mongo.collection import MongoCollections
from server.storage.mongo.ledger import ENTRIES, MongoLedgerStore
from server.storage.mongo.ledger_documents import row_of
from server.storage.mongo.messages import open_message_store
from server.storage.repositories.claims import CollectionClaims
from tests.support.ledger_books import Books
from tests.support.ledger_moves import INR, close, extend, open_, payment, recharge
from tests.support.manual_clock import ManualClock
from tests.support.mongo_proxy import Fault, MongoProxy
from tests.support.mongo_server import PATIENT_MS, MongoServer, open_with_short_limit

#: How long a caller goes on repeating. Alone it takes one repeat.
_PATIENCE_S: Final = 30.0
#: A call's limit where a fault lasts or is silence: it is waited for in full. On a busy machine calls reach it untroubled, too, so
#: whatever else is done with such a client is repeated until it is known.
_IMPATIENT_MS: Final = 400

CASES: Final = CollectionSpec(name="cases", text=("state",), integer=("number",))

_names = itertools.count()


@dataclass(frozen=True)
class Deployment:
    """How the server looks to the driver."""

    driver: Driver = "pymongo"
    #: The driver repeats a write by itself once; the server knows the repeat, or takes it for a new write.
    retries: bool = False
    remembers_retries: bool = True

    def __str__(self) -> str:
        retries = "-retries" + ("" if self.remembers_retries else "-forgotten") if self.retries else ""
        return f"{self.driver}{retries}"


SINGLE, MOTOR = Deployment(), Deployment("motor")
RETRYING, FORGETTING = Deployment(retries=True), Deployment(retries=True, remembers_retries=False)


async def until_known(act: Callable[[], Awaitable[Any]]) -> Any:
    """The answer; a caller who hears that nobody knows asks again."""
    deadline_s = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return await act()
        except Unavailable:
            if time.monotonic() > deadline_s:
                raise
            await asyncio.sleep(0)


class World:
    """One process' adapters behind the proxy, and another process that nobody troubles."""

    def __init__(self, db: MongoDatabase, other: MongoDatabase, proxy: MongoProxy) -> None:
        self.proxy = proxy
        self.other = other
        self.collections = MongoCollections(db)
        self.ledger = Ledger(MongoLedgerStore(db), ManualClock(), lambda _: "2026-01-01")
        self.second = Ledger(MongoLedgerStore(other), ManualClock(), lambda _: "2026-01-01")
        self._db = db

    @asynccontextmanager
    async def open(self) -> AsyncIterator["World"]:
        await MongoLedgerStore(self.other).prepare()
        self.cases = await until_known(lambda: self.collections.open(CASES))
        self.claims = await until_known(lambda: CollectionClaims.open(self.collections))
        self.messages = await until_known(lambda: open_message_store(self._db))
        self.second_messages = await open_message_store(self.other)
        await self.second.start()
        # What `start` does, so that its second half can be repeated.
        self.ledger.committer.start()
        try:
            await until_known(self.ledger.recover)
            yield self
        finally:
            await self.ledger.stop()
            await self.second.stop()


#: Called with the world and a name that no other run has.
Step = Callable[[World, str], Awaitable[Any]]


async def _nothing(world: World, id_: str) -> None:
    return None


@dataclass(frozen=True)
class Operation:
    """What a caller does, and repeats when he does not know. `stored` reads, undisturbed, what came of it."""

    name: str
    run: Step
    stored: Step
    before: Step = _nothing
    #: What a majority has is its answer, whatever was said of its write.
    reads_after: bool = False

    def __str__(self) -> str:
        return self.name


async def _a_case(world: World, id_: str) -> None:
    await world.cases.insert({"_id": id_, "state": "OPEN", "number": 1})


async def _the_case(world: World, id_: str) -> Any:
    return await world.cases.get(id_)


COLLECTION_OPERATIONS: Final = [
    Operation(
        "a claim is taken",
        lambda world, id_: world.claims.take(f"user:{id_}", id_),
        lambda world, id_: world.claims.holder(f"user:{id_}"),
    ),
    Operation(
        "a claim is refused",
        lambda world, id_: world.claims.take(f"user:{id_}", "late"),
        lambda world, id_: world.claims.holder(f"user:{id_}"),
        before=lambda world, id_: world.claims.take(f"user:{id_}", id_),
        reads_after=True,
    ),
    Operation(
        "a claim is handed over",
        lambda world, id_: world.claims.replace(f"user:{id_}", finished_session_id=id_, session_id="next"),
        lambda world, id_: world.claims.holder(f"user:{id_}"),
        before=lambda world, id_: world.claims.take(f"user:{id_}", id_),
    ),
    Operation(
        "a document is replaced or made",
        lambda world, id_: world.cases.upsert({"_id": id_, "state": "CLOSED", "number": 2}),
        _the_case,
    ),
    Operation(
        "a document is deleted",
        lambda world, id_: world.claims.release(f"user:{id_}", id_),
        lambda world, id_: world.claims.holder(f"user:{id_}"),
        before=lambda world, id_: world.claims.take(f"user:{id_}", id_),
    ),
]


async def _told_or_found(world: World, id_: str) -> Any:
    """A conditional update, by a caller who reads when he is told that nothing matched: it may have been he himself."""
    moved = await world.cases.update(
        id_, where={"state": "OPEN"}, set_={"state": "CLOSED"}, inc={"number": 1}
    )
    return moved or await world.cases.get(id_)


COLLECTION_OPERATIONS.append(
    Operation("a document moves on once", _told_or_found, _the_case, before=_a_case),
)


def _wallet(id_: str) -> str:
    return f"wallet:{id_}"


def _earnings(id_: str) -> str:
    return f"earnings:{id_}"


async def _money(world: World, id_: str) -> None:
    await world.ledger.post(recharge(_wallet(id_), "first", 100))


async def _held(world: World, id_: str) -> None:
    await _money(world, id_)
    await open_(world.ledger, _wallet(id_), "h", 30)


async def _held_and_written_by_another(world: World, id_: str) -> None:
    """What the first process remembers of the account is out of date: its write must be refused and decided again."""
    await _held(world, id_)
    await extend(world.second, _wallet(id_), "h", n=2, to_minor=40)
    await world.second.post(payment(_wallet(id_), "other", (_earnings(id_), 5)))


async def _the_books(world: World, id_: str) -> Any:
    """Another process finishes what is left, and reads."""
    await world.second.recover()
    names = [_wallet(id_), _earnings(id_), f"wallet:v{id_}"]
    found = await MongoLedgerStore(world.other).load(names)
    accounts = {name: one.account._replace(holds=dict(one.account.holds)) for name, one in found.items()}
    rows = {
        row.entry.key: row
        for document in await world.other.collection(ENTRIES).find({"account": {"$in": names}}).to_list(None)
        for row in (row_of(document),)
    }
    moved: Counter[str] = Counter()
    for row in rows.values():
        if row.entry.state is KeyState.POSTED:
            for transfer in row.entry.transfers:
                moved[transfer.credit] += transfer.amount_minor
                moved[transfer.debit] -= transfer.amount_minor
    assert Books(accounts, rows, moved).problems(at_rest=True) == []
    return accounts, sorted(rows.items())


LEDGER_OPERATIONS: Final = [
    Operation(
        "a recharge",
        lambda world, id_: world.ledger.post(recharge(_wallet(id_), "second", 50)),
        _the_books,
        before=_money,
    ),
    Operation(
        "a first recharge",
        lambda world, id_: world.ledger.post(recharge(_wallet(id_), "first", 50)),
        _the_books,
    ),
    Operation(
        "a payment that credits two",
        lambda world, id_: world.ledger.post(
            payment(_wallet(id_), "p", (_earnings(id_), 60), (f"wallet:v{id_}", 10), ("revenue:fees", 1))
        ),
        _the_books,
        before=_money,
    ),
    Operation(
        "a hold is opened",
        lambda world, id_: open_(world.ledger, _wallet(id_), "h", 30),
        _the_books,
        before=_money,
    ),
    Operation(
        "a hold is extended",
        lambda world, id_: extend(world.ledger, _wallet(id_), "h", n=2, to_minor=60),
        _the_books,
        before=_held,
    ),
    Operation(
        "a hold is extended that another process has written",
        lambda world, id_: extend(world.ledger, _wallet(id_), "h", n=3, to_minor=60),
        _the_books,
        before=_held_and_written_by_another,
    ),
    Operation(
        "a hold is closed",
        lambda world, id_: close(world.ledger, _wallet(id_), "h", (_earnings(id_), 20), ("revenue:fees", 5)),
        _the_books,
        before=_held,
    ),
    Operation(
        "a key is voided",
        lambda world, id_: world.ledger.void(_wallet(id_), INR, "h"),
        _the_books,
        before=_held,
    ),
]


async def _talk(world: World, id_: str) -> None:
    await world.messages.open_conversation(id_, user_id="u", lawyer_id="l", at_ms=1)
    await world.messages.append(session_id=id_, sender_id="u", client_msg_id="1", body="one", at_ms=2)
    await world.messages.append(session_id=id_, sender_id="l", client_msg_id="1", body="two", at_ms=3)


async def _append(world: World, id_: str) -> Any:
    message, _was_stored_before = await world.messages.append(
        session_id=id_, sender_id="u", client_msg_id="2", body="three", at_ms=4
    )
    return message


async def _receipt(world: World, id_: str) -> Any:
    moved = await world.messages.advance(session_id=id_, reader_id="u", seen_seq=2, at_ms=5, in_service=True)
    return moved.watermarks


async def _the_talk(world: World, id_: str) -> Any:
    page = await world.second_messages.page(id_, limit=10)
    assert page is None or [message.seq for message in page.messages] == [
        *range(1, page.conversation.last_seq + 1)
    ]
    return page, await world.second_messages.overview([id_], viewer_id="l")


MESSAGE_OPERATIONS: Final = [
    Operation(
        "a conversation is opened",
        lambda world, id_: world.messages.open_conversation(id_, user_id="u", lawyer_id="l", at_ms=1),
        _the_talk,
        reads_after=True,
    ),
    Operation("a message is appended", _append, _the_talk, before=_talk, reads_after=True),
    Operation("a receipt is stored", _receipt, _the_talk, before=_talk, reads_after=True),
    Operation(
        "a conversation is closed",
        lambda world, id_: world.messages.close_conversation(id_, at_ms=6),
        _the_talk,
        before=_talk,
        reads_after=True,
    ),
]
OPERATIONS: Final = [*COLLECTION_OPERATIONS, *LEDGER_OPERATIONS, *MESSAGE_OPERATIONS]


@asynccontextmanager
async def worlds(
    server: MongoServer, deployment: Deployment, database: str, *, timeout_ms: int = PATIENT_MS
) -> AsyncIterator[World]:
    proxy = MongoProxy(
        server.port, replica_set=deployment.retries, remembers_retries=deployment.remembers_retries
    )
    async with (
        open_mongo(MongoOptions(server.url(database), timeout_ms=PATIENT_MS)) as other,
        proxy.serving(),
        open_with_short_limit(
            MongoOptions(proxy.url(database), deployment.driver, timeout_ms=timeout_ms)
        ) as db,
        World(db, other, proxy).open() as world,
    ):
        yield world


@pytest.fixture
def database(mongo_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    # After trouble a driver waits before it looks at the server again; here that would be most of the time.
    monkeypatch.setattr(pymongo.common, "MIN_HEARTBEAT_INTERVAL", 0.005)
    return mongo_url.rpartition("/")[2]


async def commands_of(world: World, operation: Operation) -> tuple[int, Any, Any]:
    """How many commands it sends untroubled, what it answers and what it leaves."""
    id_ = f"c{next(_names)}"
    await operation.before(world, id_)
    calls = world.proxy.listen_to()
    answer = await operation.run(world, id_)
    number = len(calls)
    return number, _named(answer, id_), _named(await operation.stored(world, id_), id_)


async def troubled(world: World, operation: Operation, fault: Fault, at: int) -> tuple[Any, Any] | None:
    """The same with a fault at one command; None if that command cannot have it."""
    id_ = f"c{next(_names)}"
    await until_known(lambda: operation.before(world, id_))
    world.proxy.plan(fault, at)
    answer = await until_known(lambda: operation.run(world, id_))
    happened = world.proxy.happened
    if fault is Fault.LATE:
        await world.proxy.deliver_late()
        again = await until_known(lambda: operation.run(world, id_))
        assert again == answer, "the late delivery changed the answer"
    world.proxy.listen_to()
    if not happened:
        return None
    return _named(answer, id_), _named(await until_known(lambda: operation.stored(world, id_)), id_)


def _named(value: Any, id_: str) -> str:
    """Without the name that differs from run to run."""
    return repr(value).replace(id_, "ID")


LOUD: Final = [fault for fault in Fault if not fault.is_silence]
#: One of each kind: lost before it, lost behind it, done on one node only, done twice.
QUICK: Final = [Fault.LOSE_REQUEST, Fault.LOSE_REPLY, Fault.NOT_REPLICATED, Fault.TWICE]
SILENT: Final = [fault for fault in Fault if fault.is_silence]


async def check_every_command(world: World, operation: Operation, faults: list[Fault]) -> int:
    """All faults at all commands; how many happened."""
    commands, answer, stored = await commands_of(world, operation)
    assert commands > 0
    happened = 0
    for fault in faults:
        for at in range(commands):
            outcome = await troubled(world, operation, fault, at)
            if outcome is not None:
                happened += 1
                assert outcome == (answer, stored), (fault.value, at)
    return happened


def in_two_parts(deployment: Deployment, quick: list[Fault]) -> list[Any]:
    """Some faults whenever tests run, all others as well where there is time."""
    others = [fault for fault in LOUD if fault not in quick]
    return [
        pytest.param(deployment, quick, id=f"{deployment}-some"),
        pytest.param(deployment, others, id=f"{deployment}-others", marks=pytest.mark.slow),
    ]


@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
@pytest.mark.parametrize(
    ("deployment", "faults"),
    [
        *in_two_parts(SINGLE, QUICK),
        *in_two_parts(RETRYING, [Fault.LOSE_REPLY, Fault.NOT_PRIMARY_AFTER]),
        *in_two_parts(FORGETTING, [Fault.LOSE_REPLY]),
        *in_two_parts(MOTOR, [Fault.LOSE_REPLY]),
    ],
)
async def test_whatever_happens_to_a_command_it_is_done_once(
    mongo_server: MongoServer,
    database: str,
    deployment: Deployment,
    faults: list[Fault],
    operation: Operation,
) -> None:
    async with worlds(mongo_server, deployment, database) as world:
        assert await check_every_command(world, operation, faults) > 0


@pytest.mark.parametrize(
    ("fault", "operation"),
    [
        pytest.param(fault, operation, id=f"{fault.name}-{operation}")
        for fault in (Fault.LOSE_REPLY, Fault.NOT_PRIMARY, Fault.TIME_LIMIT, Fault.NOT_REPLICATED)
        for operation in OPERATIONS
        # Whoever reads from the majority whether it was done may say so.
        if not (operation.reads_after and fault is Fault.NOT_REPLICATED)
    ],
)
async def test_while_the_store_fails_nobody_is_told_yes_or_no(
    mongo_server: MongoServer, database: str, fault: Fault, operation: Operation
) -> None:
    """Unknown is an error: never done, never refused, never zero."""
    async with worlds(mongo_server, SINGLE, database, timeout_ms=_IMPATIENT_MS) as world:
        id_ = f"c{next(_names)}"
        await until_known(lambda: operation.before(world, id_))
        world.proxy.plan_always(fault)
        with pytest.raises(Unavailable):
            await operation.run(world, id_)
        world.proxy.listen_to()
        # And it is not over with the first trouble.
        await until_known(lambda: operation.run(world, id_))
        await until_known(lambda: operation.stored(world, id_))


async def test_all_is_written_to_a_majority_and_read_from_it(
    mongo_server: MongoServer, database: str
) -> None:
    """What one node says may be taken back; only because of this a caller may go by what he reads after a write of unknown outcome."""
    async with worlds(mongo_server, RETRYING, database) as world:
        calls = world.proxy.listen_to()
        for operation in OPERATIONS:
            id_ = f"c{next(_names)}"
            await operation.before(world, id_)
            await operation.run(world, id_)
        concerns = {(call.writes, repr(_without_time(call.concern))) for call in calls}
    assert concerns == {(False, "'majority'"), (True, repr({"j": True, "w": "majority"}))}


def _without_time(concern: Any) -> Any:
    if isinstance(concern, dict):
        return {name: concern[name] for name in sorted(concern) if name != "wtimeout"}
    return concern


@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
async def test_whatever_is_not_answered_or_arrives_late_is_done_once(
    mongo_server: MongoServer, database: str, operation: Operation
) -> None:
    async with worlds(mongo_server, SINGLE, database) as world:
        commands, *untroubled = await commands_of(world, operation)

    async def silent(fault: Fault, at: int) -> None:
        # A client of its own for each: what takes the time is to wait for silence, and they wait together.
        async with worlds(mongo_server, SINGLE, database, timeout_ms=_IMPATIENT_MS) as world:
            assert await troubled(world, operation, fault, at) in (None, tuple(untroubled)), (fault.value, at)

    await asyncio.gather(*(silent(fault, at) for fault in SILENT for at in range(commands)))


@pytest.mark.parametrize(
    ("deployment", "numbers"),
    [
        # One command: it happened or not, and the caller must not guess.
        (SINGLE, {1, 2}),
        (RETRYING, {2}),
        # Nobody may build on this: such a server counts the driver's retry.
        (FORGETTING, {2, 3}),
    ],
    ids=str,
)
async def test_a_blind_increment_happens_once_only_where_the_server_knows_a_retry(
    mongo_server: MongoServer, database: str, deployment: Deployment, numbers: set[int]
) -> None:
    """Which is why the product has none: each of its increments has a condition that it ends itself."""
    found = set()
    async with worlds(mongo_server, deployment, database) as world:
        for fault in (Fault.LOSE_REQUEST, Fault.LOSE_REPLY, Fault.NOT_PRIMARY, Fault.NOT_PRIMARY_AFTER):
            id_ = f"c{next(_names)}"
            await until_known(lambda id_=id_: _a_case(world, id_))
            world.proxy.plan(fault, 0)
            with suppress(Unavailable):
                await world.cases.update(id_, inc={"number": 1})
            world.proxy.listen_to()
            found.add((await until_known(lambda id_=id_: _the_case(world, id_)))["number"])
    assert found == numbers
