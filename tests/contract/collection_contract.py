"""What every adapter of the collection port must do. Subclass it and supply the `collections` fixture."""

import asyncio
import itertools
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.storage.collection import Collection, Collections, CollectionSpec, Doc
from server.storage.errors import DuplicateId

ANIMALS = CollectionSpec(
    name="animals",
    text=("kind", "owner_id"),
    integer=("age", "weight_g"),
    boolean=("tame",),
    lists=("tags", "chips"),
    indexes=(("kind", "age"), ("owner_id",)),
)
INT64_MAX = 2**63 - 1
INT64_MIN = -(2**63)

_numbers = itertools.count()


def animal(id_: str, **fields: Any) -> Doc:
    return {"_id": id_, **fields}


def ids(docs: Sequence[Doc]) -> list[str]:
    return [doc["_id"] for doc in docs]


class CollectionContract:
    """Many small promises. `collections` opens collections of an empty store."""

    @pytest.fixture
    async def animals(self, collections: Collections) -> Collection:
        return await collections.open(ANIMALS)

    # --- documents ---

    async def test_what_was_inserted_comes_back_the_same(self, animals: Collection) -> None:
        doc = animal(
            "a-1",
            kind="cat",
            age=INT64_MAX,
            weight_g=INT64_MIN,
            tame=False,
            tags=["soft", "नमस्ते", "🐈"],
            chips=[1, INT64_MAX],
            owner_id=None,
            note="quote ' \" \\ % _ \n \0 end",
            nested={"deep": [{"x": [1, None, True, "y"]}], "dotted.key": 1, "": "empty"},
            empty=[],
        )
        await animals.insert(doc)
        found = await animals.get("a-1")
        assert found == doc
        assert found is not None
        assert found["tame"] is False
        assert list(found) == list(doc)

    async def test_a_document_that_is_not_there_is_none(self, animals: Collection) -> None:
        assert await animals.get("nobody") is None

    async def test_a_second_insert_of_an_id_changes_nothing(self, animals: Collection) -> None:
        await animals.insert(animal("a", kind="cat"))
        with pytest.raises(DuplicateId) as refused:
            await animals.insert(animal("a", kind="dog"))
        assert (refused.value.collection, refused.value.id) == ("animals", "a")
        assert await animals.get("a") == animal("a", kind="cat")

    async def test_of_many_simultaneous_inserts_of_one_id_one_wins(self, animals: Collection) -> None:
        results = await asyncio.gather(
            *(animals.insert(animal("one", age=n)) for n in range(100)), return_exceptions=True
        )
        winners = [n for n, result in enumerate(results) if result is None]
        assert len(winners) == 1
        assert all(isinstance(r, DuplicateId) for n, r in enumerate(results) if n not in winners)
        assert await animals.get("one") == animal("one", age=winners[0])

    async def test_ids_differ_in_case_accents_and_length(self, animals: Collection) -> None:
        names = ["a", "A", "a ", "ä", "a\u0308", "a" * 1_000, "a%", "a'", "$a", "a.b"]
        for name in names:
            await animals.insert(animal(name))
        assert set(await animals.get_many(names)) == set(names)

    async def test_documents_belong_to_their_callers(self, animals: Collection) -> None:
        doc = animal("a", nested={"n": 1})
        await animals.insert(doc)
        doc["nested"]["n"] = 2
        first = await animals.get("a")
        assert first == animal("a", nested={"n": 1})
        first["nested"]["n"] = 3
        assert await animals.get("a") == animal("a", nested={"n": 1})

    async def test_a_value_changed_while_the_write_is_under_way_is_not_stored(
        self, animals: Collection
    ) -> None:
        """Another task of the caller may hold the same nested object."""
        await animals.insert(animal("u"))
        inserted, upserted, news = animal("i", x=[1]), animal("p", x=[1]), {"x": [1]}
        writes = [
            asyncio.ensure_future(animals.insert(inserted)),
            asyncio.ensure_future(animals.upsert(upserted)),
            asyncio.ensure_future(animals.update("u", set_=news)),
        ]
        await asyncio.sleep(0)
        for mine in (inserted, upserted, news):
            mine["x"].append(2)
        await asyncio.gather(*writes)
        for id_ in "ipu":
            assert await animals.get(id_) == animal(id_, x=[1])

    async def test_get_many_returns_those_that_exist(self, animals: Collection) -> None:
        for n in range(1_200):
            if n % 2:
                await animals.insert(animal(f"a{n:04}", age=n)) if n < 50 else None
        assert await animals.get_many([]) == {}
        assert await animals.get_many(["a0001", "a0002", "a0001", "a0003"]) == {
            "a0001": animal("a0001", age=1),
            "a0003": animal("a0003", age=3),
        }
        assert len(await animals.get_many([f"a{n:04}" for n in range(1_200)])) == 25

    @pytest.mark.parametrize(
        "bad",
        [
            {},
            {"_id": None},
            {"_id": 1},
            {"_id": ""},
            {"_id": "a", "x": 1.5},
            {"_id": "a", "x": {"y": [float("nan")]}},
            {"_id": "a", "x": INT64_MAX + 1},
            {"_id": "a", "x": [INT64_MIN - 1]},
            {"_id": "a", "age": INT64_MAX + 1},
            {"_id": "a", "x": b"bytes"},
            {"_id": "a", "x": (1, 2)},
            {"_id": "a", "x": {1: 2}},
            {"_id": "a", "x": object()},
            {"_id": "a", "x": "\ud800"},
            {"_id": "\udfff"},
            {"_id": "a", "x": {"\ud800": 1}},
            {"_id": "a", "$x": 1},
            {"_id": "a", "x.y": 1},
            {"_id": "a", "": 1},
            {"_id": "a", "age": "5"},
            {"_id": "a", "age": True},
            {"_id": "a", "kind": 5},
            {"_id": "a", "tame": 1},
            {"_id": "a", "tags": "soft"},
            {"_id": "a", "tags": [None]},
            {"_id": "a", "tags": [["soft"]]},
            {"_id": "a", "tags": [True]},
            {"_id": "a", "tags": ["so\0ft"]},
        ],
    )
    async def test_what_cannot_come_back_the_same_is_refused(self, animals: Collection, bad: Doc) -> None:
        with pytest.raises(ValueError):
            await animals.insert(bad)
        with pytest.raises(ValueError):
            await animals.upsert(bad)
        assert await animals.count({}) == 0

    async def test_endless_nesting_is_refused(self, animals: Collection) -> None:
        deep: Any = 1
        for _ in range(5_000):
            deep = [deep]
        with pytest.raises(ValueError):
            await animals.insert(animal("a", deep=deep))

    # --- changes ---

    async def test_upsert_replaces_the_whole_document(self, animals: Collection) -> None:
        await animals.upsert(animal("a", kind="cat", age=3, note="old"))
        await animals.upsert(animal("a", kind="dog"))
        assert await animals.get("a") == animal("a", kind="dog")
        assert await animals.find({"kind": "cat"}) == []
        assert ids(await animals.find({"age": None})) == ["a"]

    async def test_update_sets_increases_and_keeps_the_rest(self, animals: Collection) -> None:
        await animals.insert(animal("a", kind="cat", age=3, note="kept", lives=9))
        new = await animals.update(
            "a", set_={"kind": "lion", "extra": {"x": [1]}}, inc={"age": 2, "lives": -1, "meals": 5}
        )
        assert new == animal("a", kind="lion", age=5, note="kept", lives=8, extra={"x": [1]}, meals=5)
        assert await animals.get("a") == new
        assert ids(await animals.find({"kind": "lion", "age": 5})) == ["a"]
        assert await animals.find({"kind": "cat"}) == []

    async def test_update_of_nothing_is_the_document(self, animals: Collection) -> None:
        await animals.insert(animal("a", kind="cat"))
        assert await animals.update("a") == animal("a", kind="cat")

    async def test_update_of_a_missing_document_creates_none(self, animals: Collection) -> None:
        assert await animals.update("nobody", set_={"age": 1}, inc={"n": 1}) is None
        assert await animals.get("nobody") is None

    async def test_update_happens_only_where_the_condition_holds(self, animals: Collection) -> None:
        await animals.insert(animal("a", kind="cat", age=3, tags=["soft"]))
        assert await animals.update("a", where={"age": 4}, set_={"kind": "x"}) is None
        assert await animals.update("a", where={"age": {"gt": 3}}, set_={"kind": "x"}) is None
        assert await animals.update("a", where={"tags": {"has": "hard"}}, set_={"kind": "x"}) is None
        assert await animals.update("a", where={"kind": "cat", "age": 4}, set_={"kind": "x"}) is None
        assert await animals.get("a") == animal("a", kind="cat", age=3, tags=["soft"])
        assert await animals.update("a", where={"kind": "cat", "owner_id": None}, inc={"age": 1}) is not None

    async def test_of_many_simultaneous_conditional_updates_one_wins(self, animals: Collection) -> None:
        """A claim is taken this way: two winners would be two sessions for one lawyer."""
        await animals.insert(animal("a", owner_id=None))
        results = await asyncio.gather(
            *(animals.update("a", where={"owner_id": None}, set_={"owner_id": f"p{n}"}) for n in range(200))
        )
        winners = [result for result in results if result is not None]
        assert len(winners) == 1
        assert await animals.get("a") == winners[0]

    async def test_no_simultaneous_increase_is_lost(self, animals: Collection) -> None:
        await animals.insert(animal("a", age=0))
        seen = await asyncio.gather(*(animals.update("a", inc={"age": 1, "n": 2}) for _ in range(300)))
        assert sorted(doc["age"] for doc in seen if doc) == list(range(1, 301))
        assert await animals.get("a") == animal("a", age=300, n=600)

    @pytest.mark.parametrize(
        "change",
        [
            {"set_": {"_id": "b"}},
            {"inc": {"_id": 1}},
            {"set_": {"age": 1}, "inc": {"age": 1}},
            {"set_": {"age": 1.0}},
            {"set_": {"age": "old"}},
            {"set_": {"x": {"y": 0.5}}},
            {"set_": {"x.y": 1}},
            {"set_": {"$inc": 1}},
            {"set_": {"tags": "soft"}},
            {"set_": {"age": INT64_MAX + 1}},
            {"inc": {"age": 1.5}},
            {"inc": {"age": True}},
            {"inc": {"age": INT64_MAX}},
            {"inc": {"x": INT64_MIN}},
            {"inc": {"age": INT64_MAX + 1}},
            {"inc": {"kind": 1}},
            {"inc": {"tame": 1}},
            {"inc": {"tags": 1}},
            {"inc": {"word": 1}},
            {"inc": {"nothing": 1}},
            {"inc": {"flag": 1}},
            {"where": {"word": "w"}, "set_": {"age": 2}},
        ],
    )
    async def test_a_change_that_cannot_be_is_refused_whole(self, animals: Collection, change: Any) -> None:
        doc = animal("a", age=1, x=-1, word="w", nothing=None, flag=True, tame=True)
        await animals.insert(doc)
        with pytest.raises(ValueError):
            await animals.update("a", **change)
        assert await animals.get("a") == doc

    async def test_delete_says_whether_it_did(self, animals: Collection) -> None:
        await animals.insert(animal("a", kind="cat"))
        assert await animals.delete("b") is False
        assert await animals.delete("a", where={"kind": "dog"}) is False
        assert await animals.get("a") is not None
        assert await animals.delete("a", where={"kind": "cat"}) is True
        assert await animals.delete("a") is False
        assert await animals.get("a") is None
        await animals.insert(animal("a", kind="dog"))
        assert await animals.get("a") == animal("a", kind="dog")

    # --- filters ---

    @pytest.fixture
    async def zoo(self, animals: Collection) -> Collection:
        for doc in (
            animal("a", kind="cat", age=1, tame=True, tags=["soft", "small"], chips=[1]),
            animal("b", kind="cat", age=None, tame=False, tags=[]),
            animal("c", kind="dog", age=5, tags=["soft2"], chips=[11, 1]),
            animal("d", kind=None, age=-5, tame=None, tags=None),
            animal("e", age=INT64_MAX, tame=True, tags=["true", "1"]),
            animal("f", kind="", age=0, tame=False, tags=["Soft"]),
        ):
            await animals.insert(doc)
        return animals

    @pytest.mark.parametrize(
        ("where", "expected"),
        [
            ({}, "abcdef"),
            ({"kind": "cat"}, "ab"),
            ({"kind": ""}, "f"),
            ({"kind": "CAT"}, ""),
            ({"kind": None}, "de"),
            ({"age": None}, "b"),
            ({"tame": True}, "ae"),
            ({"tame": False}, "bf"),
            ({"tame": None}, "cd"),
            ({"kind": {"ne": "cat"}}, "cdef"),
            ({"kind": {"ne": None}}, "abcf"),
            ({"tame": {"ne": True}}, "bcdf"),
            ({"age": {"lt": 0}}, "d"),
            ({"age": {"lte": 0}}, "df"),
            ({"age": {"gt": 1}}, "ce"),
            ({"age": {"gte": 1}}, "ace"),
            ({"age": {"gte": 0, "lt": 5}}, "af"),
            ({"age": {"gt": 5, "lt": 5}}, ""),
            ({"kind": {"gt": "cat"}}, "c"),
            ({"_id": "c"}, "c"),
            ({"_id": {"gt": "b", "lte": "e"}}, "cde"),
            ({"_id": {"in": ["f", "x", "a"]}}, "af"),
            ({"_id": {"ne": "a"}}, "bcdef"),
            ({"kind": {"in": ["dog", ""]}}, "cf"),
            ({"kind": {"in": ["dog", None]}}, "cde"),
            ({"kind": {"in": [None]}}, "de"),
            ({"kind": {"in": []}}, ""),
            ({"kind": {"in": ("cat", "cat")}}, "ab"),
            ({"tame": {"in": [False, None]}}, "bcdf"),
            ({"age": {"in": [1, INT64_MAX]}}, "ae"),
            ({"tags": {"has": "soft"}}, "a"),
            ({"tags": {"has": "1"}}, "e"),
            ({"tags": {"has": "nothing"}}, ""),
            ({"chips": {"has": 1}}, "ac"),
            ({"chips": {"has": 11}}, "c"),
            ({"tags": {"has": "soft"}, "kind": "dog"}, ""),
            ({"kind": "cat", "tame": True, "age": 1}, "a"),
            ({"kind": {"ne": "dog"}, "age": {"gt": -5}, "tame": {"in": [True, False]}}, "aef"),
        ],
    )
    async def test_filters(self, zoo: Collection, where: Any, expected: str) -> None:
        assert ids(await zoo.find(where)) == list(expected)
        assert await zoo.count(where) == len(expected)
        for id_ in "abcdef":
            assert (await zoo.update(id_, where=where) is not None) == (id_ in expected)

    @pytest.mark.parametrize(
        "where",
        [
            {"note": "x"},
            {"_body": "x"},
            {"kind; DROP TABLE c_animals": 1},
            {"kind": 1},
            {"age": "1"},
            {"age": True},
            {"age": 1.0},
            {"age": INT64_MAX + 1},
            {"tame": 1},
            {"kind": ["cat"]},
            {"kind": {}},
            {"kind": {"like": "c%"}},
            {"kind": {"$ne": "cat"}},
            {"kind": {"in": "cat"}},
            {"kind": {"in": [1]}},
            {"kind": {"gt": None}},
            {"kind": {"has": "cat"}},
            {"kind": "\ud800"},
            {"tags": "soft"},
            {"tags": None},
            {"tags": {"in": ["soft"]}},
            {"tags": {"has": None}},
            {"tags": {"has": ["soft"]}},
            {"tags": {"has": True}},
            {"nothing": {"has": "x"}},
        ],
    )
    async def test_a_filter_that_cannot_be_is_refused(self, zoo: Collection, where: Any) -> None:
        """A mistyped filter that matched nothing, or everything, would be found by a customer."""
        for call in (
            zoo.find(where),
            zoo.count(where),
            zoo.sum_by("age", where=where),
            zoo.delete("a", where=where),
            zoo.update("a", where=where),
        ):
            with pytest.raises(ValueError):
                await call
        assert await zoo.count({}) == 6

    # --- order and pages ---

    @pytest.mark.parametrize(
        ("sort", "expected"),
        [
            ([("_id", "asc")], "abcdef"),
            ([("_id", "desc")], "fedcba"),
            ([("age", "asc")], "bdface"),
            ([("age", "desc")], "ecafdb"),
            ([("kind", "asc")], "defabc"),
            ([("kind", "desc")], "cbafed"),
            ([("kind", "asc"), ("age", "desc")], "edfabc"),
            ([("tame", "asc"), ("age", "asc")], "dcbfae"),
            ([("tame", "desc"), ("_id", "asc")], "aebfcd"),
            ([("kind", "asc"), ("_id", "desc"), ("age", "asc")], "edfbac"),
            ([], "abcdef"),
        ],
    )
    async def test_null_sorts_first_and_the_id_breaks_ties(
        self, zoo: Collection, sort: Any, expected: str
    ) -> None:
        assert ids(await zoo.find({}, sort=sort)) == list(expected)

    @pytest.mark.parametrize("after", [["c"], ["c", "c"]])
    async def test_a_page_by_id_takes_the_id_once_or_twice(self, zoo: Collection, after: list[str]) -> None:
        assert ids(await zoo.find({}, after=after, limit=2)) == ["d", "e"]
        assert ids(await zoo.find({}, sort=[("_id", "desc")], after=after)) == ["b", "a"]

    @pytest.mark.parametrize(
        "page",
        [
            {"sort": [("note", "asc")]},
            {"sort": [("tags", "asc")]},
            {"sort": [("age", "up")]},
            {"sort": [("age", "asc"), ("age", "desc")]},
            {"limit": 0},
            {"limit": -1},
            {"after": []},
            {"after": [None]},
            {"after": ["a", "b"]},
            {"sort": [("age", "asc")], "after": [1]},
            {"sort": [("age", "asc")], "after": ["1", "a"]},
            {"sort": [("age", "asc")], "after": [1, "a", "b"]},
            {"sort": [("age", "asc")], "after": [1, None]},
        ],
    )
    async def test_a_page_that_cannot_be_is_refused(self, zoo: Collection, page: Any) -> None:
        with pytest.raises(ValueError):
            await zoo.find({}, **page)

    async def test_a_page_neither_skips_nor_repeats_when_rows_arrive(self, animals: Collection) -> None:
        for n in range(10):
            await animals.insert(animal(f"m{n}", age=n // 3))
        seen: list[str] = []
        after = None
        while page := await animals.find({}, sort=[("age", "asc")], limit=3, after=after):
            seen += ids(page)
            after = [page[-1]["age"], page[-1]["_id"]]
            await animals.insert(animal(f"a-early-{len(seen)}", age=-1))
            await animals.delete(page[-1]["_id"])
        assert seen == [f"m{n}" for n in range(10)]

    @settings(
        max_examples=60,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )
    @given(data=st.data())
    async def test_pages_agree_with_a_plain_model(
        self, collections: Collections, data: st.DataObject
    ) -> None:
        spec = CollectionSpec(
            name=f"pages_{next(_numbers)}",
            text=("t",),
            integer=("i",),
            boolean=("b",),
            indexes=data.draw(st.sampled_from([(), (("i",),), (("b", "t"), ("t", "i"))])),
        )
        collection = await collections.open(spec)
        values = {
            "t": st.sampled_from([None, "", "a", "b", "ä", "\U0001f600", "\uffff"]),
            "i": st.sampled_from([None, INT64_MIN, -1, 0, 1, INT64_MAX]),
            "b": st.sampled_from([None, False, True]),
        }
        docs = [
            {"_id": f"d{n:02}", **{name: value for name, value in row.items() if value is not None or n % 2}}
            for n, row in enumerate(data.draw(st.lists(st.fixed_dictionaries(values), max_size=25)))
        ]
        for doc in data.draw(st.permutations(docs)):
            await collection.insert(doc)
        fields = data.draw(st.lists(st.sampled_from(["t", "i", "b"]), unique=True, max_size=3))
        sort: list[tuple[str, Any]] = [
            (f, data.draw(st.sampled_from(["asc", "desc"]), label=f)) for f in fields
        ]
        where = {}
        for name, strategy in values.items():
            if name in data.draw(st.sets(st.sampled_from(["t", "i", "b"]), max_size=1)):
                where[name] = data.draw(strategy)
        limit = data.draw(st.integers(1, 6))

        expected = [doc for doc in docs if all(doc.get(name) == value for name, value in where.items())]
        last = sort[-1][1] if sort else "asc"
        for name, direction in reversed([*sort, ("_id", last)]):
            expected.sort(key=lambda doc: model_key(doc.get(name)), reverse=direction == "desc")

        pages: list[Doc] = []
        after: list[Any] | None = None
        while page := await collection.find(where, sort=sort, limit=limit, after=after):
            assert len(page) == limit or len(pages) + len(page) == len(expected)
            pages += page
            after = [*(page[-1].get(name) for name, _ in sort), page[-1]["_id"]]
            assert len(pages) <= len(expected)
        assert pages == expected

    # --- sums ---

    async def test_sums_and_numbers_by_group(self, zoo: Collection) -> None:
        await zoo.update("e", set_={"age": 10})
        assert await zoo.sum_by("age") == {None: (11, 6)}
        assert await zoo.sum_by("age", group_by="kind") == {
            None: (5, 2),
            "": (0, 1),
            "cat": (1, 2),
            "dog": (5, 1),
        }
        by_tame = await zoo.sum_by("age", group_by="tame", where={"age": {"gte": 0}})
        assert by_tame == {None: (5, 1), False: (0, 1), True: (11, 2)}
        assert {type(key) for key in by_tame} == {type(None), bool}
        assert await zoo.sum_by("age", group_by="_id", where={"kind": "cat"}) == {"a": (1, 1), "b": (0, 1)}

    async def test_a_sum_over_nothing_has_no_groups(self, animals: Collection) -> None:
        assert await animals.sum_by("age") == {}
        assert await animals.sum_by("age", group_by="kind") == {}
        assert await animals.count({}) == 0

    async def test_sums_are_exact_at_the_edge_of_64_bits(self, animals: Collection) -> None:
        for id_, age in (("a", INT64_MAX), ("b", INT64_MAX), ("c", -INT64_MAX), ("d", -7)):
            await animals.insert(animal(id_, age=age))
        assert await animals.sum_by("age") == {None: (INT64_MAX - 7, 4)}

    @pytest.mark.parametrize(
        "args", [("kind", None), ("note", None), ("age", "note"), ("age", "tags"), ("_id", None)]
    )
    async def test_a_sum_that_cannot_be_is_refused(self, animals: Collection, args: Any) -> None:
        with pytest.raises(ValueError):
            await animals.sum_by(args[0], group_by=args[1])

    # --- collections ---

    async def test_collections_are_apart(self, collections: Collections, animals: Collection) -> None:
        plants = await collections.open(CollectionSpec(name="plants", text=("kind",)))
        await animals.insert(animal("a", kind="cat"))
        await plants.insert(animal("a", kind="rose"))
        assert await plants.delete("a") is True
        assert await animals.get("a") == animal("a", kind="cat")

    async def test_opening_again_finds_the_same_documents(self, collections: Collections) -> None:
        first = await collections.open(ANIMALS)
        await first.insert(animal("a"))
        assert await (await collections.open(ANIMALS)).get("a") == animal("a")

    @pytest.mark.parametrize(
        "spec",
        [
            CollectionSpec(name=""),
            CollectionSpec(name="Bad Name"),
            CollectionSpec(name='x"; DROP TABLE y; --'),
            CollectionSpec(name="x", text=("_id",)),
            CollectionSpec(name="x", text=("a b",)),
            CollectionSpec(name="x", text=("a.b",)),
            CollectionSpec(name="x", text=("a",), integer=("a",)),
            CollectionSpec(name="x", text=("userId",), integer=("userid",)),
            CollectionSpec(name="x", text=("a",), indexes=(("b",),)),
            CollectionSpec(name="x", lists=("a",), indexes=(("a",),)),
            CollectionSpec(name="x", text=("a",), indexes=((),)),
            CollectionSpec(name="x", text=("a",), indexes=(("a", "a"),)),
        ],
    )
    async def test_a_spec_that_cannot_be_is_refused(
        self, collections: Collections, spec: CollectionSpec
    ) -> None:
        with pytest.raises(ValueError):
            await collections.open(spec)

    async def test_one_name_has_one_spec(self, collections: Collections, animals: Collection) -> None:
        with pytest.raises(ValueError):
            await collections.open(CollectionSpec(name="animals", text=("kind",)))
        await animals.insert(animal("a", age=1))
        assert ids(await animals.find({"age": 1})) == ["a"]


def model_key(value: Any) -> tuple[bool, Any]:
    """Null first; text by code point, which is the order of its UTF-8."""
    return (False, 0) if value is None else (True, value)
