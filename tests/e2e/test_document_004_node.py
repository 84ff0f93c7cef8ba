"""The same consultation with the npm `socket.io-client`, as app teams use it. The scripts are in `js/`."""

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from tests.e2e.people import World, people_of
from tests.support.server_process import ADMIN_EMAIL, ADMIN_PASSWORD, QUICK, ServerProcess

pytestmark = pytest.mark.node
SCRIPTS: Final = Path(__file__).parent / "js"
#: For a script that hangs; they end by themselves long before.
_ENDS_WITHIN_S: Final = 60.0


@pytest.fixture(scope="module", autouse=True)
def node() -> str:
    """Node's path. Without Node the tests are left out, loudly; where it is required, they fail."""
    found = shutil.which("node")
    missing = "Node.js" if found is None else ""
    if not missing and not (SCRIPTS / "node_modules" / "socket.io-client").is_dir():
        missing = "the npm socket.io-client (run `npm ci` in tests/e2e/js)"
    if missing:
        message = f"NOT TESTED with the npm client: {missing} is missing"
        if os.environ.get("TARAZU_REQUIRE_NODE", "") not in ("", "0"):
            pytest.fail(message)
        pytest.skip(message)
    assert found is not None
    return found


class Script:
    """A running script, and the steps that it told."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.steps: list[dict[str, Any]] = []

    async def step(self, name: str) -> dict[str, Any]:
        """Wait for it to tell this step; a failure of the script fails the test with its words."""
        assert self._process.stdout is not None
        while True:
            line = await asyncio.wait_for(self._process.stdout.readline(), _ENDS_WITHIN_S)
            if not line:
                await self._process.wait()
                raise AssertionError(f"the script ended before {name!r}: {self.steps}")
            told: dict[str, Any] = json.loads(line)
            self.steps.append(told)
            assert told["step"] != "failed", told["error"]
            if told["step"] == name:
                return told

    async def ends_well(self) -> None:
        assert await asyncio.wait_for(self._process.wait(), _ENDS_WITHIN_S) == 0, self.steps


@asynccontextmanager
async def script(node: str, name: str, *arguments: str) -> AsyncIterator[Script]:
    """Run one of the scripts; what it writes to standard error comes through."""
    process = await asyncio.create_subprocess_exec(
        node, str(SCRIPTS / name), *arguments, stdout=asyncio.subprocess.PIPE, cwd=SCRIPTS
    )
    try:
        yield Script(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_document_004_with_the_npm_client(server: ServerProcess, node: str) -> None:
    arguments = (server.url, ADMIN_EMAIL, ADMIN_PASSWORD)
    async with script(node, "document_004.mjs", *arguments) as running:
        await running.step("done")
        await running.ends_well()
    told = [step["step"] for step in running.steps]
    assert told == [
        "auth",
        "lawyer",
        "wallet",
        "connected",
        "joined",
        "conversation",
        "reconnected",
        "ended",
        "books",
        "done",
    ]


async def test_the_npm_client_reconnects_by_itself_after_a_restart(tmp_path: Path, node: str) -> None:
    with ServerProcess(tmp_path, **QUICK) as server:
        async with people_of(server) as world:
            user, lawyer = await world.pair("300.00")
            session_id = (await user.start(lawyer))["sessionId"]
            port = server.url.rpartition(":")[2]
            async with script(node, "reconnect.mjs", server.url, user.api.token or "", session_id) as running:
                await running.step("ready")
                server.terminate()
                assert await asyncio.to_thread(server.wait, 10) == 0
                # The same address: what a client reconnects to.
                server.start(PORT=port)
                await running.step("done")
                await running.ends_well()
            await _ended_with_two_messages(world, session_id, user, lawyer)


async def _ended_with_two_messages(_world: World, session_id: str, user: Any, lawyer: Any) -> None:
    assert (await lawyer.end(session_id))["endReason"] == "LAWYER_ENDED"
    bodies = [message["body"] for message in await user.history(session_id)]
    assert bodies == ["Before the restart.", "After it."]
