"""The guide's programs are run as they stand there, against a started server: who copies them gets what they promise."""

import asyncio
import importlib.util
import os
import shutil
import socket
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest

from tests.support.guide import programs, write_programs
from tests.support.server_process import ADMIN_EMAIL, ADMIN_PASSWORD, ServerProcess

_JS: Final = Path(__file__).parent / "js" / "node_modules"
#: For a program that hangs; they end by themselves long before.
_ENDS_WITHIN_S: Final = 60.0


def environment(url: str) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return {**kept, "TARAZU_URL": url, "ADMIN_EMAIL": ADMIN_EMAIL, "ADMIN_PASSWORD": ADMIN_PASSWORD}


@pytest.fixture
def town(tmp_path: Path) -> Any:
    """A server, and the guide's programs beside it."""
    write_programs(tmp_path)
    with ServerProcess(tmp_path) as server:
        yield server
        code, output = server.settled_books()
        assert code == 0, output


@asynccontextmanager
async def the_lawyer(server: ServerProcess) -> AsyncIterator[None]:
    """`python lawyer.py`, online until the end of the block."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "lawyer.py",
        cwd=server.directory,
        env=environment(server.url),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        line = await asyncio.wait_for(process.stdout.readline(), _ENDS_WITHIN_S)
        assert line == b"online\n", (await process.communicate())[1].decode()
        yield
        assert process.returncode is None, (await process.communicate())[1].decode()
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()


async def run(server: ServerProcess, *command: str) -> str:
    """What the program printed; whatever it complains about fails the test."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=server.directory,
        env=environment(server.url),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), _ENDS_WITHIN_S)
    assert (process.returncode, err.decode()) == (0, "")
    return out.decode()


def assert_a_whole_consultation(printed: str) -> None:
    assert "your money lasts 1000 s" in printed
    assert "Adv. Rao: You ask: Can my landlord keep the deposit?" in printed
    assert "ENDED (USER_ENDED)" in printed


def test_the_guide_has_the_programs_that_it_speaks_of() -> None:
    assert set(programs()) == {"lawyer.py", "user.py", "user.mjs"}


async def test_the_python_program_has_a_first_session(town: ServerProcess) -> None:
    async with the_lawyer(town):
        assert_a_whole_consultation(await run(town, sys.executable, "user.py"))


@pytest.mark.node
async def test_the_javascript_program_has_a_first_session(town: ServerProcess) -> None:
    node = shutil.which("node")
    if node is None or not (_JS / "socket.io-client").is_dir():
        message = "NOT TESTED: the guide's JavaScript (Node.js or its npm packages are missing: `npm ci` in tests/e2e/js)"
        if os.environ.get("TARAZU_REQUIRE_NODE", "") not in ("", "0"):
            pytest.fail(message)
        pytest.skip(message)
    (town.directory / "node_modules").symlink_to(_JS)
    async with the_lawyer(town):
        assert_a_whole_consultation(await run(town, node, "user.mjs"))


@pytest.mark.slow
async def test_the_python_programs_chat_survives_a_restart_of_the_server(
    town: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is sent while no server runs arrives once, what the other side said meanwhile is there, in order."""
    town.stop()
    town.start(PORT=str(_free_port()))
    monkeypatch.setenv("TARAZU_URL", town.url)
    user = _module(town.directory / "user.py")
    lawyer_program = _module(town.directory / "lawyer.py")
    async with aiohttp.ClientSession() as http:
        api = user.Api(http)
        await api.register(email=f"{uuid.uuid4()}@example.com", password="correct horse battery", name="Asha")
        await api.call("POST", "/wallet/recharge", {"amount": "500.00"})
        lawyer = await _a_lawyer(http, lawyer_program)
        session = await api.call("POST", "/consult/start", {"lawyerId": lawyer["user"]["id"]})
        ours = user.Chat(api, session["sessionId"])
        other = user.Api(http)
        other.tokens = lawyer
        theirs = user.Chat(other, session["sessionId"])
        await ours.open()
        await theirs.open()
        assert (await ours.send("one"))["ok"]

        for chat in (ours, theirs):
            chat.joined.clear()
        town.stop()
        lost = await asyncio.gather(ours.send("two"), theirs.send("three"))
        town.start()
        for chat in (ours, theirs):
            await asyncio.wait_for(chat.joined.wait(), _ENDS_WITHIN_S)
        heard = {name: [] for name in ("ours", "theirs")}
        for name, chat in (("ours", ours), ("theirs", theirs)):
            while len(heard[name]) < 3:
                message = await asyncio.wait_for(chat.messages.get(), _ENDS_WITHIN_S)
                heard[name].append((message["seq"], message["body"]))

        assert lost == [None, None], "no server ran"
        assert heard["ours"] == heard["theirs"]
        assert sorted(body for _, body in heard["ours"]) == ["one", "three", "two"]
        assert [seq for seq, _ in heard["ours"]] == [1, 2, 3]
        # The message is told to everybody before its sender's acknowledgement has come back.
        async with asyncio.timeout(_ENDS_WITHIN_S):
            while ours.pending or theirs.pending:  # noqa: ASYNC110  the guide's client has no event for it
                await asyncio.sleep(0)
        await api.call("POST", f"/consult/{session['sessionId']}/end")
        assert (await asyncio.wait_for(ours.ended, _ENDS_WITHIN_S))["status"] == "ENDED"
        await ours.socket.disconnect()
        await theirs.socket.disconnect()


async def _a_lawyer(http: aiohttp.ClientSession, program: Any) -> Any:
    form = {
        "email": f"{uuid.uuid4()}@example.com",
        "password": "correct horse battery",
        "name": "Adv. Rao",
        "ratePerMinute": "30.00",
        "barCouncilNumber": "KAR/1",
    }
    lawyer = await program.call(http, "POST", "/lawyer/register", form)
    admin = await program.call(
        http, "POST", "/auth/login", {"email": ADMIN_EMAIL, "password": ADMIN_PASSWORD}
    )
    await program.call(http, "PATCH", f"/lawyer/{lawyer['user']['id']}/verify", {}, admin["accessToken"])
    await program.call(http, "PATCH", "/lawyer/availability", {"isOnline": True}, lawyer["accessToken"])
    return lawyer


def _module(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"guide_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
