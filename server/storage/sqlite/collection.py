"""The collection port over SQLite."""

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

from server.storage.collection import CollectionSpec, Doc, Sort, Where
from server.storage.documents import INT64_MAX, INT64_MIN, changed, check_changes, check_document, check_spec
from server.storage.errors import DuplicateId
from server.storage.query import Terms, parse_sort, parse_where, ranges_after, served_by_index
from server.storage.sqlite.engine import Lane, SqliteDatabase
from server.storage.sqlite.sql import conditions, order_by, quoted
from server.storage.sqlite.tables import columns_of, make_table, row_of, table_of

#: Rows that the event loop reads itself; a hop to a thread costs more than these do.
_SHORT: Final = 200
_CHUNK: Final = 500


class SqliteCollections:
    """Hands out collections of one database."""

    def __init__(self, db: SqliteDatabase) -> None:
        self._db = db
        self._specs: dict[str, CollectionSpec] = {}

    async def open(self, spec: CollectionSpec) -> "SqliteCollection":
        """The collection, its table brought in line with `spec`.

        Raises `ValueError` for a spec that cannot be, or that is not the one it was opened with before.
        """
        check_spec(spec)
        if self._specs.setdefault(spec.name, spec) != spec:
            raise ValueError(f"{spec.name} was opened with another spec")
        await self._db.write(Lane.REST, lambda connection: make_table(connection, spec))
        return SqliteCollection(self._db, spec)


class SqliteCollection:
    """One collection; `server.storage.collection.Collection` says what each method promises."""

    def __init__(self, db: SqliteDatabase, spec: CollectionSpec) -> None:
        self._db = db
        self._spec = spec
        self._table = table = quoted(table_of(spec))
        self._columns = columns = tuple(columns_of(spec))
        names = ", ".join(map(quoted, ("_id", *columns, "_body")))
        marks = ", ".join("?" * (len(columns) + 2))
        changes = ", ".join(f"{quoted(name)} = excluded.{quoted(name)}" for name in (*columns, "_body"))
        self._insert = f"INSERT INTO {table} ({names}) VALUES ({marks})"
        self._upsert = f'{self._insert} ON CONFLICT ("_id") DO UPDATE SET {changes}'
        self._select = f'SELECT "_body" FROM {table} WHERE'

    async def insert(self, doc: Doc) -> None:
        row = self._row(doc)

        def work(connection: sqlite3.Connection) -> None:
            try:
                connection.execute(self._insert, row)
            except sqlite3.IntegrityError as exc:
                raise DuplicateId(self._spec.name, row[0]) from exc

        await self._db.write(Lane.REST, work)

    async def get(self, id_: str) -> Doc | None:
        row = self._db.read(
            lambda connection: connection.execute(f'{self._select} "_id" = ?', (id_,)).fetchone()
        )
        return None if row is None else orjson.loads(row[0])

    async def get_many(self, ids: Sequence[str]) -> dict[str, Doc]:
        wanted = list(dict.fromkeys(ids))

        def work(connection: sqlite3.Connection) -> list[tuple[str]]:
            rows: list[tuple[str]] = []
            for first in range(0, len(wanted), _CHUNK):
                chunk = wanted[first : first + _CHUNK]
                marks = ", ".join("?" * len(chunk))
                rows += connection.execute(f'{self._select} "_id" IN ({marks})', chunk).fetchall()
            return rows

        rows = self._db.read(work) if len(wanted) <= _SHORT else await self._db.scan(work)
        docs: list[Doc] = [orjson.loads(body) for (body,) in rows]
        return {doc["_id"]: doc for doc in docs}

    async def find(
        self,
        where: Where,
        *,
        sort: Sort = (("_id", "asc"),),
        limit: int = 100,
        after: Sequence[Any] | None = None,
    ) -> list[Doc]:
        terms = parse_where(self._spec, where)
        order = parse_sort(self._spec, sort)
        ranges = ranges_after(self._spec, order, after)
        if limit < 1:
            raise ValueError(f"{self._spec.name}: a page of {limit}")
        in_order = order_by(order)

        def work(connection: sqlite3.Connection) -> list[tuple[str]]:
            """The ranges of one snapshot, or a document that moves meanwhile would come twice or never."""
            rows: list[tuple[str]] = []
            for range_ in ranges:
                if len(rows) >= limit:
                    break
                matching, parameters = conditions((*terms, *range_))
                rows += connection.execute(
                    f"{self._select} {matching} ORDER BY {in_order} LIMIT ?", (*parameters, limit - len(rows))
                ).fetchall()
            return rows

        short = limit <= _SHORT and served_by_index(self._spec, terms, order)
        rows = self._db.read(work) if short else await self._db.scan(work)
        return [orjson.loads(body) for (body,) in rows]

    async def update(
        self,
        id_: str,
        *,
        where: Where | None = None,
        set_: Mapping[str, Any] | None = None,
        inc: Mapping[str, int] | None = None,
    ) -> Doc | None:
        matching, parameters = self._one(id_, where)
        check_changes(self._spec, set_, inc)
        # Copied now, as JSON: the caller may change a nested value before the writer gets here.
        news = orjson.dumps(dict(set_ or {}))
        steps = dict(inc or {})
        columns = (*self._columns, "_body")
        settings = ", ".join(f"{quoted(name)} = ?" for name in columns)

        def work(connection: sqlite3.Connection) -> Doc | None:
            row = connection.execute(f"{self._select} {matching}", parameters).fetchone()
            if row is None:
                return None
            doc = changed(orjson.loads(row[0]), orjson.loads(news), steps)
            new_row = row_of(self._columns, doc)
            connection.execute(
                f'UPDATE {self._table} SET {settings} WHERE "_id" = ?', (*new_row[1:], new_row[0])
            )
            return doc

        return await self._db.write(Lane.REST, work)

    async def upsert(self, doc: Doc) -> None:
        row = self._row(doc)
        await self._db.write(Lane.REST, lambda connection: connection.execute(self._upsert, row).rowcount)

    async def delete(self, id_: str, *, where: Where | None = None) -> bool:
        matching, parameters = self._one(id_, where)
        sql = f"DELETE FROM {self._table} WHERE {matching}"
        return await self._db.write(
            Lane.REST, lambda connection: connection.execute(sql, parameters).rowcount == 1
        )

    async def count(self, where: Where) -> int:
        matching, parameters = conditions(parse_where(self._spec, where))
        sql = f"SELECT count(*) FROM {self._table} WHERE {matching}"
        row = await self._db.scan(lambda connection: connection.execute(sql, parameters).fetchone())
        return int(row[0])

    async def sum_by(
        self, field_name: str, *, group_by: str | None = None, where: Where | None = None
    ) -> dict[Any, tuple[int, int]]:
        if field_name not in self._spec.integer:
            raise ValueError(f"{self._spec.name}: {field_name!r} is no declared integer")
        if group_by is not None:
            parse_sort(self._spec, [(group_by, "asc")])
        matching, parameters = conditions(parse_where(self._spec, where))
        column, group = quoted(field_name), "NULL" if group_by is None else quoted(group_by)
        # In halves: sum() of whole 64-bit numbers can overflow half way, even where the total fits.
        sql = (
            f"SELECT {group}, sum({column} >> 32), sum({column} & 4294967295),"
            f" count(*) FROM {self._table} WHERE {matching} GROUP BY 1"
        )
        rows = await self._db.scan(lambda connection: connection.execute(sql, parameters).fetchall())
        sums: dict[Any, tuple[int, int]] = {}
        for value, high, low, number in rows:
            total = ((high or 0) << 32) + (low or 0)
            if not INT64_MIN <= total <= INT64_MAX:
                raise ValueError(f"{self._spec.name}: the sum of {field_name} does not fit 64 bits")
            key = bool(value) if group_by in self._spec.boolean and value is not None else value
            sums[key] = (total, number)
        return sums

    def _row(self, doc: Doc) -> tuple[Any, ...]:
        check_document(self._spec, doc)
        return row_of(self._columns, doc)

    def _one(self, id_: str, where: Where | None) -> tuple[str, list[Any]]:
        terms: Terms = parse_where(self._spec, where)
        matching, parameters = conditions(terms)
        return f'"_id" = ? AND {matching}', [id_, *parameters]
