"""Lists as an app walks them: every row once while new ones arrive, and no cursor that shows somebody else's."""

import base64
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import orjson
import pytest

from server.wire import encode_cursor
from tests.support.api import Api, Person, open_api

#: Rows made before the walk begins; no multiple of the page's size.
ROWS = 13
PAGE = 4


@dataclass
class World:
    api: Api
    user: Person
    lawyer: Person

    async def consult(self, seconds: float = 1) -> str:
        session_id = await self.user.start(self.lawyer.id)
        await self.api.advance(seconds)
        await self.user.end(session_id)
        return session_id


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with open_api(tmp_path) as api:
        yield World(api, await api.a_user("10000.00"), await api.a_lawyer())


@dataclass(frozen=True)
class Walk:
    """A list: who walks it, where, what tells its rows apart, and how another row comes to be."""

    caller: Callable[[World], Awaitable[Person]]
    path: str
    key: str
    add: Callable[[World, int], Awaitable[Any]]


async def _user(world: World) -> Person:
    return world.user


async def _lawyer(world: World) -> Person:
    return world.lawyer


async def _admin(world: World) -> Person:
    return await world.api.admin()


async def _recharge(world: World, _: int) -> None:
    await world.user.recharge("1.00")


async def _consult(world: World, _: int) -> None:
    await world.consult()


async def _consult_at_once(world: World, _: int) -> None:
    """All in one millisecond: only their ids tell them apart."""
    await world.consult(0)


async def _review(world: World, n: int) -> None:
    session_id = await world.consult(0)
    answer = await world.user.post("/review", {"sessionId": session_id, "rating": 1 + n % 5})
    assert answer.status == 201, answer.text


async def _new_lawyer(world: World, n: int) -> None:
    await world.api.a_lawyer(rate=f"{10 + n % 3}.00")


async def _applicant(world: World, _: int) -> None:
    await world.api.a_lawyer(verified=False, online=False)


async def _new_user(world: World, _: int) -> None:
    await world.api.register(name="Common Name")


async def _verdict(world: World, _: int) -> None:
    admin = await world.api.admin()
    assert (await admin.patch(f"/lawyer/{world.lawyer.id}/verify")).status == 200


WALKS = {
    "transactions": Walk(_user, "/wallet/transactions?", "id", _recharge),
    "consultations": Walk(_user, "/consult?", "sessionId", _consult),
    "consultations of one millisecond": Walk(_user, "/consult?", "sessionId", _consult_at_once),
    "the lawyer's consultations": Walk(_lawyer, "/consult?", "sessionId", _consult),
    "earnings": Walk(_lawyer, "/lawyer/earnings?", "sessionId", _consult),
    "reviews": Walk(_user, "/lawyer/{lawyer}/reviews?", "id", _review),
    "lawyers by rating": Walk(_user, "/lawyers?", "id", _new_lawyer),
    "lawyers by rate": Walk(_user, "/lawyers?sort=rate&", "id", _new_lawyer),
    "free lawyers": Walk(_user, "/lawyers?free=true&online=true&", "id", _new_lawyer),
    "users": Walk(_admin, "/admin/users?", "id", _new_user),
    "users of one role": Walk(_admin, "/admin/users?role=USER&disabled=false&", "id", _new_user),
    "users of one name": Walk(_admin, "/admin/users?query=name+comm&", "id", _new_user),
    "all consultations": Walk(_admin, "/admin/sessions?", "sessionId", _consult_at_once),
    "ended consultations": Walk(_admin, "/admin/sessions?status=ENDED&", "sessionId", _consult),
    "somebody's ledger": Walk(_admin, "/admin/users/{user}/ledger?", "id", _consult),
    "what admins did": Walk(_admin, "/admin/audit?action=lawyer.verify&", "id", _verdict),
    "the admin's queue": Walk(_admin, "/admin/lawyers?verified=false&", "id", _applicant),
}


@pytest.mark.parametrize("walk", WALKS.values(), ids=list(WALKS))
async def test_a_walk_meets_every_row_once_while_rows_are_added(world: World, walk: Walk) -> None:
    """A statement that leaves a payment out, or shows it twice, is a dispute."""
    for n in range(ROWS):
        await walk.add(world, n)
    caller = await walk.caller(world)
    path = walk.path.format(lawyer=world.lawyer.id, user=world.user.id)
    at_first = {row[walk.key] for row in (await caller.get(f"{path}limit=100")).json["items"]}
    assert len(at_first) >= ROWS

    met: list[str] = []
    cursor, pages = "", 0
    while True:
        page = (await caller.get(f"{path}limit={PAGE}{cursor}")).json
        assert list(page) == ["items", "nextCursor"]
        assert len(page["items"]) <= PAGE
        met += [row[walk.key] for row in page["items"]]
        pages += 1
        if page["nextCursor"] is None:
            break
        assert page["items"]
        cursor = f"&cursor={page['nextCursor']}"
        await walk.add(world, 100 + pages)

    assert len(set(met)) == len(met)
    assert at_first <= set(met)


async def test_the_newest_is_first_and_balances_join_up(world: World) -> None:
    for n in range(5):
        await world.api.advance(1)
        await world.user.recharge(f"{n + 1}.00")
        await world.consult(n + 1)

    rows = (await world.user.get("/wallet/transactions")).json["items"]
    assert [row["createdAt"] for row in rows] == sorted((row["createdAt"] for row in rows), reverse=True)
    for newer, older in pairwise(rows):
        assert newer["balanceBefore"] == older["balanceAfter"]
    assert [row["type"] for row in rows] == [*["DEBIT", "CREDIT"] * 5, "CREDIT"]
    assert rows[0]["balanceAfter"] == (await world.user.get("/wallet/balance")).json["walletBalance"]
    sessions = (await world.user.get("/consult")).json["items"]
    assert [session["startedAt"] for session in sessions] == sorted(
        (session["startedAt"] for session in sessions), reverse=True
    )


async def test_a_chat_is_paged_back_in_time_and_forward_from_a_seq(world: World) -> None:
    session_id = await world.user.start(world.lawyer.id)
    phone = await world.api.connect(world.user.token)

    async def say(n: int) -> None:
        ack = await phone.call("send_message", {"sessionId": session_id, "body": f"message {n}"})
        assert ack["ok"], ack

    for n in range(1, ROWS + 1):
        await say(n)

    back: list[int] = []
    cursor: str | None = ""
    while cursor is not None:
        page = (await world.lawyer.get(f"/chat/{session_id}?limit={PAGE}&{cursor}")).json
        seqs = [message["seq"] for message in page["items"]]
        assert seqs == sorted(seqs)
        back = seqs + back
        cursor = f"cursor={page['nextCursor']}" if page["nextCursor"] else None
        await say(99)
    assert back == list(range(1, ROWS + 1))

    forward: list[int] = []
    cursor = "afterSeq=2"
    last = 0
    while cursor is not None:
        page = (await world.user.get(f"/chat/{session_id}?limit={PAGE}&{cursor}")).json
        forward += [message["seq"] for message in page["items"]]
        last = page["lastSeq"]
        cursor = f"cursor={page['nextCursor']}" if page["nextCursor"] else None
    assert forward == list(range(3, last + 1))


def _forged(text: bytes) -> str:
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


async def test_a_forged_cursor_is_refused_and_one_of_another_list_shows_only_one_s_own(world: World) -> None:
    other = await world.api.a_user("10000.00")
    session_id = await world.user.start(world.lawyer.id)
    for _ in range(3):
        await world.user.recharge("1.00")
        await other.recharge("1.00")
    phone = await world.api.connect(world.user.token)
    for _ in range(3):
        await phone.call("send_message", {"sessionId": session_id, "body": "Hello"})
    lists = {
        f"/chat/{session_id}": world.user,
        "/wallet/transactions": world.user,
        "/consult": world.user,
        "/lawyer/earnings": world.lawyer,
        "/lawyers": world.user,
        "/lawyers?sort=rate": world.user,
        f"/lawyer/{world.lawyer.id}/reviews": world.user,
        "/admin/lawyers": await world.api.admin(),
        "/admin/users": await world.api.admin(),
        "/admin/users?query=a": await world.api.admin(),
        "/admin/sessions": await world.api.admin(),
        f"/admin/users/{world.user.id}/ledger": await world.api.admin(),
        "/admin/audit": await world.api.admin(),
    }
    real = [
        (await other.get("/wallet/transactions?limit=1")).json["nextCursor"],
        (await world.user.get(f"/chat/{session_id}?limit=1")).json["nextCursor"],
    ]
    assert all(real)
    forged = [
        *("x", "====", "null", "[]", "a" * 512, "😀", "%00", "../../etc/passwd", "-1", "0"),
        *(_forged(text) for text in (b"[]", b"{}", b"null", b"7", b'"x"', b"[1]", b"[1,2]", b'["a","b"]')),
        *(
            _forged(text)
            for text in (b'[1,"a","b"]', b'[true,"a"]', b'[1.5,"a"]', b'[1,{"$gt":""}]', b"\xff")
        ),
        *(_forged(text) for text in (b'[9223372036854775808,"a"]', b'[1,"' + b"a" * 300 + b'"]', b"[" * 100)),
        _forged(orjson.dumps([1, "\x00"])),
        _forged(b'[1,"\\ud800"]'),
        encode_cursor(-(2**62), "a"),
        encode_cursor(2**62, "a"),
        encode_cursor("after", -5),
        encode_cursor("before", -(2**62)),
        encode_cursor("before", 2**62),
        encode_cursor("sideways", 1),
        encode_cursor("rating", 2**62, "a"),
        encode_cursor("rating", -5, "'; DROP TABLE c_lawyers; --"),
    ]
    wrong = []
    before = world.api.everything()
    for path, caller in lists.items():
        own = {orjson.dumps(row) for row in (await caller.get(path)).json["items"]}
        for cursor in [*forged, *real]:
            answer = await caller.get(f"{path}{'&' if '?' in path else '?'}cursor={cursor}")
            if answer.status == 200:
                if not {orjson.dumps(row) for row in answer.json["items"]} <= own:
                    wrong.append(f"{path} {cursor}: shows {answer.text}")
            elif answer.status != 422 or answer.fields != ["cursor"]:
                wrong.append(f"{path} {cursor[:50]}: {answer.status} {answer.text[:200]}")
    assert wrong == []
    assert world.api.everything() == before


async def test_an_empty_or_endless_cursor_is_named(world: World) -> None:
    for cursor in ("", "a" * 513):
        answer = await world.user.get(f"/consult?cursor={cursor}")
        assert (answer.status, answer.fields) == (422, ["cursor"])
