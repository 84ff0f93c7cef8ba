"""The connection to MongoDB. Two drivers stand behind it; what differs between them ends in this file."""

import asyncio
import datetime as dt
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, Literal

import pymongo
from pymongo import ASCENDING, AsyncMongoClient, IndexModel, ReadPreference, WriteConcern
from pymongo.errors import ConfigurationError, PyMongoError
from pymongo.read_concern import ReadConcern

from server.storage.errors import CannotOpen
from server.storage.mongo.failures import store_failures
from server.storage.mongo.integers import CODEC

Driver = Literal["pymongo", "motor"]

_DEFAULT_DATABASE: Final = "tarazu"
_EPOCH: Final = dt.datetime(1970, 1, 1)  # noqa: DTZ001  the driver's instants carry no zone: they are UTC
_INDEX_S: Final = 3_600.0
_MILLISECOND: Final = dt.timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class MongoOptions:
    """Where the database is and how long one call may take, everything included: finding the primary, sending, waiting for the
    majority and the driver's one retry.
    """

    url: str
    driver: Driver = "pymongo"
    timeout_ms: int = 1_000


class MongoDatabase:
    """One database of a MongoDB deployment, through PyMongo's asyncio API or through motor.

    Collections read from the primary what a majority holds and write with `w: majority, j: true`. Use them inside
    `with store_failures:`.
    """

    def __init__(self, client: Any, options: MongoOptions, hello: Mapping[str, Any]) -> None:
        """For `open_mongo`. `hello` is the server's greeting."""
        self._client = client
        self._driver = options.driver
        self.timeout_ms: Final = options.timeout_ms
        #: A replica set or a sharded cluster: only these know read concerns beyond "local".
        self.replicated: Final = "setName" in hello or hello.get("msg") == "isdbgrid"
        self._database = client.get_default_database(_DEFAULT_DATABASE).with_options(
            codec_options=CODEC,
            read_preference=ReadPreference.PRIMARY,
            read_concern=ReadConcern("majority") if self.replicated else ReadConcern(),
            write_concern=WriteConcern("majority", j=True, wtimeout=options.timeout_ms),
        )
        self.name: Final[str] = self._database.name

    def collection(self, name: str) -> Any:
        """The driver's collection. `find`, `insert_one` and the like are the same with both drivers; `aggregate` is not: see below."""
        return self._database[name]

    async def aggregate(
        self, name: str, pipeline: Sequence[Mapping[str, Any]], **options: Any
    ) -> list[dict[str, Any]]:
        """All documents that the pipeline yields. Raises `StoreUnavailable`."""
        with store_failures:
            cursor = self.collection(name).aggregate(list(pipeline), **options)
            if self._driver == "pymongo":
                cursor = await cursor
            found: list[dict[str, Any]] = await cursor.to_list(None)
            return found

    async def make_indexes(self, name: str, indexes: Iterable[Sequence[str]]) -> None:
        """Make those that are missing, each ascending in all its fields; harmless to repeat. It takes as long as it takes: on a large
        collection that is minutes, in which others read and write. Raises `StoreUnavailable`.
        """
        models = [IndexModel([(field, ASCENDING) for field in self._usable(index)]) for index in indexes]
        if models:
            with store_failures, pymongo.timeout(_INDEX_S):
                await self.collection(name).create_indexes(models)

    def _usable(self, index: Sequence[str]) -> Sequence[str]:
        # Only a replica set is for production. The stand-in of the tests refuses all inserts once an index names `_id`; there, and on
        # a developer's single server, ties are sorted in memory.
        return index if self.replicated else [field for field in index if field != "_id"]

    async def command(self, command: Mapping[str, Any]) -> dict[str, Any]:
        """Run a command on this database. Raises `StoreUnavailable`."""
        with store_failures:
            answer: dict[str, Any] = await self._database.command(command)
            return answer

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Any]:
        """A session in which all reads see one committed state; None where the server has no such thing (no replica set).

        Pass it as `session=` either way. The server keeps the state for five minutes by default.
        """
        if not self.replicated:
            yield None
            return
        session = self._client.start_session(snapshot=True)
        if self._driver == "motor":
            session = await session
        async with session:
            yield session

    async def ping(self) -> None:
        """Raises `StoreUnavailable` when the primary does not answer in time."""
        await self.command({"ping": 1})

    async def now_ms(self) -> int:
        """The server's clock, milliseconds since the epoch. Raises `StoreUnavailable`."""
        hello = await self.command({"hello": 1})
        local_time: dt.datetime = hello["localTime"]
        return (local_time - _EPOCH) // _MILLISECOND


@asynccontextmanager
async def open_mongo(options: MongoOptions) -> AsyncIterator[MongoDatabase]:
    """Connect, greet the server, and close at the end.

    Raises:
        CannotOpen: the URL is wrong, the driver is missing, or nothing answers in time.
    """
    client = _client(options)
    try:
        try:
            hello = await client.admin.command("hello")
        except PyMongoError as exc:
            raise CannotOpen(_where(options.url), f"no MongoDB answers there ({_first_line(exc)})") from exc
        yield MongoDatabase(client, options, hello)
    finally:
        if options.driver == "pymongo":
            await client.close()
        else:
            # It says goodbye to the server and blocks until the answer: a frozen server would hold up everybody else.
            await asyncio.to_thread(client.close)


def _client(options: MongoOptions) -> Any:
    settings: dict[str, Any] = {
        "appname": "tarazu",
        # One budget for the whole call; the other two only bound what happens before a call and between calls.
        "timeoutMS": options.timeout_ms,
        "serverSelectionTimeoutMS": options.timeout_ms,
        "connectTimeoutMS": options.timeout_ms,
    }
    try:
        if options.driver == "pymongo":
            return AsyncMongoClient(options.url, **settings)
        return _motor()(options.url, **settings)
    except (ConfigurationError, PyMongoError, ValueError) as exc:
        raise CannotOpen(_where(options.url), f"this is no MongoDB address ({_first_line(exc)})") from exc


def _motor() -> Any:
    try:
        from motor.motor_asyncio import AsyncIOMotorClient  # noqa: PLC0415  an extra: most do not have it
    except ImportError as exc:
        raise CannotOpen("motor", "the driver is not installed: pip install 'tarazu[motor]'") from exc
    return AsyncIOMotorClient


def _where(url: str) -> str:
    """The address without user, password and options: it ends up in logs."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2].partition('?')[0]}" if rest else "MongoDB"


def _first_line(exc: BaseException) -> str:
    # The driver appends its whole view of the topology.
    return str(exc).partition(", Timeout:")[0].partition("\n")[0][:200]
