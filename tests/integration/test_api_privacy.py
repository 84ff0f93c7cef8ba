"""The wallet belongs to its owner (SPEC 6): nothing that anybody else is told depends on what is in it.

Two runs of one story that differ in the user's money only. Whatever the lawyer, and a stranger, hear over HTTP and on their
sockets must be the same in both, to the letter: a field, a null in its place, an instant, an order would tell otherwise.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.integration.socket_world import Client as SocketClient
from tests.support.api import Api, Person, open_api

LAWYER_READS: Final = (
    "/auth/me",
    "/lawyer/profile",
    "/lawyer/{lawyer}",
    "/lawyers?limit=100",
    "/lawyer/{lawyer}/reviews",
    "/lawyer/earnings",
    "/lawyer/earnings/summary",
    "/consult",
    "/consult/active",
    "/consult/{session}",
    "/chat/{session}",
)
STRANGER_READS: Final = (
    "/auth/me",
    "/wallet/balance",
    "/wallet/transactions",
    "/lawyer/{lawyer}",
    "/lawyers?free=true",
    "/lawyer/{lawyer}/reviews",
    "/consult",
    "/consult/active",
    "/consult/{session}",
    "/consult/quote?lawyerId={lawyer}",
    "/chat/{session}",
)
#: What is the owner's own, by its name on the wire.
THE_OWNERS: Final = {
    "walletBalance",
    "remainingBalance",
    "maxAmount",
    "held",
    "balanceBefore",
    "balanceAfter",
    "required",
}


class Told:
    """Everything that one person hears, in order."""

    def __init__(self, person: Person, socket: SocketClient) -> None:
        self.person = person
        self.socket = socket
        self.heard: list[tuple[str, Any]] = []
        self._events = 0

    async def reads(self, paths: tuple[str, ...], **ids: str) -> None:
        for path in paths:
            answer = await self.person.get(path.format(**ids))
            self.heard.append((path, answer.json))

    async def says(self, event: str, **payload: Any) -> None:
        self.heard.append((event, await self.socket.call(event, payload)))

    async def hears(self, event: str, count: int) -> None:
        await self.socket.hears(event, count)

    def listen(self) -> None:
        """Take up the events so far. Between two names their order is the loop's, so by name."""
        news = self.socket.events[self._events :]
        self._events = len(self.socket.events)
        self.heard += sorted(news, key=lambda item: item[0])

    def story(self) -> list[str]:
        return [re.sub(r"[0-9a-f]{32}", "ID", json.dumps(item, sort_keys=True)) for item in self.heard]


async def _a_consultation(api: Api, *, balance: str, max_amount: str | None) -> tuple[Told, Told]:
    """A story in which the money lasts for more than two minutes at any moment that is looked at."""
    user, lawyer = await api.a_user(balance), await api.a_lawyer()
    stranger = await api.a_user("500.00")
    lawyer_told = Told(lawyer, await api.connect(lawyer.token))
    stranger_told = Told(stranger, await api.connect(stranger.token))
    user_socket = await api.connect(user.token)
    more = {} if max_amount is None else {"maxAmount": max_amount}
    session = await user.start(lawyer.id, **more)
    ids = {"session": session, "lawyer": lawyer.id}

    await lawyer_told.hears("session:started", 1)
    await lawyer_told.says("join_session", sessionId=session)
    await lawyer_told.says("send_message", sessionId=session, body="Good morning", clientMsgId="c1")
    assert (await user_socket.call("mark_seen", {"sessionId": session}))["ok"]
    await lawyer_told.hears("message_status", 1)
    for told, paths in ((lawyer_told, LAWYER_READS), (stranger_told, STRANGER_READS)):
        await told.reads(paths, **ids)
    await api.advance(35)
    await user.recharge("50.00")
    await lawyer_told.hears("session:recharged", 1)
    await lawyer_told.says("join_session", sessionId=session)
    await lawyer_told.says("message_delivered", sessionId=session, uptoSeq=1)
    for told, paths in ((lawyer_told, LAWYER_READS), (stranger_told, STRANGER_READS)):
        await told.reads(paths, **ids)
        await told.says("send_message", sessionId="unknown", body="x")
    refused = await stranger_told.person.post("/consult/start", {"lawyerId": lawyer.id})
    stranger_told.heard.append(("start", {**refused.json, "requestId": None}))
    ended = await lawyer.post(f"/consult/{session}/end")
    lawyer_told.heard.append(("end", ended.json))
    await lawyer_told.hears("session:ended", 1)
    for told, paths in ((lawyer_told, LAWYER_READS), (stranger_told, STRANGER_READS)):
        await told.reads(paths, **ids)
        told.listen()
    return lawyer_told, stranger_told


@pytest.mark.parametrize("tick_seconds", [10, 600], ids=["ticks of 10 s", "ticks of 10 min"])
async def test_nobody_can_tell_what_is_in_somebody_s_wallet(tmp_path: Path, tick_seconds: int) -> None:
    """A lawyer who knows what is left knows how slowly to talk."""
    stories = []
    for n, (balance, max_amount) in enumerate(
        [("300.00", None), ("407.53", None), ("99999.00", None), ("99999.00", "250.00")]
    ):
        directory = tmp_path / str(n)
        directory.mkdir()
        async with open_api(directory, tick_seconds=tick_seconds) as api:
            lawyer, stranger = await _a_consultation(api, balance=balance, max_amount=max_amount)
            stories.append((lawyer.story(), stranger.story()))
    for lawyer_story, stranger_story in stories[1:]:
        assert lawyer_story == stories[0][0]
        assert stranger_story == stories[0][1]


def _values(payload: Any) -> Iterator[tuple[str, Any]]:
    match payload:
        case dict():
            for name, value in payload.items():
                yield name, value
                yield from _values(value)
        case list():
            for value in payload:
                yield from _values(value)


async def test_the_lawyer_sees_remaining_seconds_from_120_downwards_only(tmp_path: Path) -> None:
    """Down to the last second of an emptied wallet, with nothing of the owner's on the way."""
    async with open_api(tmp_path) as api:
        user, lawyer = await api.a_user("140.00"), await api.a_lawyer()
        told = Told(lawyer, await api.connect(lawyer.token))
        mine = await api.connect(user.token)
        session = await user.start(lawyer.id)
        await told.hears("session:started", 1)
        seen: dict[int, int | None] = {}
        for second in range(1, 140):
            await api.advance(1)
            answer = await lawyer.get(f"/consult/{session}")
            told.heard.append(("get", answer.json))
            seen[140 - second] = answer.json["remainingSeconds"]
            assert (await user.get("/consult/active")).json["remainingSeconds"] == 140 - second
        assert seen == {left: left if left <= 120 else None for left in range(1, 140)}
        await api.advance(1)
        await told.hears("session:ended", 1)
        await told.says("join_session", sessionId=session)
        await told.reads(LAWYER_READS, session=session, lawyer=lawyer.id)
        told.listen()

        assert {event for event, _ in told.heard} >= {
            "session:started",
            "session:tick",
            "session:low_balance",
            "session:ended",
        }
        for where, payload in told.heard:
            for name, value in _values(payload):
                assert name not in THE_OWNERS or value is None, (where, name, value)
                if name == "remainingSeconds":
                    assert value is None or value <= 120, (where, value)
        # The same events tell the user.
        assert [tick["walletBalance"] for tick in mine.told("session:tick")][:3] == [
            "117.00",
            "107.00",
            "97.00",
        ]
        assert mine.told("session:ended")[0]["walletBalance"] == "0.00"
        assert [warning["remainingSeconds"] for warning in mine.told("session:low_balance")] == [120, 60, 30]


async def test_a_review_does_not_name_its_user(tmp_path: Path) -> None:
    async with open_api(tmp_path) as api:
        user, lawyer = await api.a_user("500.00"), await api.a_lawyer()
        session = await user.start(lawyer.id)
        await user.end(session)
        assert (await user.post("/review", {"sessionId": session, "rating": 1})).status == 201
        listed = await (await api.register()).get(f"/lawyer/{lawyer.id}/reviews")

        assert user.id not in listed.text
        assert user.email not in listed.text


async def test_nobody_s_address_or_password_is_shown_to_others(tmp_path: Path) -> None:
    async with open_api(tmp_path) as api:
        lawyer, other = await api.a_lawyer(), await api.register()
        for path in ("/lawyers", f"/lawyer/{lawyer.id}", f"/lawyer/{lawyer.id}/reviews"):
            text = (await other.get(path)).text
            assert lawyer.email not in text
            assert "password" not in text.lower()
            assert "KAR/" not in text
