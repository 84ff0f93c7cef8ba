"""How long chats are kept, over the whole server and its clock: bodies go, everything that money stands on stays."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from server.retention.service import ChatRetention
from server.storage.errors import StoreUnavailable
from tests.support.api import Api, ApiClock, Person, open_api
from tests.support.manual_clock import ManualClock

DAY_MS = 86_400_000


async def pass_days(api: Api, days: float) -> None:
    """So long nothing happens; then the housekeeping has its turn."""
    api.clock.jump_ms(round(days * DAY_MS))
    await api.advance(3_660)


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with open_api(tmp_path, retention_chat_days=30) as api:
        yield api


async def a_chat(api: Api, user: Person, lawyer: Person, *said: str) -> str:
    session_id = await user.start(lawyer.id)
    phone = await api.connect(user.token)
    for body in said:
        ack = await phone.call("send_message", {"sessionId": session_id, "body": body, "clientMsgId": body})
        assert ack["ok"], ack
    await api.advance(10)
    await user.end(session_id)
    return session_id


async def bodies(person: Person, session_id: str) -> list[str]:
    return [message["body"] for message in (await person.get(f"/chat/{session_id}")).json["items"]]


def kept(api: Api) -> dict[str, Any]:
    """What nothing is ever erased of: the ledger, the sessions and their timelines."""
    return {
        name: rows
        for name, rows in api.everything().items()
        if name.startswith("ledger") or name in {"c_timeline", "c_consult_sessions"}
    }


async def test_bodies_are_erased_after_their_days_and_not_before(api: Api) -> None:
    user, lawyer = await api.a_user("5000.00"), await api.a_lawyer()
    old = await a_chat(api, user, lawyer, "the landlord", "keeps my deposit")
    await pass_days(api, 20)
    user, lawyer = await api.log_in(user.email), await api.log_in(lawyer.email)
    young = await a_chat(api, user, lawyer, "another matter")
    before = kept(api)
    await pass_days(api, 9.8)
    user = await api.log_in(user.email)
    assert await bodies(user, old) == ["the landlord", "keeps my deposit"]

    await pass_days(api, 0.2)
    user = await api.log_in(user.email)
    page = (await user.get(f"/chat/{old}")).json
    assert [(message["seq"], message["body"], message["clientMsgId"]) for message in page["items"]] == [
        (1, "", "the landlord"),
        (2, "", "keeps my deposit"),
    ]
    assert all(message["erasedAt"] > message["createdAt"] for message in page["items"])
    assert page["lastSeq"] == 2
    assert await bodies(user, young) == ["another matter"]
    assert kept(api) == before
    mine = {item["sessionId"]: item["lastMessage"] for item in (await user.get("/consult")).json["items"]}
    assert (mine[old]["body"], mine[young]["body"]) == ("", "another matter")
    assert mine[old]["erasedAt"] is not None
    assert mine[young]["erasedAt"] is None


async def test_an_erased_chat_still_joins_and_repeats(api: Api) -> None:
    """An app that was away for months finds its place again; its repeated send is the message that it was."""
    user, lawyer = await api.a_user("500.00"), await api.a_lawyer()
    session_id = await a_chat(api, user, lawyer, "hello")
    await pass_days(api, 40)
    phone = await api.connect((await api.log_in(user.email)).token)

    joined = await phone.call("join_session", {"sessionId": session_id, "pendingIds": ["hello"]})
    assert joined["ok"], joined
    assert [message["body"] for message in joined["messages"]] == [""]
    assert joined["messages"][0]["erasedAt"] is not None
    assert list(joined["stored"]) == ["hello"]
    again = await phone.call(
        "send_message", {"sessionId": session_id, "body": "hello", "clientMsgId": "hello"}
    )
    assert (again["ok"], again["duplicate"], again["seq"]) == (True, True, 1)
    seen = await phone.call("mark_seen", {"sessionId": session_id})
    assert seen["ok"]


async def test_nothing_is_erased_unless_asked_for(tmp_path: Path) -> None:
    async with open_api(tmp_path) as api:
        user, lawyer = await api.a_user("500.00"), await api.a_lawyer()
        session_id = await a_chat(api, user, lawyer, "keep this")
        await pass_days(api, 4_000)
        assert await bodies(await api.log_in(user.email), session_id) == ["keep this"]


async def test_a_running_consultation_is_never_touched(tmp_path: Path) -> None:
    async with open_api(tmp_path, retention_chat_days=1) as api:
        user, lawyer = await api.a_user("90000.00"), await api.a_lawyer(rate="1.00")
        session_id = await user.start(lawyer.id)
        phone = await api.connect(user.token)
        await phone.call("send_message", {"sessionId": session_id, "body": "still here"})
        api.clock.jump_ms(3 * DAY_MS)
        found = await ChatRetention(api.services.chat._store, api.clock, days=1).round()
        assert found == 0
        assert "still here" in str(api.everything()["messages"])


async def test_an_outage_puts_it_off_and_a_restart_goes_on(tmp_path: Path) -> None:
    clock = ApiClock()
    async with open_api(tmp_path, clock=clock, retention_chat_days=30) as api:
        user, lawyer = await api.a_user("5000.00"), await api.a_lawyer()
        sessions = [await a_chat(api, user, lawyer, f"matter {n}", "more") for n in range(3)]
        messages = api.services.chat._store
        assert (
            await messages.erase_closed(closed_before_ms=clock.now_ms() + 1, at_ms=clock.now_ms(), limit=2)
            == 2
        )
    clock.jump_ms(40 * DAY_MS)
    async with open_api(tmp_path, clock=clock, retention_chat_days=30) as api:
        await api.advance(3_660)
        user = await api.log_in(user.email)
        assert [await bodies(user, session_id) for session_id in sessions] == [["", ""]] * 3
        assert not [row for row in api.everything()["messages"] if "matter" in row[4]]


class Messages:
    """Messages as a number, in a store that can be out of order."""

    def __init__(self, left: int) -> None:
        self.left = left
        self.asked: list[tuple[int, int, int]] = []
        self.broken = False

    async def erase_closed(self, *, closed_before_ms: int, at_ms: int, limit: int) -> int:
        if self.broken:
            raise StoreUnavailable(reason="as planned")
        self.asked.append((closed_before_ms, at_ms, limit))
        done = min(limit, self.left)
        self.left -= done
        return done


async def test_rounds_are_small_and_go_on_until_nothing_is_left() -> None:
    """A single huge transaction would hold up every consultation's next slice."""
    messages, clock = Messages(1_000), ManualClock()
    retention = ChatRetention(messages, clock, days=7)
    while await retention.round():
        pass
    assert messages.left == 0
    assert len(messages.asked) == 6
    assert set(messages.asked) == {(clock.now_ms() - 7 * DAY_MS, clock.now_ms(), 200)}


async def test_without_days_only_what_was_begun_is_finished() -> None:
    messages = Messages(0)
    await ChatRetention(messages, ManualClock(), days=0).round()
    assert [before_ms for before_ms, _, _ in messages.asked] == [0]
