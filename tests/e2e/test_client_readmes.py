"""The programs of the clients' READMEs are run as they stand there, and both packages are what they say they are."""

import asyncio
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Final

import pytest

from tests.e2e.people import World
from tests.support.client_apps import app_of
from tests.support.guide import programs
from tests.support.server_process import ROOT
from tests.support.typescript_client import PACKAGE, compiled, needed

#: For a program that hangs; they end by themselves long before.
_ENDS_WITHIN_S: Final = 60.0


async def talk(world: World, directory: Path, *command: str) -> str:
    """What the program of a user prints while a lawyer answers and hangs up."""
    user, lawyer = await world.pair("300.00")
    session_id = (await user.start(lawyer))["sessionId"]
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    environment = {
        **kept,
        "PYTHONPATH": str(ROOT / "clients" / "python"),
        "TARAZU_URL": world.server.url,
        "TOKEN": user.api.token or "",
        "USER_ID": user.id,
        "SESSION_ID": session_id,
    }
    async with app_of(lawyer, session_id) as desk:
        process = await asyncio.create_subprocess_exec(
            *command, cwd=directory, env=environment, stdout=asyncio.subprocess.PIPE, stderr=subprocess.STDOUT
        )
        try:
            await desk.has(1)
            await desk.chat.send("For how long did you live there?")
            await desk.until(lambda: len(desk.log) == 2 and desk.chat.state(desk.log[1]) == "SEEN")
            await lawyer.end(session_id)
            out, _ = await asyncio.wait_for(process.communicate(), _ENDS_WITHIN_S)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    assert process.returncode == 0, out.decode()
    return out.decode()


def assert_a_talk(printed: str) -> None:
    lines = printed.splitlines()
    assert "stored as 1" in lines
    assert "over: LAWYER_ENDED" in lines
    assert [line for line in lines if line[:3] in ("1. ", "2. ")] == [
        "1. Can my landlord keep the deposit?",
        "2. For how long did you live there?",
    ]


async def test_the_python_program_talks(world: World, tmp_path: Path) -> None:
    (tmp_path / "chat.py").write_text(programs("clients/python/README.md")["chat.py"])
    assert_a_talk(await talk(world, tmp_path, sys.executable, "chat.py"))


@pytest.mark.node
async def test_the_javascript_program_talks(world: World, tmp_path: Path) -> None:
    needed()
    package = tmp_path / "node_modules" / "@tarazu" / "client"
    package.mkdir(parents=True)
    shutil.copy(PACKAGE / "package.json", package)
    (package / "dist").symlink_to(compiled().parent)
    (tmp_path / "chat.mjs").write_text(programs("clients/typescript/README.md")["chat.mjs"])
    assert_a_talk(await talk(world, tmp_path, "node", "chat.mjs"))


def test_the_python_package_builds_with_its_types(tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(ROOT / "clients" / "python", source, ignore=shutil.ignore_patterns("__pycache__"))
    words = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    ran = subprocess.run(
        words, cwd=source, capture_output=True, text=True, timeout=_ENDS_WITHIN_S, check=False
    )
    assert ran.returncode == 0, ran.stderr
    (wheel,) = tmp_path.glob("tarazu_client-*.whl")
    with zipfile.ZipFile(wheel) as files:
        names = set(files.namelist())
    modules = {f"tarazu_client/{path.name}" for path in (ROOT / "clients/python/tarazu_client").glob("*.py")}
    assert modules | {"tarazu_client/py.typed"} <= names
