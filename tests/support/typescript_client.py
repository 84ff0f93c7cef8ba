"""`@tarazu/client` as tests use it: compiled, which is its type check, and run by Node in a process of its own."""

import asyncio
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.client_apps import PATIENCE_S

ROOT: Final = Path(__file__).parents[2]
PACKAGE: Final = ROOT / "clients" / "typescript"
SCRIPT: Final = ROOT / "tests" / "e2e" / "js" / "client_app.mjs"
#: A line may be a message of 8,000 characters.
_LONGEST_LINE: Final = 2**20


def missing() -> str | None:
    """What is needed and not there."""
    if shutil.which("node") is None:
        return "Node.js"
    if not (PACKAGE / "node_modules" / "typescript").is_dir():
        return "the client's npm packages (run `npm ci` in clients/typescript)"
    return None


def needed() -> None:
    """Without Node a test is left out, loudly; where it is required, it fails."""
    if (what := missing()) is None:
        return
    message = f"NOT TESTED with the TypeScript client: {what} is missing"
    if os.environ.get("TARAZU_REQUIRE_NODE", "") not in ("", "0"):
        pytest.fail(message)
    pytest.skip(message)


@cache
def compiled() -> Path:
    """The compiled client's entry. Raises `AssertionError` with the compiler's words."""
    sources = sorted(
        [*(PACKAGE / "src").glob("*.ts"), PACKAGE / "tsconfig.json", PACKAGE / "package-lock.json"]
    )
    version = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:16]
    # Inside of node_modules, so that it finds what it imports. What was compiled once, by whichever process, is there.
    modules = PACKAGE / "node_modules"
    out = modules / f".compiled-{version}"
    if not out.is_dir():
        fresh = Path(tempfile.mkdtemp(prefix=".compiling-", dir=modules))
        node = shutil.which("node")
        assert node is not None
        words = [node, "node_modules/typescript/bin/tsc", "--outDir", str(fresh)]
        ran = subprocess.run(
            words, cwd=PACKAGE, capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        try:
            fresh.rename(out)
        except OSError:
            # Somebody else was faster.
            shutil.rmtree(fresh)
    return out / "index.js"


class NodeApp:
    """A device that runs the TypeScript client. `told` is all that it has said, by kind."""

    def __init__(
        self, process: asyncio.subprocess.Process, on_told: Callable[[Any], None], *, remembers: bool
    ) -> None:
        self._process = process
        self._on_told = on_told
        self._remembers = remembers
        self.told: defaultdict[str, list[Any]] = defaultdict(list)
        self._news = asyncio.Event()
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            facts = json.loads(line)
            if self._remembers:
                self.told[facts["told"]].append(facts)
            self._on_told(facts)
            self._news.set()
        self._news.set()

    def do(self, command: str, **facts: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": command, **facts}).encode() + b"\n")

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not true():
                assert not self._reading.done(), f"the script has ended: {list(self.told)}"
                self._news.clear()
                await self._news.wait()

    async def hears(self, kind: str, count: int = 1) -> Any:
        """The `count`th that it tells of this kind."""
        await self.until(lambda: len(self.told[kind]) >= count)
        return self.told[kind][count - 1]

    async def event(self, name: str) -> Any:
        found: list[Any] = []

        def came() -> bool:
            found[:] = [told["payload"] for told in self.told["event"] if told["event"] == name]
            return bool(found)

        await self.until(came)
        return found[0]

    @property
    def messages(self) -> list[Any]:
        return [told["message"] for told in self.told["message"]]

    def kill(self) -> None:
        """As the system kills an app in a pocket."""
        self._process.kill()

    async def close(self) -> None:
        if self._process.returncode is None:
            self.do("close")
        try:
            await asyncio.wait_for(self._process.wait(), PATIENCE_S)
        finally:
            if self._process.returncode is None:
                self._process.kill()
            await self._process.wait()
            await self._reading


@asynccontextmanager
async def node_app(
    *,
    urls: Sequence[str],
    tokens: Sequence[str],
    user_id: str,
    session_id: str,
    after_seq: int = 0,
    storage: Path | None = None,
    on_told: Callable[[Any], None] = lambda _facts: None,
    remembers: bool = True,
) -> AsyncIterator[NodeApp]:
    """A device in a session. `tokens` are given in turn, the last one again and again. `remembers`: it keeps all that it is told."""
    node = shutil.which("node")
    assert node is not None
    process = await asyncio.create_subprocess_exec(
        node, str(SCRIPT), str(await asyncio.to_thread(compiled)),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=_LONGEST_LINE,
    )  # fmt: skip
    app = NodeApp(process, on_told, remembers=remembers)
    app.do(
        "open",
        urls=list(urls),
        tokens=list(tokens),
        userId=user_id,
        sessionId=session_id,
        afterSeq=after_seq,
        storage=None if storage is None else str(storage),
    )
    try:
        yield app
    finally:
        await app.close()
