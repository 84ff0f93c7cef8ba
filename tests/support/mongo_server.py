"""The stand-in for MongoDB, in a process of its own: its wire protocol over SQLite (nx-27017, from pip). A true replica set as well,
where `MONGO_URL` names one.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit, urlunsplit

import pymongo
import pytest

from server.storage.errors import CannotOpen
from server.storage.mongo.client import MongoDatabase, MongoOptions, open_mongo
from tests.support.mongo_sockets import close_what_a_cancelled_connect_leaves

close_what_a_cancelled_connect_leaves()

#: What a machine under load may take; alone it needs half a second.
_START_S: Final = 30.0
#: A call's limit in tests that are not about limits: the suite shares its cores.
PATIENT_MS: Final = 20_000


class MongoServer:
    """One server on a free port of 127.0.0.1, with a file for each database in `directory`. It keeps its port when it is restarted."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self.kill()

    def url(self, database: str) -> str:
        return f"mongodb://127.0.0.1:{self.port}/{database}"

    def dump(self, database: str) -> str:
        """Every document of the database, as text."""
        client: pymongo.MongoClient[dict[str, Any]] = pymongo.MongoClient(self.url(database))
        with client:
            return "\n".join(
                str(document)
                for name in client[database].list_collection_names()
                for document in client[database][name].find({})
            )

    def start(self) -> None:
        """Returns when the port is open. Raises `TimeoutError` with its log otherwise."""
        log = self.directory / "log"
        with log.open("wb") as out:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-c", "from nx_27017.nx_27017 import main; main()"),
                    *("--data-dir", str(self.directory), "--port", str(self.port)),
                    *("--log-file", os.devnull, "--pid-file", str(self.directory / "pid")),
                ],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )
        deadline_s = time.monotonic() + _START_S
        while b"Listening on" not in log.read_bytes():
            if self._process.poll() is not None or time.monotonic() > deadline_s:
                self.kill()
                raise TimeoutError(log.read_text())
            time.sleep(0.01)
        line = next(line for line in log.read_text().splitlines() if "Listening on" in line)
        self.port = int(line.rpartition(":")[2].split()[0])

    def kill(self) -> None:
        """As a power cut would: nothing is flushed, nothing said goodbye to."""
        process, self._process = self._running, None
        process.kill()
        process.wait()

    def restart(self) -> None:
        self.kill()
        self.start()

    def freeze(self) -> None:
        """It takes connections and answers nothing, as behind a network that drops packets."""
        self._running.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._running.send_signal(signal.SIGCONT)

    @property
    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("the server is not running")
        return self._process


@asynccontextmanager
async def open_with_short_limit(options: MongoOptions) -> AsyncIterator[MongoDatabase]:
    """Opened however often that takes: a short limit is for the calls of a test that waits for it, and a busy machine needs longer
    to connect.
    """
    deadline_s = time.monotonic() + _START_S
    async with AsyncExitStack() as stack:
        while True:
            try:
                db = await stack.enter_async_context(open_mongo(options))
                break
            except CannotOpen:
                if time.monotonic() > deadline_s:
                    raise
        yield db


def true_url(database: str) -> str:
    """The address of `database` on the replica set that `MONGO_URL` names."""
    parts = urlsplit(os.environ["MONGO_URL"])
    return urlunsplit(parts._replace(path=f"/{database}"))


#: Every deployment that there is here, by the marks of its parameter.
DEPLOYMENTS: Final = (
    "stand-in",
    *((pytest.param("real", marks=pytest.mark.real_mongo),) if "MONGO_URL" in os.environ else ()),
)


@pytest.fixture(scope="session")
def mongo_server() -> Iterator[MongoServer]:
    """One for all tests of a process, in memory where the system offers it. Whoever stops one starts his own instead."""
    fast = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with (
        tempfile.TemporaryDirectory(prefix="mongo-", dir=fast) as directory,
        MongoServer(Path(directory)) as server,
    ):
        yield server


@pytest.fixture(scope="session")
def mongo_admin() -> Iterator[Callable[[str], "pymongo.MongoClient[dict[str, Any]]"]]:
    """Clients that stay connected: a new one for each test costs more than most of these tests."""
    with ExitStack() as stack:
        clients: dict[str, pymongo.MongoClient[dict[str, Any]]] = {}

        def client(url: str) -> "pymongo.MongoClient[dict[str, Any]]":
            host = urlsplit(url).netloc
            if host not in clients:
                clients[host] = stack.enter_context(pymongo.MongoClient(url))
            return clients[host]

        yield client


@pytest.fixture(params=DEPLOYMENTS)
def mongo_url(
    request: pytest.FixtureRequest, mongo_admin: Callable[[str], "pymongo.MongoClient[dict[str, Any]]"]
) -> Iterator[str]:
    """A database of the test's own, empty, and dropped at its end."""
    name = f"test_{uuid.uuid4().hex[:16]}"
    if request.param == "real":
        url = true_url(name)
    else:
        server: MongoServer = request.getfixturevalue("mongo_server")
        url = server.url(name)
    yield url
    mongo_admin(url).drop_database(name)


@pytest.fixture(params=["pymongo", "motor"])
def mongo_options(request: pytest.FixtureRequest, mongo_url: str) -> MongoOptions:
    """The same, through either driver."""
    return MongoOptions(mongo_url, request.param, timeout_ms=PATIENT_MS)
