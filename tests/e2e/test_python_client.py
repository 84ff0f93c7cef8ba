"""The Python client with a real server: a whole conversation, and everything that may happen to a connection."""

import asyncio
from pathlib import Path

import pytest

from tarazu_client import ConnectionLost, Refused, SignedOut, SqliteStorage
from tests.e2e.people import World, people_of
from tests.support.client_apps import PATIENCE_S, app_of, tear
from tests.support.server_process import QUICK, ServerProcess


async def test_two_apps_have_a_whole_consultation(world: World) -> None:
    user, lawyer = await world.pair("300.00")
    session_id = (await user.start(lawyer))["sessionId"]
    async with app_of(user, session_id) as phone, app_of(lawyer, session_id) as desk:
        sent = await phone.chat.send("Can my landlord keep the deposit?")
        assert await sent == 1
        await asyncio.gather(phone.has(1), desk.has(1))
        await phone.until(lambda: phone.chat.state(phone.log[0]) == "DELIVERED")
        await desk.chat.typing()
        assert (await phone.heard("typing"))["userId"] == lawyer.id
        desk.chat.seen()
        await phone.until(lambda: phone.chat.state(phone.log[0]) == "SEEN")
        assert await (await desk.chat.send("For how long did you live there?")) == 2
        await asyncio.gather(phone.has(2), desk.has(2))
        # One's own messages come as everybody's, once.
        assert phone.bodies == desk.bodies
        assert [message["senderId"] for message in phone.log] == [user.id, lawyer.id]
        bill = await phone.heard("session:tick")
        assert (bill["status"], bill["walletBalance"] is None) == ("ACTIVE", False)
        await lawyer.end(session_id)
        assert (await phone.heard("session:ended"))["reason"] == "LAWYER_ENDED"
        late = await phone.chat.send("One more thing.")
        with pytest.raises(Refused, match="SESSION_NOT_ACTIVE"):
            await late
        assert [draft.body for draft, _ in phone.failed] == ["One more thing."]
        assert phone.chat.waiting == 0


async def test_what_is_said_while_the_line_breaks_arrives_once_and_in_order(world: World) -> None:
    user, lawyer = await world.pair("300.00")
    session_id = (await user.start(lawyer))["sessionId"]
    async with app_of(user, session_id) as phone, app_of(lawyer, session_id) as desk:
        for k in range(200):
            said = await phone.chat.send(f"phone {k}")
            await desk.chat.send(f"desk {k}")
            # There is a line to tear again: this one was answered.
            if k % 20 == 7:
                await said
            if k % 20 == 9:
                tear(phone.client)
            if k % 50 == 31:
                tear(desk.client)
            # A person types on while offline, but not for ever.
            await phone.until(lambda: phone.chat.waiting < 15)
            await desk.until(lambda: desk.chat.waiting < 15)
        await asyncio.gather(phone.has(400), desk.has(400))
        assert [message["seq"] for message in phone.log] == list(range(1, 401))
        assert [(m["id"], m["body"]) for m in phone.log] == [(m["id"], m["body"]) for m in desk.log]
        for name in ("phone", "desk"):
            said = [body for body in phone.bodies if body.startswith(name)]
            assert said == [f"{name} {k}" for k in range(200)]
        await asyncio.gather(phone.chat.flushed(), desk.chat.flushed())
        assert phone.connections >= 10, "it was hardly ever torn"
        assert phone.failed == desk.failed == []
    await user.end(session_id)


async def test_a_killed_app_says_what_it_had_not_sent(world: World, tmp_path: Path) -> None:
    user, lawyer = await world.pair("300.00")
    session_id = (await user.start(lawyer))["sessionId"]
    storage = tmp_path / "outbox.db"
    async with app_of(lawyer, session_id) as desk:
        # Nobody listens at this address: all of it stays in the outbox.
        async with app_of(user, session_id, url="http://127.0.0.1:9", storage=SqliteStorage(storage)) as dead:
            said = [await dead.chat.send(body) for body in ("one", "two", "three")]
            assert [sent.seq for sent in said] == [None] * 3
        async with app_of(user, session_id, storage=SqliteStorage(storage)) as phone:
            await desk.has(3)
            await phone.chat.flushed()
            assert [(m["body"], m["clientMsgId"]) for m in desk.log] == [
                (sent.body, sent.client_msg_id) for sent in said
            ]
            tear(phone.client)
        assert await SqliteStorage(storage).load(session_id) == []
        # And with what it has seen before, nothing comes twice.
        async with app_of(user, session_id, storage=SqliteStorage(storage), after_seq=2) as phone:
            await phone.has(3)
            assert phone.bodies == ["three"]
    await user.end(session_id)


async def test_logging_out_stops_the_client_and_says_so(world: World) -> None:
    user, lawyer = await world.pair("300.00")
    session_id = (await user.start(lawyer))["sessionId"]
    async with app_of(user, session_id) as phone:
        await phone.chat.joined()
        await user.api.post("/auth/logout")
        with pytest.raises(SignedOut) as stopped:
            async with asyncio.timeout(PATIENCE_S):
                await phone.client.stopped()
        assert stopped.value.code == 3500
        with pytest.raises(ConnectionLost):
            await phone.client.call("mark_seen", {"sessionId": session_id})
    await lawyer.end(session_id)


async def test_a_token_that_has_run_out_is_asked_for_again_and_a_bad_one_is_no_endless_loop(
    world: World,
) -> None:
    user, lawyer = await world.pair("300.00")
    session_id = (await user.start(lawyer))["sessionId"]
    given: list[str] = []

    async def token() -> str:
        given.append("run out" if not given else user.api.token or "")
        return given[-1]

    async with app_of(user, session_id, token=token) as phone:
        await phone.chat.joined()
        assert len(given) == 2

    async def none() -> str:
        return "never good"

    async with app_of(user, session_id, token=none) as phone:
        with pytest.raises(SignedOut, match="UNAUTHENTICATED"):
            async with asyncio.timeout(PATIENCE_S):
                await phone.client.connected()
    await user.end(session_id)


async def test_somebody_elses_session_cannot_be_joined(world: World) -> None:
    user, lawyer = await world.pair("300.00")
    stranger = await world.user()
    session_id = (await user.start(lawyer))["sessionId"]
    async with app_of(stranger, session_id) as phone:
        with pytest.raises(Refused, match="NOT_FOUND"):
            async with asyncio.timeout(PATIENCE_S):
                await phone.chat.joined()
    await user.end(session_id)


async def test_a_deploy_is_survived_and_what_was_said_meanwhile_arrives(tmp_path: Path) -> None:
    with ServerProcess(tmp_path, **QUICK) as server:
        async with people_of(server) as world:
            user, lawyer = await world.pair("300.00")
            session_id = (await user.start(lawyer))["sessionId"]
            async with app_of(user, session_id) as phone, app_of(lawyer, session_id) as desk:
                assert await (await phone.chat.send("before")) == 1
                port = server.url.rpartition(":")[2]
                server.terminate()
                assert (await phone.heard("server:bye"))["code"] == 3001
                assert await asyncio.to_thread(server.wait, 15) == 0
                while_down = await phone.chat.send("while it was down")
                await asyncio.to_thread(server.start, PORT=port)
                assert await while_down == 2
                await desk.has(2)
                assert desk.bodies == ["before", "while it was down"]
            await user.end(session_id)
