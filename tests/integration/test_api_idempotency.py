"""`Idempotency-Key` on the calls that move money: whatever a client repeats, and whenever, money moves once (SPEC 1)."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from server.idempotency import LEASE_MS, Idempotency
from server.storage.errors import StoreUnavailable
from tests.support.api import Api, ApiClock, Person, open_api


@dataclass
class World:
    api: Api
    user: Person
    lawyer: Person


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with open_api(tmp_path) as api:
        yield World(api, await api.register(), await api.a_lawyer())


async def _credits(person: Person) -> list[str]:
    rows = (await person.get("/wallet/transactions")).json["items"]
    return [row["amount"] for row in rows if row["type"] == "CREDIT"]


async def test_a_repeated_recharge_credits_once_and_answers_what_the_first_did(world: World) -> None:
    first = await world.user.recharge("100.00", key="k1")
    await world.user.recharge("7.00")
    again = await world.user.recharge("100.00", key="k1")

    assert again.json == first.json
    assert again.json["walletBalance"] == "100.00"
    assert again.headers["Idempotency-Replayed"] == "true"
    assert "Idempotency-Replayed" not in first.headers
    assert await _credits(world.user) == ["7.00", "100.00"]


async def test_the_same_key_with_another_amount_is_refused(world: World) -> None:
    await world.user.recharge("100.00", key="k1")
    before = world.api.everything()
    answer = await world.user.post("/wallet/recharge", {"amount": "200.00"}, key="k1")

    assert (answer.status, answer.code) == (422, "IDEMPOTENCY_KEY_REUSED")
    assert world.api.everything() == before


async def test_twenty_repeats_at_once_credit_once(world: World) -> None:
    """A phone that lost its connection sends again and again."""
    answers = await asyncio.gather(
        *(world.user.post("/wallet/recharge", {"amount": "50.00"}, key="k1") for _ in range(20))
    )

    assert {(answer.status, answer.json.get("code")) for answer in answers} <= {
        (201, None),
        (409, "IDEMPOTENCY_IN_PROGRESS"),
    }
    done = [answer.json for answer in answers if answer.status == 201]
    assert done
    assert all(answer == done[0] for answer in done)
    assert all("Retry-After" in answer.headers for answer in answers if answer.status == 409)
    assert await _credits(world.user) == ["50.00"]


async def test_a_key_is_its_caller_s_and_its_route_s(world: World) -> None:
    other = await world.api.a_user()
    await world.user.recharge("100.00", key="k1")
    await other.recharge("30.00", key="k1")
    started = await world.user.post("/consult/start", {"lawyerId": world.lawyer.id}, key="k1")
    ended = await world.user.post(f"/consult/{started.json['sessionId']}/end", key="k1")

    assert (started.status, ended.status) == (201, 200)
    assert await _credits(world.user) == ["100.00"]
    assert await _credits(other) == ["30.00"]


async def test_a_refused_start_may_be_tried_again_with_its_key_after_a_recharge(world: World) -> None:
    start = {"lawyerId": world.lawyer.id}
    poor = await world.user.post("/consult/start", start, key="k1")
    assert (poor.status, poor.code) == (402, "INSUFFICIENT_BALANCE")
    await world.user.recharge("100.00")
    started = await world.user.post("/consult/start", start, key="k1")
    assert started.status == 201, started.text

    again = await world.user.post("/consult/start", start, key="k1")
    assert (again.status, again.json) == (201, started.json)
    busy = await world.user.post("/consult/start", start, key="k2")
    assert (busy.status, busy.code) == (409, "USER_BUSY")


async def test_the_key_of_a_start_answers_the_first_session_also_after_its_end(world: World) -> None:
    """A lost reply must not become a second paid session."""
    await world.user.recharge("100.00")
    start = {"lawyerId": world.lawyer.id}
    started = await world.user.post("/consult/start", start, key="k1")
    await world.api.advance(10)
    await world.user.end(started.json["sessionId"])
    again = await world.user.post("/consult/start", start, key="k1")

    assert (again.status, again.json) == (201, started.json)
    assert (await world.user.get("/consult/active")).json is None
    assert len((await world.user.get("/consult")).json["items"]) == 1


async def test_the_key_of_an_end_answers_that_end_and_no_other_session_s(world: World) -> None:
    await world.user.recharge("100.00")
    session_id = await world.user.start(world.lawyer.id)
    await world.api.advance(10)
    first = await world.user.post(f"/consult/{session_id}/end", key="k1")
    again = await world.user.post(f"/consult/{session_id}/end", key="k1")
    with_another_key = await world.user.post(f"/consult/{session_id}/end", key="k2")
    without = await world.user.post(f"/consult/{session_id}/end")

    assert first.json["totalAmount"] == "10.00"
    assert first.json == again.json == with_another_key.json == without.json
    second = await world.user.start(world.lawyer.id)
    reused = await world.user.post(f"/consult/{second}/end", key="k1")
    assert (reused.status, reused.code) == (422, "IDEMPOTENCY_KEY_REUSED")
    assert (await world.user.get("/consult/active")).json["sessionId"] == second


async def test_a_start_whose_outcome_is_unknown_is_finished_under_its_key(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store went away in the middle: 503, and the repeat makes the one session whole, with one hold."""
    await world.user.recharge("100.00")
    sessions: Any = world.api.services.consultations._sessions
    move = sessions.move

    async def fails_once(*args: Any, **more: Any) -> bool:
        monkeypatch.setattr(sessions, "move", move)
        raise StoreUnavailable(reason="test")

    monkeypatch.setattr(sessions, "move", fails_once)
    start = {"lawyerId": world.lawyer.id}
    unknown = await world.user.post("/consult/start", start, key="k1")
    assert (unknown.status, unknown.code) == (503, "STORAGE_UNAVAILABLE")
    assert unknown.headers["Retry-After"]
    started = await world.user.post("/consult/start", start, key="k1")

    assert started.status == 201, started.text
    assert (await world.user.get("/consult/active")).json["sessionId"] == started.json["sessionId"]
    assert (await world.user.get("/wallet/balance")).json["held"] == "13.00"
    assert len((await world.user.get("/consult")).json["items"]) == 1


async def test_a_money_call_whose_answer_was_not_kept_is_run_again_and_moves_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a crash between the money and the answer: the row is there, unanswered, until its lease is over."""

    async def lost(*_: Any) -> None:
        raise StoreUnavailable(reason="test")

    await world.user.recharge("100.00")
    with monkeypatch.context() as patched:
        patched.setattr(Idempotency, "keep", lost)
        recharged = await world.user.recharge("20.00", key="k1")
        started = await world.user.post("/consult/start", {"lawyerId": world.lawyer.id}, key="k1")
        await world.api.advance(5)
        ended = await world.user.post(f"/consult/{started.json['sessionId']}/end", key="k1")
    running = await world.user.post("/wallet/recharge", {"amount": "20.00"}, key="k1")
    assert (running.status, running.code) == (409, "IDEMPOTENCY_IN_PROGRESS")

    await world.api.advance(LEASE_MS / 1000)
    again = await world.user.recharge("20.00", key="k1")
    same = await world.user.post("/consult/start", {"lawyerId": world.lawyer.id}, key="k1")

    assert again.json == recharged.json
    assert same.status == started.status == 201
    assert same.json["sessionId"] == started.json["sessionId"]
    end_again = await world.user.post(f"/consult/{started.json['sessionId']}/end", key="k1")
    assert (end_again.status, end_again.json) == (200, ended.json)
    assert ended.json["totalAmount"] == "5.00"
    assert await _credits(world.user) == ["20.00", "100.00"]
    assert len((await world.user.get("/consult")).json["items"]) == 1


async def test_keys_are_kept_over_a_restart(tmp_path: Path) -> None:
    clock = ApiClock()
    async with open_api(tmp_path, clock=clock) as api:
        user = await api.register()
        first = await user.recharge("100.00", key="k1")
    clock.jump_ms(400 * 86_400_000)
    async with open_api(tmp_path, clock=clock) as api:
        user = await api.log_in(user.email)
        again = await user.recharge("100.00", key="k1")
        assert again.json == first.json
        assert await _credits(user) == ["100.00"]


@pytest.mark.parametrize("path", ["/wallet/recharge", "/consult/start", "/consult/{session}/end"])
async def test_a_bad_key_is_named_and_moves_nothing(world: World, path: str) -> None:
    await world.user.recharge("500.00")
    session_id = await world.user.start(world.lawyer.id)
    body = {"amount": "10.00", "lawyerId": world.lawyer.id}
    before = world.api.everything()
    for key in ("", " ", "a b", "x" * 256, "ключ", "a\tb", "😀"):
        answer = await world.user.post(path.format(session=session_id), body, key=key)
        assert (answer.status, answer.code) == (422, "VALIDATION_FAILED"), (key, answer.text)
        assert answer.fields == ["Idempotency-Key"]
    assert world.api.everything() == before


async def test_a_key_where_none_is_taken_is_left_alone(world: World) -> None:
    for _ in range(2):
        answer = await world.lawyer.patch("/lawyer/availability", {"isOnline": True}, key="k1")
        assert answer.status == 200
        assert "Idempotency-Replayed" not in answer.headers
