"""Identity over real HTTP: who gets in, who stays in, and who is put out."""

import asyncio
from pathlib import Path

import bcrypt
import jwt
import pytest

from server.auth.errors import PasswordsBusy
from server.auth.model import Account, Role
from server.auth.passwords import Passwords
from server.auth.sign_ins import SignIns
from server.routes.auth import ROUTES
from server.storage.repositories.users import USERS
from tests.support.http import PASSWORD, SECRET, HttpWorld, http_world


@pytest.fixture
async def world(tmp_path: Path):
    async with http_world(tmp_path, ROUTES) as world:
        yield world


def _form(email: str = "asha@example.com", **more: object) -> dict[str, object]:
    return {"email": email, "password": PASSWORD, "name": "Asha", **more}


async def _registered(world: HttpWorld, email: str = "asha@example.com") -> dict[str, str]:
    answer = await world.client.post("/auth/register", _form(email))
    assert answer.status == 201, answer.text
    return answer.json


async def test_register_answers_the_account_and_working_tokens(world):
    answer = await world.client.post("/auth/register", _form())

    assert answer.status == 201
    assert answer.json["user"].keys() >= {"id", "email", "name", "role"}
    assert answer.json["user"]["role"] == "USER"
    assert "password" not in answer.text.lower()
    me = await world.client.with_token(answer.json["accessToken"]).get("/auth/me")
    assert me.json == answer.json["user"]


async def test_an_address_is_one_account_in_any_case(world):
    """Two wallets behind one inbox: whoever resets the password gets the other's money."""
    await _registered(world, "Asha@Example.com")
    again = await world.client.post("/auth/register", _form("asha@example.COM"))

    assert (again.status, again.code) == (409, "EMAIL_TAKEN")
    assert (
        await world.client.post("/auth/login", {"email": "ASHA@example.com", "password": PASSWORD})
    ).status == 200


async def test_of_many_registrations_of_one_address_one_wins(world):
    answers = await asyncio.gather(*(world.client.post("/auth/register", _form()) for _ in range(12)))

    assert sorted(answer.status for answer in answers) == [201, *[409] * 11]
    users = await (await world.collections.open(USERS)).count({})
    assert users == 1


async def test_an_account_that_never_got_its_address_blocks_nobody(world):
    """A crash between account and claim: the person registers again and must get in."""
    rows = world.accounts._rows
    await rows.add(await _orphan(world))
    answer = await world.client.post("/auth/register", _form("orphan@example.com"))

    assert answer.status == 201
    assert (
        await world.client.post("/auth/login", {"email": "orphan@example.com", "password": PASSWORD})
    ).status == 200


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"email": "not-an-address"}, "email"),
        ({"email": "a@b"}, "email"),
        ({"email": "a b@example.com"}, "email"),
        ({"email": f"{'x' * 250}@example.com"}, "email"),
        ({"email": 7}, "email"),
        ({"password": "short"}, "password"),
        ({"password": "x" * 73}, "password"),
        ({"password": "\N{GRINNING FACE}" * 19}, "password"),
        ({"name": "  "}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"name": "x" * 121}, "name"),
        ({"role": "ADMIN"}, "role"),
        ({"role": "LAWYER"}, "role"),
        ({"role": "KING"}, "role"),
        ({"role": "FREELANCER"}, "profession"),
        ({"role": "FREELANCER", "profession": "singer"}, "profession"),
        ({"role": "COMPANY"}, "companyName"),
        ({"profession": "videographer"}, "profession"),
        ({"companyName": "Acme"}, "companyName"),
    ],
)
async def test_a_bad_registration_names_its_field(world, change, field):
    answer = await world.client.post("/auth/register", _form() | change)

    assert (answer.status, answer.code) == (422, "VALIDATION_FAILED")
    assert answer.fields == [field]


@pytest.mark.parametrize(
    "more",
    [
        {"role": "FREELANCER", "profession": "video_editor"},
        {"role": "COMPANY", "companyName": "Acme"},
        {"role": "COMPANY", "company_name": "Acme"},
    ],
)
async def test_freelancers_and_companies_register(world, more):
    answer = await world.client.post("/auth/register", _form(**more))

    assert answer.status == 201
    assert answer.json["user"]["role"] == more["role"]


async def test_passwords_of_exactly_8_and_72_bytes_work(world):
    for index, password in enumerate(("12345678", "x" * 72, "\N{GRINNING FACE}" * 18)):
        email = f"p{index}@example.com"
        assert (await world.client.post("/auth/register", _form(email, password=password))).status == 201
        assert (await world.client.post("/auth/login", {"email": email, "password": password})).status == 200


async def test_a_wrong_address_and_a_wrong_password_look_the_same(world):
    """An answer that differs tells an attacker which addresses have accounts."""
    await _registered(world)
    answers = [
        await world.client.post("/auth/login", body)
        for body in (
            {"email": "asha@example.com", "password": "wrong password"},
            {"email": "nobody@example.com", "password": "wrong password"},
            {"email": "no address", "password": "wrong password"},
            {"email": "asha@example.com", "password": "x" * 80},
            {"email": "asha@example.com", "password": PASSWORD + "\ud7ff" * 30},
            {"email": "asha@example.com", "password": ""},
        )
    ]

    assert {(answer.status, answer.code, answer.json["detail"]) for answer in answers} == {
        (401, "INVALID_CREDENTIALS", "The email address or the password is wrong.")
    }
    assert all("WWW-Authenticate" in answer.headers for answer in answers)


async def test_every_login_hashes_once_at_the_same_cost(world, monkeypatch):
    """The time of bcrypt is what an attacker would measure."""
    await _registered(world)
    costs: list[bytes] = []
    real = bcrypt.checkpw

    def watched(password: bytes, hashed: bytes) -> bool:
        costs.append(hashed[:7])
        return real(password, hashed)

    monkeypatch.setattr(bcrypt, "checkpw", watched)
    for body in (
        {"email": "asha@example.com", "password": "wrong password"},
        {"email": "nobody@example.com", "password": "wrong password"},
        {"email": "asha@example.com", "password": "x" * 80},
    ):
        await world.client.post("/auth/login", body)

    assert costs == [b"$2b$04$"] * 3


async def test_a_password_that_only_begins_right_is_wrong(world):
    password = "x" * 72
    await world.client.post("/auth/register", _form(password=password))

    assert (
        await world.client.post("/auth/login", {"email": "asha@example.com", "password": password + "y"})
    ).status == 401


async def test_too_many_waiting_passwords_are_sent_away():
    """bcrypt is slow on purpose; an unbounded queue of it is a way to stop the server."""
    passwords = Passwords(cost=4, waiting_limit=3)
    results = await asyncio.gather(*(passwords.hash("password") for _ in range(10)), return_exceptions=True)
    passwords.close()

    assert sum(isinstance(result, PasswordsBusy) for result in results) == 7
    assert await _room_again()


async def _room_again() -> bool:
    passwords = Passwords(cost=4, waiting_limit=1)
    for _ in range(3):
        await passwords.hash("password")
    passwords.close()
    return True


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Bearer ", "Basic YTpi", "Bearer a.b.c", "Bearer " + "x" * 5000, "bearer\tx"],
)
async def test_without_a_good_token_nobody_is_known(world, header):
    answer = await world.client.get("/auth/me", headers={"Authorization": header} if header else {})

    assert (answer.status, answer.code) == (401, "UNAUTHENTICATED")
    assert answer.headers["WWW-Authenticate"].startswith('Bearer realm="tarazu"')


def _claims(world: HttpWorld, good: str) -> dict[str, object]:
    return jwt.decode(good, options={"verify_signature": False})


@pytest.mark.parametrize("missing", ["sub", "role", "fam", "iat", "exp", "jti", "iss", "aud"])
async def test_a_token_without_a_claim_is_refused(world, missing):
    claims = _claims(world, (await _registered(world))["accessToken"])
    del claims[missing]
    answer = await world.client.with_token(jwt.encode(claims, SECRET, algorithm="HS256")).get("/auth/me")
    assert answer.status == 401


@pytest.mark.parametrize(
    "change",
    [
        {"iss": "other"},
        {"aud": "other"},
        {"role": "KING"},
        {"role": ["ADMIN"]},
        {"exp": 1},
        {"exp": "soon"},
        {"exp": 1e30},
        {"fam": "unknown"},
        {"fam": 7},
        {"sub": "somebody-else"},
    ],
)
async def test_a_token_with_a_wrong_claim_is_refused(world, change):
    claims = _claims(world, (await _registered(world))["accessToken"]) | change
    answer = await world.client.with_token(jwt.encode(claims, SECRET, algorithm="HS256")).get("/auth/me")
    assert answer.status == 401


async def test_a_token_of_another_secret_or_algorithm_is_refused(world):
    """Whoever can choose the algorithm signs themselves in as an admin."""
    claims = _claims(world, (await _registered(world))["accessToken"])
    for forged in (
        jwt.encode(claims, SECRET[::-1], algorithm="HS256"),
        jwt.encode(claims, SECRET * 2, algorithm="HS512"),
        jwt.encode(claims, None, algorithm="none"),
    ):
        assert (await world.client.with_token(forged).get("/auth/me")).status == 401


async def test_an_access_token_expires_to_the_second(world):
    client = world.client.with_token((await _registered(world))["accessToken"])

    world.clock.jump_ms(900_000 - 1)
    assert (await client.get("/auth/me")).status == 200
    world.clock.jump_ms(1)
    assert (await client.get("/auth/me")).status == 401


async def test_refresh_rotates(world):
    first = await _registered(world)
    second = await world.client.post("/auth/refresh", {"refreshToken": first["refreshToken"]})

    assert second.status == 200
    assert second.json["refreshToken"] != first["refreshToken"]
    assert (await world.client.with_token(second.json["accessToken"]).get("/auth/me")).status == 200
    third = await world.client.post("/auth/refresh", {"refreshToken": second.json["refreshToken"]})
    assert third.status == 200


async def test_a_lost_reply_is_asked_for_again_within_the_grace(world):
    """A phone in a tunnel: the rotation happened and its answer never came."""
    first = await _registered(world)
    lost = await world.client.post("/auth/refresh", {"refreshToken": first["refreshToken"]})
    world.clock.jump_ms(10_000)
    found = await world.client.post("/auth/refresh", {"refreshToken": first["refreshToken"]})

    assert found.status == 200
    for pair in (lost.json, found.json):
        assert (
            await world.client.post("/auth/refresh", {"refreshToken": pair["refreshToken"]})
        ).status == 200


async def test_a_used_token_after_the_grace_ends_the_whole_family(world):
    """Two hold the same token: one of them is a thief, and we cannot tell which."""
    first = await _registered(world)
    second = (await world.client.post("/auth/refresh", {"refreshToken": first["refreshToken"]})).json
    world.clock.jump_ms(10_001)
    stolen = await world.client.post("/auth/refresh", {"refreshToken": first["refreshToken"]})

    assert (stolen.status, stolen.code) == (401, "INVALID_REFRESH_TOKEN")
    assert (await world.client.post("/auth/refresh", {"refreshToken": second["refreshToken"]})).status == 401
    assert (await world.client.with_token(second["accessToken"]).get("/auth/me")).status == 401
    assert world.revoked == [(first["user"]["id"], _claims(world, first["accessToken"])["fam"])]
    # Another log-in of the same person is not touched.
    assert (
        await world.client.post("/auth/login", {"email": "asha@example.com", "password": PASSWORD})
    ).status == 200


async def test_refreshes_at_once_all_succeed_and_all_work(world):
    first = await _registered(world)
    answers = await asyncio.gather(
        *(world.client.post("/auth/refresh", {"refreshToken": first["refreshToken"]}) for _ in range(8))
    )

    assert [answer.status for answer in answers] == [200] * 8
    assert len({answer.json["refreshToken"] for answer in answers}) == 8
    world.clock.jump_ms(60_000)
    for answer in answers:
        assert (
            await world.client.post("/auth/refresh", {"refreshToken": answer.json["refreshToken"]})
        ).status == 200


async def test_a_refresh_token_expires(world):
    first = await _registered(world)
    world.clock.jump_ms(30 * 86_400_000)
    answer = await world.client.post("/auth/refresh", {"refreshToken": first["refreshToken"]})

    assert answer.status == 401
    assert world.revoked == []
    world.clock.jump_ms(1)
    assert await world.sign_ins.drop_expired() == 1
    assert await world.sign_ins.drop_expired() == 0


@pytest.mark.parametrize("token", ["x", "\N{GRINNING FACE}", "a" * 512])
async def test_an_unknown_refresh_token_is_refused(world, token):
    assert (await world.client.post("/auth/refresh", {"refreshToken": token})).status == 401


async def test_the_store_never_sees_a_refresh_token_or_a_password(world):
    """A stolen backup must not be a bunch of keys."""
    first = await _registered(world)
    rows = world.db.read(
        lambda c: [
            str(c.execute(f'SELECT * FROM "{name}"').fetchall())
            for (name,) in c.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        ]
    )
    stored = "".join(rows)

    assert "asha@example.com" in stored
    assert first["refreshToken"] not in stored
    assert PASSWORD not in stored


async def test_logout_ends_this_family_and_no_other(world):
    first = await _registered(world)
    other = (await world.client.post("/auth/login", {"email": "asha@example.com", "password": PASSWORD})).json
    client = world.client.with_token(first["accessToken"])

    out = await client.post("/auth/logout")
    assert (out.status, out.json) == (200, {"ok": True, "everywhere": False})
    assert (await client.get("/auth/me")).status == 401
    assert (await world.client.post("/auth/refresh", {"refreshToken": first["refreshToken"]})).status == 401
    assert (await world.client.with_token(other["accessToken"]).get("/auth/me")).status == 200
    assert world.revoked == [(first["user"]["id"], _claims(world, first["accessToken"])["fam"])]


async def test_logout_everywhere_ends_all(world):
    first = await _registered(world)
    other = (await world.client.post("/auth/login", {"email": "asha@example.com", "password": PASSWORD})).json
    stranger = await _registered(world, "ravi@example.com")

    assert (
        await world.client.with_token(first["accessToken"]).post("/auth/logout", {"everywhere": True})
    ).status == 200
    for pair in (first, other):
        assert (await world.client.with_token(pair["accessToken"]).get("/auth/me")).status == 401
        assert (
            await world.client.post("/auth/refresh", {"refreshToken": pair["refreshToken"]})
        ).status == 401
    assert (await world.client.with_token(stranger["accessToken"]).get("/auth/me")).status == 200
    assert world.revoked == [(first["user"]["id"], None)]


async def test_a_disabled_account_is_out_at_once_and_stays_out(world):
    first = await _registered(world)
    client = world.client.with_token(first["accessToken"])
    assert (await client.get("/auth/me")).status == 200

    await world.control.disable(first["user"]["id"], reason="For the test.", by="an admin")

    assert (await client.get("/auth/me")).status == 401
    assert (await world.client.post("/auth/refresh", {"refreshToken": first["refreshToken"]})).status == 401
    login = await world.client.post("/auth/login", {"email": "asha@example.com", "password": PASSWORD})
    assert (login.status, login.code) == (403, "ACCOUNT_DISABLED")
    wrong = await world.client.post(
        "/auth/login", {"email": "asha@example.com", "password": "wrong password"}
    )
    assert wrong.status == 401
    await world.control.enable(first["user"]["id"])
    assert (
        await world.client.post("/auth/login", {"email": "asha@example.com", "password": PASSWORD})
    ).status == 200


async def test_a_login_in_the_moment_of_disabling_does_not_survive_it(world):
    """The account was read before the flag was set, the family was stored after all others were ended."""
    first = await _registered(world)
    account = await world.accounts.get(first["user"]["id"])
    await world.control.disable(account.id, reason="For the test.", by="an admin")

    with pytest.raises(Exception, match="ACCOUNT_DISABLED"):
        await world.sign_ins.open(account)
    assert await world.sign_ins._rows.live_families(account.id) == []


async def test_what_ended_is_known_after_a_restart_without_asking(world):
    """Sockets are let in on the token alone."""
    first = await _registered(world)
    client = world.client.with_token(first["accessToken"])
    await client.post("/auth/logout")
    restarted = SignIns(
        rows=world.sign_ins._rows,
        accounts=world.sign_ins._accounts,
        access=world.sign_ins._access,
        clock=world.clock,
        new_id=lambda: "x",
        refresh_lifetime_ms=1,
        grace_ms=1,
    )
    restarted.verify(first["accessToken"])
    await restarted.load()
    with pytest.raises(Exception, match="UNAUTHENTICATED"):
        restarted.verify(first["accessToken"])


async def test_another_process_s_logout_is_known_within_five_seconds(world):
    first = await _registered(world)
    client = world.client.with_token(first["accessToken"])
    assert (await client.get("/auth/me")).status == 200
    await world.sign_ins._rows.end_family(
        _claims(world, first["accessToken"])["fam"], at_ms=world.clock.now_ms()
    )

    assert (await client.get("/auth/me")).status == 200
    world.clock.jump_ms(5_000)
    assert (await client.get("/auth/me")).status == 401


async def test_the_first_admin_is_made_once(world):
    made = await world.accounts.ensure_first_admin(email="boss@example.com", password=PASSWORD)
    again = await world.accounts.ensure_first_admin(email="boss2@example.com", password=PASSWORD)

    assert made is not None
    assert made.role is Role.ADMIN
    assert again is None
    assert await world.accounts.ensure_first_admin(email="", password="") is None
    login = await world.client.post("/auth/login", {"email": "boss@example.com", "password": PASSWORD})
    assert login.json["user"]["role"] == "ADMIN"


async def test_the_admin_s_address_does_not_promote_an_account_that_has_it(world):
    """Somebody registers the address first: they must not become the admin."""
    await _registered(world, "boss@example.com")
    assert await world.accounts.ensure_first_admin(email="boss@example.com", password=PASSWORD) is None
    assert not await world.accounts._rows.has_admin()


async def _orphan(world: HttpWorld):
    return Account(
        id="orphan",
        email="orphan@example.com",
        name="Orphan",
        role=Role.USER,
        password_hash="-",
        created_at_ms=world.clock.now_ms(),
    )
