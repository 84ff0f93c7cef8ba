"""The commands of `tarazu`, each as an operator runs it: in a process of its own."""

import asyncio
import os
import re
import signal
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.people import World, people_of
from tests.support.server_process import (
    ADMIN_EMAIL,
    ADMIN_PASSWORD,
    QUICK,
    Ran,
    ServerProcess,
    environment,
    tarazu,
)

OTHER = "another@example.com"


@pytest.fixture
def directory() -> Iterator[Path]:
    """With a short name: a Unix socket's path has room for 103 bytes."""
    with tempfile.TemporaryDirectory(prefix="tz-", dir="/tmp") as name:
        yield Path(name)


async def logs_in(server: ServerProcess, email: str, password: str) -> str:
    """The role of who logs in."""
    async with people_of(server) as world:
        answer = await world.anyone.post("/auth/login", {"email": email, "password": password})
        return str(answer["user"]["role"])


# -- create-admin ------------------------------------------------------------------------------------------------


def create_admin(
    server: ServerProcess, email: str, password: str | None = ADMIN_PASSWORD, stdin: str = ""
) -> Ran:
    given = ["--password", password] if password is not None else []
    return server.tarazu(
        "create-admin",
        "--email",
        email,
        *given,
        stdin=stdin,
        ADMIN_EMAIL="",
        ADMIN_PASSWORD="",
        PYTHONWARNINGS="",
    )


def test_an_admin_is_made_before_the_first_start(directory: Path) -> None:
    server = ServerProcess(directory, ADMIN_EMAIL="", ADMIN_PASSWORD="")
    made = create_admin(server, OTHER)
    assert made.code == 0, made.err
    assert re.fullmatch(rf"admin {OTHER} has the id \w+\n", made.out)
    again = create_admin(server, OTHER)
    assert again.code == 1
    assert "Traceback" not in again.err
    with server:
        assert asyncio.run(logs_in(server, OTHER, ADMIN_PASSWORD)) == "ADMIN"


def test_an_admin_is_made_beside_a_running_server(directory: Path) -> None:
    with ServerProcess(directory, ADMIN_EMAIL="", ADMIN_PASSWORD="") as server:
        door = server.database.with_name("tarazu.db.sock")
        assert stat.S_IMODE(door.stat().st_mode) == 0o600, "for its owner only"
        made = create_admin(server, OTHER)
        assert made.code == 0, made.err
        assert asyncio.run(logs_in(server, OTHER, ADMIN_PASSWORD)) == "ADMIN"
        # Asked for where it is not given; what is typed is not shown.
        asked = create_admin(server, "third@example.com", None, stdin=f"{ADMIN_PASSWORD}\n{ADMIN_PASSWORD}\n")
        assert asked.code == 0, asked.err
        assert ADMIN_PASSWORD not in asked.out + asked.err
        for email, password, told in (
            (OTHER, ADMIN_PASSWORD, "email"),
            ("x@example.com", "short", "password"),
        ):
            refused = create_admin(server, email, password)
            assert refused.code == 1
            assert told in refused.err.lower()
            assert "Traceback" not in refused.err
        assert ADMIN_PASSWORD not in server.log
    assert not door.exists()


def test_a_door_left_over_from_a_crash_is_no_obstacle(directory: Path) -> None:
    with ServerProcess(directory) as server:
        server.kill()
        assert server.database.with_name("tarazu.db.sock").exists()
        # No server: the command does it itself.
        assert create_admin(server, OTHER).code == 0
        server.start()
        assert create_admin(server, "third@example.com").code == 0


def test_where_the_path_is_too_long_for_a_door_the_command_says_so(directory: Path) -> None:
    deep = directory / ("d" * 100)
    deep.mkdir()
    with ServerProcess(deep) as server:
        refused = create_admin(server, OTHER)
        assert refused.code == 1
        assert "does not answer" in refused.err
        assert "Traceback" not in refused.err
        assert "control_socket_path_too_long" in server.log


# -- settings ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["serve", "verify-ledger", "worker"])
def test_wrong_settings_are_all_named_and_end_it_with_2(directory: Path, command: str) -> None:
    wrong = {
        "PORT": "eighty",
        "TICK_SECONDS": "0",
        "JWT_SECRET": "too-short-to-sign",
        "DATABASE_URL": "postgres://db",
        "COMMISSION_PERCENT": "101",
        "TIMEZONE": "Asia/Atlantis",
        "MIN_BALANCE": "1.005",
        "CORS_ORIGINS": "*",
        "BCRYPT_COST": "3",
        "LOG_LEVEL": "LOUD",
    }
    ran = tarazu(directory, command, env={**environment(directory / "tarazu.db"), **wrong})
    assert (ran.code, ran.out) == (2, "")
    named = re.findall(r"^settings: (\w+): ", ran.err, re.MULTILINE)
    assert sorted(named) == sorted(wrong)
    assert "too-short-to-sign" not in ran.err, "a secret is not for the terminal"
    assert list(directory.iterdir()) == [], "nothing is made"


def test_settings_that_do_not_go_together_are_named(directory: Path) -> None:
    wrong = {
        "ADMIN_PASSWORD": "",
        "RECHARGE_MIN": "10.00",
        "RECHARGE_MAX": "5.00",
        "STORE_TIMEOUT_SECONDS": "2",
    }
    ran = tarazu(directory, "serve", env={**environment(directory / "tarazu.db"), **wrong})
    assert ran.code == 2
    for name in ("ADMIN_EMAIL", "RECHARGE_MIN", "LEAD_SECONDS"):
        assert f"settings: {name}: " in ran.err


def test_production_refuses_the_development_secret_and_the_simulated_gateway(directory: Path) -> None:
    ran = tarazu(directory, "serve", env=environment(directory / "tarazu.db", APP_ENV="production"))
    assert ran.code == 2
    for name in ("JWT_SECRET", "PAYMENT_GATEWAY", "BCRYPT_COST"):
        assert f"settings: {name}: " in ran.err


def test_a_misspelt_setting_is_pointed_out_and_a_dot_env_file_is_read(directory: Path) -> None:
    (directory / ".env").write_text("TICK_SECOND=5\nPORT=eighty\n")
    env = environment(directory / "tarazu.db", MIN_BALANCES="1.00")
    refused = tarazu(directory, "verify-ledger", env={k: v for k, v in env.items() if k != "PORT"})
    assert refused.code == 2
    assert "settings: PORT: " in refused.err
    ran = tarazu(directory, "verify-ledger", env=env)
    assert ran.code == 1, "no database yet"
    assert "did you mean TICK_SECONDS?" in ran.err
    assert "did you mean MIN_BALANCE?" in ran.err


# -- serve -------------------------------------------------------------------------------------------------------


def test_a_second_server_on_the_same_file_is_refused_and_the_first_goes_on(directory: Path) -> None:
    with ServerProcess(directory) as server:
        second = server.tarazu("serve")
        assert (second.code, second.out) == (1, "")
        assert f"already in use by process {server.pid}" in second.err
        assert "Traceback" not in second.err
        assert asyncio.run(logs_in(server, ADMIN_EMAIL, ADMIN_PASSWORD)) == "ADMIN"


def test_a_port_that_is_taken_and_a_place_that_is_none_are_said_clearly(directory: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ran = tarazu(directory, "serve", env=environment(directory / "tarazu.db", PORT=port))
    assert ran.code == 1
    assert port in ran.err
    (directory / "file").write_text("")
    for nowhere in (directory, directory / "file" / "tarazu.db"):
        ran = tarazu(directory, "serve", env=environment(nowhere))
        assert ran.code == 1
        assert str(nowhere) in ran.err or str(nowhere.parent) in ran.err
        assert "Traceback" not in ran.err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_is_alive_and_ready_and_goes_when_told(directory: Path, number: int) -> None:
    async def ask(server: ServerProcess) -> None:
        async with people_of(server) as world:
            assert await world.anyone.get("/healthz") == {"status": "ok"}
            ready = await world.anyone.get("/readyz")
            assert ready["status"] == "ready"
            assert {"storage", "locks", "clock"} <= set(ready["checks"])

    with ServerProcess(directory) as server:
        asyncio.run(ask(server))
        os.kill(server.pid, number)
        assert server.wait(5) == 0
        server.start()


# -- backup, worker ----------------------------------------------------------------------------------------------


def test_a_backup_can_be_served_and_overwrites_nothing(directory: Path) -> None:
    async def use(world: World) -> tuple[str, str]:
        talk = await world.talk("30.00")
        await talk.say(talk.user_device, "Kept?")
        return talk.id, talk.user.email

    async def look(world: World, session_id: str, email: str) -> None:
        answer = await world.anyone.post("/auth/login", {"email": email, "password": "correct horse"})
        user = world.anyone.as_(answer["accessToken"])
        assert [m["body"] for m in (await user.get(f"/chat/{session_id}"))["items"]] == ["Kept?"]
        assert (await user.get("/consult/active"))["sessionId"] == session_id
        assert (await user.post(f"/consult/{session_id}/end"))["status"] == "ENDED"

    async def with_people(server: ServerProcess) -> None:
        async with people_of(server) as world:
            session_id, email = await use(world)
            elsewhere = directory / "elsewhere"
            elsewhere.mkdir()
            copy = elsewhere / "tarazu.db"
            ran = await asyncio.to_thread(server.tarazu, "backup", str(copy))
            assert ran.code == 0, ran.err
            assert [path.name for path in elsewhere.iterdir()] == ["tarazu.db"], (
                "whole, without a log beside it"
            )
            before = copy.read_bytes()
            again = await asyncio.to_thread(server.tarazu, "backup", str(copy))
            assert again.code == 1
            assert "exists already" in again.err
            assert copy.read_bytes() == before
        with ServerProcess(elsewhere, **QUICK) as restored:
            async with people_of(restored) as world:
                await look(world, session_id, email)

    with ServerProcess(directory, **QUICK) as server:
        asyncio.run(with_people(server))
    missing = server.tarazu("backup", str(directory / "no" / "such" / "place.db"))
    assert missing.code == 1
    assert "no backup: " in missing.err
    assert "Traceback" not in missing.err


def test_a_worker_on_sqlite_is_refused_with_the_reason(directory: Path) -> None:
    ran = tarazu(directory, "worker", env=environment(directory / "tarazu.db"))
    assert ran.code == 1
    assert "with SQLite `tarazu serve` does this work itself" in ran.err


# -- demo --------------------------------------------------------------------------------------------------------


def test_the_demo_of_a_running_server_asks_for_its_admin(directory: Path) -> None:
    env = environment(directory / "tarazu.db", ADMIN_EMAIL="", ADMIN_PASSWORD="")
    ran = tarazu(directory, "demo", "--url", "http://127.0.0.1:1", env=env)
    assert ran.code == 1
    assert "--admin-email" in ran.err


@pytest.mark.slow
def test_the_demo_shows_a_whole_consultation_and_ends_with_0(directory: Path) -> None:
    """As `make demo` runs it, with nothing set."""
    env = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    ran = tarazu(
        directory, "demo", env={**env, "PYTHONPATH": environment(directory)["PYTHONPATH"]}, timeout_s=90
    )
    assert ran.code == 0, ran.out + ran.err
    lines = ran.out.splitlines()
    ticks = [line for line in lines if line.startswith("tick ")]
    assert len(ticks) >= 10
    for told in ("SENT", "DELIVERED", "SEEN", "low balance", "FORCE_ENDED WALLET_EMPTY: 30 s cost 60.00"):
        assert told in ran.out, ran.out
    wallet = next(line for line in lines if line.startswith("wallet"))
    assert "0.00" in wallet
    assert "60.00 INR in 1 session" in ran.out
    assert "Traceback" not in ran.err
    assert list(directory.iterdir()) == [], "it leaves nothing behind"
