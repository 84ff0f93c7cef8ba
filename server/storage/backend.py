"""The store behind the ports: one SQLite file, or a MongoDB replica set that several processes share."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from billing_engine.ledger.ports import LedgerStore
from chat.ports import MessageStore
from server.settings import Settings
from server.storage.collection import Collections
from server.storage.sqlite.collection import SqliteCollections
from server.storage.sqlite.engine import Lane, SqliteDatabase, SqliteOptions, open_database
from server.storage.sqlite.ledger import SqliteLedgerStore
from server.storage.sqlite.messages import open_message_store

if TYPE_CHECKING:
    from server.storage.mongo.client import MongoDatabase

#: Conversations that one round of redo looks at.
_REDO_AT_ONCE: Final = 500
#: A series' name, its text, and its value when asked.
Sample = tuple[str, str, Callable[[], float]]


class DurableLedgerStore(LedgerStore, Protocol):
    """What both engines' ledger stores can tell beside the port."""

    async def last_instant_ms(self) -> int:
        """The newest instant that an entry or an open hold carries, 0 for an empty ledger: no clock may start before it."""
        ...


@dataclass(frozen=True, slots=True)
class Storage:
    """One opened store. `clock_ms` is the store's own clock where that is another machine's; `redo` finishes what a writer that
    died had committed and not copied out, and says how much it found.
    """

    collections: Collections
    ledger: DurableLedgerStore
    messages: MessageStore
    ping: Callable[[], Awaitable[None]]
    clock_ms: Callable[[], Awaitable[int]] | None = None
    redo: Callable[[], Awaitable[int]] | None = None
    gauges: tuple[Sample, ...] = ()
    totals: tuple[Sample, ...] = ()


@asynccontextmanager
async def open_storage(
    settings: Settings, *, on_fatal: Callable[[BaseException], None] = lambda _: None
) -> AsyncIterator[Storage]:
    """Open what `DATABASE_URL` names, and make what is missing in it.

    Raises:
        CannotOpen, DatabaseInUse: it cannot be had.
        StoreUnavailable: it was there, and then it was not.
    """
    opened = _open_mongo(settings) if settings.is_shared else _open_sqlite(settings, on_fatal)
    async with opened as storage:
        yield storage


@asynccontextmanager
async def open_collections(settings: Settings) -> AsyncIterator[Collections]:
    """The collections alone, for the command line. Raises as `open_storage`."""
    if settings.is_shared:
        async with _mongo(settings) as db:
            from server.storage.mongo.collection import MongoCollections  # noqa: PLC0415  as in `_open_mongo`

            yield MongoCollections(db)
    else:
        async with open_database(settings.sqlite_path, _sqlite_options(settings)) as db:
            yield SqliteCollections(db)


@asynccontextmanager
async def _open_sqlite(
    settings: Settings, on_fatal: Callable[[BaseException], None]
) -> AsyncIterator[Storage]:
    settings.sqlite_path.parent.mkdir(parents=True, exist_ok=True)
    async with open_database(settings.sqlite_path, _sqlite_options(settings, on_fatal)) as db:
        ledger = SqliteLedgerStore(db)
        await ledger.prepare()
        yield Storage(
            collections=SqliteCollections(db),
            ledger=ledger,
            messages=await open_message_store(db),
            ping=db.ping,
            gauges=tuple(_lane(db, lane) for lane in Lane),
            totals=(
                ("tarazu_store_commits", "Transactions of the store", lambda: db.stats.commits),
                ("tarazu_store_items", "Writes in those", lambda: db.stats.committed_items),
                (
                    "tarazu_store_lost_batches",
                    "Transactions that failed as a whole",
                    lambda: db.stats.lost_batches,
                ),
            ),
        )


def _sqlite_options(
    settings: Settings, on_fatal: Callable[[BaseException], None] = lambda _: None
) -> SqliteOptions:
    return SqliteOptions(synchronous=settings.sqlite_synchronous, on_fatal=on_fatal)


def _lane(db: SqliteDatabase, lane: Lane) -> Sample:
    return f"tarazu_store_queue_{lane.value}", "Writes that wait in this lane", lambda: db.depth(lane)


@asynccontextmanager
async def _open_mongo(settings: Settings) -> AsyncIterator[Storage]:
    # Imported here: who runs on the embedded default starts without the drivers.
    from server.storage.mongo.collection import MongoCollections  # noqa: PLC0415
    from server.storage.mongo.ledger import MongoLedgerStore  # noqa: PLC0415
    from server.storage.mongo.messages import open_message_store as open_mongo_messages  # noqa: PLC0415

    async with _mongo(settings) as db:
        ledger = MongoLedgerStore(db)
        await ledger.prepare()
        messages = await open_mongo_messages(db)
        yield Storage(
            collections=MongoCollections(db),
            ledger=ledger,
            messages=messages,
            ping=db.ping,
            clock_ms=db.now_ms,
            redo=lambda: messages.redo_pending(_REDO_AT_ONCE),
        )


@asynccontextmanager
async def _mongo(settings: Settings) -> AsyncIterator["MongoDatabase"]:
    from server.storage.mongo.client import MongoOptions, open_mongo  # noqa: PLC0415

    options = MongoOptions(settings.database_url, settings.mongo_driver, settings.store_timeout_ms)
    async with open_mongo(options) as db:
        yield db
