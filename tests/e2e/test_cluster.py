"""Two web processes and a worker on one database, as production runs: real processes, real sockets, real signals.

The store is the stand-in for MongoDB (LIBRARIES says what it fakes), Redis a real Valkey.
"""

import asyncio
import itertools
import os
import secrets
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest
import pytest_asyncio

from tests.e2e.people import Api, Device, Json, Person, World, assert_bill, has, instant_ms, minor, people_of
from tests.support.cluster import Cluster
from tests.support.server_process import QUICK, ServerProcess

#: Of each race; `make races ROUNDS=1000` runs more.
RACES: Final = int(os.environ.get("TARAZU_RACE_ROUNDS") or 15)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One for the tests that leave it as they found it. At the end its books are clean and no process has logged an error."""
    with Cluster(tmp_path_factory.mktemp("cluster"), **QUICK) as running:
        yield running
        code, output = running.settled_books()
        assert code == 0, output


class Both:
    """The same people at two processes: `left` is where a user is, `right` where a lawyer is."""

    def __init__(self, cluster: Cluster, left: World, right: World) -> None:
        self.cluster = cluster
        self.left, self.right = left, right

    async def pair(self, recharge: str, rate: str = "60.00") -> tuple[Person, Person]:
        return await self.left.user(recharge), await self.right.lawyer(rate)

    async def elsewhere(self, person: Person) -> Api:
        """The person, calling the other process."""
        other = self.right if person.world is self.left else self.left
        return other.anyone.as_(person.api.token)

    async def device_at(self, person: Person, world: World) -> Device:
        device = await Device.connect(world.server.url, person.api.token or "")
        world.devices.append(device)
        person.devices.append(device)
        return device


@asynccontextmanager
async def both_of(cluster: Cluster) -> AsyncIterator[Both]:
    async with AsyncExitStack() as stack:
        left, right = [await stack.enter_async_context(people_of(web)) for web in cluster.webs[:2]]
        yield Both(cluster, left, right)


@pytest_asyncio.fixture
async def both(cluster: Cluster) -> AsyncIterator[Both]:
    async with both_of(cluster) as people:
        yield people


async def join(device: Device, session_id: str, after_seq: int = 0) -> Json:
    return await device.ok("join_session", {"sessionId": session_id, "afterSeq": after_seq})


async def say(device: Device, session_id: str, body: str) -> Json:
    return await device.ok(
        "send_message", {"sessionId": session_id, "body": body, "clientMsgId": secrets.token_hex(8)}
    )


def pauses_of(session: Json) -> list[tuple[str, int]]:
    """Reason and length in ms of each pause of a public timeline."""
    return [
        (pause["reason"], instant_ms(resume["at"]) - instant_ms(pause["at"]))
        for pause, resume in itertools.pairwise(session["timeline"])
        if (pause["event"], resume["event"]) == ("pause", "resume")
    ]


async def adopted(api: Api, session_id: str) -> None:
    """Return once the session's timeline tells of a pause that is over."""
    deadline_s = time.monotonic() + 20
    while not pauses_of(await api.get(f"/consult/{session_id}")):
        assert time.monotonic() < deadline_s, "nobody has taken it up"
        await asyncio.sleep(0.05)


# -- one consultation over two processes --------------------------------------------------------------------------


async def test_two_people_at_two_processes_talk_as_at_one(both: Both) -> None:
    user, lawyer = await both.pair("300.00")
    user_device, lawyer_device = await user.device(), await lawyer.device()
    session = await user.start(lawyer)
    session_id = session["sessionId"]
    # Not joined, and at the process that does not bill it: told all the same.
    assert (await lawyer_device.heard("session:started")).payload["sessionId"] == session_id
    assert (await join(user_device, session_id))["presence"][lawyer.id] == "OFFLINE"
    assert (await join(lawyer_device, session_id))["presence"][user.id] == "ONLINE"
    assert (await user_device.heard("presence")).payload["state"] == "ONLINE"
    for device, other, body in (
        (user_device, lawyer_device, "नमस्ते"),
        (lawyer_device, user_device, "Good day."),
        (user_device, lawyer_device, "Thank you."),
    ):
        sent = await say(device, session_id, body)
        heard = (await other.heard("new_message", has(id=sent["id"]))).payload
        assert (heard["body"], heard["seq"]) == (body, sent["seq"])
    await lawyer_device.ok("mark_seen", {"sessionId": session_id})
    status = (await user_device.heard("message_status", has(seenSeq=3))).payload
    assert status["userId"] == lawyer.id
    await lawyer_device.ok("typing", {"sessionId": session_id, "isTyping": True})
    assert (await user_device.heard("typing")).payload["userId"] == lawyer.id
    tick = (await lawyer_device.heard("session:tick")).payload
    assert (tick["walletBalance"], tick["lastSeq"]) == (None, 3)
    ended = await lawyer.end(session_id)
    assert_bill(await user.session(session_id))
    for device in (user_device, lawyer_device):
        told = (await device.heard("session:ended")).payload
        assert told["totalAmount"] == ended["totalAmount"]
    assert await user.api.get("/consult/active") is None
    # Everything is the same at the other process, to the letter.
    at_other = await both.elsewhere(user)
    for path in (f"/consult/{session_id}", f"/chat/{session_id}", "/wallet/transactions", "/wallet/balance"):
        assert await at_other.get(path) == await user.api.get(path)
    for device in (user_device, lawyer_device):
        assert len(device.all("session:ended")) == 1
        seqs = [message["seq"] for message in device.all("new_message")]
        assert seqs == sorted(set(seqs)), "a message came twice"


async def test_an_end_and_a_recharge_work_at_once_through_the_process_that_does_not_bill_it(
    both: Both,
) -> None:
    user, lawyer = await both.pair("20.00")
    device = await user.device()
    session_id = (await user.start(lawyer))["sessionId"]
    at_other = await both.elsewhere(user)
    await at_other.post("/wallet/recharge", {"amount": "100.00"}, key="r1")
    # The owner is told and extends, before its next tick.
    told = (await device.heard("session:recharged")).payload
    assert told["remainingSeconds"] > 100
    # The same key at the other process is the same request.
    again = await user.api.call("POST", "/wallet/recharge", {"amount": "100.00"}, key="r1")
    assert again.headers["Idempotency-Replayed"] == "true"
    ended = await at_other.post(f"/consult/{session_id}/end", key="e1")
    assert ended["status"] == "ENDED"
    await device.refused("send_message", {"sessionId": session_id, "body": "Late"}, "SESSION_NOT_ACTIVE")
    assert (await user.end(session_id)) == ended
    session = await user.session(session_id)
    assert_bill(session)
    assert pauses_of(session) == []
    assert minor((await user.api.get("/wallet/balance"))["walletBalance"]) == 12_000 - minor(
        ended["totalAmount"]
    )


async def test_a_log_out_at_one_process_ends_the_login_at_the_other(both: Both) -> None:
    user = await both.left.user()
    here, there = await user.device(), await both.device_at(user, both.right)
    await user.api.post("/auth/logout")
    for device in (here, there):
        assert (await device.heard("server:bye")).payload["code"] == 3500
    at_other = await both.elsewhere(user)
    deadline_s = time.monotonic() + 10
    while (await at_other.call("GET", "/auth/me")).status != 401:
        assert time.monotonic() < deadline_s, "the other process still takes the token"


async def test_of_two_starts_at_two_processes_one_wins_whoever_is_wanted_twice(cluster: Cluster) -> None:
    """The two races that matter: the same user with two lawyers, and the same lawyer for two users."""
    async with both_of(cluster) as both:
        users = [await both.left.user("500.00"), await both.right.user("500.00")]
        lawyers = [await both.left.lawyer(), await both.right.lawyer()]
        for round_ in range(RACES):
            user, lawyer = users[round_ % 2], lawyers[round_ % 2]
            at_other = await both.elsewhere(user)
            answers = await asyncio.gather(
                user.api.call("POST", "/consult/start", {"lawyerId": lawyers[0].id}),
                at_other.call("POST", "/consult/start", {"lawyerId": lawyers[1].id}),
            )
            await one_winner(answers, user, "USER_BUSY")
            answers = await asyncio.gather(
                users[0].api.call("POST", "/consult/start", {"lawyerId": lawyer.id}),
                users[1].api.call("POST", "/consult/start", {"lawyerId": lawyer.id}),
            )
            await one_winner(answers, lawyer, "LAWYER_BUSY")


async def one_winner(answers: list[Any], person: Person, code: str) -> None:
    won = [answer for answer in answers if answer.status == 201]
    lost = [answer for answer in answers if answer.status != 201]
    assert len(won) == 1, [answer.json for answer in answers]
    assert [(answer.status, answer.code) for answer in lost] == [(409, code)]
    await person.end(won[0].json["sessionId"])


# -- one of them dies ----------------------------------------------------------------------------------------------


@pytest.fixture
def mortal(tmp_path: Path) -> Iterator[Cluster]:
    """A cluster of the test's own. Its processes may be killed; those that live at the end have logged no error."""
    with Cluster(tmp_path, **QUICK) as running:
        yield running


async def talk_at(both: Both, owner: World, other: World, recharge: str = "300.00") -> tuple[Any, ...]:
    """A session that `owner`'s process bills, the user's device there and the lawyer's at the other."""
    user, lawyer = await owner.user(recharge), await other.lawyer()
    user_device, lawyer_device = await user.device(), await lawyer.device()
    session_id = (await user.start(lawyer))["sessionId"]
    for device in (user_device, lawyer_device):
        await join(device, session_id)
    await say(user_device, session_id, "one")
    await say(lawyer_device, session_id, "two")
    return user, lawyer, user_device, lawyer_device, session_id


async def test_a_session_outlives_its_process_and_its_clients_go_on_where_they_were(mortal: Cluster) -> None:
    async with both_of(mortal) as both:
        user, lawyer, user_device, lawyer_device, session_id = await talk_at(both, both.left, both.right)
        await user_device.heard("session:tick")
        mortal.webs[0].kill()
        at_other = await both.elsewhere(user)
        await adopted(at_other, session_id)
        # Whose process lives notices nothing but a tick that comes later.
        await lawyer_device.heard("session:tick", after=len(lawyer_device.events))
        back = await both.device_at(user, both.right)
        joined = await join(back, session_id, after_seq=1)
        assert [message["body"] for message in joined["messages"]] == ["two"]
        await say(back, session_id, "three")
        assert (await lawyer_device.heard("new_message", has(seq=3))).payload["body"] == "three"
        ended = await at_other.post(f"/consult/{session_id}/end")
        session = await at_other.get(f"/consult/{session_id}")
        assert_bill(session)
        ((reason, length_ms),) = pauses_of(session)
        # From the last tick (every second here) over the death to the adoption.
        assert (reason, length_ms < 1_000 + 10_000) == ("SERVER", True), session
        assert ended["totalAmount"] == session["totalAmount"]
        code, output = await asyncio.to_thread(mortal.webs[1].settled_books)
        assert code == 0, output
        # The dead one comes back as a new process and takes part.
        await asyncio.to_thread(mortal.webs[0].start)
        await user.end((await user.start(lawyer))["sessionId"])


async def test_a_frozen_process_that_wakes_bills_nothing_more(mortal: Cluster) -> None:
    async with both_of(mortal) as both:
        _, lawyer, user_device, lawyer_device, session_id = await talk_at(both, both.left, both.right)
        await user_device.heard("session:tick")
        frozen = mortal.webs[0]
        mortal.freeze(frozen)
        await adopted(lawyer.api, session_id)
        # Ticks go on while the former owner is still frozen.
        await lawyer_device.heard("session:tick", after=len(lawyer_device.events))
        mortal.thaw(frozen)
        await asyncio.to_thread(lets_go, frozen, session_id)
        ended = await lawyer.end(session_id)
        session = await lawyer.session(session_id)
        assert_bill(session)
        assert [reason for reason, _ in pauses_of(session)] == ["SERVER"]
        assert ended["status"] == "ENDED"
        code, output = await asyncio.to_thread(mortal.settled_books)
        assert code == 0, output


def lets_go(process: ServerProcess, session_id: str) -> None:
    """Return once the process has said that the session is not its own any more."""
    deadline_s = time.monotonic() + 20
    while not any(
        line.get("session_id") == session_id and "let go" in str(line.get("event"))
        for line in process.log_events()
    ):
        assert time.monotonic() < deadline_s, process.log[-2_000:]
        time.sleep(0.05)


async def test_without_redis_people_are_served_and_billed_and_hear_each_other_when_they_ask(
    mortal: Cluster,
) -> None:
    async with both_of(mortal) as both:
        user, lawyer, user_device, lawyer_device, session_id = await talk_at(both, both.left, both.right)
        mortal.redis.kill()
        for web in mortal.webs:
            web.tolerated = lambda event: event.get("path") == "/readyz"
        sent = await say(user_device, session_id, "three")
        # The hint is lost; the sequence is in the store.
        joined = await join(lawyer_device, session_id, after_seq=2)
        assert [message["id"] for message in joined["messages"]] == [sent["id"]]
        await user_device.heard("session:tick", has(lastSeq=3))
        answer = await (await both.elsewhere(user)).call("GET", "/readyz")
        assert (answer.status, answer.json["code"]) == (503, "NOT_READY")
        # Nobody is booked twice without the locks, and starts work.
        third = await both.right.user("100.00")
        refused = await third.api.call("POST", "/consult/start", {"lawyerId": lawyer.id})
        assert (refused.status, refused.code) == (409, "LAWYER_BUSY")
        await user.end(session_id)
        await third.end((await third.start(lawyer))["sessionId"])
        mortal.redis.start()
        for world in (both.left, both.right):
            await says(world, "tarazu_bus_connected 1.0")
            assert (await world.anyone.call("GET", "/readyz")).status == 200
        fresh = (await user.start(lawyer))["sessionId"]
        for device in (user_device, lawyer_device):
            await join(device, fresh)
        sent = await say(user_device, fresh, "heard again")
        await lawyer_device.heard("new_message", has(id=sent["id"]))
        await user.end(fresh)
        code, output = await asyncio.to_thread(mortal.settled_books)
        assert code == 0, output


@pytest.mark.slow
async def test_a_deploy_with_five_hundred_sessions_ends_none_and_bills_none_twice(tmp_path: Path) -> None:
    count = int(os.environ.get("TARAZU_DRAIN_SESSIONS") or 100)
    with Cluster(tmp_path, **{**QUICK, "TICK_SECONDS": "5"}) as cluster:
        async with both_of(cluster) as both:
            users = await asyncio.gather(*(both.left.user("300.00") for _ in range(count)))
            lawyers = await asyncio.gather(*(both.right.lawyer() for _ in range(count)))
            ids = [
                (await user.start(lawyer))["sessionId"] for user, lawyer in zip(users, lawyers, strict=True)
            ]
            devices = await asyncio.gather(*(user.device() for user in users[:50]))
            cluster.webs[0].terminate()
            assert await asyncio.to_thread(cluster.webs[0].wait, 10) == 0
            for device in devices:
                assert (await device.heard("server:bye")).payload["code"] == 3001
            await says(both.right, f"tarazu_sessions_live {float(count)}")
            for user, session_id in zip(users, ids, strict=True):
                at_other = await both.elsewhere(user)
                ended = await at_other.post(f"/consult/{session_id}/end")
                assert (ended["status"], ended["endReason"]) == ("ENDED", "USER_ENDED")
                session = await at_other.get(f"/consult/{session_id}")
                assert_bill(session)
                assert [reason for reason, _ in pauses_of(session)] == ["SERVER"]
        code, output = await asyncio.to_thread(cluster.webs[1].settled_books)
        assert code == 0, output


async def says(world: World, series: str) -> None:
    """Return once the process's metrics have this line."""
    deadline_s = time.monotonic() + 20
    while True:
        async with world.anyone._http.get(world.server.url + "/metrics") as response:
            lines = (await response.text()).splitlines()
        if series in lines:
            return
        name = series.partition(" ")[0]
        assert time.monotonic() < deadline_s, [line for line in lines if line.startswith(name)]
        await asyncio.sleep(0.1)
