"""Shutting, opening and deleting accounts in the whole server: everything follows, whatever is cut short, and the books stay."""

import asyncio
from contextlib import suppress

import pytest

from server.auth.model import FollowUp, Role
from server.storage.errors import StoreUnavailable
from server.storage.repositories.users import DELETED_NAME
from tests.support.api import Api, Person, open_api
from tests.support.faults import Died
from tests.support.http import PASSWORD


@pytest.fixture
async def api(tmp_path):
    async with open_api(tmp_path) as api:
        yield api


async def _disable(api: Api, person: Person) -> None:
    await api.services.control.disable(person.id, reason="Fraud.", by="an admin")
    await api.idle()


async def _session(api: Api, session_id: str) -> dict:
    return (await (await api.admin()).get(f"/consult/{session_id}")).json


async def _row(api: Api, person: Person):
    return await api.services.accounts.get(person.id)


async def _found(api: Api, lawyer: Person) -> list[object]:
    """How a stranger meets the lawyer: in the list, by id, as a quote, at a start."""
    user = await api.a_user("500.00")
    listed = (await user.get("/lawyers")).json["items"]
    return [
        lawyer.id in [item["id"] for item in listed],
        (await user.get(f"/lawyer/{lawyer.id}")).status,
        (await user.get(f"/consult/quote?lawyerId={lawyer.id}")).status,
        (await user.post("/consult/start", {"lawyerId": lawyer.id})).status,
    ]


@pytest.mark.parametrize("side", ["user", "lawyer"])
async def test_a_disabled_account_is_out_everywhere_and_its_session_ends_exactly(api, side):
    """The other party paid, or served, until this second, and not a second longer."""
    people = {"user": await api.a_user("500.00"), "lawyer": await api.a_lawyer()}
    shut, other = people[side], people["lawyer" if side == "user" else "user"]
    session = await people["user"].start(people["lawyer"].id)
    socket, others_socket = await api.connect(shut.token), await api.connect(other.token)
    await api.advance(25)

    await _disable(api, shut)

    await socket.gone.wait()
    [bye] = socket.told("server:bye")
    assert (bye["code"], bye["reason"], bye["reconnect"]) == (3501, "ACCOUNT_DISABLED", False)
    assert (await shut.get("/auth/me")).status == 401
    assert (await api.anonymous.post("/auth/refresh", {"refreshToken": shut.refresh_token})).status == 401
    ended = await _session(api, session)
    assert (ended["endReason"], ended["totalAmount"], ended["durationSeconds"]) == (
        "ACCOUNT_DISABLED",
        "25.00",
        25,
    )
    assert await api.services.consultations.active_of(other.id) is None
    assert others_socket.told("session:ended")[0]["reason"] == "ACCOUNT_DISABLED"
    assert (await _row(api, shut)).due == {}


async def test_a_disabled_lawyer_is_found_nowhere_and_back_offline_when_enabled(api):
    lawyer = await api.a_lawyer()
    await _disable(api, lawyer)
    assert await _found(api, lawyer) == [False, 404, 404, 404]

    await api.services.control.enable(lawyer.id)
    assert await _found(api, lawyer) == [True, 200, 200, 409]
    back = await api.log_in(lawyer.email)
    assert (await back.patch("/lawyer/availability", {"isOnline": True})).status == 200
    assert (await _found(api, lawyer))[3] == 201


async def test_disabling_again_keeps_who_and_why(api):
    user = await api.register()
    await _disable(api, user)
    await api.services.control.disable(user.id, reason="Another reason.", by="another admin")
    disabling = (await _row(api, user)).disabling

    assert (disabling.by, disabling.reason) == ("an admin", "Fraud.")


async def test_nobody_is_shut_who_is_not_there_and_no_admin_by_themselves(api):
    admin = await api.admin()
    with pytest.raises(Exception, match="NOT_FOUND"):
        await api.services.control.disable("nobody", reason="x", by=admin.id)
    with pytest.raises(Exception, match="OWN_ACCOUNT"):
        await api.services.control.disable(admin.id, reason="x", by=admin.id)


_STEPS = ("end_all", "suspend", "end_for_account", "post", "settle")


@pytest.mark.parametrize("failure", [Died, StoreUnavailable])
@pytest.mark.parametrize("step", _STEPS)
async def test_whatever_step_fails_the_next_round_finishes_it(api, monkeypatch, step, failure):
    """The flag is set and the process dies: the account must not stay half open."""
    control = api.services.control
    user, lawyer = await api.a_user("500.00"), await api.a_lawyer()
    session = await user.start(lawyer.id)
    ports = [control._sign_ins, control._lawyers, control._sessions, control._outbox, control._rows]
    port = next(port for port in ports if hasattr(port, step))

    async def fails(*_args, **_more):
        raise failure

    with monkeypatch.context() as patch:
        patch.setattr(port, step, fails)
        with pytest.raises(failure):
            await control.disable(lawyer.id, reason="Fraud.", by="an admin")
    assert FollowUp.STANDING in (await _row(api, lawyer)).due

    assert await control.heal() == 1
    await api.idle()
    assert await control.heal() == 0
    assert (await lawyer.get("/auth/me")).status == 401
    assert (await _session(api, session))["endReason"] == "ACCOUNT_DISABLED"
    assert await _found(api, lawyer) == [False, 404, 404, 404]


async def test_a_restart_finishes_what_the_crash_cut_short(tmp_path, monkeypatch):
    async with open_api(tmp_path) as api:
        lawyer = await api.a_lawyer()

        async def dies(_lawyer_id):
            raise Died

        monkeypatch.setattr(api.services.control._lawyers, "suspend", dies)
        with suppress(Died):
            await api.services.control.disable(lawyer.id, reason="Fraud.", by="an admin")
        clock = api.clock
    async with open_api(tmp_path, clock=clock) as api:
        assert await _found(api, lawyer) == [False, 404, 404, 404]
        assert (await _row(api, lawyer)).due == {}


async def test_disabling_and_enabling_at_once_end_as_the_row_says(api):
    lawyer = await api.a_lawyer()
    control = api.services.control
    for _ in range(10):
        await asyncio.gather(
            control.disable(lawyer.id, reason="Fraud.", by="an admin"),
            control.enable(lawyer.id),
            control.disable(lawyer.id, reason="Fraud.", by="an admin"),
        )
        account = await _row(api, lawyer)
        profile = await api.services.lawyers._profiles.get(lawyer.id)
        assert profile.is_suspended is account.is_disabled
        assert account.due == {}


@pytest.mark.parametrize("side", ["user", "lawyer"])
@pytest.mark.parametrize("turns", [0, 1, 2, 4, 7, 11, 16])
async def test_a_start_in_the_moment_of_disabling_does_not_survive_it(api, side, turns):
    """Neither saw the other: a shut account would go on paying, or being paid."""
    people = {"user": await api.a_user("500.00"), "lawyer": await api.a_lawyer()}
    start = asyncio.create_task(
        api.services.consultations.start(
            user_id=people["user"].id, lawyer_id=people["lawyer"].id, operation_id=f"start-{turns}"
        )
    )
    for _ in range(turns):
        await asyncio.sleep(0)
    await _disable(api, people[side])
    await asyncio.gather(start, return_exceptions=True)
    await api.idle()

    assert await api.services.consultations.active_of(people["user"].id) is None


async def test_a_session_that_a_crash_left_with_a_shut_account_ends_at_the_start(tmp_path, monkeypatch):
    async with open_api(tmp_path) as api:
        user, lawyer = await api.a_user("500.00"), await api.a_lawyer()
        session = await user.start(lawyer.id)

        async def nothing(_person_id):
            pass

        monkeypatch.setattr(api.services.control._sessions, "end_for_account", nothing)
        await _disable(api, user)
        clock = api.clock
    async with open_api(tmp_path, clock=clock) as api:
        assert (await _session(api, session))["endReason"] == "ACCOUNT_DISABLED"


# --- deletion


async def _delete(person: Person, **more):
    return await person.call("DELETE", "/auth/me", json={"password": PASSWORD, **more})


async def test_a_deleted_account_leaves_its_books_and_nothing_else(api):
    user, lawyer = await api.a_user("100.00"), await api.a_lawyer()
    session = await user.start(lawyer.id)
    await api.advance(40)
    await user.end(session)

    refused = await _delete(user)
    assert (refused.status, refused.code, refused.json["available"]) == (409, "BALANCE_NOT_EMPTY", "60.00")
    answer = await _delete(user, forfeit=True)
    await api.idle()

    assert (answer.status, answer.json) == (
        200,
        {"ok": True, "forfeited": "60.00", "forfeitedCredits": 0, "currency": "INR"},
    )
    assert (await user.get("/auth/me")).status == 401
    form = {"email": user.email, "password": PASSWORD}
    assert (await api.anonymous.post("/auth/login", form)).status == 401
    row = await _row(api, user)
    assert (row.name, row.email, row.password_hash, row.known_addresses) == (DELETED_NAME, "", "", ())
    assert row.due == {}
    stored = repr(api.everything())
    assert user.email not in stored
    # The books, and the lawyer's side of them.
    assert (await _session(api, session))["totalAmount"] == "40.00"
    assert (await lawyer.get("/lawyer/earnings/summary")).json["totalEarnings"] == "40.00"
    # The address is free, for somebody who is somebody else.
    again = await api.register(email=user.email)
    assert again.id != user.id
    assert (await again.get("/wallet/balance")).json["walletBalance"] == "0.00"


async def test_what_is_set_aside_for_a_payout_is_still_its_lawyers(api):
    """Deleted without a word, an account would leave a payout behind that nobody waits for."""
    user, lawyer = await api.a_user("500.00"), await api.a_lawyer()
    session = await user.start(lawyer.id)
    await api.advance(150)
    await user.end(session)
    assert (await lawyer.post("/lawyer/payouts", {"amount": "150.00"})).status == 201
    refused = await _delete(lawyer)
    assert (refused.status, refused.code, refused.json["available"]) == (409, "BALANCE_NOT_EMPTY", "150.00")


async def test_a_deleted_lawyer_is_nobody(api):
    lawyer = await api.a_lawyer()
    assert (await _delete(lawyer)).status == 200
    await api.idle()

    assert await _found(api, lawyer) == [False, 404, 404, 404]
    # What an admin verified stays written down: the number in the bar council's public register.
    stored = repr({name: rows for name, rows in api.everything().items() if name != "c_audit"})
    for personal in (lawyer.email, "KAR/", "Twenty years"):
        assert personal not in stored
    assert (await (await api.admin()).patch(f"/lawyer/{lawyer.id}/verify")).status == 404


async def test_a_deletion_needs_the_password_and_no_running_session(api):
    user, lawyer = await api.a_user("500.00"), await api.a_lawyer()
    wrong = await user.call("DELETE", "/auth/me", json={"password": "wrong one", "forfeit": True})
    assert (wrong.status, wrong.code) == (403, "WRONG_PASSWORD")
    await user.start(lawyer.id)
    for person in (user, lawyer):
        busy = await _delete(person, forfeit=True)
        assert (busy.status, busy.code) == (409, "IN_SESSION")
    assert (await user.get("/auth/me")).status == 200


async def test_the_last_admin_stays(api):
    admin = await api.admin()
    body = {"password": "the admin's password"}
    answer = await admin.call("DELETE", "/auth/me", json=body)
    assert (answer.status, answer.code) == (409, "LAST_ADMIN")
    await api.services.accounts.create_admin(email="b@example.com", password=PASSWORD, name="B")
    assert (await admin.call("DELETE", "/auth/me", json=body)).status == 200


async def test_deletions_at_once_delete_once(api):
    user = await api.register(Role.USER)
    answers = await asyncio.gather(*(_delete(user) for _ in range(6)))
    assert [answer.status for answer in answers].count(200) == 1
    assert {answer.status for answer in answers} <= {200, 401, 403}


@pytest.mark.parametrize(
    "step", ["end_all", "anonymise", "end_for_account", "post", "free_email", "erase", "settle"]
)
async def test_a_deletion_that_a_crash_cut_short_is_finished(api, monkeypatch, step):
    """Half deleted: a name that should be gone, or an address that nobody can use again."""
    control = api.services.control
    lawyer = await api.a_lawyer()
    ports = [control._sign_ins, control._lawyers, control._sessions, control._outbox, control._rows]
    port = next(port for port in ports if hasattr(port, step))

    async def dies(*_args, **_more):
        raise Died

    with monkeypatch.context() as patch:
        patch.setattr(port, step, dies)
        with pytest.raises(Died):
            await control.delete(lawyer.id, password=PASSWORD, forfeit=False)

    assert await control.heal() == 1
    await api.idle()
    assert await control.heal() == 0
    assert (await lawyer.get("/auth/me")).status == 401
    assert lawyer.email not in repr(api.everything())
    assert (await api.register(email=lawyer.email)).id != lawyer.id


async def test_a_disabled_account_that_is_deleted_meanwhile_stops_nobody_s_healing(api):
    user = await api.register()
    account = await _row(api, user)
    rows = api.services.control._rows
    await rows.delete(user.id, expect_version=account.password_version, at_ms=1, due="d")
    doc = {"standing_due": "s"}
    await rows._users.update(user.id, set_=doc)

    assert await api.services.control.heal() == 2
    assert (await _row(api, user)).due == {}


async def test_the_housekeeping_heals_within_a_minute(api, monkeypatch):
    user = await api.register()

    async def away(*_args, **_more):
        raise StoreUnavailable

    with monkeypatch.context() as patch:
        patch.setattr(api.services.control._sign_ins, "end_all", away)
        with suppress(StoreUnavailable):
            await api.services.control.disable(user.id, reason="Fraud.", by="an admin")
    assert (await user.get("/auth/me")).status == 200
    await api.advance(61)
    assert (await user.get("/auth/me")).status == 401
