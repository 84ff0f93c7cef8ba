"""Every command that an operation sends to MongoDB goes wrong, in its turn and in every way that a wire and a replica set have.

The list of commands is not written down here: each operation runs once untroubled behind a proxy that takes notes, then once for
each command and fault. Its caller does what callers do: hears an answer, or hears that nobody knows and repeats by its key.
Either way the answer and what is stored must be those of the untroubled run: nothing lost, nothing doubled, and never
a "no" that only meant that nobody knew.
"""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import pymongo.common
import pytest

from billing_engine.errors import Unavailable
from server.storage.collection import CollectionSpec
from server.storage.mongo.client import Driver, MongoDatabase, MongoOptions, open_mongo
from server.storage.mongo.collection import MongoCollections
from server.storage.repositories.claims import CollectionClaims
from tests.support.mongo_proxy import Fault, MongoProxy
from tests.support.mongo_server import PATIENT_MS, MongoServer

#: How long a caller goes on repeating. Alone it takes one repeat.
_PATIENCE_S: Final = 30.0
#: A call's limit where a fault is silence.
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


class World:
    """One process' adapters behind the proxy."""

    def __init__(self, db: MongoDatabase, proxy: MongoProxy) -> None:
        self.db = db
        self.proxy = proxy
        self.collections = MongoCollections(db)

    async def open(self) -> None:
        self.cases = await self.collections.open(CASES)
        self.claims = await CollectionClaims.open(self.collections)


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


@asynccontextmanager
async def worlds(
    server: MongoServer, deployment: Deployment, database: str, *, timeout_ms: int = PATIENT_MS
) -> AsyncIterator[World]:
    proxy = MongoProxy(
        server.port, replica_set=deployment.retries, remembers_retries=deployment.remembers_retries
    )
    async with proxy.serving():
        options = MongoOptions(proxy.url(database), deployment.driver, timeout_ms=timeout_ms)
        async with open_mongo(options) as db:
            world = World(db, proxy)
            await world.open()
            yield world


@pytest.fixture
def database(mongo_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    # After trouble a driver waits before it looks at the server again; here that would be most of the time.
    monkeypatch.setattr(pymongo.common, "MIN_HEARTBEAT_INTERVAL", 0.005)
    return mongo_url.rpartition("/")[2]


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


@pytest.mark.parametrize("operation", COLLECTION_OPERATIONS, ids=str)
@pytest.mark.parametrize("deployment", [SINGLE, MOTOR, RETRYING, FORGETTING], ids=str)
async def test_a_document_is_written_once_whatever_happens_to_its_commands(
    mongo_server: MongoServer, database: str, deployment: Deployment, operation: Operation
) -> None:
    async with worlds(mongo_server, deployment, database) as world:
        print(await check_every_command(world, operation, LOUD))
