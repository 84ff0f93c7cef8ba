"""Calls on the whole server: what billing says of a session ends its call, and what a credential may tell."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.socket_world import Client
from tests.support.api import Api, Person, open_api

SECRETS = "the-first-secret-of-thirty-two-bytes,the-other-secret-of-thirty-two-bytes"


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with open_api(
        tmp_path, turn_urls="turn:turn.example.com:3478", turn_secrets=SECRETS, ice_policy="relay"
    ) as the_api:
        yield the_api


async def talking(api: Api, user: Person, session_id: str, lawyer: Person) -> tuple[Client, Client, str]:
    """Both in a call; their sockets, and the call."""
    hers, his = await api.connect(user.token), await api.connect(lawyer.token)
    for socket in (hers, his):
        assert (await socket.call("join_session", {"sessionId": session_id}))["ok"]
    invite = {"sessionId": session_id, "partyId": "u", "media": "audio"}
    call_id = (await hers.call("rtc:invite", invite))["call"]["callId"]
    accept = {"sessionId": session_id, "callId": call_id, "partyId": "l"}
    assert (await his.call("rtc:accept", accept))["ok"]
    late = await (await api.connect(lawyer.token)).call("join_session", {"sessionId": session_id})
    assert (late["call"]["callId"], late["call"]["state"]) == (call_id, "CONNECTED")
    return hers, his, call_id


@pytest.mark.parametrize("by", ["user", "money"])
async def test_the_end_of_a_consultation_ends_its_call(api: Api, by: str) -> None:
    user, lawyer = await api.a_user("100.00"), await api.a_lawyer(rate="60.00")
    session_id = await user.start(lawyer.id)
    hers, his, call_id = await talking(api, user, session_id, lawyer)

    if by == "user":
        await user.end(session_id)
    else:
        await api.advance(101)

    for socket in (hers, his):
        (ended,) = await socket.hears("rtc:ended")
        assert (ended["callId"], ended["reason"]) == (call_id, "SESSION_ENDED")
        reason = (await socket.hears("session:ended"))[0]["reason"]
        assert reason == {"user": "USER_ENDED", "money": "WALLET_EMPTY"}[by]
    signal = {"sessionId": session_id, "callId": call_id, "n": 1, "kind": "offer", "sdp": "v=0"}
    assert (await hers.call("rtc:signal", signal))["error"]["code"] == "SESSION_NOT_ACTIVE"
    answer = await lawyer.get(f"/consult/{session_id}/ice")
    assert (answer.status, answer.code) == (409, "SESSION_NOT_ACTIVE")


async def test_a_ring_that_nobody_answers_ends_by_itself(api: Api) -> None:
    user, lawyer = await api.a_user("500.00"), await api.a_lawyer(rate="60.00")
    session_id = await user.start(lawyer.id)
    hers, his = await api.connect(user.token), await api.connect(lawyer.token)
    await hers.call("rtc:invite", {"sessionId": session_id, "partyId": "u", "media": "video"})
    await his.hears("rtc:ring")

    await api.advance(60)

    for socket in (hers, his):
        assert (await socket.hears("rtc:ended"))[0]["reason"] == "MISSED"


async def test_credentials_end_soon_after_the_money_and_tell_the_lawyer_nothing_of_it(api: Api) -> None:
    user, lawyer = await api.a_user("200.00"), await api.a_lawyer(rate="60.00")
    session_id = await user.start(lawyer.id)

    async def ice(person: Person) -> Any:
        answer = await person.get(f"/consult/{session_id}/ice")
        assert answer.status == 200, answer.text
        return answer.json

    hers, his = await ice(user), await ice(lawyer)
    assert (hers["ttlSeconds"], hers["iceTransportPolicy"]) == (500, "relay")
    assert his["ttlSeconds"] == 3_600, "a shorter one would tell the lawyer the balance"
    assert [server["urls"] for server in hers["iceServers"]] == [["turn:turn.example.com:3478"]] * 2
    usernames = {server["username"] for server in hers["iceServers"]}
    assert {name.split(":", 1)[1] for name in usernames} == {f"{session_id}:{user.id}"}
    assert len({server["credential"] for server in hers["iceServers"]}) == 2
    assert his["iceServers"][0]["username"].endswith(f":{session_id}:{lawyer.id}")

    await api.advance(100)
    assert (await ice(user))["ttlSeconds"] == 400
    assert (await ice(lawyer))["ttlSeconds"] == 400, "from 120 seconds on the lawyer knows it anyway"
