"""Limits over real HTTP: who is sent away, for how long, and who must never be."""

import asyncio

import pytest

from server.auth.model import Role
from server.rate_limits.model import Allowance
from server.rate_limits.service import Allowances, Limited
from server.routes import ROUTES as ALL_ROUTES
from server.routes.auth import ROUTES
from tests.support.api import open_api
from tests.support.http import PASSWORD, HttpWorld, http_world

EMAIL = "asha@example.com"
HERE, STRANGERS = Allowance(5, 60_000), Allowance(8, 3_600_000)


async def _log_in(world: HttpWorld, password: str, *, address: str, email: str = EMAIL):
    return await world.client.post(
        "/auth/login",
        {"email": email, "password": password},
        headers={"X-Forwarded-For": address},
    )


@pytest.fixture
async def world(tmp_path):
    async with http_world(tmp_path, ROUTES, guard=(HERE, STRANGERS), trusted_proxies=1) as world:
        form = {"email": EMAIL, "password": PASSWORD, "name": "Asha"}
        assert (await world.client.post("/auth/register", form)).status == 201
        yield world


async def test_calls_from_one_address_are_limited_and_told_when_to_come_again(tmp_path):
    allowances = {Limited.REGISTER: Allowances(Allowance(2, 60_000))}
    async with http_world(tmp_path, ROUTES, allowances=allowances) as world:
        answers = [
            await world.client.post(
                "/auth/register",
                {"email": f"a{n}@example.com", "password": PASSWORD, "name": "A"},
                # Nobody in front of us is trusted: a made-up address does not help.
                headers={"X-Forwarded-For": f"6.6.6.{n}"},
            )
            for n in range(4)
        ]
        assert [answer.status for answer in answers] == [201, 201, 429, 429]
        assert answers[2].code == "RATE_LIMITED"
        assert answers[2].headers["Retry-After"] == "30"
        world.clock.jump_ms(30_000)
        form = {"email": "late@example.com", "password": PASSWORD, "name": "A"}
        assert (await world.client.post("/auth/register", form)).status == 201


async def test_guesses_at_one_address_run_dry_for_that_account_only(world):
    guesses = await asyncio.gather(*(_log_in(world, "wrong one", address="6.6.6.6") for _ in range(20)))

    assert sorted(guess.status for guess in guesses) == [401] * 5 + [429] * 15
    assert (await _log_in(world, "wrong one", address="6.6.6.6", email="other@example.com")).status == 401
    # The right password does not help a guesser who ran dry, and its answer does not tell.
    right = await _log_in(world, PASSWORD, address="6.6.6.6")
    assert (right.status, right.code) == (429, "RATE_LIMITED")
    world.clock.jump_ms(12_000)
    assert (await _log_in(world, PASSWORD, address="6.6.6.6")).status == 200


async def test_an_account_that_is_none_is_limited_alike(world):
    answers = [
        [(await _log_in(world, "wrong one", address="6.6.6.6", email=email)).status for _ in range(7)]
        for email in (EMAIL, "nobody@example.com")
    ]
    assert answers[0] == answers[1] == [401] * 5 + [429] * 2


async def test_many_addresses_run_dry_together_and_the_owner_still_gets_in(world):
    """A botnet guesses at one account: it must stop, and the person whose account it is must not be shut out by it."""
    assert (await _log_in(world, PASSWORD, address="1.1.1.1")).status == 200
    guesses = [await _log_in(world, "wrong one", address=f"6.6.{n}.1") for n in range(20)]

    assert [guess.status for guess in guesses] == [401] * 8 + [429] * 12
    assert (await _log_in(world, PASSWORD, address="6.6.99.1")).status == 429
    for _ in range(12):
        assert (await _log_in(world, PASSWORD, address="1.1.1.1")).status == 200


async def test_the_owner_at_a_new_address_gets_in_by_mail(world):
    for n in range(9):
        await _log_in(world, "wrong one", address=f"6.6.{n}.1")
    assert (await _log_in(world, PASSWORD, address="2.2.2.2")).status == 429
    await world.client.post("/auth/forgot", {"email": EMAIL})
    await world.outbox.send_due()
    token = world.letters.tokens()[0]
    body = {"token": token, "newPassword": "a new password"}
    assert (await world.client.post("/auth/reset", body)).status == 200

    assert (await _log_in(world, "a new password", address="2.2.2.2")).status == 200


async def test_right_passwords_are_not_counted(world):
    for n in range(30):
        assert (await _log_in(world, PASSWORD, address=f"7.7.{n}.1")).status == 200
    for _ in range(30):
        assert (await _log_in(world, PASSWORD, address="7.7.7.7")).status == 200


async def test_an_account_knows_its_latest_addresses_and_stores_none(world):
    for n in range(12):
        await _log_in(world, PASSWORD, address=f"7.7.{n}.1")
    account = await world.rows.of_email(EMAIL)

    assert len(account.known_addresses) == 8
    assert account.known_addresses[-1] == world.accounts._guard.mark_of("7.7.11.1")
    assert "7.7." not in str(account.known_addresses)


def test_the_routes_that_are_limited_are_the_known_ones():
    assert {route.name: route.rate.name.value for route in ALL_ROUTES if route.rate} == {
        "POST /auth/register": "register",
        "POST /lawyer/register": "register",
        "POST /auth/login": "login",
        "POST /auth/password": "password",
        "POST /auth/forgot": "password",
        "POST /auth/reset": "password",
        "DELETE /auth/me": "password",
        "POST /consult/start": "start",
        "POST /consult/queue": "start",
        "POST /wallet/recharge": "recharge",
        "POST /wallet/recharge/verify": "recharge",
        "POST /payment-methods/setup": "recharge",
        "POST /credits/initiate-purchase": "recharge",
        "POST /credits/verify-payment": "recharge",
        "PUT /api/company/webhook": "webhook",
        "POST /api/company/webhook/rotate-secret": "webhook",
        "POST /api/company/webhook/test": "webhook",
        "POST /api/company/members": "register",
        "POST /api/billing/recharge": "recharge",
        "POST /api/billing/payment-methods/setup": "recharge",
        "POST /api/credits/upgrade": "recharge",
        "POST /api/subscriptions/checkout": "recharge",
    }


async def test_the_settings_limit_recharges_by_account_and_move_no_money_beyond(tmp_path):
    settings = {"rate_limits": "on", "rate_limit_recharge_account": "2/minute"}
    async with open_api(tmp_path, **settings) as api:
        user, other = await api.register(Role.USER), await api.register(Role.USER)
        answers = [await user.post("/wallet/recharge", {"amount": "10.00"}) for _ in range(3)]
        assert [answer.status for answer in answers] == [201, 201, 429]
        assert (await other.post("/wallet/recharge", {"amount": "10.00"})).status == 201
        assert (await user.get("/wallet/balance")).json["walletBalance"] == "20.00"
