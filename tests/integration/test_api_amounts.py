"""Money as clients write it, on every field that takes it: read exactly, or refused by name with nothing changed."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.api import Api, Person, open_api
from tests.support.http import PASSWORD, Answer

#: As they stand in the JSON. 400: not even JSON, or beyond any number; 422: JSON, and no amount.
NO_AMOUNTS: Final = (
    (400, "NaN"),
    (400, "Infinity"),
    (400, "-Infinity"),
    (400, "1e400"),
    (400, "-1e400"),
    (400, "1e-400"),
    (400, "1e999999999"),
    (400, "9" * 5_000),
    (400, "0." + "1" * 5_000),
    (400, "007"),
    (400, "+5"),
    (400, ".5"),
    (400, "5."),
    (400, "0x10"),
    (400, "1_000"),
    (422, "1e30"),
    (422, "1e16"),
    (422, "99999999999999999"),
    (422, "500.001"),
    (422, "1e-3"),
    (422, "true"),
    (422, "false"),
    (422, "[]"),
    (422, "[500]"),
    (422, "{}"),
    (422, '{"amount": 500}'),
    (422, '""'),
    (422, '" "'),
    (422, '" 500"'),
    (422, '"500 "'),
    (422, '"5 00"'),
    (422, r'"500\n"'),
    (422, r'"5\u200b00"'),
    (422, '"1e3"'),
    (422, '"NaN"'),
    (422, '"Infinity"'),
    (422, '"-Infinity"'),
    (422, '"nan"'),
    (422, '"0x10"'),
    (422, '"1_000"'),
    (422, '"1,000.00"'),
    (422, '"500,00"'),
    (422, '"₹500"'),
    (422, '"500.00 INR"'),
    (422, '"+500"'),
    (422, '"--500"'),
    (422, '"500.001"'),
    (422, '"500."'),
    (422, '".5"'),
    (422, '"."'),
    (422, '"٥٠٠"'),
    (422, '"५००"'),
    (422, '"５００"'),
    (422, '"²"'),
    (422, '"½"'),
    (422, r'"5\u0000"'),
    (422, r'"\ud800"'),
    (422, '"99999999999999999.00"'),
    (422, f'"{"9" * 400}"'),
    (422, '"-1"'),
    (422, "-1"),
    (422, "-0.01"),
    (422, '"0"'),
    (422, "0"),
    (422, "-0"),
    (422, "0.00"),
    (422, '"-0.00"'),
)


@dataclass
class World:
    api: Api
    user: Person
    lawyer: Person


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with open_api(tmp_path) as api:
        yield World(api, await api.a_user("500.00"), await api.a_lawyer())


def _calls(world: World) -> dict[str, tuple[Person, str, str, str]]:
    """Field → caller, method, path, body with the amount left out."""
    form = (
        f'"email": "new@example.com", "password": "{PASSWORD}", "name": "New", "barCouncilNumber": "X/1", '
        '"specializations": [], "languages": [], "bio": ""'
    )
    return {
        "amount": (world.user, "POST", "/wallet/recharge", '{"amount": %s}'),
        "maxAmount": (
            world.user,
            "POST",
            "/consult/start",
            f'{{"lawyerId": "{world.lawyer.id}", "maxAmount": %s}}',
        ),
        "ratePerMinute": (world.lawyer, "PATCH", "/lawyer/profile", '{"ratePerMinute": %s}'),
        "ratePerMinute of a new lawyer": (
            world.user,
            "POST",
            "/lawyer/register",
            f'{{{form}, "ratePerMinute": %s}}',
        ),
    }


@pytest.mark.parametrize("field", ["amount", "maxAmount", "ratePerMinute", "ratePerMinute of a new lawyer"])
async def test_what_is_no_amount_is_refused_by_name_and_changes_nothing(world: World, field: str) -> None:
    wrong = []
    caller, method, path, body = _calls(world)[field]
    before = world.api.everything()
    for status, written in NO_AMOUNTS:
        answer = await caller.call(method, path, raw=(body % written).encode())
        code = "MALFORMED_JSON" if status == 400 else "VALIDATION_FAILED"
        if (answer.status, answer.json.get("code")) != (status, code):
            wrong.append(f"{written[:60]}: {answer.status} {answer.text[:200]}")
        elif status == 422 and answer.fields != [field.partition(" ")[0]]:
            wrong.append(f"{written[:60]}: names {answer.text[:200]}")
    assert wrong == []
    assert world.api.everything() == before


@pytest.mark.parametrize(
    ("written", "credited"),
    [
        ('"250.75"', "250.75"),
        ("250.75", "250.75"),
        ("250.7", "250.70"),
        ('"250.7"', "250.70"),
        ("250", "250.00"),
        ('"250"', "250.00"),
        ("250.750", "250.75"),
        ('"250.7500"', "250.75"),
        ("2.5075e2", "250.75"),
        ("1e3", "1000.00"),
        # 0.29 * 100 is 28.999999999999996 in binary.
        ("1.29", "1.29"),
        ("99999.99", "99999.99"),
        ("1.00", "1.00"),
        ("100000.00", "100000.00"),
    ],
)
async def test_an_amount_is_read_exactly_as_it_was_written(world: World, written: str, credited: str) -> None:
    """A paisa lost in a float is a paisa stolen."""
    answer = await world.user.call("POST", "/wallet/recharge", raw=f'{{"amount": {written}}}'.encode())

    assert answer.status == 201, answer.text
    assert answer.json["amount"] == answer.json["transaction"]["amount"] == credited
    assert answer.json["transaction"]["balanceBefore"] == "500.00"
    whole, paise = credited.split(".")
    assert answer.json["walletBalance"] == f"{int(whole) + 500}.{paise}"


@pytest.mark.parametrize("amount", ["0.99", "0.01", "100000.01", "99999999"])
async def test_a_recharge_keeps_its_bounds(world: World, amount: str) -> None:
    answer = await world.user.post("/wallet/recharge", {"amount": amount})

    assert (answer.status, answer.code, answer.fields) == (422, "VALIDATION_FAILED", ["amount"])
    assert "1.00 to 100000.00" in answer.json["detail"]
    assert await _balance(world) == "500.00"


@pytest.mark.parametrize("body", ["{}", '{"amount": null}', '{"Amount": "5"}', '{"amount ": "5"}', ""])
async def test_a_recharge_without_an_amount_names_it(world: World, body: str) -> None:
    answer = await world.user.call("POST", "/wallet/recharge", raw=body.encode())

    assert (answer.status, answer.fields) == (422, ["amount"])


@pytest.mark.parametrize(
    "query", ["NaN", "Infinity", "1e3", "-1", "0", "", "5 0", "%2B5", "٥", "1.001", "9" * 50]
)
async def test_a_bad_highest_rate_is_named(world: World, query: str) -> None:
    answer: Answer = await world.user.get(f"/lawyers?maxRate={query}")

    assert (answer.status, answer.code, answer.fields) == (422, "VALIDATION_FAILED", ["maxRate"])


async def test_a_cap_below_the_minimum_time_is_refused_before_anything_else(world: World) -> None:
    answer = await world.user.post("/consult/start", {"lawyerId": world.lawyer.id, "maxAmount": "59.99"})

    assert (answer.status, answer.fields) == (422, ["maxAmount"])
    assert (await world.user.get("/consult/active")).json is None
    assert (
        await world.user.post("/consult/start", {"lawyerId": world.lawyer.id, "maxAmount": "60"})
    ).status == 201


async def _balance(world: World) -> Any:
    return (await world.user.get("/wallet/balance")).json["walletBalance"]
