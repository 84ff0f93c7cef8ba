"""The MongoDB ledger store passes the contract through either driver, and what only MongoDB can get wrong."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from billing_engine.errors import InvariantBroken, Unavailable
from billing_engine.ledger.model import Account
from billing_engine.ledger.ports import Write
from server.storage.mongo.client import MongoDatabase, MongoOptions, open_mongo
from server.storage.mongo.ledger import INDEXES, MongoLedgerStore
from tests.contract.ledger_store_contract import (
    INR,
    LedgerStoreContract,
    V,
    W,
    account,
    entry,
    found,
    hold,
    made,
)
from tests.support.mongo_server import PATIENT_MS


async def prepared(db: MongoDatabase) -> MongoLedgerStore:
    store = MongoLedgerStore(db)
    await store.prepare()
    return store


class TestMongoLedgerStore(LedgerStoreContract):
    """Over the wire."""

    @pytest.fixture
    async def store(self, mongo_options: MongoOptions) -> AsyncIterator[MongoLedgerStore]:
        async with open_mongo(mongo_options) as db:
            yield await prepared(db)


@pytest.fixture
async def db(mongo_url: str) -> AsyncIterator[MongoDatabase]:
    async with open_mongo(MongoOptions(mongo_url, timeout_ms=PATIENT_MS)) as db:
        yield db


async def test_a_negative_hold_is_refused(db: MongoDatabase) -> None:
    """It would make money to spend out of nothing, and the floor would not notice."""
    store = await prepared(db)
    with pytest.raises(InvariantBroken):
        await store.commit([Write("", "v1", account(W, 5, held=-1))])
    assert await store.load([W]) == {}


async def test_two_keys_cannot_have_one_number(db: MongoDatabase) -> None:
    """An account's entries are numbered; the same number twice means that history was rewritten."""
    store = await prepared(db)
    await store.insert_rows([entry("k", 1)])
    with pytest.raises(InvariantBroken):
        await store.insert_rows([entry("l", 2), entry("m", 1)])
    assert set(await store.rows(["k", "l", "m"])) <= {"k", "l"}


@pytest.mark.parametrize(
    "bad",
    [
        account(W, 5, held=5, holds={"h": hold("h", what=object())}),
        account(W, 5, held=5, holds={"h": hold("h", big=2**64)}),
        account(W, tail=(entry("k", facts={1: "a number is no name"}),)),
        account("wallet:\ud800"),
        account(W, 5, held=5, holds={"h": hold("h", text="x" * 2**24)}),
    ],
    ids=["no value", "a large number", "no name", "no text", "too long"],
)
@pytest.mark.parametrize("expected", ["", "v1"])
async def test_what_cannot_be_stored_is_refused_before_anything_is_sent(
    db: MongoDatabase, bad: Account, expected: str
) -> None:
    store = await prepared(db)
    with pytest.raises(InvariantBroken):
        await store.commit([Write("", "v1", account(V)), Write(expected, "v2", bad)])
    assert await store.load([V]) == {}


async def test_the_server_refuses_what_the_stored_floor_forbids(db: MongoDatabase) -> None:
    """A process that believes in another floor, for whatever reason, is stopped by the document itself. Its neighbours are not."""
    store = await prepared(db)
    await made(store, account(W, 20, floor=10), account(V, 20))
    wrong = Write("v1", "v2", account(W, 9, floor=None))
    assert await store.commit([wrong, Write("v1", "v2", account(V, 1))]) == [W]
    with pytest.raises(InvariantBroken):
        await store.commit([wrong])
    assert await found(store, W, V) == {W: ("v1", 20), V: ("v2", 1)}


async def test_a_write_that_was_sent_twice_finds_its_own_token(db: MongoDatabase) -> None:
    """The driver repeats a write whose reply was lost; a server that does not know the repeat refuses it. It has happened all the same."""
    store = await prepared(db)
    await made(store, account(V, 1))
    writes = [Write("", "w", account(W, 5)), Write("v1", "w", account(V, 2))]
    assert await store.commit(writes) == []
    assert await store.commit(writes) == []
    assert await found(store, W, V) == {W: ("w", 5), V: ("w", 2)}


async def test_money_is_kept_in_64_bits(db: MongoDatabase) -> None:
    """A number of 32 bits that is added to on the server turns into whatever fits."""
    store = await prepared(db)
    held = account(W, 9, held=5, seq=1, holds={"h": hold("h", paid=1)}, credited=(("x", 1),))
    await made(store, account(V, 1, tail=(entry("t"),)), held)
    await store.insert_rows([entry("k")])
    await store.mark_applied({"k": {V: 1}})
    for name, path, number in [
        ("ledger_accounts", "posted", 2),
        ("ledger_accounts", "held", 2),
        ("ledger_accounts", "seq", 2),
        ("ledger_entries", "postedAfter", 1),
        ("ledger_entries", "atMs", 1),
        ("ledger_entries", "quantity", 1),
    ]:
        assert await db.collection(name).count_documents({path: {"$type": "long"}}) == number, path
    (row,) = await (await db.collection("ledger_entries").aggregate([{"$unwind": "$transfers"}])).to_list(
        None
    )
    assert type(row["transfers"]["amount"]) is int, "a 64-bit number is read as a plain one"


async def test_preparing_again_changes_nothing_and_every_index_is_there(db: MongoDatabase) -> None:
    await prepared(db)
    store = await prepared(db)
    await made(store, account(W, 1))
    for name in {index.collection for index in INDEXES}:
        there = await db.collection(name).index_information()
        shapes = {tuple(field for field, _ in one["key"]): bool(one.get("unique")) for one in there.values()}
        for index in INDEXES:
            fields = tuple(f for f in index.fields if f != "_id" or db.replicated)
            assert index.collection != name or shapes[fields] == index.unique, (index, shapes)


@pytest.mark.real_mongo
async def test_a_document_below_its_floor_is_refused_by_the_collection_itself(db: MongoDatabase) -> None:
    """Not even a hand in the shell makes a wallet negative."""
    store = await prepared(db)
    await made(store, account(W, 5))
    if not db.replicated:
        pytest.skip("validators are for a true replica set")
    result: Any = None
    with pytest.raises(Exception, match="failed validation"):
        result = await db.collection("ledger_accounts").update_one({"_id": W}, {"$set": {"posted": -1}})
    assert result is None


async def test_the_newest_instant_is_that_of_an_entry_or_of_a_hold(db: MongoDatabase) -> None:
    store = await prepared(db)
    assert await store.last_instant_ms() == 0
    await store.insert_rows([entry("k", 1, at_ms=7), entry("l", 2, at_ms=5)])
    assert await store.last_instant_ms() == 7
    await made(store, account(W, 9, held=5, holds={"h": hold("h", evidenceAt=8)}))
    assert await store.last_instant_ms() == 8
    await made(store, account(V, tail=(entry("m", at_ms=9),)))
    assert await store.last_instant_ms() == 9


async def test_a_store_that_is_gone_is_unavailable_never_empty(db: MongoDatabase, mongo_url: str) -> None:
    """A balance that cannot be read is an error. Zero would end every session."""
    async with open_mongo(MongoOptions(mongo_url, timeout_ms=PATIENT_MS)) as other:
        store = await prepared(other)
    for call in (
        store.load([W]),
        store.rows(["k"]),
        store.commit([Write("", "v1", account(W))]),
        store.insert_rows([entry("k")]),
        store.mark_applied({"k": {}}),
        store.pending(),
        store.open_holds(""),
        store.last_instant_ms(),
        store.lines(W, limit=1),
        store.total_credited(W, kinds=["k"]),
        store.total_debited(W, kinds=["k"]),
        store.balance_of_rows(W, INR),
        store.activity(INR, first_day="2026-01-01", last_day="2026-01-31"),
    ):
        with pytest.raises(Unavailable):
            await call
