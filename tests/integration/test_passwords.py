"""New passwords over real HTTP: who gets one set, who is put out, and what a stranger can find out."""

import asyncio
from dataclasses import replace

import pytest

from server.auth.model import FollowUp
from server.notifications.model import Kind
from server.routes.auth import ROUTES
from server.storage.errors import StoreUnavailable
from server.storage.repositories.notices import NOTICES
from tests.support.http import PASSWORD, RESET_MS, HttpWorld, http_world

NEW = "a new password"
EMAIL = "asha@example.com"


@pytest.fixture
async def world(tmp_path):
    async with http_world(tmp_path, ROUTES) as world:
        yield world


async def _registered(world: HttpWorld, email: str = EMAIL):
    form = {"email": email, "password": PASSWORD, "name": "Asha"}
    answer = await world.client.post("/auth/register", form)
    assert answer.status == 201, answer.text
    return answer.json


async def _log_in(world: HttpWorld, password: str = PASSWORD):
    return await world.client.post("/auth/login", {"email": EMAIL, "password": password})


async def _asked(world: HttpWorld, email: str = EMAIL) -> None:
    answer = await world.client.post("/auth/forgot", {"email": email})
    assert (answer.status, answer.json) == (202, {"ok": True, "expiresIn": 1800})
    await world.outbox.send_due()


async def _reset(world: HttpWorld, token: str, password: str = NEW):
    return await world.client.post("/auth/reset", {"token": token, "newPassword": password})


async def test_a_change_ends_the_other_log_ins_and_keeps_this_one(world):
    here = await _registered(world)
    there = (await _log_in(world)).json
    client = world.client.with_token(here["accessToken"])

    answer = await client.post("/auth/password", {"currentPassword": PASSWORD, "newPassword": NEW})

    assert (answer.status, answer.json) == (200, {"ok": True})
    assert (await client.get("/auth/me")).status == 200
    assert (await world.client.post("/auth/refresh", {"refreshToken": here["refreshToken"]})).status == 200
    assert (await world.client.with_token(there["accessToken"]).get("/auth/me")).status == 401
    assert (await world.client.post("/auth/refresh", {"refreshToken": there["refreshToken"]})).status == 401
    assert ((await _log_in(world)).status, (await _log_in(world, NEW)).status) == (401, 200)


async def test_a_wrong_current_password_changes_nothing(world):
    client = world.client.with_token((await _registered(world))["accessToken"])
    answer = await client.post("/auth/password", {"currentPassword": "wrong one", "newPassword": NEW})

    assert (answer.status, answer.code) == (403, "WRONG_PASSWORD")
    assert (await _log_in(world)).status == 200
    assert world.revoked == []


async def test_of_changes_at_once_one_is_made(world):
    """Two devices with the same old password: one of them must hear that its new one does not count."""
    pairs = [await _registered(world), (await _log_in(world)).json]
    clients = [world.client.with_token(pair["accessToken"]) for pair in pairs]
    answers = await asyncio.gather(
        *(
            clients[n % 2].post("/auth/password", {"currentPassword": PASSWORD, "newPassword": f"{NEW} {n}"})
            for n in range(6)
        )
    )

    # Those of the other device may also be put out by the winner before they are looked at.
    assert [answer.status for answer in answers].count(200) == 1
    assert {answer.status for answer in answers} <= {200, 401, 403}
    works = [(await _log_in(world, f"{NEW} {n}")).status == 200 for n in range(6)]
    assert works == [answer.status == 200 for answer in answers]


async def test_a_log_in_in_the_moment_of_the_change_does_not_survive_it(world):
    """The old password was right when it was looked at; a thief who has it must not stay in."""
    first = await _registered(world)
    account = await world.accounts.log_in(email=EMAIL, password=PASSWORD)
    client = world.client.with_token(first["accessToken"])
    await client.post("/auth/password", {"currentPassword": PASSWORD, "newPassword": NEW})

    with pytest.raises(Exception, match="INVALID_CREDENTIALS"):
        await world.sign_ins.open(account)
    assert len(await world.sign_ins._rows.live_families(account.id)) == 1


async def test_a_change_that_a_crash_cut_short_is_carried_out_later(world, monkeypatch):
    """The new password is set and the process dies: the thief's log-in must still end, and the owner hear of it."""
    first = await _registered(world)
    thief = (await _log_in(world)).json
    client = world.client.with_token(first["accessToken"])

    async def dead(*_args, **_more):
        raise StoreUnavailable

    with monkeypatch.context() as patch:
        patch.setattr(world.sign_ins._rows, "live_families", dead)
        answer = await client.post("/auth/password", {"currentPassword": PASSWORD, "newPassword": NEW})
    assert answer.status == 200
    assert (await world.client.post("/auth/refresh", {"refreshToken": thief["refreshToken"]})).status == 200
    fresh = (await _log_in(world, NEW)).json
    world.clock.jump_ms(1)

    assert await world.password_changes.heal() == 1
    assert await world.password_changes.heal() == 0
    await world.outbox.send_due()
    assert (await world.client.with_token(thief["accessToken"]).get("/auth/me")).status == 401
    assert (await client.get("/auth/me")).status == 200
    assert len(world.letters.of(Kind.PASSWORD_CHANGED)) == 1
    # Opened in the same millisecond as the change: it is only asked to log in once more.
    assert (await world.client.with_token(fresh["accessToken"]).get("/auth/me")).status in {200, 401}


async def test_the_owner_hears_of_a_changed_password_once(world):
    client = world.client.with_token((await _registered(world))["accessToken"])
    await client.post("/auth/password", {"currentPassword": PASSWORD, "newPassword": NEW})
    await world.outbox.send_due()
    await world.password_changes.heal()
    await world.outbox.send_due()

    [letter] = world.letters.of(Kind.PASSWORD_CHANGED)
    assert letter.email == EMAIL
    assert NEW not in letter.text


async def test_a_forgotten_password_is_set_anew_by_who_reads_the_mail(world):
    first = await _registered(world)
    await _asked(world, "ASHA@example.com")
    [letter] = world.letters.of(Kind.PASSWORD_RESET)
    [token] = world.letters.tokens()
    assert letter.email == EMAIL
    assert f"https://app.example.com/reset#{token}" in letter.text

    assert (await _reset(world, token)).status == 200
    assert ((await _log_in(world)).status, (await _log_in(world, NEW)).status) == (401, 200)
    assert (await world.client.with_token(first["accessToken"]).get("/auth/me")).status == 401


async def test_forgetting_looks_the_same_for_every_address(world):
    """An answer, or a write more, would tell a stranger who has an account with a lawyers' service."""
    await _registered(world)
    writes = []
    for email in (EMAIL, "nobody@example.com", "no address at all"):
        before = world.db.stats.committed_items
        answer = await world.client.post("/auth/forgot", {"email": email})
        writes.append((answer.status, answer.json, world.db.stats.committed_items - before))

    assert writes == [(202, {"ok": True, "expiresIn": 1800}, 1)] * 3
    await world.outbox.send_due()
    assert [letter.email for letter in world.letters.taken] == [EMAIL]
    assert await (await world.collections.open(NOTICES)).count({"state": "PENDING"}) == 0


async def test_a_disabled_account_gets_no_token_and_an_old_one_is_no_use(world):
    first = await _registered(world)
    await _asked(world)
    await world.control.disable(first["user"]["id"], reason="Fraud.", by="an admin")
    await _asked(world)

    assert len(world.letters.tokens()) == 1
    assert (await _reset(world, world.letters.tokens()[0])).code == "INVALID_RESET_TOKEN"


async def test_of_fifty_uses_of_one_token_one_wins(world):
    """A token that works twice lets the one who looked over a shoulder in as well."""
    await _registered(world)
    await _asked(world)
    [token] = world.letters.tokens()
    answers = await asyncio.gather(*(_reset(world, token, f"{NEW} {n}") for n in range(50)))

    statuses = [answer.status for answer in answers]
    assert (statuses.count(200), statuses.count(422)) == (1, 49)
    winner = statuses.index(200)
    assert (await _log_in(world, f"{NEW} {winner}")).status == 200
    assert (await _log_in(world, f"{NEW} {(winner + 1) % 50}")).status == 401


@pytest.mark.parametrize("late_ms", [0, 1])
async def test_a_token_expires(world, late_ms):
    await _registered(world)
    await _asked(world)
    world.clock.jump_ms(RESET_MS - 1 + late_ms)
    answer = await _reset(world, world.letters.tokens()[0])

    assert answer.status == (422 if late_ms else 200)


async def test_only_the_newest_token_works(world):
    await _registered(world)
    await _asked(world)
    await _asked(world)
    older, newer = world.letters.tokens()

    assert older != newer
    assert (await _reset(world, older)).code == "INVALID_RESET_TOKEN"
    assert (await _reset(world, newer)).status == 200


async def test_a_change_makes_an_outstanding_token_worthless(world):
    client = world.client.with_token((await _registered(world))["accessToken"])
    await _asked(world)
    await client.post("/auth/password", {"currentPassword": PASSWORD, "newPassword": NEW})

    assert (await _reset(world, world.letters.tokens()[0], "yet another")).status == 422


async def test_a_letter_that_goes_out_twice_has_the_same_token_and_a_used_one_stays_used(world):
    """The mail server took it and its answer was lost: the second copy must not be a second key."""
    await _registered(world)
    world.letters.lost_replies = 1
    await _asked(world)
    world.clock.jump_ms(60_000)
    await world.outbox.send_due()
    first, second = world.letters.tokens()
    assert first == second

    assert (await _reset(world, first)).status == 200
    [notice] = await (await world.collections.open(NOTICES)).find({"kind": "PASSWORD_RESET"})
    await (await world.collections.open(NOTICES)).update(
        notice["_id"], set_={"state": "PENDING", "email": EMAIL, "facts": {"nonce": "x"}, "next_at_ms": 0}
    )
    await world.outbox.send_due()
    assert world.letters.tokens() == [first, second]
    assert (await _reset(world, first)).status == 422


@pytest.mark.parametrize("token", ["x", ".", "a.b", "\N{GRINNING FACE}", "x" * 256])
async def test_a_made_up_token_is_refused(world, token):
    first = await _registered(world)
    for tried in (token, f"{first['user']['id']}.{token}"[:256]):
        answer = await _reset(world, tried)
        assert (answer.status, answer.code) == (422, "INVALID_RESET_TOKEN")


async def test_a_bad_new_password_spends_no_token(world):
    await _registered(world)
    await _asked(world)
    [token] = world.letters.tokens()

    assert (await _reset(world, token, "short")).fields == ["newPassword"]
    assert (await _reset(world, token)).status == 200


async def test_the_store_never_sees_a_token(world):
    """A stolen backup must not open every account whose owner forgot a password lately."""
    await _registered(world)
    await world.client.post("/auth/forgot", {"email": EMAIL})
    await world.outbox.send_due()
    [token] = world.letters.tokens()
    stored = world.db.read(
        lambda c: "".join(
            str(c.execute(f'SELECT * FROM "{name}"').fetchall())
            for (name,) in c.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        )
    )

    assert EMAIL in stored
    assert token not in stored
    assert token.rpartition(".")[2] not in stored


async def test_a_later_change_keeps_its_own_follow_up(world):
    """Settling the first change must not take the second one's for done."""
    first = await _registered(world)
    client = world.client.with_token(first["accessToken"])
    account_id = first["user"]["id"]
    await client.post("/auth/password", {"currentPassword": PASSWORD, "newPassword": NEW})
    account = await world.rows.get(account_id)
    change = replace(account.password_change, id="later")
    await world.rows.set_password(
        account_id, account.password_hash, change, expect_version=account.password_version
    )

    assert not await world.rows.settle(account_id, FollowUp.PASSWORD, account.password_change.id)
    assert await world.password_changes.heal() == 1
