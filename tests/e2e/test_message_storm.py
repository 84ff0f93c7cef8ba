"""10,000 messages both ways while connections are torn and the server is stopped, killed and started again.

Two people, three devices. Every connection lives for a random number of frames and is then aborted: between two sends,
in the middle of a resume, before an acknowledgement. The server goes down five times in between. At the end everybody has the
same conversation: positions 1..N without a gap, nothing lost, nothing doubled, each sender's words in the order they were said.
"""

import asyncio
import itertools
import os
import random
from pathlib import Path

import aiohttp
import pytest

from tests.e2e.people import assert_bill, people_of
from tests.support.resuming_client import ResumingClient
from tests.support.server_process import QUICK, ServerProcess

MESSAGES = 10_000
#: Where in the storm the server goes down, as parts of all messages, and how.
OUTAGES = ((0.15, "kill"), (0.3, "term"), (0.45, "kill"), (0.6, "kill"), (0.8, "term"))
#: It takes 10 to 30 s on two cores; this only ends a run that hangs.
PATIENCE_S = 120
ALPHABET = "aäऄ€😀\n\\\"'\u2028 "


class Harbour:
    """Where the server is, for clients that look for it; nobody polls while it is away."""

    def __init__(self, server: ServerProcess) -> None:
        self._server = server
        self._open = asyncio.Event()
        self._open.set()

    async def address(self) -> str:
        await self._open.wait()
        return self._server.url

    async def outage(self, how: str) -> None:
        """Down and up again on the same file. Whoever connects meanwhile waits."""
        self._open.clear()
        if how == "kill":
            await asyncio.to_thread(self._server.kill)
        else:
            assert await asyncio.to_thread(self._server.stop) == 0
        await asyncio.to_thread(self._server.start)
        self._open.set()


def body_of(rng: random.Random) -> str:
    """Mostly a line, sometimes a page, in all widths of UTF-8."""
    length = rng.choice((1, 5, 20, 80)) if rng.random() > 0.02 else rng.randint(1_000, 8_000)
    return "x" + "".join(rng.choices(ALPHABET, k=length - 1))


@pytest.mark.slow
async def test_ten_thousand_messages_arrive_once_and_in_order_whatever_breaks(tmp_path: Path) -> None:
    seed = int(os.environ.get("STORM_SEED", "0")) or random.SystemRandom().randrange(1, 10**9)
    print(f"STORM_SEED={seed}")
    rng = random.Random(seed)
    with ServerProcess(tmp_path, **{**QUICK, "LEAD_SECONDS": "10"}) as server:
        async with people_of(server) as world, aiohttp.ClientSession() as http:
            user, lawyer = await world.pair("100000.00")
            session = await user.start(lawyer)
            harbour = Harbour(server)

            def device(token: str | None) -> ResumingClient:
                return ResumingClient(
                    http,
                    address=harbour.address,
                    token=token or "",
                    session_id=session["sessionId"],
                    fuse=lambda: rng.randrange(1, 400) if rng.random() > 0.1 else rng.randrange(1, 8),
                )

            phone, desk, listener = device(user.api.token), device(lawyer.api.token), device(user.api.token)
            devices = (phone, desk, listener)
            runs = [asyncio.create_task(client.run()) for client in devices]
            spoken: dict[str, list[tuple[str, str]]] = {user.id: [], lawyer.id: []}

            async def talk(client: ResumingClient, person_id: str, count: int) -> None:
                for n in range(count):
                    said = (f"{person_id[-4:]}-{n}", body_of(rng))
                    spoken[person_id].append(said)
                    await client.say(*said)
                    # A person types on while offline, but not for ever: the outbox stays about two windows long.
                    while len(client.outbox) > 100:
                        client.news.clear()
                        await client.news.wait()

            async def complete(count: int) -> None:
                for client in devices:
                    while client.last_seq < count or client.outbox:
                        client.news.clear()
                        await client.news.wait()

            async def weather() -> None:
                for part, how in OUTAGES:
                    while desk.last_seq < part * MESSAGES:
                        desk.news.clear()
                        await desk.news.wait()
                    await harbour.outage(how)

            async def everything() -> None:
                async with asyncio.TaskGroup() as group:
                    group.create_task(talk(phone, user.id, MESSAGES // 2))
                    group.create_task(talk(desk, lawyer.id, MESSAGES // 2))
                    group.create_task(weather())
                await complete(MESSAGES)

            storm = asyncio.create_task(everything())
            await asyncio.wait((storm, *runs), timeout=PATIENCE_S, return_when=asyncio.FIRST_COMPLETED)
            for task in (*runs, storm):
                if task.done():
                    await task  # what went wrong, if it did
            progress = [(client.last_seq, len(client.outbox), client.counts) for client in devices]
            assert storm.done(), f"not finished after {PATIENCE_S} s: {progress}"
            for run in runs:
                run.cancel()
            await asyncio.gather(*runs, return_exceptions=True)

            # One conversation, the same for everybody and for the history.
            assert [message["seq"] for message in phone.log] == list(range(1, MESSAGES + 1))
            told = [[(m["id"], m["senderId"], m["clientMsgId"], m["body"]) for m in c.log] for c in devices]
            assert told[0] == told[1] == told[2]
            for person in (user, lawyer):
                history = await person.history(session["sessionId"])
                assert [(m["id"], m["senderId"], m["clientMsgId"], m["body"]) for m in history] == told[0]
            # Nothing lost, doubled or swapped.
            for person_id, said in spoken.items():
                assert [(c, body) for _, sender, c, body in told[0] if sender == person_id] == said
            # An acknowledgement told the truth, the first as well as a repeated one.
            seq_of = {(m["senderId"], m["clientMsgId"]): m["seq"] for m in phone.log}
            for client, person in ((phone, user), (desk, lawyer)):
                assert {(person.id, c): seq for c, seq in client.acked.items()} == {
                    key: seq for key, seq in seq_of.items() if key[0] == person.id
                }
            instants = [message["createdAt"] for message in history]
            assert all(earlier <= later for earlier, later in itertools.pairwise(instants))

            print(*(client.counts for client in devices), sep="\n")
            # The weather was bad enough to mean something.
            for client in devices:
                assert client.counts.torn > 30, client.counts
            assert phone.counts.duplicates + desk.counts.duplicates > 0
            assert phone.counts.found_stored + desk.counts.found_stored > 100
            assert {code for client in devices for code in client.counts.refused} <= {"DRAINING"}

            ended = await user.end(session["sessionId"])
            assert ended["status"] == "ENDED"
            final = await user.session(session["sessionId"])
            assert [row["event"] for row in final["timeline"]].count("pause") == len(OUTAGES)
            assert_bill(final)
        code, output = server.settled_books()
        assert code == 0, output
