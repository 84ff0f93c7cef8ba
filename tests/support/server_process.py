"""The real server in a process of its own, as `tarazu serve` starts it: started, stopped, killed and started again on one file."""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

ROOT: Final = Path(__file__).resolve().parents[2]
ADMIN_EMAIL: Final = "admin@example.com"
ADMIN_PASSWORD: Final = "an admin of the tests"
#: What a machine under load may take to start the server; a healthy one needs a second.
_START_S: Final = 40.0

#: Short ticks and small sums, so that a whole consultation fits into seconds.
QUICK: Final[Mapping[str, str]] = {
    "TICK_SECONDS": "1",
    "LEAD_SECONDS": "2",
    "MIN_SECONDS": "2",
    "MIN_BALANCE": "1.00",
}


SERVE: Final = ("serve", "--announce-address")
WORK: Final = ("worker",)


class ServerDidNotStart(Exception):
    """It exited, or said nothing in time; carries its log."""


@dataclass(frozen=True)
class Ran:
    """A command that has ended."""

    code: int
    out: str
    err: str


def environment(database: Path, **settings: str) -> dict[str, str]:
    """The variables of a server for tests, and nothing of ours but what a process needs to run."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR", "LANG") if name in os.environ}
    return {
        **kept,
        "PYTHONPATH": str(ROOT),
        "PYTHONWARNINGS": "error",
        "APP_ENV": "test",
        "HOST": "127.0.0.1",
        "PORT": "0",
        "DATABASE_URL": f"sqlite:///{database}",
        "BCRYPT_COST": "4",
        "RATE_LIMITS": "off",
        "LOG_FORMAT": "json",
        "ADMIN_EMAIL": ADMIN_EMAIL,
        "ADMIN_PASSWORD": ADMIN_PASSWORD,
        **settings,
    }


def tarazu(
    directory: Path, *arguments: str, env: Mapping[str, str], stdin: str = "", timeout_s: float = 60
) -> Ran:
    """Run a command of `tarazu` to its end, in `directory`, so that no `.env` of a developer is read."""
    done = subprocess.run(
        [sys.executable, "-m", "server", *arguments],
        cwd=directory,
        env=dict(env),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    return Ran(done.returncode, done.stdout, done.stderr)


class ServerProcess:
    """One database file and the server that serves it, in whichever process it runs at the moment.

    A context manager: at its end the server is stopped, and a log with an error in it fails the test.
    """

    def __init__(
        self, directory: Path, *, name: str = "server", command: tuple[str, ...] = SERVE, **settings: str
    ) -> None:
        """`name` is its log's; `command` what it runs: `WORK` makes it a worker, which has no address."""
        self.directory = directory
        self.database = directory / "tarazu.db"
        self.settings = dict(settings)
        self.url = ""
        self.name = name
        self.log_path = directory / f"{name}.log"
        self._command = command
        #: What a test breaks on purpose may be logged.
        self.tolerated: Callable[[dict[str, Any]], bool] = lambda _event: False
        self._process: subprocess.Popen[str] | None = None

    # -- its life -------------------------------------------------------------------------------------------------

    def start(self, **settings: str) -> Self:
        """Start it and wait for its address. `settings` stay for later starts. Raises `ServerDidNotStart`."""
        self.settings |= settings
        self.spawn()
        return self.wait_until_serving()

    def wait_until_serving(self) -> Self:
        """After `spawn`: wait for its address. A worker has none. Raises `ServerDidNotStart`."""
        assert self._process is not None, "it does not run"
        if self._command == SERVE:
            self.url = self._address(self._process)
        return self

    def spawn(self) -> "subprocess.Popen[str]":
        """Start it and wait for nothing."""
        assert self._process is None, "it runs already"
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "server", *self._command],
                cwd=self.directory,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        return self._process

    def _address(self, process: "subprocess.Popen[str]") -> str:
        assert process.stdout is not None
        ready, _, _ = select.select([process.stdout], [], [], _START_S)
        line = process.stdout.readline().strip() if ready else ""
        if not line.startswith("http://"):
            self.kill()
            raise ServerDidNotStart(f"it said {line!r}; its log:\n{self.log}")
        return line

    @property
    def pid(self) -> int:
        assert self._process is not None, "it does not run"
        return self._process.pid

    def freeze(self) -> None:
        """SIGSTOP: it holds its connections and does nothing."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT: it goes on with whatever it was about to do."""
        os.kill(self.pid, signal.SIGCONT)

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def terminate(self) -> None:
        """SIGTERM; `wait` says how it went."""
        assert self._process is not None, "it does not run"
        self._process.terminate()

    def wait(self, timeout_s: float = 15) -> int:
        """Its exit code. Raises `subprocess.TimeoutExpired`."""
        assert self._process is not None, "it does not run"
        code = self._process.wait(timeout_s)
        self._forget()
        return code

    def stop(self) -> int:
        """SIGTERM and wait; the exit code."""
        self.terminate()
        return self.wait()

    def kill(self) -> None:
        """SIGKILL: nothing of the process runs after this returns."""
        assert self._process is not None, "it does not run"
        self._process.kill()
        self._process.wait()
        self._forget()

    def _forget(self) -> None:
        if self._process is not None and self._process.stdout is not None:
            self._process.stdout.close()
        self._process = None

    def __enter__(self) -> Self:
        return self.start() if self._process is None else self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        code = 0
        if self._process is not None:
            try:
                code = self.stop()
            except subprocess.TimeoutExpired:
                self.kill()
                code = -9
        if exc_type is None:
            assert code == 0, f"the server ended with {code}:\n{self.log[-4_000:]}"
            self.assert_clean_log()

    # -- what it wrote --------------------------------------------------------------------------------------------

    @property
    def log(self) -> str:
        """All that it wrote to standard error, over all its lives."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def log_events(self) -> list[dict[str, Any]]:
        """Its log lines; what is not one event a line (a bare traceback, a warning of Python) is given as `raw`."""
        events: list[dict[str, Any]] = []
        for line in self.log.splitlines():
            try:
                event = json.loads(line)
            except ValueError:
                event = None
            events.append(event if isinstance(event, dict) else {"level": "error", "raw": line})
        return events

    def assert_clean_log(self) -> None:
        """No error, no traceback, no line that is no log line."""
        bad = [
            e
            for e in self.log_events()
            if (e["level"] in ("error", "critical") or "exception" in e) and not self.tolerated(e)
        ]
        assert not bad, "\n".join(e.get("raw") or json.dumps(e, indent=1) for e in bad[:10])

    # -- commands beside it ---------------------------------------------------------------------------------------

    @property
    def env(self) -> dict[str, str]:
        return environment(self.database, **self.settings)

    def tarazu(self, *arguments: str, stdin: str = "", **settings: str) -> Ran:
        """Run another command on the same database with the same settings."""
        return tarazu(self.directory, *arguments, env={**self.env, **settings}, stdin=stdin)

    def verify_ledger(self) -> tuple[int, str]:
        """Exit code and output of `tarazu verify-ledger`."""
        ran = self.tarazu("verify-ledger")
        return ran.code, ran.out + ran.err

    def settled_books(self, patience_s: float = 10) -> tuple[int, str]:
        """The same, asked again while something is unfinished: a start or an end may be under way this instant."""
        deadline = time.monotonic() + patience_s
        while True:
            code, output = self.verify_ledger()
            if code != 3 or time.monotonic() > deadline:
                return code, output
