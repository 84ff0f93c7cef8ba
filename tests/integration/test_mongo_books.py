"""The audit of a MongoDB database: of documents that somebody has touched, and beside processes that write.

The books are those of a real consultation that ended and of one that goes on, told by the adapters' own code.
"""

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import pymongo
import pytest
from bson import Int64
from pymongo.database import Database

from billing_engine.consultations.rules import Rules
from billing_engine.errors import Unavailable
from billing_engine.ledger.model import HoldGone, InsufficientFunds
from billing_engine.ledger.ports import Write
from billing_engine.ledger.service import Ledger
from billing_engine.verification import Finding, Findings, Verdict
from server.storage.errors import StoreUnavailable
from server.storage.mongo import books as books_module
from server.storage.mongo.books import verify_books
from server.storage.mongo.client import MongoDatabase, MongoOptions, open_mongo
from server.storage.mongo.collection import MongoCollections
from server.storage.mongo.ledger import ACCOUNTS, ENTRIES, MongoLedgerStore
from server.storage.repositories.sessions import SESSIONS, CollectionSessions
from server.storage.repositories.timeline import TIMELINE, CollectionTimeline
from server.storage.sqlite.ledger import all_accounts, all_rows
from tests.support.consult import World, open_world
from tests.support.ledger_moves import close, extend, open_, payment, recharge
from tests.support.manual_clock import ManualClock
from tests.support.mongo_server import PATIENT_MS, MongoServer, open_with_short_limit

Document = dict[str, Any]
Books = dict[str, list[Document]]
Raw = Database[Document]

RULES: Final = Rules(commission_bp=1_000)
ABANDON_MS: Final = 120_000
ENDED, LIVE = "ended", "live"
WALLET, OTHER_WALLET, EARNINGS = "wallet:u1", "wallet:u2", "earnings:l1"
BILL: Final = f"{WALLET}|consult:{ENDED}"
END_MS: Final = ManualClock().now_ms() + 60_000


@pytest.fixture(scope="module")
def books(mongo_server: MongoServer, tmp_path_factory: pytest.TempPathFactory) -> Books:
    """Every document of both consultations."""
    url = mongo_server.url("test_books_history")
    asyncio.run(_make(url, tmp_path_factory.mktemp("books") / "tarazu.db"))
    client: pymongo.MongoClient[Document] = pymongo.MongoClient(url)
    with client:
        raw = client.get_default_database()
        found = {name: list(raw[name].find()) for name in raw.list_collection_names()}
        client.drop_database(raw.name)
    return found


async def _make(url: str, path: Path) -> None:
    async with (
        open_world(path, rules=RULES) as world,
        open_mongo(MongoOptions(url, timeout_ms=PATIENT_MS)) as db,
    ):
        world.ledger._day_of = lambda _ms: "2026-01-01"
        for user_id, lawyer_id, session_id in (("u1", "l1", ENDED), ("u2", "l2", LIVE)):
            world.lawyers.add(lawyer_id, 6_000)
            await world.recharge(user_id, 50_000)
            await world.consultations.start(user_id=user_id, lawyer_id=lawyer_id, operation_id=session_id)
        await world.advance(30)
        await world.consultations.end(ENDED, caller_id="u1")
        await world.advance(3)
        await _tell(world, db)


async def _tell(world: World, db: MongoDatabase) -> None:
    """What is in the world's file, through the adapters of MongoDB."""
    store, collections = MongoLedgerStore(db), MongoCollections(db)
    await store.prepare()
    accounts = await world.db.scan(lambda conn: [found.account for found in all_accounts(conn)])
    rows = await world.db.scan(lambda conn: list(all_rows(conn)))
    assert await store.commit([Write("", f"v{n}", account) for n, account in enumerate(accounts)]) == []
    await store.insert_rows([row.entry for row in rows])
    await store.mark_applied({row.entry.key: row.credits_after for row in rows})
    sessions, timeline = (
        await CollectionSessions.open(collections),
        await CollectionTimeline.open(collections),
    )
    for session_id in (ENDED, LIVE):
        session = await world.sessions.get(session_id)
        assert session is not None
        await sessions.add(session)
        await timeline.add(await world.consultations.timeline(session_id))


@pytest.fixture
def raw(books: Books, mongo_url: str, mongo_admin: Callable[[str], "pymongo.MongoClient[Document]"]) -> Raw:
    """A copy, open for mischief behind everybody's back."""
    database = mongo_admin(mongo_url)[mongo_url.rpartition("/")[2].partition("?")[0]]
    for name, documents in books.items():
        if documents:
            database[name].insert_many(documents)
    return database


@pytest.fixture
async def db(mongo_url: str) -> AsyncIterator[MongoDatabase]:
    async with open_mongo(MongoOptions(mongo_url, timeout_ms=PATIENT_MS)) as database:
        yield database


async def verified(db: MongoDatabase, *, now_ms: int = END_MS) -> Findings:
    return await verify_books(db, now_ms=now_ms, abandon_ms=ABANDON_MS)


def rules(findings: list[Finding]) -> set[str]:
    return {finding.rule for finding in findings}


async def test_untouched_books_are_clean_through_either_driver(raw: Raw, mongo_options: MongoOptions) -> None:
    async with open_mongo(mongo_options) as db:
        found = await verified(db)
    assert (found.broken, found.unfinished) == ([], [])
    assert found.verdict is Verdict.CLEAN
    assert found.counted.items() >= {"accounts": 3, "entries": 3, "sessions": 2}.items()


async def test_an_empty_database_is_clean_and_says_that_nothing_was_looked_at(db: MongoDatabase) -> None:
    found = await verified(db)
    assert found.verdict is Verdict.CLEAN
    assert set(found.counted.values()) == {0}


async def test_a_database_that_cannot_be_read_is_no_verdict(tmp_path: Path) -> None:
    with MongoServer(tmp_path) as server:
        async with open_with_short_limit(MongoOptions(server.url("x"), timeout_ms=400)) as db:
            server.kill()
            with pytest.raises(StoreUnavailable):
                await verified(db)


def edit(raw: Raw, collection: str, id_: str, change: Callable[[Document], Any]) -> None:
    """Change a document as it lies there; it must differ, or the test would prove nothing."""
    before = raw[collection].find_one({"_id": id_})
    after = raw[collection].find_one({"_id": id_})
    assert before is not None
    assert after is not None
    change(after)
    assert before != after
    raw[collection].replace_one({"_id": id_}, after)


def remove(raw: Raw, collection: str, id_: str) -> None:
    assert raw[collection].delete_one({"_id": id_}).deleted_count == 1


def add(field: str, number: int) -> Callable[[Document], None]:
    def change(document: Document) -> None:
        document[field] = Int64(document[field] + number)

    return change


def put(**fields: Any) -> Callable[[Document], None]:
    return lambda document: document.update(fields)


def more_in_a_hold(document: Document) -> None:
    (hold,) = document["holds"]
    at = next(i for i, part in enumerate(hold) if isinstance(part, int) and part == document["held"])
    hold[at] = Int64(hold[at] + 1)


def no_hold(document: Document) -> None:
    document.update(holds=[], owners=[], held=Int64(0))


def another_owner(document: Document) -> None:
    (hold,) = document["holds"]
    hold[hold.index(document["owners"][0])] = "somebody"


def more_in_a_transfer(document: Document) -> None:
    document["transfers"][0]["amount"] = Int64(document["transfers"][0]["amount"] + 1)


def served_longer(document: Document) -> None:
    document["facts"]["servedMs"] = Int64(document["facts"]["servedMs"] + 1_000)


def another_account_in_its_key(raw: Raw) -> None:
    row = raw[ENTRIES].find_one({"_id": BILL})
    assert row is not None
    remove(raw, ENTRIES, BILL)
    raw[ENTRIES].insert_one({**row, "_id": f"{OTHER_WALLET}|consult:{ENDED}"})


def money_moved_between_two_accounts(raw: Raw) -> None:
    edit(raw, ACCOUNTS, WALLET, add("posted", 1))
    edit(raw, ACCOUNTS, EARNINGS, add("posted", -1))


def an_entry_twice(raw: Raw) -> None:
    row = raw[ENTRIES].find_one({"_id": BILL})
    assert row is not None
    raw[ENTRIES].insert_one({**row, "_id": f"{BILL}-again", "seq": Int64(row["seq"] + 1)})


def no_start_anywhere(raw: Raw) -> None:
    remove(raw, TIMELINE.name, f"{ENDED}:000000")
    edit(raw, ENTRIES, BILL, lambda row: row["facts"].update(trail=[]))


def a_remembered_credit_that_nobody_paid(raw: Raw) -> None:
    edit(raw, ACCOUNTS, EARNINGS, put(posted=Int64(0), credited=[], pending=False))


Mischief = Callable[[Raw], None]


def of_account(change: Callable[[Document], Any], account: str = WALLET) -> Mischief:
    return lambda raw: edit(raw, ACCOUNTS, account, change)


def of_bill(change: Callable[[Document], Any]) -> Mischief:
    return lambda raw: edit(raw, ENTRIES, BILL, change)


def of_session(session_id: str, **fields: Any) -> Mischief:
    return lambda raw: edit(raw, SESSIONS.name, session_id, put(**fields))


BROKEN: Final[dict[str, tuple[Mischief, str]]] = {
    "a balance": (of_account(add("posted", 1)), "a balance is the sum of its entries"),
    "a balance of earnings": (of_account(add("posted", 1), EARNINGS), "an asset sums to zero"),
    "two balances": (money_moved_between_two_accounts, "a balance is the sum of its entries"),
    "a credit taken back": (a_remembered_credit_that_nobody_paid, "a balance is the sum of its entries"),
    "held": (of_account(add("held", 1), OTHER_WALLET), "held is the sum of the holds"),
    "a hold's amount": (of_account(more_in_a_hold, OTHER_WALLET), "held is the sum of the holds"),
    "a hold's owner": (
        of_account(another_owner, OTHER_WALLET),
        "an account is found by what it has left",
    ),
    "the index of owners": (
        of_account(put(owners=[]), OTHER_WALLET),
        "an account is found by what it has left",
    ),
    "work to be found": (of_account(put(pending=True)), "an account is found by what it has left"),
    "more held than there is": (of_account(put(posted=Int64(1)), OTHER_WALLET), "never below the floor"),
    "no floor": (of_account(put(floor=None)), "an account has its kind's floor"),
    "a deeper floor": (of_account(put(floor=Int64(-100_000))), "an account has its kind's floor"),
    "an asset": (of_account(put(asset="USD")), "an account has one asset"),
    "a number": (of_account(add("seq", 1)), "no entry of an account is missing"),
    "no account": (lambda raw: remove(raw, ACCOUNTS, WALLET), "an entry's account exists"),
    "no field": (of_account(lambda account: account.pop("held")), "a document has its fields"),
    "no entry": (lambda raw: remove(raw, ENTRIES, BILL), "no entry of an account is missing"),
    "an entry twice": (an_entry_twice, "no entry of an account is missing"),
    "an entry's key": (another_account_in_its_key, "a key contains its account"),
    "an entry's number": (of_bill(add("seq", 5)), "no entry of an account is missing"),
    "an entry's state": (of_bill(put(state="REFUSED")), "a finished session has its closing entry"),
    "no such state": (of_bill(put(state="LOST")), "a document has its fields"),
    "an entry's balances": (of_bill(add("postedAfter", 1)), "an entry's balances differ by its transfers"),
    "a transfer": (of_bill(more_in_a_transfer), "a bill is the price of the served seconds"),
    "whom an entry moved": (of_bill(put(touches=[WALLET])), "reports equal the entries"),
    "whose history it is in": (
        of_bill(lambda row: row["touches"].remove(WALLET)),
        "an entry is found by whom it moved",
    ),
    "a day": (of_bill(put(day="2025-12-29")), "an entry's day is that of its instant somewhere"),
    "a quantity": (of_bill(add("quantity", 1)), "a day's report equals its entries"),
    "a bill a second longer": (of_bill(served_longer), "a bill can be recomputed from its timeline"),
    "a timeline's row": (
        lambda raw: edit(raw, TIMELINE.name, f"{ENDED}:000000", add("at_ms", 1)),
        "a bill can be recomputed from its timeline",
    ),
    "no start": (no_start_anywhere, "a timeline is start, pauses, end"),
    "a session's total": (of_session(ENDED, total_minor=Int64(1)), "a record is the copy of its entry"),
    "a session's rate": (
        of_session(ENDED, rate_minor_per_min=Int64(5_999)),
        "a bill is the price of the served seconds",
    ),
    "how a session ended": (
        of_session(ENDED, end_reason="LAWYER_ENDED"),
        "a record is the copy of its entry",
    ),
    "whose session it is": (
        of_session(LIVE, lawyer_id="l1"),
        "a hold bills its session's people at its rate",
    ),
    "no session": (lambda raw: remove(raw, SESSIONS.name, ENDED), "a bill has its session"),
    "no live session": (lambda raw: remove(raw, SESSIONS.name, LIVE), "a hold has its session"),
    "no hold": (of_account(no_hold, OTHER_WALLET), "a live session has a hold"),
    "over, and held": (
        of_session(LIVE, status="ENDED", end_reason="USER_ENDED"),
        "a finished session has no hold",
    ),
}


@pytest.mark.parametrize(("mischief", "rule"), BROKEN.values(), ids=BROKEN)
async def test_books_that_were_touched_are_broken(
    raw: Raw, db: MongoDatabase, mischief: Mischief, rule: str
) -> None:
    mischief(raw)
    found = await verified(db)
    assert found.verdict is Verdict.BROKEN
    assert rule in rules(found.broken), found.broken


def the_bill_in_the_tail(raw: Raw) -> None:
    """The wallet has paid, nobody else knows."""
    row = raw[ENTRIES].find_one_and_delete({"_id": BILL})
    assert row is not None
    kept = (
        "account",
        "seq",
        "state",
        "kind",
        "asset",
        "reference",
        "postedBefore",
        "postedAfter",
        "atMs",
        "day",
        "facts",
    )
    transfers = [[t["debit"], t["credit"], t["amount"], t["kind"]] for t in row["transfers"]]
    entry = {"key": row["_id"], "transfers": transfers, **{name: row[name] for name in kept}}
    edit(raw, ACCOUNTS, WALLET, put(tail=[entry], pending=True))
    edit(raw, ACCOUNTS, EARNINGS, add("posted", -row["facts"]["net"]))


def the_bill_copied_out_and_nobody_paid(raw: Raw) -> None:
    row = raw[ENTRIES].find_one({"_id": BILL})
    assert row is not None
    the_bill_in_the_tail(raw)
    raw[ENTRIES].insert_one({**row, "applied": False, "creditsAfter": []})


def the_lawyer_paid_and_the_row_not_marked(raw: Raw) -> None:
    """The credit is remembered: redo must not add it again."""
    row = raw[ENTRIES].find_one({"_id": BILL})
    assert row is not None
    the_bill_copied_out_and_nobody_paid(raw)
    net = row["facts"]["net"]
    edit(raw, ACCOUNTS, EARNINGS, put(posted=Int64(net), credited=[[BILL, Int64(net)]], pending=True))


def the_record_active(raw: Raw) -> None:
    edit(
        raw,
        SESSIONS.name,
        ENDED,
        put(status="ACTIVE", ended_at_ms=None, end_reason=None, duration_s=0, total_minor=Int64(0)),
    )
    raw[TIMELINE.name].delete_many({"session_id": ENDED})


def a_start(raw: Raw) -> None:
    session = raw[SESSIONS.name].find_one({"_id": ENDED})
    assert session is not None
    begun = {
        "_id": "begun",
        "status": "STARTING",
        "started_at_ms": None,
        "ended_at_ms": None,
        "end_reason": None,
    }
    raw[SESSIONS.name].insert_one({**session, **begun})


def a_timeline_in_the_entry_only(raw: Raw) -> None:
    """But its start, which was written when it began."""
    assert raw[TIMELINE.name].delete_many({"session_id": ENDED, "k": {"$gt": 0}}).deleted_count > 0


UNFINISHED: Final[dict[str, tuple[Mischief, str]]] = {
    "a tail": (the_bill_in_the_tail, "a tail is copied out"),
    "a credit": (the_bill_copied_out_and_nobody_paid, "a credit is applied"),
    "a mark": (the_lawyer_paid_and_the_row_not_marked, "a tail is copied out"),
    "a record": (the_record_active, "a closed session is settled"),
    "a start": (a_start, "a start is finished or given back"),
    "a timeline": (a_timeline_in_the_entry_only, "a timeline is copied out"),
}


@pytest.mark.parametrize(("leave", "rule"), UNFINISHED.values(), ids=UNFINISHED)
async def test_what_a_crash_has_left_is_unfinished_and_recovery_finishes_the_ledgers_part(
    raw: Raw, db: MongoDatabase, leave: Mischief, rule: str
) -> None:
    leave(raw)
    found = await verified(db)
    assert found.broken == []
    assert found.verdict is Verdict.UNFINISHED
    assert rule in rules(found.unfinished)
    async with process(db):
        pass
    after = await verified(db)
    assert after.broken == []
    assert not rules(after.unfinished) & {"a tail is copied out", "a credit is applied"}


async def test_a_session_that_nobody_bills_is_unfinished(raw: Raw, db: MongoDatabase) -> None:
    found = await verified(db, now_ms=END_MS + 24 * 3_600_000)
    assert (found.broken, rules(found.unfinished)) == ([], {"a live session has an owner"})


# -- beside processes that write ---------------------------------------------------------------------------------------

#: Of each of the two processes.
WRITERS: Final = 2
AUDITS: Final = 2


@asynccontextmanager
async def process(db: MongoDatabase) -> AsyncIterator[Ledger]:
    ledger = Ledger(MongoLedgerStore(db), ManualClock(), lambda _: "2026-01-01")
    await ledger.start()
    try:
        yield ledger
    finally:
        await ledger.stop()


async def move(ledger: Ledger, wallet: str, other: str, source: str, amount: int) -> None:
    """Money comes, goes to another and to the platform, is held, and is paid from the hold."""
    half, hold = amount // 2, f"{source}-hold"
    steps: list[Callable[[], Awaitable[Any]]] = [
        lambda: ledger.post(recharge(wallet, source, amount)),
        lambda: ledger.post(payment(wallet, f"{source}-pay", (other, half), ("revenue:fees", 1))),
        lambda: open_(ledger, wallet, hold, half),
        lambda: extend(ledger, wallet, hold, n=2, to_minor=half + 1),
        lambda: close(ledger, wallet, hold, (EARNINGS.replace("l1", source), half // 2)),
    ]
    for step in steps:
        # Another writer has spent it, or was faster again and again. A refusal is an entry, too, and part of the books.
        with suppress(InsufficientFunds, HoldGone, Unavailable):
            await step()


async def moves(ledger: Ledger, wallets: list[str], seed: int, enough: asyncio.Event) -> None:
    """Amounts differ, so that no two readings err alike."""
    chance = random.Random(seed)
    for n in itertools.count():
        if enough.is_set():
            return
        wallet, other = chance.sample(wallets, 2)
        await move(ledger, wallet, other, f"{seed}-{n}", chance.randint(4, 9_999))


@asynccontextmanager
async def two_processes_writing(url: str, wallets: list[str]) -> AsyncIterator[None]:
    """What goes wrong with a writer is raised at the end."""
    options = MongoOptions(url, timeout_ms=PATIENT_MS)
    enough = asyncio.Event()
    async with (
        open_mongo(options) as a,
        open_mongo(options) as b,
        process(a) as one,
        process(b) as two,
        asyncio.TaskGroup() as writers,
    ):
        for seed, ledger in zip(range(2 * WRITERS), itertools.cycle((one, two)), strict=False):
            writers.create_task(moves(ledger, wallets, seed, enough))
        try:
            yield
        finally:
            enough.set()


WALLETS: Final = [f"wallet:w{n}" for n in range(5)]


async def test_books_that_move_are_never_called_broken(raw: Raw, db: MongoDatabase, mongo_url: str) -> None:
    """A false alarm at night teaches people to sleep through the true one."""
    await MongoLedgerStore(db).prepare()
    async with two_processes_writing(mongo_url, WALLETS):
        for _ in range(AUDITS):
            found = await verified(db)
            assert found.broken == []
    found = await verified(db)
    assert (found.broken, found.unfinished) == ([], [])
    assert found.counted["entries"] > 3


class Meanwhile:
    """Writes an account anew after each reading of it: what others do while the books are read."""

    def __init__(self, raw: Raw, monkeypatch: pytest.MonkeyPatch, change: Callable[[Document], None]) -> None:
        self.readings = 0
        found = books_module._documents

        async def documents(db: MongoDatabase, name: str, *more: Any) -> AsyncIterator[Document]:
            async for document in found(db, name, *more):
                yield document
            if name == ENTRIES:
                self.readings += 1
                edit(raw, ACCOUNTS, OTHER_WALLET, change)
                edit(raw, ACCOUNTS, OTHER_WALLET, put(version=f"meanwhile-{self.readings}"))

        monkeypatch.setattr(books_module, "_documents", documents)


def a_slice(document: Document) -> None:
    """As a tick writes it: a later number, later evidence."""
    (hold,) = document["holds"]
    hold[2] = Int64(hold[2] + 1)
    hold[5] = {**hold[5], "evidenceAt": Int64(hold[5]["evidenceAt"] + 1_000)}


async def test_sessions_that_tick_do_not_keep_an_audit_from_its_verdict(
    raw: Raw, db: MongoDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    meanwhile = Meanwhile(raw, monkeypatch, a_slice)
    found = await verified(db)
    assert (found.broken, found.unfinished, meanwhile.readings) == ([], [], 1)


async def test_money_that_moves_while_the_books_are_read_is_read_again(
    raw: Raw, db: MongoDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    meanwhile = Meanwhile(raw, monkeypatch, add("posted", 1))
    found = await verified(db)
    assert meanwhile.readings > 1
    assert "the books stand still while they are read" in rules(found.unfinished)


async def test_what_is_broken_is_seen_while_others_write(raw: Raw, db: MongoDatabase, mongo_url: str) -> None:
    await MongoLedgerStore(db).prepare()
    edit(raw, ACCOUNTS, WALLET, add("posted", 1))
    async with two_processes_writing(mongo_url, WALLETS):
        found = await verified(db)
    assert ("a balance is the sum of its entries", WALLET) in {
        (finding.rule, finding.subject) for finding in found.broken
    }
    assert {finding.subject for finding in found.broken} <= {WALLET, "INR"}
