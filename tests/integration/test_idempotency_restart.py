"""A request that a crash cut short runs again right after the restart; nobody waits for the lease of a dead process."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from server.errors import IdempotencyInProgress
from server.idempotency import Idempotency, IdempotencyRow
from server.ids import new_id
from server.storage.repositories.idempotency import CollectionIdempotency
from server.storage.sqlite.collection import SqliteCollections
from server.storage.sqlite.engine import SqliteOptions, open_database
from tests.support.manual_clock import ManualClock


@pytest.fixture
async def rows(tmp_path: Path) -> AsyncIterator[CollectionIdempotency]:
    async with open_database(tmp_path / "edge.db", SqliteOptions(synchronous="OFF")) as db:
        yield await CollectionIdempotency.open(SqliteCollections(db))


async def begin(idempotency: Idempotency) -> IdempotencyRow:
    return await idempotency.begin(caller="u", route="POST /pay", key="k", fingerprint="f")


def process(rows: CollectionIdempotency, *, alone: bool) -> Idempotency:
    others = (lambda _process: False) if alone else (lambda _process: True)
    return Idempotency(rows=rows, clock=ManualClock(), new_id=new_id, is_alive=others)


async def test_the_only_process_knows_that_an_earlier_ones_request_has_crashed(
    rows: CollectionIdempotency,
) -> None:
    crashed = await begin(process(rows, alone=True))
    after_restart = process(rows, alone=True)
    again = await begin(after_restart)
    assert again.operation_id == crashed.operation_id, (
        "the same operation: what did happen is found, not repeated"
    )
    # Its own request that runs is still one that runs.
    with pytest.raises(IdempotencyInProgress):
        await begin(after_restart)


async def test_of_several_processes_none_knows_that_and_the_lease_is_waited_for(
    rows: CollectionIdempotency,
) -> None:
    await begin(process(rows, alone=False))
    with pytest.raises(IdempotencyInProgress):
        await begin(process(rows, alone=False))


async def test_beside_other_processes_the_dead_one_s_key_is_free_and_the_living_one_s_is_not(
    rows: CollectionIdempotency,
) -> None:
    """A client that repeats after its process died must not wait for the lease of a run that nobody runs."""

    def named(name: str, living: set[str]) -> Idempotency:
        return Idempotency(
            rows=rows, clock=ManualClock(), new_id=new_id, process=name, is_alive=living.__contains__
        )

    first = await begin(named("a", {"b"}))
    with pytest.raises(IdempotencyInProgress):
        await begin(named("b", {"a"}))
    again = await begin(named("b", set()))
    assert again.operation_id == first.operation_id
