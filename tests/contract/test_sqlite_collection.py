"""The collection port over SQLite: the contract, and what only a table with columns can get wrong."""

import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from server.storage.collection import Collections, CollectionSpec
from server.storage.errors import DuplicateId, StoreUnavailable
from server.storage.query import parse_sort, parse_where, ranges_after, served_by_index
from server.storage.sqlite.collection import SqliteCollections
from server.storage.sqlite.engine import Lane, SqliteDatabase, SqliteOptions, open_database
from server.storage.sqlite.sql import conditions, order_by
from tests.contract.collection_contract import ANIMALS, CollectionContract, animal, ids

FAST = SqliteOptions(synchronous="OFF")


@pytest.fixture
async def db(tmp_path: Path) -> AsyncIterator[SqliteDatabase]:
    async with open_database(tmp_path / "collections.db", FAST) as database:
        yield database


@pytest.fixture
async def collections(db: SqliteDatabase) -> Collections:
    return SqliteCollections(db)


class TestSqliteCollection(CollectionContract):
    """Over a real file."""


OLD = CollectionSpec(name="things", text=("a",), integer=("n",), indexes=(("a",), ("n",)))


async def columns(db: SqliteDatabase) -> dict[str, str]:
    return db.read(
        lambda connection: {row[1]: row[2] for row in connection.execute('PRAGMA table_info("c_things")')}
    )


async def indexes(db: SqliteDatabase) -> set[str]:
    sql = "SELECT name FROM sqlite_schema WHERE type = 'index' AND tbl_name = 'c_things' AND sql IS NOT NULL"
    return db.read(lambda connection: {name for (name,) in connection.execute(sql)})


async def test_a_field_declared_later_is_found_in_older_documents(db: SqliteDatabase) -> None:
    """A new version of the server declares a field: a report that saw only new rows would be wrong quietly."""
    old = await SqliteCollections(db).open(OLD)
    for n in range(2_500):
        await old.insert(animal(f"t{n:04}", a="x", n=n, city="Pune" if n % 5 == 0 else None, done=n % 2 == 0))
    await old.insert(animal("t-last", a="x"))
    new = await SqliteCollections(db).open(
        CollectionSpec(
            name="things",
            text=("a", "city"),
            integer=("n",),
            boolean=("done",),
            indexes=(("city", "n"), ("a",)),
        )
    )
    assert await new.count({"city": "Pune"}) == 500
    assert await new.sum_by("n", group_by="done") == {
        None: (0, 1),
        True: (sum(range(0, 2_500, 2)), 1_250),
        False: (sum(range(1, 2_500, 2)), 1_250),
    }
    assert await indexes(db) == {"c_things(city,n)", "c_things(a)"}
    await new.update("t0001", set_={"city": "Agra"})
    assert ids(await new.find({"city": "Agra"})) == ["t0001"]


async def test_a_field_no_longer_declared_and_declared_again_is_not_stale(db: SqliteDatabase) -> None:
    """A roll back to an older version and forward again: its writes must be in the column too."""
    with_n = await SqliteCollections(db).open(OLD)
    await with_n.insert(animal("t", a="x", n=1))
    without = await SqliteCollections(db).open(CollectionSpec(name="things", text=("a",)))
    assert await columns(db) == {"_id": "TEXT", "a": "TEXT", "_body": "TEXT"}
    assert await without.update("t", set_={"n": 2}) is not None
    again = await SqliteCollections(db).open(OLD)
    assert await again.sum_by("n") == {None: (2, 1)}


async def test_a_field_of_another_type_gets_a_new_column(db: SqliteDatabase) -> None:
    one = CollectionSpec(name="things", integer=("x",), indexes=(("x",),))
    await (await SqliteCollections(db).open(one)).insert(animal("t", x=None))
    two = await SqliteCollections(db).open(CollectionSpec(name="things", text=("x",), indexes=(("x",),)))
    assert (await columns(db))["x"] == "TEXT"
    await two.insert(animal("u", x="12"))
    assert ids(await two.find({"x": "12"})) == ["u"]


async def test_a_stored_document_that_does_not_fit_stops_the_start(db: SqliteDatabase) -> None:
    old = await SqliteCollections(db).open(OLD)
    await old.insert(animal("t-bad", city=5))
    before = await columns(db), await indexes(db)
    with pytest.raises(ValueError, match=r"'t-bad'.*city"):
        await SqliteCollections(db).open(CollectionSpec(name="things", text=("city",)))
    assert (await columns(db), await indexes(db)) == before


async def test_documents_survive_the_process(tmp_path: Path) -> None:
    for round_ in range(3):
        async with open_database(tmp_path / "x.db", FAST) as database:
            things = await SqliteCollections(database).open(OLD)
            assert await things.count({}) == round_
            await things.insert(animal(f"t{round_}"))


async def test_after_the_close_every_call_says_so(tmp_path: Path) -> None:
    async with open_database(tmp_path / "x.db", FAST) as database:
        things = await SqliteCollections(database).open(OLD)
    for call in (
        things.insert(animal("a")),
        things.get("a"),
        things.get_many(["a"]),
        things.find({}),
        things.update("a"),
        things.upsert(animal("a")),
        things.delete("a"),
        things.count({}),
        things.sum_by("n"),
    ):
        with pytest.raises(StoreUnavailable):
            await call


async def test_a_refused_insert_leaves_the_others_of_its_commit(db: SqliteDatabase) -> None:
    things = await SqliteCollections(db).open(OLD)
    await things.insert(animal("t1"))

    def put(id_: str) -> Callable[[sqlite3.Connection], int]:
        sql = 'INSERT INTO c_things ("_id", "_body") VALUES (?, ?)'
        return lambda connection: connection.execute(sql, (id_, f'{{"_id":"{id_}"}}')).rowcount

    first, again, other = (db.submit(Lane.REST, put(id_)) for id_ in ("t2", "t1", "t3"))
    assert await first == 1
    with pytest.raises(sqlite3.IntegrityError):
        await again
    assert await other == 1
    with pytest.raises(DuplicateId):
        await things.insert(animal("t2"))
    assert ids(await things.find({})) == ["t1", "t2", "t3"]


def fetching(sql: str, parameters: list[Any]) -> Callable[[sqlite3.Connection], list[Any]]:
    return lambda connection: connection.execute(sql, parameters).fetchall()


SHAPES = [
    ({}, [("_id", "asc")], True),
    ({"_id": "x"}, [("weight_g", "asc")], True),
    ({"kind": "x"}, [("age", "desc")], True),
    ({"kind": "x", "age": {"gt": 3}}, [("age", "asc")], True),
    ({"kind": "x", "age": 3}, [("_id", "asc")], True),
    ({"owner_id": None}, [("_id", "desc")], True),
    ({}, [("kind", "asc"), ("age", "asc")], True),
    ({}, [("owner_id", "asc")], True),
    ({}, [("kind", "asc")], False),
    ({"kind": "x"}, [("_id", "asc")], False),
    ({"kind": "x"}, [("age", "desc"), ("_id", "asc")], False),
    ({"age": 3}, [("_id", "asc")], False),
    ({"weight_g": 3}, [("_id", "asc")], False),
    ({}, [("weight_g", "asc")], False),
    ({"owner_id": "x", "kind": "y"}, [("_id", "asc")], False),
    ({"owner_id": "x", "age": {"gt": 1}}, [("_id", "asc")], False),
    ({"owner_id": {"ne": "x"}}, [("_id", "asc")], False),
    ({"tags": {"has": "x"}}, [("_id", "asc")], False),
]


@pytest.mark.parametrize(("where", "sort", "short"), SHAPES)
async def test_only_what_an_index_answers_is_read_on_the_event_loop(
    db: SqliteDatabase, where: dict[str, object], sort: list[tuple[str, str]], short: bool
) -> None:
    """A table scan there would hold up every session's tick. SQLite's own plan is the judge."""
    await SqliteCollections(db).open(ANIMALS)
    terms, order = parse_where(ANIMALS, where), parse_sort(ANIMALS, sort)  # type: ignore[arg-type]
    assert served_by_index(ANIMALS, terms, order) is short
    if not short:
        return
    after = [7 if name in ANIMALS.integer else "x" for name, _ in order]
    for start in (None, after):
        for range_ in ranges_after(ANIMALS, order, start):
            matching, parameters = conditions((*terms, *range_))
            sql = f"EXPLAIN QUERY PLAN SELECT _body FROM c_animals WHERE {matching} ORDER BY {order_by(order)} LIMIT 9"
            plan = [row[3] for row in db.read(fetching(sql, parameters))]
            if "_id" not in where:
                assert not any("TEMP B-TREE" in step for step in plan), plan
            assert all(
                "SEARCH" in step or "INDEX" in step or where == {} or "B-TREE" in step for step in plan
            ), plan


def test_the_ranges_of_a_page_name_nulls_where_they_lie() -> None:
    def shown(sort: object, after: object) -> list[list[tuple[str, str, object]]]:
        order = parse_sort(ANIMALS, sort)  # type: ignore[arg-type]
        found = ranges_after(ANIMALS, order, after)  # type: ignore[arg-type]
        return [[(t.field, t.operator, t.value) for t in range_] for range_ in found]

    assert shown([("age", "asc")], [None, "x"]) == [
        [("age", "eq", None), ("_id", "gt", "x")],
        [("age", "ne", None)],
    ]
    assert shown([("age", "desc")], [5, "x"]) == [
        [("age", "eq", 5), ("_id", "lt", "x")],
        [("age", "lt", 5)],
        [("age", "eq", None)],
    ]
    assert shown([("age", "desc")], [None, "x"]) == [[("age", "eq", None), ("_id", "lt", "x")]]
