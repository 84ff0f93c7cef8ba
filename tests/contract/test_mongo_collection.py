"""The collection port over MongoDB: the contract through either driver, and what only a shared database can get wrong."""

import asyncio
import importlib
import pkgutil
import re
from collections.abc import AsyncIterator

import pytest

from server.docs_pages import DOCS
from server.storage import repositories
from server.storage.collection import Collection, Collections, CollectionSpec
from server.storage.errors import DuplicateId, StoreUnavailable
from server.storage.mongo import ledger, messages
from server.storage.mongo.client import MongoDatabase, MongoOptions, open_mongo
from server.storage.mongo.collection import MongoCollection, MongoCollections, indexes_of
from tests.contract.collection_contract import ANIMALS, INT64_MAX, CollectionContract, animal, ids
from tests.support.mongo_server import PATIENT_MS


@pytest.fixture
async def one_db(mongo_url: str) -> AsyncIterator[MongoDatabase]:
    async with open_mongo(MongoOptions(mongo_url, timeout_ms=PATIENT_MS)) as database:
        yield database


class TestMongoCollection(CollectionContract):
    @pytest.fixture
    async def collections(self, one_db: MongoDatabase) -> Collections:
        return MongoCollections(one_db)


class TestMongoCollectionThroughMotor(CollectionContract):
    """All but what is refused before a driver sees it."""

    test_what_cannot_come_back_the_same_is_refused = None
    test_a_filter_that_cannot_be_is_refused = None
    test_a_page_that_cannot_be_is_refused = None
    test_a_spec_that_cannot_be_is_refused = None
    test_a_sum_that_cannot_be_is_refused = None

    @pytest.fixture
    async def collections(self, mongo_url: str) -> AsyncIterator[Collections]:
        async with open_mongo(MongoOptions(mongo_url, "motor", timeout_ms=PATIENT_MS)) as database:
            yield MongoCollections(database)


@pytest.fixture
async def processes(mongo_url: str, one_db: MongoDatabase) -> AsyncIterator[list[Collection]]:
    """The same collection as two processes have it."""
    async with open_mongo(MongoOptions(mongo_url, timeout_ms=PATIENT_MS)) as other:
        yield [await MongoCollections(db).open(ANIMALS) for db in (one_db, other)]


async def test_of_several_processes_one_gets_the_claim(processes: list[Collection]) -> None:
    for n in range(20):
        answers = await asyncio.gather(
            *(process.insert(animal(f"claim-{n}", age=k)) for k, process in enumerate(processes)),
            return_exceptions=True,
        )
        assert sorted(type(answer) for answer in answers if answer is not None) == [DuplicateId]
        winner = answers.index(None)
        assert await processes[1 - winner].get(f"claim-{n}") == animal(f"claim-{n}", age=winner)


async def test_increases_of_several_processes_stop_at_the_edge_of_64_bits(
    processes: list[Collection],
) -> None:
    """A counter that turned into a float would be wrong from then on, and quietly."""
    await processes[0].insert(animal("a", age=INT64_MAX - 7))
    answers = await asyncio.gather(
        *(processes[k % 2].update("a", inc={"age": 1}) for k in range(20)), return_exceptions=True
    )
    assert sum(isinstance(answer, dict) for answer in answers) == 7
    assert sum(isinstance(answer, ValueError) for answer in answers) == 13
    assert await processes[0].get("a") == animal("a", age=INT64_MAX)


async def test_documents_replaced_at_once_by_several_processes_are_whole(
    processes: list[Collection],
) -> None:
    for n in range(10):
        news = [animal(f"p{n}", age=k, weight_g=k) for k in range(2)]
        await asyncio.gather(*(process.upsert(new) for process, new in zip(processes, news, strict=True)))
        assert await processes[0].get(f"p{n}") in news


async def test_a_document_that_moves_while_a_page_is_read_does_not_come_twice(
    one_db: MongoDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page behind a key is several ranges, read one after another."""
    animals = await MongoCollections(one_db).open(ANIMALS)
    for n in range(4):
        await animals.insert(animal(f"a{n}", kind="cat", age=5))
    await animals.insert(animal("b", kind="cat", age=9))
    true = animals._collection

    class Moving:
        def find(self, *args: object, **kwargs: object) -> object:
            return Cursor(true.find(*args, **kwargs))

    class Cursor:
        def __init__(self, cursor: object) -> None:
            self._cursor = cursor

        async def to_list(self, length: None) -> object:
            found = await self._cursor.to_list(length)
            await true.update_one({"_id": "a3"}, {"$set": {"age": 7}})
            return found

    monkeypatch.setattr(animals, "_collection", Moving())
    page = await animals.find({"kind": "cat"}, sort=[("age", "asc")], after=[5, "a0"])
    assert ids(page) == ["a1", "a2", "a3", "b"]
    assert page[2] == animal("a3", kind="cat", age=5)


@pytest.mark.parametrize("bad", [animal("a", x={"nul\0": 1}), animal("a", x="x" * (17 * 1024 * 1024))])
async def test_what_bson_cannot_hold_is_the_callers_mistake(
    one_db: MongoDatabase, bad: dict[str, object]
) -> None:
    animals = await MongoCollections(one_db).open(ANIMALS)
    with pytest.raises(ValueError):
        await animals.insert(bad)
    with pytest.raises(ValueError):
        await animals.upsert(bad)
    assert await animals.get("a") is None


async def test_after_the_close_every_call_says_so(mongo_options: MongoOptions) -> None:
    async with open_mongo(mongo_options) as db:
        things = await MongoCollections(db).open(ANIMALS)
    for call in (
        things.insert(animal("a")),
        things.get("a"),
        things.get_many(["a"]),
        things.find({}),
        things.update("a", set_={"age": 1}),
        things.upsert(animal("a")),
        things.delete("a"),
        things.count({}),
        things.sum_by("age"),
    ):
        with pytest.raises(StoreUnavailable):
            await call


def specs() -> list[CollectionSpec]:
    """Every one that there is. (A module may import another one's.)"""
    modules = (
        importlib.import_module(f"{repositories.__name__}.{module.name}")
        for module in pkgutil.iter_modules(repositories.__path__)
    )
    found = [
        value for module in modules for value in vars(module).values() if isinstance(value, CollectionSpec)
    ]
    return list(dict.fromkeys(found))


def test_the_page_lists_each_collection_with_its_indexes() -> None:
    made = {name: [list(fields) for fields in indexes] for name, indexes in messages.INDEXES.items()}
    made |= {spec.name: [list(fields) for fields in indexes_of(spec)] for spec in specs()}
    for index in ledger.INDEXES:
        unique = ["unique"] if index.unique else []
        made.setdefault(index.collection, []).append([*index.fields, *unique])

    page = (DOCS / "mongodb.md").read_text("utf-8")
    listed = {
        name: []
        if indexes == "none but `_id`"
        else [re.findall(r"\w+", index) for index in indexes.split("; ")]
        for name, indexes in re.findall(r"^\| `(\w+)` \| (.*) \|$", page, re.MULTILINE)
    }
    assert listed == made


async def test_every_collection_can_be_opened_with_its_indexes(one_db: MongoDatabase) -> None:
    for spec in specs():
        things: MongoCollection = await MongoCollections(one_db).open(spec)
        await things.insert({"_id": "a"})
        assert await things.count({}) == 1
