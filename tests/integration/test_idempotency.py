"""`Idempotency-Key` over real HTTP: the same request moves money once, whatever happens in between."""

import asyncio
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from billing_engine.errors import NotEnough, Unavailable
from server.auth.model import Role
from server.errors import IdempotencyInProgress
from server.idempotency import LEASE_MS
from server.routing import Call, Reply, Route, only
from server.storage.repositories.idempotency import IDEMPOTENCY
from server.wire import MoneyIn, WireModel
from tests.support.http import PASSWORD, HttpWorld, http_world


class PayIn(WireModel):
    amount: MoneyIn
    note_text: str = ""


class PayOut(WireModel):
    operation: str
    times: int


@dataclass
class Till:
    """Stands for a use case that moves money: remembers what it did under which operation."""

    done: dict[str, int] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    fail: list[Exception] = field(default_factory=list)
    entered: asyncio.Event = field(default_factory=asyncio.Event)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.go_on.set()


async def _pay(call: Call[PayIn, None]) -> Reply:
    till: Till = call.services.till
    till.calls.append(call.operation_id)
    till.entered.set()
    await till.go_on.wait()
    if till.fail:
        error = till.fail.pop(0)
        if not isinstance(error, NotEnough):
            till.done.setdefault(call.operation_id, len(till.done) + 1)
        raise error
    times = till.done.setdefault(call.operation_id, len(till.done) + 1)
    return Reply(PayOut(operation=call.operation_id, times=times))


def _route(path: str) -> Route:
    return Route(
        method="POST",
        path=path,
        handler=_pay,
        summary="Pay",
        access=only(Role.USER),
        body=PayIn,
        response=PayOut,
        status=201,
        idempotent=True,
    )


@pytest.fixture
async def world(tmp_path: Path):
    async with http_world(tmp_path, [_route("/pay"), _route("/pay/{thing}")], till=Till()) as world:
        yield world


def _till(world: HttpWorld) -> Till:
    return world.services.till


async def test_the_same_key_and_body_give_the_first_answer_again(world):
    """A client that retries after a lost reply pays once."""
    client = await world.signed_in()
    first = await client.post("/pay", {"amount": "5.00"}, key="k")
    again = await client.post("/pay", {"amount": "5.00"}, key="k")

    assert (first.status, again.status) == (201, 201)
    assert again.json == first.json
    assert again.text == first.text
    assert "Idempotency-Replayed" not in first.headers
    assert again.headers["Idempotency-Replayed"] == "true"
    assert _till(world).calls == [first.json["operation"]]


async def test_the_answer_is_kept_for_ever(world):
    client = await world.signed_in(email="asha@example.com")
    first = await client.post("/pay", {"amount": "5.00"}, key="k")
    world.clock.jump_ms(20 * 365 * 86_400_000)
    account = await world.accounts.log_in(email="asha@example.com", password=PASSWORD)
    later = world.client.with_token((await world.sign_ins.open(account)).access_token)

    assert (await later.post("/pay", {"amount": "5.00"}, key="k")).text == first.text
    assert len(_till(world).calls) == 1


async def test_the_spelling_of_the_body_does_not_matter(world):
    client = await world.signed_in()
    await client.post("/pay", {"amount": "5.00", "noteText": "x"}, key="k")
    again = await client.post("/pay", raw=b'{"note_text" : "x",  "amount":"5.00", "other": 1}', key="k")

    assert again.status == 201
    assert len(_till(world).calls) == 1


@pytest.mark.parametrize("body", [{"amount": "5.01"}, {"amount": "5.00", "noteText": "x"}])
async def test_the_same_key_with_another_body_is_refused(world, body):
    """A client that reuses keys would else believe that its second payment happened."""
    client = await world.signed_in()
    await client.post("/pay", {"amount": "5.00"}, key="k")
    other = await client.post("/pay", body, key="k")

    assert (other.status, other.code) == (422, "IDEMPOTENCY_KEY_REUSED")
    assert len(_till(world).calls) == 1


async def test_the_same_key_on_another_object_is_refused(world):
    client = await world.signed_in()
    assert (await client.post("/pay/a", {"amount": "5.00"}, key="k")).status == 201
    assert (await client.post("/pay/b", {"amount": "5.00"}, key="k")).code == "IDEMPOTENCY_KEY_REUSED"


async def test_a_key_belongs_to_its_caller_and_route(world):
    """Somebody else's answer must never come back."""
    one, two = await world.signed_in(), await world.signed_in()
    answers = [
        await one.post("/pay", {"amount": "5.00"}, key="k"),
        await two.post("/pay", {"amount": "5.00"}, key="k"),
        await one.post("/pay/a", {"amount": "5.00"}, key="k"),
    ]

    assert [answer.status for answer in answers] == [201] * 3
    assert len({answer.json["operation"] for answer in answers}) == 3


async def test_while_the_first_runs_the_second_waits_outside(world):
    client, till = await world.signed_in(), _till(world)
    till.go_on.clear()
    first = asyncio.create_task(client.post("/pay", {"amount": "5.00"}, key="k"))
    await till.entered.wait()
    second = await client.post("/pay", {"amount": "5.00"}, key="k")
    till.go_on.set()

    assert (second.status, second.code) == (409, "IDEMPOTENCY_IN_PROGRESS")
    assert second.headers["Retry-After"] == "15"
    assert (await first).status == 201
    assert len(till.calls) == 1


async def test_of_many_at_once_one_moves_money(world):
    client, till = await world.signed_in(), _till(world)
    answers = await asyncio.gather(*(client.post("/pay", {"amount": "5.00"}, key="k") for _ in range(30)))

    assert {answer.status for answer in answers} <= {201, 409}
    assert len(till.calls) == 1
    assert len({answer.text for answer in answers if answer.status == 201}) == 1


async def test_a_crash_leaves_the_row_and_the_retry_runs_the_same_operation(world):
    """The process died after the money moved and before the answer was stored."""
    client, till = await world.signed_in(), _till(world)
    till.go_on.clear()
    lost = asyncio.create_task(client.post("/pay", {"amount": "5.00"}, key="k"))
    await till.entered.wait()
    world.clock.jump_ms(LEASE_MS)
    till.go_on.set()
    again = await client.post("/pay", {"amount": "5.00"}, key="k")

    assert again.status == 201
    assert (await lost).json == again.json
    assert set(till.calls) == {again.json["operation"]}
    assert len(till.done) == 1


async def test_only_one_takes_over_what_a_crash_left(world):
    client, till = await world.signed_in(), _till(world)
    till.go_on.clear()
    lost = asyncio.create_task(client.post("/pay", {"amount": "5.00"}, key="k"))
    await till.entered.wait()
    world.clock.jump_ms(LEASE_MS)
    rest = [asyncio.create_task(client.post("/pay", {"amount": "5.00"}, key="k")) for _ in range(10)]
    refused = 0
    for done in asyncio.as_completed(rest):
        refused += (await done).status == 409
        if refused == 9:
            break
    till.go_on.set()

    assert len(till.calls) == 2
    assert (await lost).status == 201
    assert sorted([(await task).status for task in rest]) == [201, *[409] * 9]


async def test_what_was_refused_may_be_tried_again_with_the_same_key(world):
    """402, recharge, again: the client keeps its key."""
    client, till = await world.signed_in(), _till(world)
    till.fail = [NotEnough(required_minor=500)]
    short = await client.post("/pay", {"amount": "5.00"}, key="k")
    paid = await client.post("/pay", {"amount": "5.00"}, key="k")

    assert (short.status, short.json["required"]) == (402, "5.00")
    assert paid.status == 201
    assert len(set(till.calls)) == 2


@pytest.mark.parametrize("error", [Unavailable(), RuntimeError("boom")])
async def test_an_unknown_outcome_is_run_again_under_the_same_operation(world, error):
    """A 503 after the commit: running afresh would pay twice."""
    client, till = await world.signed_in(), _till(world)
    till.fail = [error]
    unknown = await client.post("/pay", {"amount": "5.00"}, key="k")
    again = await client.post("/pay", {"amount": "5.00"}, key="k")

    assert unknown.status in {500, 503}
    assert again.status == 201
    assert again.json["times"] == 1
    assert len(set(till.calls)) == 1


async def test_another_body_cannot_take_over_an_unknown_outcome(world):
    client, till = await world.signed_in(), _till(world)
    till.fail = [Unavailable()]
    await client.post("/pay", {"amount": "5.00"}, key="k")
    assert (await client.post("/pay", {"amount": "6.00"}, key="k")).code == "IDEMPOTENCY_KEY_REUSED"


async def test_a_late_refusal_does_not_drop_the_row_of_the_run_that_took_over(world):
    """The first run froze past its lease and is refused after the second has the row."""
    client, till = await world.signed_in(), _till(world)
    till.go_on.clear()
    frozen = asyncio.create_task(client.post("/pay", {"amount": "5.00"}, key="k"))
    await till.entered.wait()
    till.entered.clear()
    world.clock.jump_ms(LEASE_MS)
    second = asyncio.create_task(client.post("/pay", {"amount": "5.00"}, key="k"))
    await till.entered.wait()
    till.fail = [NotEnough()]
    till.go_on.set()
    statuses = sorted([(await frozen).status, (await second).status])
    third = await client.post("/pay", {"amount": "5.00"}, key="k")

    assert statuses == [201, 402]
    assert third.status == 201
    if "Idempotency-Replayed" in third.headers:
        assert len(set(till.calls)) == 1


async def test_an_answer_that_could_not_be_kept_is_given_all_the_same(world, monkeypatch):
    client, till = await world.signed_in(), _till(world)

    async def unavailable(*_: Any, **__: Any) -> None:
        raise Unavailable

    with monkeypatch.context() as patch:
        patch.setattr(world.idempotency._rows, "answer", unavailable)
        first = await client.post("/pay", {"amount": "5.00"}, key="k")
    world.clock.jump_ms(LEASE_MS)
    again = await client.post("/pay", {"amount": "5.00"}, key="k")

    assert first.status == again.status == 201
    assert first.json == again.json
    assert len(till.done) == 1


async def test_a_client_that_hangs_up_does_not_stop_the_money(world):
    """The commit may be half way: it goes on, and the retry finds the answer."""
    client, till = await world.signed_in(), _till(world)
    till.go_on.clear()
    async with aiohttp.ClientSession() as http:
        headers = {"Authorization": f"Bearer {client.token}", "Idempotency-Key": "k"}
        request = asyncio.create_task(
            http.post(f"{world.base_url}/pay", json={"amount": "5.00"}, headers=headers)
        )
        await till.entered.wait()
        request.cancel()
        await asyncio.gather(request, return_exceptions=True)
    till.go_on.set()
    while (again := await client.post("/pay", {"amount": "5.00"}, key="k")).status == 409:
        continue

    assert again.status == 201
    assert again.headers["Idempotency-Replayed"] == "true"
    assert len(till.calls) == 1


async def test_a_deploy_waits_for_the_money(world):
    """SIGTERM in the middle of a payment: its handler is cancelled, its operation is not."""
    client, till = await world.signed_in(), _till(world)
    till.go_on.clear()
    cut = asyncio.create_task(client.post("/pay", {"amount": "5.00"}, key="k"))
    await till.entered.wait()
    stopping = asyncio.create_task(world.runner.cleanup())
    await asyncio.gather(cut, return_exceptions=True)
    assert not stopping.done()
    till.go_on.set()
    await stopping

    rows = await world.collections.open(IDEMPOTENCY)
    assert [row["answered"] for row in await rows.find({})] == [True]
    assert len(till.done) == 1


async def test_only_the_run_that_has_the_row_may_give_it_back(world):
    """A frozen first run that is refused at last must not free the key under the run that took over."""
    ask = {"caller": "u", "route": "POST /pay", "key": "k", "fingerprint": "f"}
    frozen = await world.idempotency.begin(**ask)
    world.clock.jump_ms(LEASE_MS)
    second = await world.idempotency.begin(**ask)
    assert second.operation_id == frozen.operation_id

    await world.idempotency.forget(frozen)
    await world.idempotency.leave(frozen)
    with pytest.raises(IdempotencyInProgress):
        await world.idempotency.begin(**ask)
    await world.idempotency.forget(second)
    assert (await world.idempotency.begin(**ask)).operation_id != frozen.operation_id


async def test_of_two_that_saw_the_same_stale_row_one_takes_it(world):
    ask = {"caller": "u", "route": "POST /pay", "key": "k", "fingerprint": "f"}
    stale = await world.idempotency.begin(**ask)
    rows = world.idempotency._rows
    taken = [await rows.lease(replace(stale, run=run), expect_run=stale.run) for run in ("one", "two")]
    assert taken == [True, False]


@pytest.mark.parametrize("key", ["", "a b", "x" * 256, "\N{GRINNING FACE}", "a\tb"])
async def test_a_bad_key_is_named(world, key):
    client = await world.signed_in()
    answer = await client.post("/pay", {"amount": "5.00"}, key=key)

    assert (answer.status, answer.fields) == (422, ["Idempotency-Key"])
    assert _till(world).calls == []


async def test_two_keys_are_no_key(world):
    client = await world.signed_in()
    async with aiohttp.ClientSession() as http:
        headers = [
            ("Authorization", f"Bearer {client.token}"),
            ("Idempotency-Key", "a"),
            ("Idempotency-Key", "b"),
        ]
        async with http.post(f"{world.base_url}/pay", json={"amount": "1"}, headers=headers) as response:
            assert response.status == 422


async def test_a_key_of_255_characters_is_fine(world):
    client = await world.signed_in()
    assert (await client.post("/pay", {"amount": "5.00"}, key="~" * 255)).status == 201


async def test_without_a_key_every_request_is_its_own(world):
    client = await world.signed_in()
    answers = [await client.post("/pay", {"amount": "5.00"}) for _ in range(2)]

    assert len({answer.json["operation"] for answer in answers}) == 2


async def test_a_bad_request_leaves_its_key_free(world):
    client = await world.signed_in()
    assert (await client.post("/pay", {"amount": True}, key="k")).status == 422
    assert (await client.post("/pay", {"amount": "5.00"}, key="k")).status == 201


async def test_the_wrong_role_leaves_no_row(world):
    client = await world.signed_in(Role.LAWYER)
    assert (await client.post("/pay", {"amount": "5.00"}, key="k")).status == 403
    assert _till(world).calls == []
