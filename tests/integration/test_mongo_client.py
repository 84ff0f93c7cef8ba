"""Opening MongoDB, and what its failures become: against a server that is killed, frozen and not there."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from bson import Int64
from pymongo.errors import (
    AutoReconnect,
    BulkWriteError,
    DuplicateKeyError,
    ExecutionTimeout,
    InvalidDocument,
    NetworkTimeout,
    NotPrimaryError,
    OperationFailure,
    ServerSelectionTimeoutError,
    WriteConcernError,
    WTimeoutError,
)

from server.storage.errors import CannotOpen, StoreUnavailable
from server.storage.mongo.client import Driver, MongoDatabase, MongoOptions, open_mongo
from server.storage.mongo.failures import store_failures
from server.storage.mongo.integers import int64
from tests.support.mongo_server import PATIENT_MS, MongoServer, open_with_short_limit

DRIVERS: list[Driver] = ["pymongo", "motor"]
#: Only ends a test that hangs.
_PATIENCE_S = 60


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[MongoServer]:
    """One that a test may kill."""
    with MongoServer(tmp_path) as server:
        yield server


async def test_a_database_is_named_by_the_url_and_answers(mongo_options: MongoOptions) -> None:
    async with open_mongo(mongo_options) as db:
        assert db.name in mongo_options.url
        await db.ping()
        assert abs(await db.now_ms() - time.time() * 1_000) < 60_000


async def test_without_a_name_in_the_url_the_database_is_ours(mongo_server: MongoServer) -> None:
    async with open_mongo(MongoOptions(mongo_server.url(""), timeout_ms=PATIENT_MS)) as db:
        assert db.name == "tarazu"


async def test_integers_are_64_bits_in_the_database_and_plain_in_the_program(
    mongo_options: MongoOptions,
) -> None:
    """A 32-bit sum of money would overflow at twenty million rupees."""
    async with open_mongo(mongo_options) as db:
        sums = db.collection("sums")
        doc = {"_id": "a", "n": 5, "facts": {"list": [1, 2**62, -1, [3]]}, "flag": True, "none": None}
        with store_failures:
            await sums.insert_one(int64(doc))
            await sums.update_one({"_id": "a"}, {"$inc": {"n": Int64(2**40)}})
            found = await sums.find_one({"_id": "a"})
        assert found == {**doc, "n": 5 + 2**40}
        assert [type(found["n"]), type(found["facts"]["list"][0]), type(found["flag"])] == [int, int, bool]
        assert await db.aggregate("sums", [{"$group": {"_id": None, "n": {"$sum": "$n"}}}]) == [
            {"_id": None, "n": 5 + 2**40}
        ]


def test_tuples_are_lists_and_nothing_else_changes() -> None:
    copy = int64({"t": (1, "x", (True,)), "s": "1"})
    assert copy == {"t": [1, "x", [True]], "s": "1"}
    assert [type(copy["t"][0]), type(copy["t"][2][0])] == [Int64, bool]


@pytest.mark.parametrize("driver", DRIVERS)
async def test_where_nothing_answers_the_operator_is_told_without_the_password(driver: Driver) -> None:
    url = "mongodb://admin:secret@127.0.0.1:1/tarazu?directConnection=true"
    with pytest.raises(CannotOpen, match=r"^mongodb://127\.0\.0\.1:1/tarazu: no MongoDB answers") as refused:
        async with open_mongo(MongoOptions(url, driver, timeout_ms=100)):
            pass
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("url", ["http://127.0.0.1/x", "mongodb://", "mongodb://127.0.0.1:port/x"])
async def test_a_wrong_address_is_told_apart(driver: Driver, url: str) -> None:
    with pytest.raises(CannotOpen, match="this is no MongoDB address"):
        async with open_mongo(MongoOptions(url, driver)):
            pass


async def test_a_missing_driver_is_named_with_the_way_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "motor.motor_asyncio", None)
    with pytest.raises(CannotOpen, match=r"tarazu\[motor\]"):
        async with open_mongo(MongoOptions("mongodb://127.0.0.1:1/x", "motor")):
            pass


@pytest.mark.parametrize("driver", DRIVERS)
async def test_a_killed_server_is_unavailable_and_then_back_with_what_it_acknowledged(
    own_server: MongoServer, driver: Driver
) -> None:
    url = own_server.url("x")
    async with (
        open_mongo(MongoOptions(url, driver, timeout_ms=PATIENT_MS)) as patient,
        open_with_short_limit(MongoOptions(url, driver, timeout_ms=1_000)) as db,
    ):
        rows = patient.collection("rows")
        for n in range(20):
            await rows.insert_one({"_id": n})
        own_server.kill()
        with pytest.raises(StoreUnavailable):
            await db.ping()
        with pytest.raises(StoreUnavailable), store_failures:
            await db.collection("rows").insert_one({"_id": "lost"})
        own_server.start()
        await until_it_answers(db)
        await until_it_answers(patient)
        assert [row["_id"] for row in await rows.find({"_id": {"$ne": "lost"}}).to_list(None)] == list(
            range(20)
        )


@pytest.mark.parametrize("driver", DRIVERS)
async def test_a_frozen_server_costs_no_more_than_the_limit(own_server: MongoServer, driver: Driver) -> None:
    """Without a limit a session's tick would hang as long as the network does."""
    async with open_with_short_limit(MongoOptions(own_server.url("x"), driver, timeout_ms=200)) as db:
        await until_it_answers(db)
        own_server.freeze()
        with pytest.raises(StoreUnavailable):
            await db.ping()
        with pytest.raises(StoreUnavailable):
            await db.aggregate("x", [])
        own_server.thaw()


async def until_it_answers(db: MongoDatabase) -> None:
    """On a busy machine a short limit is reached by a server that is well, too, and more than once."""
    async with asyncio.timeout(_PATIENCE_S):
        while True:
            with suppress(StoreUnavailable):
                await db.ping()
                return
            await asyncio.sleep(0.01)


UNKNOWN: list[Exception] = [
    AutoReconnect("gone"),
    NetworkTimeout("late"),
    ServerSelectionTimeoutError("nobody"),
    NotPrimaryError("stepped down", {"code": 10107}),
    WriteConcernError("late", 64),
    WTimeoutError("late", 64),
    ExecutionTimeout("late", 50),
    OperationFailure("shutting down", 11600),
    OperationFailure("database is locked", None),
    OperationFailure("what is this", 987_654),
    BulkWriteError({"writeErrors": [], "writeConcernErrors": [{"code": 64}]}),
    BulkWriteError({"writeErrors": [{"code": 11000}, {"code": 91}], "writeConcernErrors": []}),
]
KNOWN: list[Exception] = [
    DuplicateKeyError("there is one", 11000),
    OperationFailure("no such operator", 2),
    OperationFailure("the validator says no", 121),
    BulkWriteError({"writeErrors": [{"code": 11000}, {"code": 121}], "writeConcernErrors": []}),
    InvalidDocument("a set"),
    KeyError("ours"),
]


@pytest.mark.parametrize(
    "failure", UNKNOWN, ids=lambda exc: f"{type(exc).__name__}-{getattr(exc, 'code', '')}"
)
def test_an_unknown_outcome_is_unavailable(failure: Exception) -> None:
    with pytest.raises(StoreUnavailable) as told, store_failures:
        raise failure
    assert told.value.__cause__ is failure


@pytest.mark.parametrize("failure", KNOWN, ids=lambda exc: f"{type(exc).__name__}-{getattr(exc, 'code', '')}")
def test_a_known_answer_is_left_to_the_caller(failure: Exception) -> None:
    """ "Try again" would never end for a mistake of ours, and an existing key is the caller's proof."""
    with pytest.raises(type(failure)) as same, store_failures:
        raise failure
    assert same.value is failure


async def test_what_a_snapshot_reads_is_one_state_or_said_to_be_none(mongo_options: MongoOptions) -> None:
    async with open_mongo(mongo_options) as db:
        rows: Any = db.collection("rows")
        await rows.insert_one({"_id": 1})
        async with db.snapshot() as session:
            assert (session is not None) is db.replicated
            assert await rows.count_documents({}, session=session) == 1
            await rows.insert_one({"_id": 2})
            assert await rows.count_documents({}, session=session) == (1 if db.replicated else 2)
