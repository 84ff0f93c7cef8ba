"""The ledger's documents and rows in SQLite.

`atomic` runs commit and redo in one transaction (the production default). With `atomic=False` every step is a transaction
of its own, exactly the steps that MongoDB will take: the tests drive both.
"""

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar

import orjson

from billing_engine.errors import InvariantBroken
from billing_engine.ledger.model import Account, Entry, KeyState, quantity_of
from billing_engine.ledger.ports import Activity, Booked, Line, Moved, OpenHold, Row, Total, Versioned, Write
from server.storage.documents import INT64_MAX
from server.storage.ledger_codec import (
    entry_of_json,
    entry_to_json,
    holds_of_json,
    holds_to_json,
    transfers_of_json,
    transfers_to_json,
)
from server.storage.sqlite.engine import Lane, SqliteDatabase

T = TypeVar("T")

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS ledger_accounts (
  id TEXT PRIMARY KEY,
  asset TEXT NOT NULL,
  floor INTEGER,
  posted INTEGER NOT NULL,
  held INTEGER NOT NULL CHECK (held >= 0),
  version TEXT NOT NULL,
  seq INTEGER NOT NULL,
  holds TEXT,
  tail TEXT,
  credited TEXT,
  facts TEXT,
  CONSTRAINT floor_guard CHECK (floor IS NULL OR posted - held >= floor)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS ledger_accounts_pending ON ledger_accounts (id) WHERE tail IS NOT NULL OR credited IS NOT NULL;
CREATE TABLE IF NOT EXISTS ledger_entries (
  key TEXT PRIMARY KEY,
  account TEXT NOT NULL,
  seq INTEGER NOT NULL,
  state TEXT NOT NULL,
  kind TEXT NOT NULL,
  asset TEXT NOT NULL,
  reference TEXT NOT NULL,
  transfers TEXT NOT NULL,
  posted_before INTEGER NOT NULL,
  posted_after INTEGER NOT NULL,
  at_ms INTEGER NOT NULL,
  day TEXT NOT NULL,
  facts TEXT NOT NULL,
  applied INTEGER NOT NULL,
  credits_after TEXT NOT NULL,
  quantity INTEGER NOT NULL DEFAULT 0,
  UNIQUE (account, seq)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS ledger_entries_time ON ledger_entries (at_ms);
CREATE TABLE IF NOT EXISTS ledger_transfers (
  entry_key TEXT NOT NULL,
  i INTEGER NOT NULL,
  debit TEXT NOT NULL,
  credit TEXT NOT NULL,
  amount INTEGER NOT NULL CHECK (amount > 0),
  kind TEXT NOT NULL,
  asset TEXT NOT NULL,
  at_ms INTEGER NOT NULL,
  day TEXT NOT NULL,
  PRIMARY KEY (entry_key, i)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS ledger_transfers_debit ON ledger_transfers (debit, at_ms, entry_key);
CREATE INDEX IF NOT EXISTS ledger_transfers_credit ON ledger_transfers (credit, at_ms, entry_key);
CREATE INDEX IF NOT EXISTS ledger_transfers_sums ON ledger_transfers (credit, kind, day, amount);
CREATE INDEX IF NOT EXISTS ledger_transfers_days ON ledger_transfers (asset, day, kind, amount);
"""
#: Runs once `quantity` is there: a database from before has its table already.
LATER_INDEXES: Final = """
CREATE INDEX IF NOT EXISTS ledger_entries_days ON ledger_entries (state, asset, day, kind, quantity);
"""

_COLUMNS: Final = "id, asset, floor, posted, held, version, seq, holds, tail, credited, facts"
_INSERT: Final = (
    f"INSERT INTO ledger_accounts ({_COLUMNS})"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING"
)
_UPDATE: Final = (
    "UPDATE ledger_accounts SET posted = ?, held = ?, version = ?, seq = ?, holds = ?, tail = ?, credited = ?, facts = ?"
    " WHERE id = ? AND version = ?"
)
_ENTRY_COLUMNS: Final = (
    "key, account, seq, state, kind, asset, reference, transfers, posted_before, posted_after, at_ms, day, facts,"
    " applied, credits_after"
)
_INSERT_ENTRY: Final = (
    f"INSERT INTO ledger_entries ({_ENTRY_COLUMNS}, quantity)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (key) DO NOTHING"
)
_INSERT_TRANSFER: Final = "INSERT INTO ledger_transfers VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
#: Each of the two reads its index and no row.
MOVED: Final = (
    "SELECT day, kind, SUM(amount), COUNT(*) FROM ledger_transfers"
    " WHERE asset = ? AND day BETWEEN ? AND ? GROUP BY day, kind ORDER BY day, kind"
)
BOOKED: Final = (
    "SELECT day, kind, COUNT(*), SUM(quantity) FROM ledger_entries"
    " WHERE state = 'posted' AND asset = ? AND day BETWEEN ? AND ? GROUP BY day, kind ORDER BY day, kind"
)
#: What a number beyond 64 bits, a text that is no Unicode and a fact that is no JSON raise before anything is written.
_UNSAYABLE: Final = (OverflowError, TypeError, ValueError)
#: SQLite's default limit of bound variables is 32,766 (since 3.32); a batch has at most 1,000 commands.
_CHUNK: Final = 500


class SqliteLedgerStore:
    """`LedgerStore` on one SQLite file."""

    def __init__(self, db: SqliteDatabase, *, atomic: bool = True) -> None:
        self._db = db
        self.atomic = atomic

    async def prepare(self) -> None:
        """Make missing tables, columns and indexes."""
        await self._db.script(SCHEMA)
        await self._db.write(Lane.REST, _add_quantity)
        await self._db.write(Lane.REST, _add_facts)
        await self._db.script(LATER_INDEXES)

    async def load(self, account_ids: Sequence[str]) -> dict[str, Versioned]:
        return self._db.read(lambda conn: load_accounts(conn, account_ids))

    async def rows(self, keys: Sequence[str]) -> dict[str, Row]:
        return self._db.read(lambda conn: load_rows(conn, keys))

    async def commit(self, writes: Sequence[Write]) -> list[str]:
        def work(conn: sqlite3.Connection) -> list[str]:
            return _swap_each(conn, writes)

        return await self._guarded(work)

    async def commit_all(self, writes: Sequence[Write], rows: Sequence[Row]) -> list[str]:
        def work(conn: sqlite3.Connection) -> list[str]:
            moved = _swap_each(conn, writes)
            if moved:
                raise _Moved(moved)
            for row in rows:
                _insert_row(conn, row.entry, applied=row.applied, credits_after=row.credits_after)
            return moved

        try:
            return await self._guarded(work)
        except _Moved as exc:
            return exc.account_ids

    async def insert_rows(self, entries: Iterable[Entry]) -> None:
        wanted = list(entries)

        def work(conn: sqlite3.Connection) -> None:
            for entry in wanted:
                _insert_row(conn, entry, applied=False, credits_after={})

        await self._guarded(work)

    async def mark_applied(self, credits_after: Mapping[str, Mapping[str, int]]) -> None:
        def work(conn: sqlite3.Connection) -> None:
            conn.executemany(
                "UPDATE ledger_entries SET applied = 1, credits_after = ? WHERE key = ? AND applied = 0",
                [(_text(after), key) for key, after in credits_after.items()],
            )

        await self._guarded(work)

    async def pending(self) -> list[str]:
        sql = "SELECT id FROM ledger_accounts WHERE tail IS NOT NULL OR credited IS NOT NULL"
        return await self._db.scan(lambda conn: [id_ for (id_,) in conn.execute(sql)])

    async def open_holds(self, prefix: str, *, owner: str | None = None) -> list[OpenHold]:
        def work(conn: sqlite3.Connection) -> list[OpenHold]:
            found = conn.execute("SELECT id, holds FROM ledger_accounts WHERE holds IS NOT NULL")
            return [
                OpenHold(id_, hold.id, hold.owner, hold.epoch)
                for id_, raw in found
                for hold in holds_of_json(orjson.loads(raw)).values()
                if hold.id.startswith(prefix) and owner in (None, hold.owner)
            ]

        return await self._db.scan(work)

    async def last_instant_ms(self) -> int:
        """The newest instant that an entry or an open hold carries, 0 for an empty ledger: no clock may start before it."""

        def work(conn: sqlite3.Connection) -> int:
            (last,) = conn.execute("SELECT COALESCE(MAX(at_ms), 0) FROM ledger_entries").fetchone()
            for (raw,) in conn.execute("SELECT holds FROM ledger_accounts WHERE holds IS NOT NULL"):
                for hold in holds_of_json(orjson.loads(raw)).values():
                    last = max(last, hold.facts.get("evidenceAt", 0))
            return int(last)

        return await self._db.scan(work)

    async def lines(
        self,
        account_id: str,
        *,
        limit: int,
        before: tuple[int, str] | None = None,
        kinds: Sequence[str] | None = None,
    ) -> list[Line]:
        return await self._db.scan(lambda conn: _lines(conn, account_id, limit, before, kinds))

    async def entries(
        self,
        account_id: str,
        *,
        above: int = 0,
        below: int | None = None,
        limit: int,
        newest_first: bool = False,
    ) -> list[Entry]:
        sql = (
            f"SELECT {_ENTRY_COLUMNS} FROM ledger_entries WHERE account = ? AND seq > ? AND seq < ?"
            f" ORDER BY seq {'DESC' if newest_first else 'ASC'} LIMIT ?"
        )
        args = (account_id, above, INT64_MAX if below is None else below, limit)
        return await self._db.scan(lambda conn: [row_of(raw).entry for raw in conn.execute(sql, args)])

    async def total_credited(self, account_id: str, *, kinds: Sequence[str], day_prefix: str = "") -> Total:
        return await self._total("credit", account_id, kinds, day_prefix)

    async def total_debited(self, account_id: str, *, kinds: Sequence[str], day_prefix: str = "") -> Total:
        return await self._total("debit", account_id, kinds, day_prefix)

    async def _total(self, side: str, account_id: str, kinds: Sequence[str], day_prefix: str) -> Total:
        marks = ", ".join("?" * len(kinds))
        sql = (
            f"SELECT COALESCE(SUM(amount), 0), COUNT(*) FROM ledger_transfers"
            f" WHERE {side} = ? AND kind IN ({marks}) AND day >= ? AND day < ?"
        )
        # '~' sorts after every digit and dash of a day.
        args = (account_id, *kinds, day_prefix, day_prefix + "~")
        amount, rows = await self._db.scan(lambda conn: conn.execute(sql, args).fetchone())
        return Total(amount, rows)

    async def balance_of_rows(self, account_id: str, asset: str, *, before_day: str | None = None) -> int:
        matching = "= ?1 AND asset = ?2 AND day < ?3"
        sql = (
            f"SELECT (SELECT COALESCE(SUM(amount), 0) FROM ledger_transfers WHERE credit {matching})"
            f" - (SELECT COALESCE(SUM(amount), 0) FROM ledger_transfers WHERE debit {matching})"
        )
        # '~' sorts after every day.
        args = (account_id, asset, "~" if before_day is None else before_day)
        (balance,) = await self._db.scan(lambda conn: conn.execute(sql, args).fetchone())
        return int(balance)

    async def activity(self, asset: str, *, first_day: str, last_day: str) -> Activity:
        return await self._db.scan(
            lambda conn: activity_of(conn, asset, first_day=first_day, last_day=last_day)
        )

    async def _guarded(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return await self._db.write(Lane.LEDGER, work)
        except (sqlite3.IntegrityError, *_UNSAYABLE) as exc:
            raise InvariantBroken(rule="the store refuses this write", cause=str(exc)) from exc


class _Moved(Exception):
    """Rolls the transaction back and carries which versions had moved."""

    def __init__(self, account_ids: list[str]) -> None:
        self.account_ids = account_ids
        super().__init__(account_ids)


def _add_quantity(conn: sqlite3.Connection) -> None:
    """For a database from before reports: the column, filled from what the entries say."""
    if any(row[1] == "quantity" for row in conn.execute("PRAGMA table_info(ledger_entries)").fetchall()):
        return
    conn.execute("ALTER TABLE ledger_entries ADD COLUMN quantity INTEGER NOT NULL DEFAULT 0")
    # As `quantity_of` reads an entry from then.
    conn.execute("UPDATE ledger_entries SET quantity = COALESCE(json_extract(facts, '$.durationS'), 0)")


def _add_facts(conn: sqlite3.Connection) -> None:
    """For a database from before accounts had facts."""
    if not any(row[1] == "facts" for row in conn.execute("PRAGMA table_info(ledger_accounts)").fetchall()):
        conn.execute("ALTER TABLE ledger_accounts ADD COLUMN facts TEXT")


def load_accounts(conn: sqlite3.Connection, account_ids: Sequence[str]) -> dict[str, Versioned]:
    """Account documents by id, for those that exist."""
    return {
        found.account.id: found
        for chunk in _chunks(account_ids)
        for found in map(
            _versioned,
            conn.execute(f"SELECT {_COLUMNS} FROM ledger_accounts WHERE id IN ({_marks(chunk)})", chunk),
        )
    }


def load_rows(conn: sqlite3.Connection, keys: Sequence[str]) -> dict[str, Row]:
    """Entry rows by key, for those that exist."""
    return {
        row.entry.key: row
        for chunk in _chunks(keys)
        for row in map(
            row_of,
            conn.execute(
                f"SELECT {_ENTRY_COLUMNS} FROM ledger_entries WHERE key IN ({_marks(chunk)})", chunk
            ),
        )
    }


def all_accounts(conn: sqlite3.Connection) -> Iterator[Versioned]:
    """Every account document, by id."""
    return map(_versioned, conn.execute(f"SELECT {_COLUMNS} FROM ledger_accounts ORDER BY id"))


def all_rows(conn: sqlite3.Connection) -> Iterator[Row]:
    """Every entry row, by account and sequence."""
    return map(row_of, conn.execute(f"SELECT {_ENTRY_COLUMNS} FROM ledger_entries ORDER BY account, seq"))


def activity_of(conn: sqlite3.Connection, asset: str, *, first_day: str, last_day: str) -> Activity:
    """What the report columns say of these days."""
    args = (asset, first_day, last_day)
    moved = conn.execute(MOVED, args).fetchall()
    booked = conn.execute(BOOKED, args).fetchall()
    return Activity(tuple(Moved(*row) for row in moved), tuple(Booked(*row) for row in booked))


def row_of(raw: tuple[Any, ...]) -> Row:
    """One row of `ledger_entries` as the domain knows it."""
    (
        key,
        account,
        seq,
        state,
        kind,
        asset,
        reference,
        transfers,
        before,
        after,
        at_ms,
        day,
        facts,
        applied,
        credited,
    ) = raw
    entry = Entry(
        key=key,
        account=account,
        seq=seq,
        state=KeyState(state),
        kind=kind,
        asset=asset,
        reference=reference,
        transfers=transfers_of_json(orjson.loads(transfers)),
        posted_before=before,
        posted_after=after,
        at_ms=at_ms,
        day=day,
        facts=orjson.loads(facts),
    )
    return Row(entry, bool(applied), orjson.loads(credited))


def _versioned(raw: tuple[Any, ...]) -> Versioned:
    id_, asset, floor, posted, held, version, seq, holds, tail, credited, facts = raw
    account = Account(
        id_,
        asset,
        floor,
        posted,
        held,
        seq,
        holds_of_json(orjson.loads(holds)) if holds is not None else {},
        tuple(entry_of_json(item) for item in orjson.loads(tail)) if tail is not None else (),
        tuple((key, after) for key, after in orjson.loads(credited)) if credited is not None else (),
        orjson.loads(facts) if facts is not None else {},
    )
    return Versioned(version, account)


def _swap_each(conn: sqlite3.Connection, writes: Sequence[Write]) -> list[str]:
    """Compare-and-set each; the accounts that were not as expected."""
    changed = [_update_args(write) for write in writes if write.expected]
    moved: list[str] = []
    # The usual case in one call; only if a version had moved is it worth finding out whose.
    if changed and conn.executemany(_UPDATE, changed).rowcount != len(changed):
        written = "SELECT 1 FROM ledger_accounts WHERE id = ? AND version = ?"
        moved = [args[8] for args in changed if not conn.execute(written, (args[8], args[2])).fetchone()]
    for expected, version, account in writes:
        if not expected:
            state = (account.posted, account.held, version, account.seq, *_documents(account))
            args = (account.id, account.asset, account.floor, *state)
            if conn.execute(_INSERT, args).rowcount != 1:
                moved.append(account.id)
    return moved


def _update_args(write: Write) -> tuple[Any, ...]:
    expected, version, account = write
    id_, _, _, posted, held, seq, holds, tail, credited, facts = account
    if tail or credited or facts:
        return (posted, held, version, seq, *_documents(account), id_, expected)
    text = _text(holds_to_json(holds)) if holds else None
    return (posted, held, version, seq, text, None, None, None, id_, expected)


def _documents(account: Account) -> tuple[str | None, str | None, str | None, str | None]:
    holds = _text(holds_to_json(account.holds)) if account.holds else None
    tail = _text([entry_to_json(entry) for entry in account.tail]) if account.tail else None
    credited = _text(account.credited) if account.credited else None
    facts = _text(dict(account.facts)) if account.facts else None
    return holds, tail, credited, facts


def _insert_row(
    conn: sqlite3.Connection, entry: Entry, *, applied: bool, credits_after: Mapping[str, int]
) -> None:
    inserted = conn.execute(
        _INSERT_ENTRY,
        (
            entry.key,
            entry.account,
            entry.seq,
            entry.state.value,
            entry.kind,
            entry.asset,
            entry.reference,
            _text(transfers_to_json(entry.transfers)),
            entry.posted_before,
            entry.posted_after,
            entry.at_ms,
            entry.day,
            _text(entry.facts),
            int(applied),
            _text(credits_after),
            quantity_of(entry),
        ),
    ).rowcount
    if inserted and entry.state is KeyState.POSTED:
        conn.executemany(
            _INSERT_TRANSFER,
            [
                (entry.key, i, t.debit, t.credit, t.amount_minor, t.kind, entry.asset, entry.at_ms, entry.day)
                for i, t in enumerate(entry.transfers)
            ],
        )
    if not inserted:
        _require_same(conn, entry, applied=applied, credits_after=credits_after)


def _require_same(
    conn: sqlite3.Connection, entry: Entry, *, applied: bool, credits_after: Mapping[str, int]
) -> None:
    stored = load_rows(conn, [entry.key])[entry.key]
    if _text(entry_to_json(stored.entry)) != _text(entry_to_json(entry)):
        raise InvariantBroken(rule="a key ends once", key=entry.key)
    if applied and not stored.applied:
        conn.execute(
            "UPDATE ledger_entries SET applied = 1, credits_after = ? WHERE key = ?",
            (_text(credits_after), entry.key),
        )


def _lines(
    conn: sqlite3.Connection,
    account_id: str,
    limit: int,
    before: tuple[int, str] | None,
    kinds: Sequence[str] | None,
) -> list[Line]:
    bound = "AND (at_ms, entry_key) < (:at, :key)" if before else ""
    args: dict[str, Any] = {"account": account_id, "limit": limit}
    if before:
        args |= {"at": before[0], "key": before[1]}
    wanted = ""
    if kinds is not None:
        args |= {f"kind{i}": kind for i, kind in enumerate(kinds)}
        wanted = f"AND kind IN ({', '.join(f':kind{i}' for i in range(len(kinds)))})"
    side = (
        "SELECT DISTINCT at_ms, entry_key FROM ledger_transfers WHERE {column} = :account"
        f" {bound} {wanted} ORDER BY at_ms DESC, entry_key DESC LIMIT :limit"
    )
    sql = (
        f"SELECT at_ms, entry_key FROM ({side.format(column='debit')})"
        f" UNION SELECT at_ms, entry_key FROM ({side.format(column='credit')})"
        " ORDER BY at_ms DESC, entry_key DESC LIMIT :limit"
    )
    keys = [key for _, key in conn.execute(sql, args)]
    rows = load_rows(conn, keys)
    return [_line(rows[key], account_id) for key in keys]


def _line(row: Row, account_id: str) -> Line:
    entry = row.entry
    change = sum(t.amount_minor for t in entry.transfers if t.credit == account_id)
    change -= sum(t.amount_minor for t in entry.transfers if t.debit == account_id)
    after = entry.posted_after if entry.account == account_id else row.credits_after.get(account_id)
    return Line(entry.key, entry.kind, entry.reference, entry.state, change, after, entry.at_ms, entry.facts)


def _text(value: object) -> str:
    return orjson.dumps(value).decode()


def _marks(chunk: Sequence[str]) -> str:
    return ", ".join("?" * len(chunk))


def _chunks(ids: Sequence[str]) -> Iterator[list[str]]:
    unique = list(dict.fromkeys(ids))
    for start in range(0, len(unique), _CHUNK):
        yield unique[start : start + _CHUNK]
