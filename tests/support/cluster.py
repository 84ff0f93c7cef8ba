"""The production path on one machine, from pip packages alone: the stand-in for MongoDB, a Valkey, web processes and a worker."""

import itertools
import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tests.support.mongo_server import MongoServer
from tests.support.server_process import WORK, Ran, ServerProcess
from tests.support.valkey import Valkey

#: The stand-in does not know a retried write from a new one (LIBRARIES), so the driver must not retry by itself.
STAND_IN_OPTIONS: Final = "retryWrites=false"


class Cluster:
    """A context manager: started inside, stopped at the end. `url` names another living web process each time it is asked."""

    def __init__(
        self,
        directory: Path,
        *,
        webs: int = 2,
        worker: bool = True,
        database: str = "tarazu",
        store_timeout_s: int = 4,
        **settings: str,
    ) -> None:
        self.directory = directory
        for name in ("mongo", "redis"):
            (directory / name).mkdir(parents=True, exist_ok=True)
        self.mongo = MongoServer(directory / "mongo")
        self.redis = Valkey(directory / "redis", persistent=True)
        self.database = database
        self._settings = settings
        # The stand-in serves one command at a time, on cores that tests share: patient, where nothing is said about it.
        self._store_timeout_s = store_timeout_s
        self.webs = [ServerProcess(directory, name=f"web{number}") for number in range(1, webs + 1)]
        self.worker = ServerProcess(directory, name="worker", command=WORK) if worker else None
        self._frozen: set[str] = set()
        self._turn = itertools.count()
        self._stack = ExitStack()

    @property
    def processes(self) -> list[ServerProcess]:
        """Every process of ours, web processes first."""
        return [*self.webs, *([self.worker] if self.worker else [])]

    @property
    def url(self) -> str:
        """A web process that answers; they take turns."""
        answering = [web for web in self.webs if web.is_running and web.name not in self._frozen]
        return answering[next(self._turn) % len(answering)].url

    def __enter__(self) -> Self:
        self._stack.enter_context(self.mongo)
        self.redis.start()
        self._stack.callback(self.redis.kill)
        self.settings = {
            "DATABASE_URL": f"{self.mongo.url(self.database)}?{STAND_IN_OPTIONS}",
            "REDIS_URL": self.redis.url,
            **self._settings,
            "STORE_TIMEOUT_SECONDS": str(self._store_timeout_s),
            "LEAD_SECONDS": str(2 * self._store_timeout_s),
        }
        try:
            for process in self.processes:
                process.settings |= self.settings
                process.spawn()
                self._stack.push(process)
            for process in self.processes:
                process.wait_until_serving()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self.processes:
            if process.name in self._frozen:
                self.thaw(process)
        self._stack.__exit__(kind, exc, trace)

    def freeze(self, process: ServerProcess) -> None:
        self._frozen.add(process.name)
        process.freeze()

    def thaw(self, process: ServerProcess) -> None:
        self._frozen.discard(process.name)
        process.thaw()

    def is_frozen(self, process: ServerProcess) -> bool:
        return process.name in self._frozen

    def tarazu(self, *arguments: str, **settings: str) -> Ran:
        """Run a command on the cluster's database."""
        return self.webs[0].tarazu(*arguments, **settings)

    def verify_ledger(self) -> tuple[int, str]:
        return self.webs[0].verify_ledger()

    def settled_books(self, patience_s: float = 20) -> tuple[int, str]:
        return self.webs[0].settled_books(patience_s)

    def wait_for(self, process: ServerProcess, event: str, *, after: int = 0, patience_s: float = 20) -> None:
        """Return once the process has logged `event` more than `after` times."""
        deadline_s = time.monotonic() + patience_s
        while sum(line.get("event") == event for line in process.log_events()) <= after:
            assert time.monotonic() < deadline_s, f"{process.name} never said {event}: {process.log[-2_000:]}"
            time.sleep(0.02)
