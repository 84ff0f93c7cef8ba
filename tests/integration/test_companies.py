"""Companies over HTTP: keys that are shown once and stop at once, members who come by letter and go for good, owners who leave."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from server.auth.errors import EmailTaken
from server.auth.model import FollowUp, MemberAccess, Role
from server.companies.errors import ApiKeyNameTaken, TooManyApiKeys
from server.companies.model import KEYS_MAX, MEMBERS_MAX, PriceList, Scope
from server.companies.records import CompanyRecords
from server.notifications.model import Kind
from server.storage.errors import StoreUnavailable
from server.storage.repositories.companies import CollectionCompanies
from tests.support.api import Api, Person, open_api
from tests.support.companies import a_key, a_member, accept, invited, letters_of
from tests.support.http import PASSWORD, Client


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with open_api(tmp_path, access_token_minutes=1_440) as api:
        yield api


@pytest.fixture
async def acme(api: Api) -> Person:
    return await api.register(Role.COMPANY)


async def made(company: Client, name: str = "back end", scopes: tuple[str, ...] = ("usage", "read")) -> Any:
    answer = await company.post("/api/company/api-keys", {"name": name, "scopes": list(scopes)})
    assert answer.status == 201, answer.text
    return answer.json


async def revoke(company: Client, key_id: str) -> Any:
    return await company.call("DELETE", f"/api/company/api-keys/{key_id}")


async def reads(client: Client) -> int:
    return (await client.get("/api/company")).status


# --- keys


async def test_a_key_is_shown_once_and_nowhere_kept(
    api: Api, acme: Person, capfd: pytest.CaptureFixture[str]
) -> None:
    """Who reads the database, a backup or the log must not be able to call as the company."""
    key = await made(acme)
    assert set(key) == {"keyId", "name", "scopes", "key", "createdAt"}
    secret = key["key"].rpartition(key["keyId"])[2].removeprefix("_")
    assert len(secret) == 43
    caller = acme.with_token(key["key"])
    assert await reads(caller) == 200
    for path in ("/wallet/balance", "/auth/me", f"/lawyer/{key['keyId']}", "/nowhere"):
        assert (await caller.get(path)).status in (403, 404)
    assert (await acme.with_token(f"{key['key']}x").get("/api/company")).status == 401
    assert (await revoke(acme, key["keyId"])).status == 200
    listed = await acme.get("/api/company/api-keys")
    await api.idle()

    log = "".join(capfd.readouterr())
    for text in (repr(api.everything()), listed.text, log):
        assert key["keyId"] in text
        assert secret not in text


async def test_a_repeat_with_an_idempotency_key_neither_shows_a_key_again_nor_makes_a_second(
    acme: Person,
) -> None:
    body = {"name": "back end", "scopes": ["read"]}
    first = await acme.post("/api/company/api-keys", body, key="once")
    again = await acme.post("/api/company/api-keys", body, key="once")
    assert (first.status, again.status, again.code) == (201, 409, "API_KEY_NAME_TAKEN")
    assert first.json["key"] not in again.text
    assert [key["keyId"] for key in (await acme.get("/api/company/api-keys")).json["items"]] == [
        first.json["keyId"]
    ]


async def test_a_revoked_key_stops_with_the_next_request_and_stays_listed(api: Api, acme: Person) -> None:
    key = await made(acme)
    caller = acme.with_token(key["key"])
    assert await reads(caller) == 200
    await api.advance(1)
    first = await revoke(acme, key["keyId"])
    refused = await caller.get("/api/company")
    assert (refused.status, refused.code) == (401, "UNAUTHENTICATED")
    await api.advance(1)
    assert (await revoke(acme, key["keyId"])).json == first.json
    assert first.json["revokedAt"] is not None
    [listed] = (await acme.get("/api/company/api-keys")).json["items"]
    assert listed == first.json
    # Its name is free again.
    assert (await made(acme))["keyId"] != key["keyId"]


async def test_a_revocation_that_was_cut_short_frees_the_name_all_the_same(api: Api, acme: Person) -> None:
    key = await made(acme)
    keys = api.services.companies.keys
    await keys._rows.revoke(key["keyId"], at_ms=api.clock.now_ms())
    assert await reads(acme.with_token(key["key"])) == 401
    assert (await made(acme))["keyId"] != key["keyId"]


async def test_a_key_that_nobody_was_given_is_not_listed(api: Api, acme: Person) -> None:
    """The process died between its two writes."""
    keys = api.services.companies.keys
    ghost = await keys.make(acme.id, name="ghost", scopes=[Scope.READ], by=acme.id)
    await api.services.companies.records.change(
        acme.id, lambda record: type(record)(**{**_facts(record), "live_keys": ()})
    )
    assert ghost.key.id not in (await acme.get("/api/company/api-keys")).text
    await made(acme, "ghost")


def _facts(record: Any) -> dict[str, Any]:
    return {name: getattr(record, name) for name in record.__dataclass_fields__}


async def test_names_are_unique_and_keys_are_limited_however_many_ask_at_once(api: Api, acme: Person) -> None:
    keys = api.services.companies.keys

    async def one(name: str) -> Any:
        return await keys.make(acme.id, name=name, scopes=[Scope.READ], by=acme.id)

    same = await asyncio.gather(
        *(one("Back End" if n % 2 else "back end") for n in range(8)), return_exceptions=True
    )
    assert [type(told) for told in same].count(ApiKeyNameTaken) == 7
    many = await asyncio.gather(*(one(f"key {n}") for n in range(30)), return_exceptions=True)
    assert [type(told) for told in many].count(TooManyApiKeys) == 30 - (KEYS_MAX - 1)
    listed = (await acme.get("/api/company/api-keys?limit=100")).json["items"]
    assert len(listed) == KEYS_MAX
    # What was refused has left nothing behind.
    assert len(api.everything()["c_api_keys"]) == KEYS_MAX
    await revoke(acme, listed[0]["keyId"])
    await made(acme, "another")
    # Another company has its own names and its own number.
    await made(await api.register(Role.COMPANY))


async def test_keys_are_listed_in_pages(acme: Person) -> None:
    ids = [(await made(acme, f"key {n}"))["keyId"] for n in range(5)]
    found, cursor = [], ""
    while True:
        page = (await acme.get(f"/api/company/api-keys?limit=2{cursor}")).json
        found += [key["keyId"] for key in page["items"]]
        if page["nextCursor"] is None:
            break
        cursor = f"&cursor={page['nextCursor']}"
    assert found == ids[::-1]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"name": "n", "scopes": []}, "scopes"),
        ({"name": "n", "scopes": ["manage"]}, "scopes"),
        ({"name": "n", "scopes": "read"}, "scopes"),
        ({"name": " ", "scopes": ["read"]}, "name"),
        ({"scopes": ["read"]}, "name"),
    ],
)
async def test_a_key_that_cannot_be(acme: Person, body: Any, field: str) -> None:
    refused = await acme.post("/api/company/api-keys", body)
    assert (refused.status, refused.code) == (422, "VALIDATION_FAILED")
    assert refused.fields[0].startswith(field)


async def last_used(company: Client) -> str | None:
    [key] = (await company.get("/api/company/api-keys")).json["items"]
    used: str | None = key["lastUsedAt"]
    return used


async def test_the_last_use_is_known_to_the_minute(api: Api, acme: Person) -> None:
    caller = await a_key(acme, "back end", ["read"])
    assert await last_used(acme) is None
    await asyncio.gather(*(reads(caller) for _ in range(10)))
    await api.idle()
    first = await last_used(acme)
    assert first is not None
    await api.advance(59)
    await reads(caller)
    await api.idle()
    assert await last_used(acme) == first
    await api.advance(1)
    await reads(caller)
    await api.idle()
    assert (await last_used(acme) or "") > first


async def test_a_store_that_does_not_take_the_last_use_refuses_nobody(api: Api, acme: Person) -> None:
    caller = await a_key(acme, "back end", ["read"])
    rows = api.services.companies.keys._rows
    asked = 0

    async def failing(*_: Any, **__: Any) -> None:
        nonlocal asked
        asked += 1
        raise StoreUnavailable

    rows.used = failing  # type: ignore[method-assign]
    assert [await reads(caller) for _ in range(2)] == [200, 200]
    await api.idle()
    assert asked >= 1


# --- members


async def test_an_invited_person_chooses_a_password_and_logs_in(api: Api, acme: Person) -> None:
    letters = letters_of(api)
    member = (await invited(acme, "VIEWER", "ravi@example.com")).json
    assert (member["access"], member["status"]) == ("VIEWER", "INVITED")
    # Nobody knows a password yet, an empty one least of all.
    for password in ("", PASSWORD):
        refused = await api.anonymous.post("/auth/login", {"email": "ravi@example.com", "password": password})
        assert (refused.status, refused.code) == (401, "INVALID_CREDENTIALS")
    ravi = await accept(api, "ravi@example.com")
    [letter] = letters.of(Kind.COMPANY_INVITATION)
    assert "Acme" in letter.subject
    me = (await ravi.get("/auth/me")).json
    assert (me["role"], me["companyId"], me["id"]) == ("COMPANY", acme.id, member["userId"])
    assert (await acme.get("/auth/me")).json["companyId"] == acme.id
    assert (await (await api.register()).get("/auth/me")).json["companyId"] is None
    people = (await ravi.get("/api/company/members")).json["items"]
    assert [(one["userId"], one["access"], one["status"]) for one in people] == [
        (acme.id, "OWNER", "ACTIVE"),
        (ravi.id, "VIEWER", "ACTIVE"),
    ]
    # It works once.
    again = await api.anonymous.post(
        "/auth/reset", {"token": letter.facts["token"], "newPassword": "another horse"}
    )
    assert again.code == "INVALID_RESET_TOKEN"


@pytest.mark.parametrize(("days", "status"), [(6, 200), (7, 422)])
async def test_an_invitation_lasts_a_week_and_a_forgotten_password_longer(
    api: Api, acme: Person, days: int, status: int
) -> None:
    letters = letters_of(api)
    await invited(acme, "VIEWER", "ravi@example.com")
    await api.idle()
    api.clock.jump_ms(days * 86_400_000)
    form = {"token": letters.of(Kind.COMPANY_INVITATION)[0].facts["token"], "newPassword": PASSWORD}
    assert (await api.anonymous.post("/auth/reset", form)).status == status
    if status != 200:
        await api.anonymous.post("/auth/forgot", {"email": "ravi@example.com"})
        await api.idle()
        form["token"] = letters.tokens()[-1]
        assert (await api.anonymous.post("/auth/reset", form)).status == 200


async def test_an_invitation_that_is_repeated_is_one(api: Api, acme: Person) -> None:
    letters = letters_of(api)
    email = "ravi@example.com"
    first = await invited(acme, "VIEWER", email, key="once")
    again = await invited(acme, "VIEWER", email, key="once")
    # As after a crash: the same operation, run once more.
    members = api.services.companies.members
    third = await members.invite(
        acme.id,
        email=email,
        name="Ravi",
        access=MemberAccess.VIEWER,
        operation_id=first.json["userId"],
    )
    assert first.json["userId"] == again.json["userId"] == third.account.id
    await api.idle()
    assert len(letters.of(Kind.COMPANY_INVITATION)) == 1
    with pytest.raises(EmailTaken):
        await members.invite(
            acme.id,
            email=email,
            name="Ravi",
            access=MemberAccess.VIEWER,
            operation_id="other",
        )


async def test_what_a_member_may_do_changes_with_the_next_request(api: Api, acme: Person) -> None:
    member = await a_member(api, acme, "MANAGER")
    await made(member)
    path = f"/api/company/members/{member.id}"
    assert (await acme.patch(path, {"access": "VIEWER"})).json["access"] == "VIEWER"
    assert (await member.get("/api/company/api-keys")).status == 403
    assert await reads(member) == 200
    refused = await acme.patch(path, {"access": "OWNER"})
    assert (refused.status, refused.fields) == (422, ["access"])


async def test_a_removed_member_is_out_at_once_and_forgotten(api: Api, acme: Person) -> None:
    letters = letters_of(api)
    member = await a_member(api, acme, "MANAGER")
    key = await made(member)
    socket = await api.connect(member.token)
    path = f"/api/company/members/{member.id}"
    first = await acme.call("DELETE", path)
    assert first.status == 200
    await socket.gone.wait()
    assert (await member.get("/auth/me")).status == 401
    refreshed = await api.anonymous.post("/auth/refresh", {"refreshToken": member.refresh_token})
    assert refreshed.status == 401
    again = await api.anonymous.post("/auth/login", {"email": member.email, "password": PASSWORD})
    assert (again.status, again.code) == (401, "INVALID_CREDENTIALS")
    assert (await acme.call("DELETE", path)).json == first.json
    assert (await acme.patch(path, {"access": "VIEWER"})).status == 404
    assert len((await acme.get("/api/company/members")).json["items"]) == 1
    assert await api.services.companies.member_ids(acme.id) == [acme.id]
    # The keys are the company's, not theirs who made them.
    assert await reads(acme.with_token(key["key"])) == 200
    await api.idle()
    assert [letter.email for letter in letters.of(Kind.ACCOUNT_DELETED)] == [member.email]
    # The address is free, for an account of their own or another invitation.
    await invited(acme, "VIEWER", member.email)


async def test_an_invitation_that_comes_again_after_the_removal_brings_nobody_back(
    api: Api, acme: Person
) -> None:
    member = (await invited(acme, "VIEWER", "ravi@example.com")).json["userId"]
    assert (await acme.call("DELETE", f"/api/company/members/{member}")).status == 200
    await api.idle()
    before = api.everything()
    await api.services.companies.members.invite(
        acme.id, email="ravi@example.com", name="Ravi", access=MemberAccess.VIEWER, operation_id=member
    )
    assert api.everything() == before


async def test_an_invitation_whose_address_was_not_claimed_yet_is_carried_on(api: Api, acme: Person) -> None:
    """The process died between the account and its address."""
    member = (await invited(acme, "VIEWER", "ravi@example.com")).json["userId"]
    await api.idle()
    await api.services.accounts._rows.free_email("ravi@example.com", member)
    again = await api.services.companies.members.invite(
        acme.id, email="ravi@example.com", name="Ravi", access=MemberAccess.VIEWER, operation_id=member
    )
    assert again.account.id == member
    assert len((await acme.get("/api/company/members")).json["items"]) == 2
    assert (await api.services.accounts._rows.of_email("ravi@example.com")).id == member  # type: ignore[union-attr]


async def test_a_removal_that_was_cut_short_is_finished(api: Api, acme: Person) -> None:
    member = await a_member(api, acme, "VIEWER")
    rows = api.services.accounts._rows
    account = await rows.get(member.id)
    assert account is not None
    assert await rows.delete(
        member.id, expect_version=account.password_version, at_ms=api.clock.now_ms(), due="cut"
    )
    assert await reads(member) == 403
    assert await api.services.control.heal() == 1
    assert (await member.get("/auth/me")).status == 401
    erased = await rows.get(member.id)
    assert erased is not None
    assert (erased.email, erased.due, erased.company_id) == ("", {}, acme.id)


async def test_members_are_limited_however_many_are_invited_at_once(api: Api, acme: Person) -> None:
    for n in range(MEMBERS_MAX - 2):
        await invited(acme, "VIEWER", f"m{n}@example.com")
    letters = letters_of(api)
    await api.idle()
    form = {"name": "Ravi", "access": "VIEWER"}
    told = await asyncio.gather(
        *(acme.post("/api/company/members", form | {"email": f"x{n}@example.com"}) for n in range(6))
    )
    assert {answer.status for answer in told} <= {201, 409}
    assert {answer.code for answer in told if answer.status == 409} == {"TOO_MANY_MEMBERS"}
    while (
        await acme.post("/api/company/members", form | {"email": f"y{len(told)}@example.com"})
    ).status == 201:
        told.append(told[0])
    found, cursor = [], ""
    while True:
        page = (await acme.get(f"/api/company/members?limit=40{cursor}")).json
        found += [one["userId"] for one in page["items"]]
        if page["nextCursor"] is None:
            break
        cursor = f"&cursor={page['nextCursor']}"
    assert len(found) == len(set(found)) == MEMBERS_MAX + 1
    assert found[0] == acme.id
    assert set(await api.services.companies.member_ids(acme.id)) == set(found)
    # Whoever was one too many has heard nothing, and may be invited elsewhere.
    await api.idle()
    refused = [n for n, answer in enumerate(told[:6]) if answer.status == 409]
    assert not {f"x{n}@example.com" for n in refused} & {letter.email for letter in letters.taken}
    other = await api.register(Role.COMPANY)
    for n in refused:
        await invited(other, "VIEWER", f"x{n}@example.com")


# --- the owner goes


async def test_a_disabled_owner_shuts_the_company_until_they_are_back(api: Api, acme: Person) -> None:
    viewer, caller = await a_member(api, acme, "VIEWER"), await a_key(acme, "back end", ["read"])
    await api.disable(acme)
    assert (await reads(viewer), await reads(caller)) == (403, 401)
    # The member's account is their own.
    assert (await viewer.get("/auth/me")).status == 200
    assert await api.services.companies.member_ids(acme.id) == []
    await api.services.control.enable(acme.id)
    assert (await reads(viewer), await reads(caller)) == (200, 200)


async def test_a_disabled_member_is_told_apart_and_tells_nothing(api: Api, acme: Person) -> None:
    viewer = await a_member(api, acme, "VIEWER")
    await api.disable(viewer)
    assert await reads(viewer) == 401
    people = (await acme.get("/api/company/members")).json["items"]
    assert [one["status"] for one in people] == ["ACTIVE", "DISABLED"]
    assert await api.services.companies.member_ids(acme.id) == [acme.id]


@pytest.mark.parametrize("is_cut_short", [False, True])
async def test_a_deleted_owner_takes_keys_and_members_along(
    api: Api, acme: Person, *, is_cut_short: bool
) -> None:
    viewer, key = await a_member(api, acme, "VIEWER"), await made(acme)
    other = await api.register(Role.COMPANY)
    others, other_key = await a_member(api, other, "VIEWER"), await a_key(other, "back end", ["read"])
    if is_cut_short:
        account = await api.services.accounts.get(acme.id)
        assert account is not None
        assert await api.services.accounts._rows.delete(
            acme.id, expect_version=account.password_version, at_ms=api.clock.now_ms(), due="cut"
        )
        assert (await reads(viewer), await reads(acme.with_token(key["key"]))) == (403, 401)
        await api.services.control.heal()
    else:
        deleted = await acme.call("DELETE", "/auth/me", json={"password": PASSWORD})
        assert deleted.status == 200, deleted.text
    await api.idle()
    assert await reads(acme.with_token(key["key"])) == 401
    assert (await viewer.get("/auth/me")).status == 401
    gone = await api.services.accounts.get(viewer.id)
    assert gone is not None
    assert (gone.email, dict(gone.due)) == ("", {})
    owner = await api.services.accounts.get(acme.id)
    assert owner is not None
    assert FollowUp.DELETION not in owner.due
    # Its books stay, and so does how they are priced.
    assert (await api.services.companies.records.terms(acme.id)).lists[0].list_name == "tokens"
    revoked = await api.services.companies.keys._rows.get(key["keyId"])
    assert revoked is not None
    assert revoked.revoked_at_ms is not None
    assert (await reads(others), await reads(other_key)) == (200, 200)


# --- how it is billed


async def test_a_company_has_defaults_and_changes_them(api: Api, acme: Person) -> None:
    before = api.everything()
    shown = (await acme.get("/api/company")).json
    assert shown == {
        "companyId": acme.id,
        "name": "Acme",
        "timeZone": "Asia/Kolkata",
        "priceList": "tokens",
        "priceListSince": shown["createdAt"],
        "createdAt": shown["createdAt"],
    }
    assert api.everything() == before
    changed = await acme.call("PUT", "/api/company", json={"timeZone": "America/New_York"})
    assert changed.json == shown | {"timeZone": "America/New_York"}
    assert (await acme.get("/api/company")).json == changed.json


@pytest.mark.parametrize(
    "zone", ["Mars/Olympus", "asia/kolkata\x00", "../etc/passwd", "Asia", "+05:30", "x" * 65]
)
async def test_what_is_no_time_zone(acme: Person, zone: str) -> None:
    refused = await acme.call("PUT", "/api/company", json={"timeZone": zone})
    assert (refused.status, refused.code) == (422, "VALIDATION_FAILED")
    if "\x00" not in zone:
        assert refused.fields == ["timeZone"]


async def test_a_price_list_holds_from_now_on_and_its_history_is_kept(api: Api, acme: Person) -> None:
    admin = await api.admin()
    path = f"/admin/companies/{acme.id}/price-list"
    start_ms = api.clock.now_ms()
    await api.advance(10)
    changed = await admin.call("PUT", path, json={"priceList": "questions"})
    assert changed.json["priceList"] == "questions"
    assert changed.json["priceListSince"] > changed.json["createdAt"]
    await api.advance(10)
    assert (await admin.call("PUT", path, json={"priceList": "questions"})).json == changed.json
    terms = await api.services.companies.records.terms(acme.id)
    assert [(one.list_name, one.from_ms) for one in terms.lists] == [
        ("tokens", 0),
        ("questions", start_ms + 10_000),
    ]
    assert (terms.list_at(start_ms + 9_999), terms.list_at(start_ms + 10_000)) == ("tokens", "questions")
    logged = (await admin.get("/admin/audit?action=company.price_list")).json["items"]
    assert [(one["before"], one["after"]) for one in logged] == [
        ({"priceList": "questions"}, {"priceList": "questions"}),
        ({"priceList": "tokens"}, {"priceList": "questions"}),
    ]
    refused = await admin.call("PUT", path, json={"priceList": "gifts"})
    assert (refused.status, refused.fields) == (422, ["priceList"])


async def test_two_changes_at_once_are_both_made(api: Api, acme: Person) -> None:
    records = api.services.companies.records
    await asyncio.gather(
        records.set_time_zone(acme.id, "Europe/Paris"),
        records.set_price_list(acme.id, PriceList.QUESTIONS),
        made(acme),
    )
    record = (await records.get(acme.id)).record
    assert (record.time_zone, record.lists[-1].list_name, len(record.live_keys)) == (
        "Europe/Paris",
        "questions",
        1,
    )
    assert record.version == 3


async def test_a_change_that_comes_second_starts_from_what_the_first_has_stored(
    api: Api, acme: Person
) -> None:
    class Overtaken(CollectionCompanies):
        """Somebody else is faster, once."""

        is_new = True

        async def put(self, record: Any) -> bool:
            if self.is_new:
                self.is_new = False
                await api.services.companies.records.set_price_list(acme.id, PriceList.QUESTIONS)
            return await super().put(record)

    theirs = api.services.companies.records
    mine = CompanyRecords(
        rows=Overtaken(theirs._rows._companies),  # type: ignore[attr-defined]
        accounts=theirs._accounts,
        clock=api.clock,
        time_zone="Asia/Kolkata",
    )
    changed = await mine.set_time_zone(acme.id, "Europe/Paris")
    assert (changed.record.time_zone, changed.price_list) == ("Europe/Paris", "questions")
