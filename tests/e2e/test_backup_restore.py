"""A backup is worth what its restore brings back: both are done with the very commands of docs/operations.md.

Who gets hurt otherwise: everybody with money in the wallet, on the day when the disk is gone.
"""

import asyncio
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.people import Api, Json, Person, Talk, World, assert_bill, people_of
from tests.support.operations import shell_block
from tests.support.server_process import QUICK, Ran, ServerProcess


class Machine:
    """A directory as the guide assumes it: `data/tarazu.db`, `backups/`, and `tarazu` on the path."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "data").mkdir()
        (directory / "backups").mkdir()
        self.server = ServerProcess(directory / "data", **QUICK)

    def run(self, script: str) -> Ran:
        """Run a block of the guide, in the settings of the server."""
        tarazu = f'tarazu() {{ {shlex.quote(sys.executable)} -m server "$@"; }}\n'
        done = subprocess.run(
            ["bash", "-c", tarazu + script],
            cwd=self.directory,
            env={**self.server.env, "PYTHONWARNINGS": ""},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return Ran(done.returncode, done.stdout, done.stderr)

    def back_up(self) -> Ran:
        return self.run(shell_block("Backup of the embedded database"))

    def restore(self) -> Ran:
        return self.run(shell_block("Restore of the embedded database"))

    def files(self) -> set[str]:
        data = self.directory / "data"
        return {str(path.relative_to(data)) for path in data.rglob("tarazu.db*")}


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@dataclass(frozen=True)
class Past:
    """What there was when the copy was made."""

    ended: Talk
    bill: Json
    balance: Json
    live: Talk


async def live_a_little(world: World) -> Past:
    ended, live = await asyncio.gather(world.talk("30.00"), world.talk("300.00"))
    await ended.say(ended.user_device, "Kept.")
    await live.say(live.user_device, "Kept too.")
    await ended.user_device.heard("session:tick", lambda tick: tick["elapsedSeconds"] >= 1)
    await ended.user.end(ended.id)
    bill = await ended.user.session(ended.id)
    return Past(ended, bill, await ended.user.api.get("/wallet/balance"), live)


async def go_on(past: Past, world: World) -> Person:
    """What nobody will remember after the restore; a new user with money among it."""
    await past.ended.user.recharge("77.00")
    await past.live.say(past.live.lawyer_device, "Not kept.")
    await past.live.user.end(past.live.id)
    await past.live.user.api.ok("POST", "/auth/refresh", {"refreshToken": past.live.user.refresh_token})
    return await world.user("500.00")


async def assert_restored(past: Past, world: World, newcomer: Person) -> None:
    ended, live = past.ended, past.live
    # Access tokens of before the copy still open the door, and refresh tokens of then as well.
    assert await ended.user.session(ended.id) == past.bill
    assert await ended.user.api.get("/wallet/balance") == past.balance, "the later recharge is gone"
    assert [m["body"] for m in await ended.user.history(ended.id)] == ["Kept."]
    again = await world.anyone.post("/auth/refresh", {"refreshToken": ended.user.refresh_token})
    assert (await world.anyone.as_(again["accessToken"]).get("/auth/me"))["id"] == ended.user.id
    # The session that ran is taken up where the copy has it; what was said and ended later is gone.
    assert (await live.user.api.get("/consult/active"))["sessionId"] == live.id
    assert [m["body"] for m in await live.user.history(live.id)] == ["Kept too."]
    session = await live.lawyer.end(live.id)
    assert session["status"] == "ENDED"
    timeline = (await live.user.session(live.id))["timeline"]
    assert [row["reason"] for row in timeline if row["event"] == "pause"] == ["SERVER"], timeline
    for talk in (ended, live):
        assert_bill(await talk.user.session(talk.id))
    # Who came after the copy is nobody: no account, no money.
    await Api.refused(
        world.anyone,
        "POST",
        "/auth/login",
        {"email": newcomer.email, "password": "correct horse"},
        status=401,
        code="INVALID_CREDENTIALS",
    )


async def test_what_the_copy_has_comes_back_and_what_came_after_it_is_gone(machine: Machine) -> None:
    server = machine.server
    with server:
        async with people_of(server) as world:
            past = await live_a_little(world)
            copied = await asyncio.to_thread(machine.back_up)
            assert copied.code == 0, copied.err
            newcomer = await go_on(past, world)
            # The worst case: the log of the old file is still there, and would be played into the copy.
            server.kill()
            assert "tarazu.db-wal" in machine.files()
            restored = await asyncio.to_thread(machine.restore)
            assert restored.code == 0, restored.out + restored.err
            assert machine.files() >= {"tarazu.db", "aside/tarazu.db", "aside/tarazu.db-wal"}
            assert "tarazu.db-wal" not in machine.files()
            await asyncio.to_thread(server.start)
            code, output = await asyncio.to_thread(server.settled_books)
            assert code == 0, output
            await assert_restored(past, world, newcomer)
        code, output = server.settled_books()
        assert code == 0, output


async def test_a_restore_beside_a_running_server_touches_nothing(machine: Machine) -> None:
    with machine.server as server:
        async with people_of(server) as world:
            user = await world.user("10.00")
            assert (await asyncio.to_thread(machine.back_up)).code == 0
            before = machine.files()
            refused = await asyncio.to_thread(machine.restore)
            assert refused.code == 1
            assert "is in use" in refused.err
            assert machine.files() == before
            assert (await user.recharge("5.00"))["walletBalance"] == "15.00", "it serves on"
