"""Everybody's line breaks in one instant and everybody is back in the next: all are let in, nobody misses a word, and billing goes on as if nothing were.

The lateness of ticks in milliseconds is `bench.reconnect_storm`'s; here is what must hold on any machine. `STORM_CLIENTS` sets the size.
"""

import asyncio
import os
import re
from pathlib import Path

import aiohttp

from bench.chat_load import Commands
from bench.chat_throughput import many_files
from tests.e2e.people import PATIENCE_S, assert_bill, people_of
from tests.support.server_process import QUICK, ServerProcess

CLIENTS = int(os.environ.get("STORM_CLIENTS", "") or 40)
STORMS = 2


async def metric(http: aiohttp.ClientSession, url: str, name: str) -> float:
    async with http.get(f"{url}/metrics") as response:
        found = re.search(rf"^{re.escape(name)} (\S+)$", await response.text(), re.MULTILINE)
    assert found, name
    return float(found[1])


async def until_metric(
    http: aiohttp.ClientSession, url: str, name: str, *, at_least: float = 0, at_most: float = float("inf")
) -> None:
    async with asyncio.timeout(PATIENCE_S):
        # There is nothing to wait on.
        while not at_least <= await metric(http, url, name) <= at_most:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_billed_sessions_go_on_while_all_clients_come_back_at_once(tmp_path: Path) -> None:
    many_files()
    # The paces that ship: a storm is no flood.
    settings = {**QUICK, "LEAD_SECONDS": "10", "RATE_LIMIT_REGISTER_ADDRESS": "off", "RATE_LIMIT_LOGIN_ADDRESS": "off",
                "RATE_LIMIT_RECHARGE_ADDRESS": "off", "RATE_LIMITS": "on"}  # fmt: skip
    with ServerProcess(tmp_path, **settings) as server:
        async with people_of(server) as world, aiohttp.ClientSession() as http:
            pairs = [await world.pair("100000.00") for _ in range(CLIENTS // 2)]
            sessions = [await user.start(lawyer) for user, lawyer in pairs]
            seats = [
                (session["sessionId"], person.api.token or "")
                for session, pair in zip(sessions, pairs, strict=True)
                for person in pair
            ]
            port = int(server.url.rpartition(":")[2])
            load = Commands()
            await load.connect(port, seats)
            said = 0
            for _ in range(STORMS):
                before = await metric(http, server.url, "tarazu_tick_lateness_seconds_count")
                result = await load.storm(port, seats)
                assert result["sockets"] == result["tries"] == CLIENTS, (
                    "nobody was turned away, nobody had to try twice"
                )

                # Each says a word to the other, and both hear it: they are connected, joined, and in their own room.
                for socket in load.fleet.sockets:
                    socket.send(0.0)
                said += 1
                async with asyncio.timeout(PATIENCE_S):
                    while load.fleet.unanswered or load.fleet.unheard:  # noqa: ASYNC110  as the bench
                        await asyncio.sleep(0.01)
                # Every session ticks on: two more ticks each at least.
                await until_metric(
                    http,
                    server.url,
                    "tarazu_tick_lateness_seconds_count",
                    at_least=before + 2 * len(sessions),
                )
                assert load.fleet.refused == 0
                # Of the broken connections nothing stays.
                await until_metric(http, server.url, "tarazu_sockets", at_most=CLIENTS)
            assert await metric(http, server.url, "tarazu_sockets_cut_total") == 0
            assert await metric(http, server.url, "tarazu_sockets_flooding_total") == 0

            for (user, _), session in zip(pairs, sessions, strict=True):
                bill = await user.end(session["sessionId"])
                assert_bill(await user.session(session["sessionId"]))
                seen = await user.session(session["sessionId"])
                late = [row for row in seen["timeline"] if row.get("reason") in ("SERVER", "STORE_DOWN")]
                assert late == [], "no tick was so late that the session paused"
                assert bill["status"] == "ENDED"
                assert len(await user.history(session["sessionId"])) == 2 * said
        code, output = server.settled_books()
        assert code == 0, output
