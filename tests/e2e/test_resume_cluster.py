"""Whoever comes back has everything, also at another process, after a restart of the first, and after its death and the takeover.

The matrix of `test_resume_matrix.py` is about how long one was away; this one is about where one comes back.
"""

import asyncio
import random
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest

from tests.e2e.people import Device, Json, Person, World, assert_bill, has, instant_ms
from tests.e2e.test_cluster import Both, adopted, both_of, join, pauses_of
from tests.support.cluster import Cluster
from tests.support.server_process import QUICK

#: Messages missed, each in a session of its own; the last needs more than one answer.
MISSED: Final = (0, 1, 200)


@dataclass
class Away:
    """A session whose user has lost the line after saying something that nobody has confirmed."""

    user: Person
    lawyer: Person
    desk: Device
    session_id: str
    bodies: list[str]
    #: The bill of the last tick that the user heard.
    bill: Json
    said: list[str] = field(default_factory=list)

    async def say(self, bodies: list[str]) -> None:
        """All at once, as quick as the socket takes them; each stored, in order."""
        first = len(self.said) + 1
        acks = await asyncio.gather(
            *(
                self.desk.ok(
                    "send_message",
                    {"sessionId": self.session_id, "body": body, "clientMsgId": secrets.token_hex(8)},
                )
                for body in bodies
            )
        )
        assert [ack["seq"] for ack in acks] == list(range(first, first + len(bodies)))
        self.said += bodies

    async def half(self) -> None:
        """Half of what is left to say."""
        count = (len(self.bodies) + 1) // 2
        now, self.bodies = self.bodies[:count], self.bodies[count:]
        await self.say(now)


def bodies_of(count: int) -> list[str]:
    """Some are pages, so that one answer cannot hold them all."""
    rng = random.Random(count)
    return [
        f"{k} " + "नm" * (rng.randint(3_000, 3_900) if k % 5 == 0 else rng.randint(1, 80))
        for k in range(count)
    ]


async def gone_away(both: Both, missed: int) -> Away:
    """A user at the left process, which bills the session, and a lawyer at the right one; the user's line breaks."""
    user, lawyer = await both.pair("300.00")
    phone, desk = await user.device(), await lawyer.device()
    session_id = (await user.start(lawyer))["sessionId"]
    for device in (phone, desk):
        await join(device, session_id)
    away = Away(user, lawyer, desk, session_id, bodies_of(missed), {})
    sent = {"sessionId": session_id, "body": "before", "clientMsgId": "before"}
    assert (await phone.ok("send_message", sent))["seq"] == 1
    # Nobody waits for this one's acknowledgement: the line breaks.
    await phone.sio.emit("send_message", {**sent, "body": "unheard", "clientMsgId": "unheard"})
    await desk.heard("new_message", has(seq=2))
    away.said += ["before", "unheard"]
    assert (await desk.ok("mark_seen", {"sessionId": session_id, "uptoSeq": 1}))["seenSeq"] == 1
    away.bill = (await phone.heard("session:tick")).payload
    await phone.close()
    return away


async def come_back(away: Away, phone: Device) -> None:
    """Everything that a join promises, from a device that has the first message only."""
    got: list[Json] = [{"seq": 1, "body": "before"}]
    answers: list[Json] = []
    while not answers or answers[-1]["hasMore"]:
        request = {
            "sessionId": away.session_id,
            "afterSeq": got[-1]["seq"],
            "pendingIds": ["before", "unheard", "never sent"],
        }
        ack = await phone.ok("join_session", request)
        assert ack["messages"] or not ack["hasMore"]
        got += ack["messages"]
        answers.append(ack)
    if len(away.said) > 100:
        assert len(answers) > 1, "one answer took it all: nothing was proved of `hasMore`"
    # Messages: all of them, in order, none twice.
    assert [message["seq"] for message in got] == list(range(1, len(away.said) + 1))
    assert [message["body"] for message in got] == away.said
    for ack in answers:
        assert ack["lastSeq"] == len(away.said)
        # Which of one's own are safe, and where they are.
        assert {key: stored["seq"] for key, stored in ack["stored"].items()} == {"before": 1, "unheard": 2}
        assert ack["stored"]["unheard"]["id"] == got[1]["id"]
        # How far everybody is.
        assert ack["watermarks"][away.lawyer.id] == {"deliveredSeq": 1, "seenSeq": 1}
        assert ack["watermarks"][away.user.id] == {"deliveredSeq": 0, "seenSeq": 0}
        assert ack["presence"][away.lawyer.id] == "ONLINE"
        # The bill, as its payer may see it, and not behind what was told before.
        bill = ack["billing"]
        assert (bill["status"], bill["reason"], bill["lastSeq"]) == ("ACTIVE", None, len(away.said))
        assert bill["walletBalance"] is not None
        assert bill["remainingSeconds"] > 0
        assert bill["elapsedSeconds"] >= away.bill["elapsedSeconds"] - 1
        assert instant_ms(bill["paidUntil"]) > instant_ms(away.bill["paidUntil"]) - 1_000
    # Every tick tells where storage is, wherever the message came in.
    await phone.heard("session:tick", has(lastSeq=len(away.said)))
    never = {"sessionId": away.session_id, "body": "at last", "clientMsgId": "never sent"}
    mine = await phone.ok("send_message", never)
    away.said.append("at last")
    assert (mine["seq"], mine["duplicate"]) == (len(away.said), False)
    await away.say(["and from the other side"])
    for device in (phone, away.desk):
        await device.heard("session:tick", has(lastSeq=len(away.said), sessionId=away.session_id))
        last_seqs = [tick["lastSeq"] for tick in device.all("session:tick")]
        assert last_seqs == sorted(last_seqs)
    again = await phone.ok("send_message", {**never, "body": "unheard", "clientMsgId": "unheard"})
    assert (again["seq"], again["duplicate"]) == (2, True)


@asynccontextmanager
async def away_from(directory: Path) -> AsyncIterator[tuple[Both, list[Away]]]:
    """A session for each of `MISSED`; at the end all bills are what their timelines say and the books are clean."""
    with Cluster(directory, **QUICK) as cluster:
        async with both_of(cluster) as both:
            aways = await asyncio.gather(*(gone_away(both, missed) for missed in MISSED))
            yield both, aways
            for away in aways:
                await away.lawyer.end(away.session_id)
                assert_bill(await away.lawyer.session(away.session_id))
        code, output = await asyncio.to_thread(cluster.webs[1].settled_books)
        assert code == 0, output


async def back_at(both: Both, world: World, away: Away) -> None:
    await come_back(away, await both.device_at(away.user, world))


@pytest.mark.slow
async def test_who_comes_back_at_another_process_has_everything(tmp_path: Path) -> None:
    async with away_from(tmp_path) as (both, aways):
        for away in aways:
            await away.half()
            await away.half()
        await asyncio.gather(*(back_at(both, both.right, away) for away in aways))
        for away in aways:
            assert pauses_of(await away.lawyer.session(away.session_id)) == []


@pytest.mark.slow
async def test_who_comes_back_after_a_restart_of_the_first_process_has_everything(tmp_path: Path) -> None:
    async with away_from(tmp_path) as (both, aways):
        first = both.cluster.webs[0]
        for away in aways:
            await away.half()
        assert await asyncio.to_thread(first.stop) == 0
        for away in aways:
            await away.half()
        await asyncio.to_thread(first.start)
        # At the restarted one, which does not bill it any more, and at the one that does.
        for away, world in zip(aways, (both.left, both.right, both.left), strict=True):
            await back_at(both, world, away)


@pytest.mark.slow
async def test_who_comes_back_after_the_death_of_the_first_process_and_the_takeover_has_everything(
    tmp_path: Path,
) -> None:
    async with away_from(tmp_path) as (both, aways):
        for away in aways:
            await away.half()
        both.cluster.webs[0].kill()
        # Nobody bills it for a moment; what is paid is served, and said.
        for away in aways:
            await away.half()
        for away in aways:
            await adopted(away.lawyer.api, away.session_id)
        await asyncio.gather(*(back_at(both, both.right, away) for away in aways))
        for away in aways:
            ((reason, _),) = pauses_of(await away.lawyer.session(away.session_id))
            assert reason == "SERVER"
