"""What one slice costs on each store, through the ledger: the hold's extension at a tick, and the close at the end.

    python -m bench.slice_cost [--callers 1,100] [--seconds 1] [--rounds 3] [--stores sqlite,steps,pymongo,motor] [--dir DIR]

Stores: SQLite as it runs (one transaction), SQLite in MongoDB's steps, and the tests' stand-in for MongoDB through either driver.
A slice is `billing.extend`, decided by the ledger and stored durably; so many callers do one after the other, each on a wallet of
its own ("many"), or all on one hold of one account ("hot"). Beside each, in turns: the same documents written raw, as many at a time
as the ledger wrote, by `executemany` in one transaction or by the driver's unordered `bulk_write`: the floor of that store.
Calls are those of the ledger to its store, documents those written by them (accounts and rows).
"""

import argparse
import asyncio
import gc
import sqlite3
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import uvloop
from pymongo import UpdateOne

from bench.production import cpu_s, machine
from billing_engine.consultations.billing import Close, Fence, Tick, close, extend, hold_id_of, open_session
from billing_engine.consultations.meter import Meter
from billing_engine.consultations.model import EndReason
from billing_engine.consultations.rules import Rules
from billing_engine.ledger.accounts import gateway_of, wallet_of
from billing_engine.ledger.model import Account, Entry, Movement, Transfer
from billing_engine.ledger.ports import LedgerStore
from billing_engine.ledger.service import Ledger
from server.storage.mongo.client import Driver, MongoDatabase, MongoOptions, open_mongo
from server.storage.mongo.ledger import ACCOUNTS, MongoLedgerStore
from server.storage.sqlite.engine import SqliteOptions, open_database
from server.storage.sqlite.ledger import SqliteLedgerStore
from tests.support.cluster import STAND_IN_OPTIONS
from tests.support.mongo_server import PATIENT_MS, MongoServer

RULES = Rules()
RATE = 1_000
OWNER = "bench"
START_MS = 1_700_000_000_000
INR = RULES.asset.code


class TickClock:
    """Time moves from tick to tick, when it is told to."""

    def __init__(self) -> None:
        self.at_ms = START_MS

    def now_ms(self) -> int:
        return self.at_ms

    def call_at_ms(self, when_ms: int, callback: Callable[[], None]) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(0, callback)


@dataclass
class Counted:
    """What the ledger asked of its store."""

    calls: dict[str, int] = field(default_factory=dict)
    documents: int = 0

    def clear(self) -> None:
        self.calls.clear()
        self.documents = 0

    def add(self, other: "Counted") -> None:
        self.documents += other.documents
        for name, number in other.calls.items():
            self.calls[name] = self.calls.get(name, 0) + number


class CountedStore:
    """A `LedgerStore` that counts."""

    def __init__(self, store: LedgerStore, counted: Counted) -> None:
        self._store = store
        self._counted = counted
        self.atomic = store.atomic

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)
        writes = name in ("commit", "commit_all", "insert_rows", "mark_applied")

        def call(*arguments: Any) -> Any:
            counted = self._counted
            counted.calls[name] = counted.calls.get(name, 0) + 1
            if writes:
                counted.documents += sum(len(argument) for argument in arguments)
            return method(*arguments)

        return call


@dataclass
class Side:
    """An opened store."""

    name: str
    store: LedgerStore
    #: Writes the documents of open holds once more, so many at a time, for so long; how many it wrote.
    raw: Callable[[int, float], Awaitable[int]]
    #: The process of the store, where it has one.
    store_pid: int | None = None
    counted: Counted = field(default_factory=Counted)

    def spent_s(self) -> "Spent":
        """Wall time and CPU, of this process and of the store's, until now."""
        store = cpu_s(self.store_pid) if self.store_pid is not None else 0.0
        return Spent(time.perf_counter(), time.process_time() + store)

    async def floor(self, at_once: int, seconds: float) -> "Spent":
        """What one document costs that is written raw."""
        before = self.spent_s()
        documents = await self.raw(at_once, seconds)
        return (self.spent_s() - before) * (1 / documents)


class Spent(NamedTuple):
    """Seconds."""

    wall: float
    cpu: float

    def __sub__(self, other: "Spent") -> "Spent":
        return Spent(self.wall - other.wall, self.cpu - other.cpu)

    def __mul__(self, factor: float) -> "Spent":  # type: ignore[override]
        return Spent(self.wall * factor, self.cpu * factor)


@asynccontextmanager
async def sqlite_side(name: str, path: Path, *, atomic: bool) -> AsyncIterator[Side]:
    async with open_database(path, SqliteOptions(synchronous="FULL")) as db:
        store = SqliteLedgerStore(db, atomic=atomic)
        await store.prepare()
        yield Side(name, store, partial(raw_sqlite, path))


async def raw_sqlite(path: Path, at_once: int, seconds: float) -> int:
    conn = sqlite3.connect(path, isolation_level=None)
    conn.execute("PRAGMA synchronous = FULL")
    rows = conn.execute(
        "SELECT posted, held, version, seq, holds, tail, credited, id, version FROM ledger_accounts WHERE held > 0"
    ).fetchall()
    update = (
        "UPDATE ledger_accounts SET posted = ?, held = ?, version = ?, seq = ?, holds = ?, tail = ?, credited = ?"
        " WHERE id = ? AND version = ?"
    )
    parts = [rows[first : first + at_once] for first in range(0, len(rows), at_once)]

    def write(part: list[Any]) -> None:
        conn.execute("BEGIN IMMEDIATE")
        conn.executemany(update, part)
        conn.execute("COMMIT")

    done, turn, started_s = 0, 0, time.perf_counter()
    while time.perf_counter() - started_s < seconds:
        part = parts[turn % len(parts)]
        write(part)
        done, turn = done + len(part), turn + 1
    conn.close()
    return done


@asynccontextmanager
async def mongo_side(name: Driver, server: MongoServer) -> AsyncIterator[Side]:
    url = f"{server.url(f'bench_{name}')}?{STAND_IN_OPTIONS}"
    async with open_mongo(MongoOptions(url, name, timeout_ms=PATIENT_MS)) as db:
        store = MongoLedgerStore(db)
        await store.prepare()
        assert server._process is not None
        yield Side(name, store, partial(raw_mongo, db), server._process.pid)


async def raw_mongo(db: MongoDatabase, at_once: int, seconds: float) -> int:
    accounts = db.collection(ACCOUNTS)
    documents = await accounts.find({"owners": {"$gte": ""}}).to_list(None)
    operations = [
        UpdateOne(
            {"$and": [{"_id": document["_id"]}, {"version": document["version"]}]},
            {"$set": {name: value for name, value in document.items() if name != "_id"}},
        )
        for document in documents
    ]
    parts = [operations[first : first + at_once] for first in range(0, len(operations), at_once)]
    done, turn, started_s = 0, 0, time.perf_counter()
    while time.perf_counter() - started_s < seconds:
        part = parts[turn % len(parts)]
        await accounts.bulk_write(part, ordered=False)
        done, turn = done + len(part), turn + 1
    return done


class Book:
    """The ledger over one side, and sessions on it."""

    def __init__(self, side: Side) -> None:
        self.side = side
        self.clock = TickClock()
        self.ledger = Ledger(CountedStore(side.store, side.counted), self.clock, lambda _ms: "2026-01-01")

    async def open(self, mark: str, count: int) -> list[tuple[str, str]]:
        """So many wallets with a running session each."""
        held = [(wallet_of(f"{mark}{k:08d}".ljust(32, "0")), f"{mark}{k:08d}") for k in range(count)]
        await asyncio.gather(*(self._open(*one) for one in held))
        # Something is served, so that an end has somebody to pay.
        await self.tick(held)
        return held

    async def _open(self, wallet: str, session: str) -> None:
        transfers = (Transfer(gateway_of("bench"), wallet, 10**9, "recharge"),)
        await self.ledger.post(Movement(wallet, f"r{session}", "recharge", INR, "r", transfers))
        now_ms = self.clock.now_ms()
        meter = Meter(
            user_id=wallet.removeprefix("wallet:"),
            lawyer_id=f"l{session}".ljust(32, "0"),
            rate_minor_per_min=RATE,
            commission_bp=1_000,
            max_minor=None,
            started_at_ms=now_ms,
            served_ms=0,
            running_since_ms=now_ms,
            evidence_at_ms=now_ms,
        )
        change = partial(open_session, session_id=session, meter=meter, owner=OWNER, rules=RULES)
        await self.ledger.change(wallet, INR, change, source=hold_id_of(session))

    async def slices(self, held: list[tuple[str, str]], seconds: float) -> int:
        """Every caller extends at every tick, the next tick begins when all have; how many slices."""
        done, started_s = 0, time.perf_counter()
        while time.perf_counter() - started_s < seconds or not done:
            await self.tick(held)
            done += len(held)
        return done

    async def tick(self, held: list[tuple[str, str]]) -> None:
        self.clock.at_ms += RULES.tick_ms
        await asyncio.gather(*(self.ledger.change(wallet, INR, self._slice(id_)) for wallet, id_ in held))

    def _slice(self, session: str) -> Any:
        at_ms = self.clock.at_ms

        def decide(account: Account, known: Entry | None) -> Any:
            hold = account.holds[hold_id_of(session)]
            tick = Tick(session, Fence(hold.epoch, hold.owner), hold.n + 1, at_ms, 1)
            return extend(account, known, tick=tick, rules=RULES)

        return decide

    async def closes(self, held: list[tuple[str, str]]) -> None:
        """All end at once: the lawyer and the platform are paid."""
        at_ms = self.clock.now_ms()
        await asyncio.gather(
            *(
                self.ledger.change(
                    wallet,
                    INR,
                    partial(
                        close,
                        order=Close(session, EndReason.USER_ENDED, at_ms),
                        day="2026-01-01",
                        booked_at_ms=at_ms,
                    ),
                    source=hold_id_of(session),
                )
                for wallet, session in held
            )
        )


@dataclass
class Figures:
    """Of one store, one shape and one number of callers: each list has an item for each round."""

    spent: list[Spent] = field(default_factory=list)
    floor: list[Spent] = field(default_factory=list)
    slices: int = 0
    batches: int = 0
    counted: Counted = field(default_factory=Counted)

    def line(self, what: str) -> str:
        """Per slice; medians over the rounds."""
        rounds = list(zip(self.spent, self.floor, strict=True))
        wall, cpu = (statistics.median(one[k] for one in self.spent) * 1e6 for k in (0, 1))
        wall_ratio, cpu_ratio = (
            statistics.median(one[k] / floor[k] for one, floor in rounds) for k in (0, 1)
        )
        calls = " ".join(f"{name} {number / self.batches:.3g}" for name, number in self.counted.calls.items())
        return (
            f"{what}  {wall:9,.1f}  {wall_ratio:7.2f}  {cpu:9,.1f}  {cpu_ratio:7.2f}"
            f"  {self.counted.documents / self.slices:9.3f}  {self.slices / self.batches:6,.0f}   {calls}"
        )


async def measured(book: Book, held: list[tuple[str, str]], args: argparse.Namespace) -> Figures:
    """Slices, and the same documents raw, in turns."""
    figures, side = Figures(counted=book.side.counted), book.side
    await book.slices(held, 0.05)
    side.counted.clear()
    accounts = len(set(held))
    for _ in range(args.rounds):
        batches, before = book.ledger.committer.batches, side.spent_s()
        done = await book.slices(held, args.seconds)
        figures.spent.append((side.spent_s() - before) * (1 / done))
        figures.slices += done
        figures.batches += book.ledger.committer.batches - batches
        # What one batch wrote, for as many slices as it held.
        figures.floor.append(await side.floor(accounts, args.seconds) * (accounts / len(held)))
    return figures


async def closed(book: Book, callers: int, args: argparse.Namespace) -> Figures:
    """Sessions that end together, each with its payee, and as many documents raw, in turns."""
    figures, side = Figures(), book.side
    turns = max(1, min(20, 100 // callers))
    for round_ in range(args.rounds):
        spent, documents = Spent(0, 0), figures.counted.documents
        for turn in range(turns):
            held = await book.open(f"c{callers}x{round_}x{turn}x", callers)
            if not turn:
                figures.floor.append(await side.floor(callers, args.seconds))
            side.counted.clear()
            batches, before = book.ledger.committer.batches, side.spent_s()
            await book.closes(held)
            spent = Spent(*map(sum, zip(spent, side.spent_s() - before, strict=True)))
            figures.batches += book.ledger.committer.batches - batches
            figures.counted.add(side.counted)
        figures.slices += turns * callers
        figures.spent.append(spent * (1 / (turns * callers)))
        figures.floor[-1] *= (figures.counted.documents - documents) / (turns * callers)
    return figures


HEADINGS = (
    "store       what   callers         us     of the         us     of the  documents  slices    calls\n"
    "                              a slice      floor     of CPU      floor    a slice  a batch   a batch"
)


async def run(args: argparse.Namespace, directory: Path) -> None:
    stores = args.stores.split(",")
    async with AsyncExitStack() as stack:
        sides = []
        if "sqlite" in stores:
            sides.append(
                await stack.enter_async_context(sqlite_side("sqlite", directory / "a.db", atomic=True))
            )
        if "steps" in stores:
            sides.append(
                await stack.enter_async_context(sqlite_side("steps", directory / "s.db", atomic=False))
            )
        if {"pymongo", "motor"} & set(stores):
            server = stack.enter_context(MongoServer(directory))
            drivers: tuple[Driver, ...] = ("pymongo", "motor")
            sides += [
                await stack.enter_async_context(mongo_side(driver, server))
                for driver in drivers
                if driver in stores
            ]
        print(HEADINGS)
        for side in sides:
            book = Book(side)
            await book.ledger.start()
            stack.push_async_callback(book.ledger.stop)
            for callers in map(int, args.callers.split(",")):
                for shape in ("many", "hot"):
                    held = await book.open(f"{shape[0]}{callers}x", callers if shape == "many" else 1)
                    # Hot: all of them extend the one hold of the one account.
                    figures = await measured(book, held if shape == "many" else held * callers, args)
                    print(figures.line(f"{side.name:10}  {shape:5}  {callers:7,}"), flush=True)
                    await book.closes(held)
                print(
                    (await closed(book, callers, args)).line(f"{side.name:10}  close  {callers:7,}"),
                    flush=True,
                )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--callers", default="1,100")
    parser.add_argument("--seconds", type=float, default=0.25)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--stores", default="sqlite,steps,pymongo,motor")
    parser.add_argument("--dir", type=Path, default=None, help="where the files lie: a real disk, not tmpfs")
    args = parser.parse_args()
    gc.set_threshold(50_000, 20, 50)  # as the server sets it
    print(machine())
    with tempfile.TemporaryDirectory(dir=args.dir) as directory:
        uvloop.run(run(args, Path(directory)))
    print(machine())


if __name__ == "__main__":
    main()
