"""`kill -9` of the real process while fifty consultations talk and pay: what was acknowledged stays, and stays once.

make chaos-embedded ROUNDS=50 [SEED=n]
"""

import asyncio
import os
import random
import secrets
from pathlib import Path
from typing import Final

import pytest

from tests.e2e.chaos import Pair, living, pairs_of
from tests.e2e.people import assert_bill, instant_ms, minor, people_of, wall_ms
from tests.support.server_process import QUICK, ServerProcess

pytestmark = pytest.mark.slow

ROUNDS: Final = int(os.environ.get("TARAZU_CHAOS_ROUNDS") or 2)
SEED: Final = int(os.environ.get("TARAZU_CHAOS_SEED") or secrets.randbelow(10**9))
PAIRS: Final = 50


async def test_a_kill_at_any_instant_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    print(f"TARAZU_CHAOS_SEED={SEED}, {ROUNDS} rounds")
    rng = random.Random(SEED)
    settings = {**QUICK, "MIN_SECONDS": "1", "COMMISSION_PERCENT": "12.5"}
    with ServerProcess(tmp_path, **settings) as server:
        async with people_of(server) as world:
            pairs = await pairs_of(world, rng, PAIRS)
            kills: list[tuple[int, int]] = []
            for number in range(ROUNDS):
                async with living(pairs):
                    # The instant is what is drawn; there is nothing to wait for.
                    await asyncio.sleep(rng.uniform(0.1, 1.8))
                    if number % 2:
                        await books_beside(server, tmp_path / f"backup-{number}.db")
                    gone = [
                        device for pair in pairs for device in pair.devices.values() if device.gone.is_set()
                    ]
                    assert not gone, "the server has cut off clients that did nothing wrong"
                    if rng.random() < 0.25:
                        # An impatient operator: the process is on its way out already.
                        server.terminate()
                        await asyncio.sleep(rng.uniform(0.0, 0.3))
                    server.kill()
                    killed = [wall_ms()]
                code, output = await asyncio.to_thread(server.verify_ledger)
                assert code in (0, 3), f"after kill {number}: {output}"
                if rng.random() < 0.5:
                    # Once more, in the middle of the recovery or before it.
                    killed.append(await killed_while_starting(server, rng.uniform(0.2, 0.8)))
                await asyncio.to_thread(server.start)
                kills += [(killed_ms, wall_ms()) for killed_ms in killed]
                await asyncio.gather(*(pair.reconcile() for pair in pairs))
                await asyncio.gather(*(pair.check(kills) for pair in pairs))
                code, output = await asyncio.to_thread(server.settled_books)
                assert code == 0, f"after restart {number}: {output}"
                print(f"round {number}: {tally(pairs)}")
            await go_on_and_end(server, pairs, kills)


async def books_beside(server: ServerProcess, copy: Path) -> None:
    """An audit and a backup beside the running server, in the middle of it all."""
    code, output = await asyncio.to_thread(server.verify_ledger)
    # A start or an end may be half way at the instant of the snapshot; nothing may ever be broken.
    assert code in (0, 3), output
    ran = await asyncio.to_thread(server.tarazu, "backup", str(copy))
    assert ran.code == 0, ran.err
    ran = await asyncio.to_thread(server.tarazu, "verify-ledger", DATABASE_URL=f"sqlite:///{copy}")
    assert ran.code in (0, 3), ran.out


async def killed_while_starting(server: ServerProcess, after_s: float) -> int:
    server.spawn()
    await asyncio.sleep(after_s)
    server.kill()
    return wall_ms()


async def go_on_and_end(server: ServerProcess, pairs: list[Pair], kills: list[tuple[int, int]]) -> None:
    """Nothing is left of the crashes: everybody goes on, ends, and the sums are right on both sides."""
    async with living(pairs):
        for pair in pairs:
            if pair.session_id is not None:
                tick = await pair.devices[pair.lawyer.id].heard("session:tick")
                assert tick.payload["walletBalance"] is None
                break
    await asyncio.gather(*(pair.reconcile() for pair in pairs))
    # A backup of running sessions is as clean as they are.
    copy = server.directory / "running.db"
    assert (await asyncio.to_thread(server.tarazu, "backup", str(copy))).code == 0
    ran = await asyncio.to_thread(server.tarazu, "verify-ledger", DATABASE_URL=f"sqlite:///{copy}")
    assert ran.code == 0, ran.out
    await asyncio.gather(*(pair.lawyer.end(pair.session_id) for pair in pairs if pair.session_id is not None))
    await asyncio.gather(*(pair.check(kills) for pair in pairs))
    for pair in pairs:
        sessions = [await pair.lawyer.session(session_id) for session_id in pair.sessions]
        gross = [minor(session["totalAmount"]) for session in sessions]
        net = sum(amount - amount * 1250 // 10_000 for amount in gross)
        summary = await pair.lawyer.api.get("/lawyer/earnings/summary")
        assert minor(summary["totalEarnings"]) == net, "a lawyer earned otherwise than the sessions cost"
    code, output = await asyncio.to_thread(server.settled_books)
    assert code == 0, output
    print(f"in the end: {tally(pairs)}; {output.strip()}")


def tally(pairs: list[Pair]) -> str:
    """How much was looked at: a clean verdict over nothing would be worth nothing."""
    messages = [sent for pair in pairs for sent in pair.messages]
    recharges = sum(len(pair.recharges) for pair in pairs)
    sessions = sum(len(pair.sessions) for pair in pairs)
    live = sum(pair.session_id is not None for pair in pairs)
    acked = sum(sent.ack is not None for sent in messages)
    return f"{sessions} sessions ({live} live), {acked} of {len(messages)} messages stored, {recharges} recharges"


async def test_a_session_that_no_server_takes_up_in_time_ends_at_its_last_evidence(tmp_path: Path) -> None:
    # No tick before the kill: the message alone proves that the session was served.
    with ServerProcess(tmp_path, **{**QUICK, "TICK_SECONDS": "10", "ABANDON_SECONDS": "10"}) as server:
        async with people_of(server) as world:
            talk = await world.talk("300.00")
            started_ms = instant_ms(talk.session["startedAt"])
            await asyncio.sleep((started_ms + 1_500 - wall_ms()) / 1000)
            sent = await talk.say(talk.user_device, "Are you there?")
            server.kill()
            # No server for longer than ABANDON_SECONDS after the last word.
            await asyncio.sleep((instant_ms(sent["createdAt"]) + 10_200 - wall_ms()) / 1000)
            await asyncio.to_thread(server.start)
            session = await talk.user.session(talk.id)
            assert (session["status"], session["endReason"]) == ("FORCE_ENDED", "ABANDONED")
            assert session["endedAt"] == sent["createdAt"], "the message is the last proof of service"
            assert session["durationSeconds"] == 1
            assert_bill(session)
            assert await talk.user.api.get("/consult/active") is None
            # Both are free, and the first answer of an end is the outcome.
            again = await talk.lawyer.end(talk.id)
            assert (again["endReason"], again["totalAmount"]) == ("ABANDONED", session["totalAmount"])
            await talk.user.end((await talk.user.start(talk.lawyer))["sessionId"])
        code, output = server.settled_books()
        assert code == 0, output
