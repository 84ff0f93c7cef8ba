"""Hold writes per second: the ledger, against what document 004 says literally, and against raw rows.

Three sides in one run, on SQLite files in one directory:
  document   read balance, write balance, write session, one commit each (a loop over one connection)
  ledger     the real ledger: decide, compare-and-set, group commit, CALLERS concurrent callers
  raw        `executemany` of the very same account rows, 1,000 a commit: what the file can take

    python -m bench.ledger_holds [--writes N] [--callers N] [--dir DIR]
"""

import argparse
import asyncio
import gc
import sqlite3
import tempfile
import time
from pathlib import Path

import uvloop

from billing_engine.ledger.accounts import gateway_of, wallet_of
from billing_engine.ledger.model import Account, Entry, Movement, Transfer, extend_hold, open_hold
from billing_engine.ledger.service import Ledger
from server.storage.sqlite.engine import SqliteOptions, open_database
from server.storage.sqlite.ledger import SqliteLedgerStore


class WallClock:
    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def call_at_ms(self, when_ms, callback):
        return asyncio.get_running_loop().call_later((when_ms - self.now_ms()) / 1000, callback)


FACTS = {
    "user": "u" * 32, "lawyer": "l" * 32, "rate": 1000, "commissionBp": 0, "max": None, "startedAt": 1_700_000_000_000,
    "servedMs": 0, "runningSince": 1_700_000_000_000, "evidenceAt": 1_700_000_000_000, "paidUntil": 1_700_000_000_000,
    "trail": [], "k": 1,
}  # fmt: skip


def _open(account: Account, _known: Entry | None):
    return open_hold(account, hold_id="consult:1", amount_minor=1, owner="bench", facts=FACTS)


def _extend(account: Account, _known: Entry | None):
    hold = account.holds["consult:1"]
    return extend_hold(account, hold, n=hold.n + 1, amount_minor=hold.amount_minor + 1, facts=hold.facts)


async def ledger_side(path: Path, writes: int, callers: int) -> float:
    async with open_database(path, SqliteOptions(synchronous="FULL")) as db:
        store = SqliteLedgerStore(db)
        await store.prepare()
        ledger = Ledger(store, WallClock(), lambda _: "2026-01-01")
        await ledger.start()
        users = [f"user{i:027d}" for i in range(callers)]
        for user in users:
            wallet = wallet_of(user)
            transfers = (Transfer(gateway_of("bench"), wallet, 10**9, "recharge"),)
            await ledger.post(Movement(wallet, "r", "recharge", "INR", "r", transfers))
            await ledger.change(wallet, "INR", _open)

        async def caller(user: str, times: int) -> None:
            wallet = wallet_of(user)
            for _ in range(times):
                await ledger.change(wallet, "INR", _extend)

        before = time.perf_counter()
        batches = ledger.committer.batches
        await asyncio.gather(*(caller(user, writes // callers) for user in users))
        took = time.perf_counter() - before
        print(f"  ({writes / (ledger.committer.batches - batches):.0f} changes a batch)")
        await ledger.stop()
    return writes // callers * callers / took


def document_side(path: Path, writes: int) -> float:
    conn = sqlite3.connect(path, isolation_level=None)
    conn.execute("PRAGMA journal_mode = WAL")
    conn.execute("PRAGMA synchronous = FULL")
    conn.execute("CREATE TABLE users (id TEXT PRIMARY KEY, wallet_balance INTEGER)")
    conn.execute("CREATE TABLE sessions (id TEXT PRIMARY KEY, total_amount INTEGER)")
    conn.executemany("INSERT INTO users VALUES (?, ?)", [(f"user{i:027d}", 10**9) for i in range(1000)])
    conn.executemany("INSERT INTO sessions VALUES (?, ?)", [(f"user{i:027d}", 0) for i in range(1000)])
    before = time.perf_counter()
    for i in range(writes):
        user = f"user{i % 1000:027d}"
        (balance,) = conn.execute("SELECT wallet_balance FROM users WHERE id = ?", (user,)).fetchone()
        conn.execute("UPDATE users SET wallet_balance = ? WHERE id = ?", (balance - 1, user))
        conn.execute("UPDATE sessions SET total_amount = total_amount + 1 WHERE id = ?", (user,))
    took = time.perf_counter() - before
    conn.close()
    return writes / took


def raw_side(path: Path, writes: int, callers: int) -> float:
    """The rows that the ledger left behind, written again as fast as `executemany` can."""
    conn = sqlite3.connect(path, isolation_level=None)
    conn.execute("PRAGMA journal_mode = WAL")
    conn.execute("PRAGMA synchronous = FULL")
    rows = conn.execute(
        "SELECT posted, held, version, seq, holds, tail, credited, id, version FROM ledger_accounts"
    ).fetchall()
    sql = (
        "UPDATE ledger_accounts SET posted = ?, held = ?, version = ?, seq = ?, holds = ?, tail = ?, credited = ?"
        " WHERE id = ? AND version = ?"
    )
    before = time.perf_counter()
    done = 0
    while done < writes:
        conn.execute("BEGIN IMMEDIATE")
        conn.executemany(sql, rows)
        conn.execute("COMMIT")
        done += len(rows)
    took = time.perf_counter() - before
    conn.close()
    return done / took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--writes", type=int, default=100_000)
    parser.add_argument("--callers", type=int, default=1_000)
    parser.add_argument("--dir", type=Path, default=None)
    args = parser.parse_args()
    gc.set_threshold(50_000, 20, 50)  # as the server sets it
    with tempfile.TemporaryDirectory(dir=args.dir) as directory:
        there = Path(directory)
        document = document_side(there / "document.db", min(args.writes, 3_000))
        ledger = uvloop.run(ledger_side(there / "ledger.db", args.writes, args.callers))
        raw = raw_side(there / "ledger.db", args.writes, args.callers)
    print(f"document  {document:12,.0f} hold writes/s")
    print(
        f"ledger    {ledger:12,.0f} hold writes/s   {ledger / document:6.1f} x document   {ledger / raw:5.2f} x raw"
    )
    print(f"raw       {raw:12,.0f} rows/s")


if __name__ == "__main__":
    main()
