"""One table for each collection: `_id`, a real column for each declared field, and the whole document.

The columns are copies: what a filter, an order or a sum reads without opening the document. So a table follows its
spec freely; a column that is new is filled from the documents, one that is no longer declared goes.
"""

import sqlite3
from typing import Any, Final

import orjson

from server.storage.collection import CollectionSpec, Doc
from server.storage.documents import check_declared
from server.storage.sqlite.sql import quoted

_CHUNK: Final = 1_000


def table_of(spec: CollectionSpec) -> str:
    """A prefix keeps collections apart from the ledger's and the messages' own tables."""
    return f"c_{spec.name}"


def columns_of(spec: CollectionSpec) -> dict[str, str]:
    """Column → declared type. BOOLEAN is an INTEGER to SQLite; the word tells a later spec what it was."""
    return {
        **dict.fromkeys(spec.text, "TEXT"),
        **dict.fromkeys(spec.integer, "INTEGER"),
        **dict.fromkeys(spec.boolean, "BOOLEAN"),
    }


def row_of(columns: tuple[str, ...], doc: Doc) -> tuple[Any, ...]:
    """`_id`, the columns, the document as JSON text."""
    return (doc["_id"], *map(doc.get, columns), orjson.dumps(doc).decode())


def make_table(connection: sqlite3.Connection, spec: CollectionSpec) -> None:
    """Bring the collection's table in line with `spec`. Runs in the writer's transaction, so all or nothing.

    Raises `ValueError` when a stored document has another type in a field that is declared only now.
    """
    table = quoted(table_of(spec))
    wanted = columns_of(spec)
    columns = "".join(f", {quoted(name)} {kind}" for name, kind in wanted.items())
    # WITHOUT ROWID: ids sort by creation, so rows are stored in the order of their pages, and every index ends
    # with the id: an index on (a) serves ORDER BY a, _id.
    connection.execute(
        f'CREATE TABLE IF NOT EXISTS {table} ("_id" TEXT NOT NULL PRIMARY KEY{columns}, "_body" TEXT NOT NULL)'
        " WITHOUT ROWID"
    )
    found = {row[1]: row[2] for row in connection.execute(f"PRAGMA table_info({table})").fetchall()}
    gone = [name for name, kind in found.items() if name[0] != "_" and wanted.get(name) != kind]
    new = [name for name, kind in wanted.items() if found.get(name) != kind]
    _drop_indexes(connection, spec, gone)
    for name in gone:
        connection.execute(f"ALTER TABLE {table} DROP COLUMN {quoted(name)}")
    for name in new:
        connection.execute(f"ALTER TABLE {table} ADD COLUMN {quoted(name)} {wanted[name]}")
    if new:
        _fill(connection, spec, new)
    for index in spec.indexes:
        fields = ", ".join(map(quoted, index))
        name = quoted(_index_name(spec, index))
        connection.execute(f"CREATE INDEX IF NOT EXISTS {name} ON {table} ({fields})")


def _index_name(spec: CollectionSpec, index: tuple[str, ...]) -> str:
    return f"{table_of(spec)}({','.join(index)})"


def _drop_indexes(connection: sqlite3.Connection, spec: CollectionSpec, gone: list[str]) -> None:
    """Those the spec does not name, and those on a column that is about to go."""
    kept = {_index_name(spec, index) for index in spec.indexes if not set(index) & set(gone)}
    rows = connection.execute(f"PRAGMA index_list({quoted(table_of(spec))})").fetchall()
    for _, name, _, origin, _ in rows:
        if origin == "c" and name not in kept:
            connection.execute(f"DROP INDEX {quoted(name)}")


def _fill(connection: sqlite3.Connection, spec: CollectionSpec, names: list[str]) -> None:
    table = quoted(table_of(spec))
    settings = ", ".join(f"{quoted(name)} = ?" for name in names)
    last = ""
    while True:
        rows = connection.execute(
            f'SELECT "_id", "_body" FROM {table} WHERE "_id" > ? ORDER BY "_id" LIMIT {_CHUNK}', (last,)
        ).fetchall()
        if not rows:
            return
        last = rows[-1][0]
        values: list[tuple[Any, ...]] = []
        for id_, body in rows:
            doc: Doc = orjson.loads(body)
            try:
                check_declared(spec, doc)
            except ValueError as exc:
                raise ValueError(f"the stored document {id_!r} does not fit the declaration: {exc}") from exc
            values.append((*map(doc.get, names), id_))
        connection.executemany(f'UPDATE {table} SET {settings} WHERE "_id" = ?', values)
