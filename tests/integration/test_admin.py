"""The admins' desk over the whole server: people are found, their money and sessions are shown as they are."""

import csv
import io
from collections.abc import AsyncIterator
from dataclasses import replace
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from billing_engine.consultations.model import SessionView, Status
from server.auth.model import Role
from tests.support.api import Api, Person, open_api
from tests.support.http import Answer


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with open_api(tmp_path, commission_percent="12.5") as api:
        yield api


async def got(admin: Person, path: str) -> Any:
    answer = await admin.get(path)
    assert answer.status == 200, answer.text
    return answer.json


async def walked(admin: Person, path: str, key: str, *, limit: int = 3) -> list[str]:
    """Every row of a list, page by page."""
    met: list[str] = []
    cursor = ""
    while True:
        page = await got(admin, f"{path}{'&' if '?' in path else '?'}limit={limit}{cursor}")
        met += [row[key] for row in page["items"]]
        if page["nextCursor"] is None:
            return met
        cursor = f"&cursor={page['nextCursor']}"


# --- people


async def test_people_are_found_by_what_support_knows_of_them(api: Api) -> None:
    admin = await api.admin()
    asha = await api.register(name="Asha Élodie Rao", email="Asha.Rao+x@Example.com")
    twin = await api.register(name="RAO, asha", email="twin@example.com")
    lawyer = await api.a_lawyer(name="Adv. Ashapurna Devi")
    joined = await api.register(name="\u0915\u094d\u200d\u0937\u092e\u093e")

    async def found(query: str) -> set[str]:
        ids = await walked(admin, f"/admin/users?query={query}", "id", limit=1)
        assert len(ids) == len(set(ids))
        return set(ids)

    assert await found(asha.id) == {asha.id}
    assert await found("asha.rao%2Bx@example.com") == {asha.id}
    assert await found("ASHA.R") == {asha.id}
    assert await found("asha") == {asha.id, twin.id, lawyer.id}
    assert await found("ash+ra") == {asha.id, twin.id}
    assert await found("%C3%89LOD") == {asha.id}, "in another case, and composed"
    assert await found("E%CC%81lod") == {asha.id}, "and decomposed"
    assert await found("asha&role=LAWYER") == {lawyer.id}
    assert await found("%E0%A4%95%E0%A5%8D%E0%A4%B7") == {joined.id}, "typed without the joiner"
    assert await found("sha") == set(), "words are found by their beginning"
    assert await found("rao+nobody") == set()
    assert await found("%20") == set()
    assert await found("%25") == set()
    assert await found("_") == set()


async def test_a_search_over_many_of_one_name_comes_to_its_end(api: Api) -> None:
    """Also when nearly all who are called so are not who is looked for."""
    admin = await api.admin()
    people = [await api.register(name=f"Common Name{n}") for n in range(25)]
    await api.disable(people[7])
    await api.disable(people[20])

    assert set(await walked(admin, "/admin/users?query=common", "id", limit=4)) == {one.id for one in people}
    disabled = await walked(admin, "/admin/users?query=common&disabled=true", "id", limit=1)
    assert set(disabled) == {people[7].id, people[20].id}


async def test_the_list_of_people_is_newest_first_and_filtered(api: Api) -> None:
    admin = await api.admin()
    made = []
    for _ in range(4):
        await api.advance(1)
        made.append((await api.register()).id)
    company = await api.register(Role.COMPANY)
    await api.disable(company)

    everyone = await walked(admin, "/admin/users", "id", limit=2)
    assert everyone == [company.id, *reversed(made), admin.id]
    assert await walked(admin, "/admin/users?role=USER", "id", limit=2) == list(reversed(made))
    assert await walked(admin, "/admin/users?disabled=true", "id") == [company.id]
    assert await walked(admin, "/admin/users?disabled=true&role=USER", "id") == []


async def test_a_deleted_account_is_not_found_by_its_name_any_more(api: Api) -> None:
    admin = await api.admin()
    user = await api.register(name="Forgetme Please")
    assert await walked(admin, "/admin/users?query=forgetme", "id") == [user.id]
    answer = await user.call("DELETE", "/auth/me", json={"password": "correct horse"})
    assert answer.status == 200, answer.text

    assert await walked(admin, "/admin/users?query=forgetme", "id") == []
    assert await walked(admin, f"/admin/users?query={user.email}", "id") == []
    assert not [row for row in api.everything()["c_account_words"] if user.id in row[0]]
    shown = await got(admin, f"/admin/users/{user.id}")
    assert shown["deletedAt"] is not None
    assert "Forgetme" not in str(shown)


async def test_one_account_with_everything_that_belongs_to_it(api: Api) -> None:
    admin, user, lawyer = await api.admin(), await api.a_user("500.00"), await api.a_lawyer()
    first = await user.start(lawyer.id)
    await api.advance(60)
    await user.end(first)
    running = await user.start(lawyer.id)
    await api.advance(10)

    shown = await got(admin, f"/admin/users/{user.id}")
    assert (shown["email"], shown["role"], shown["isDisabled"]) == (user.email, "USER", False)
    assert shown["lawyer"] is None
    assert shown["activeSession"]["sessionId"] == running
    assert shown["counts"] == {"sessions": 2, "auditEntries": 0}
    wallet = shown["wallet"]
    balance = (await user.get("/wallet/balance")).json
    assert (wallet["balance"], wallet["held"]) == (balance["walletBalance"], balance["held"])
    others = {"payoutId": None, "refundId": None, "disputeId": None}
    assert wallet["holds"] == [{"sessionId": running, **others, "amount": balance["held"]}]
    assert await got(admin, f"/admin/users/{user.id}/wallet") == wallet

    shown = await got(admin, f"/admin/users/{lawyer.id}")
    assert shown["lawyer"]["barCouncilNumber"].startswith("KAR/")
    assert shown["lawyer"]["isBusy"] is True
    assert (shown["wallet"]["account"], shown["wallet"]["balance"]) == (f"earnings:{lawyer.id}", "52.50")
    assert shown["counts"] == {"sessions": 2, "auditEntries": 1}

    shown = await got(admin, f"/admin/users/{admin.id}")
    assert (shown["lawyer"], shown["wallet"], shown["activeSession"]) == (None, None, None)
    for what in ("wallet", "ledger"):
        answer = await admin.get(f"/admin/users/{admin.id}/{what}")
        assert (answer.status, answer.code) == (404, "NOT_FOUND")


async def test_the_ledger_of_a_person_joins_up_and_shows_every_transfer(api: Api) -> None:
    admin, user, lawyer = await api.admin(), await api.a_user("500.00"), await api.a_lawyer()
    for seconds in (10, 61, 7):
        session_id = await user.start(lawyer.id)
        await api.advance(seconds)
        await user.end(session_id)

    lines = (await got(admin, f"/admin/users/{user.id}/ledger"))["items"]
    assert await walked(admin, f"/admin/users/{user.id}/ledger", "id") == [line["id"] for line in lines]
    assert [line["kind"] for line in lines] == ["consultation"] * 3 + ["recharge"]
    for newer, older in pairwise(lines):
        assert newer["balanceBefore"] == older["balanceAfter"]
    assert (lines[0]["change"], lines[0]["sessionId"], lines[0]["referenceId"]) == (
        "-7.00",
        session_id,
        session_id,
    )
    assert lines[0]["transfers"] == [
        {
            "from": f"wallet:{user.id}",
            "to": f"earnings:{lawyer.id}",
            "amount": "6.13",
            "kind": "consultation_net",
        },
        {
            "from": f"wallet:{user.id}",
            "to": "revenue:consultations",
            "amount": "0.87",
            "kind": "consultation_commission",
        },
    ]
    earned = (await got(admin, f"/admin/users/{lawyer.id}/ledger"))["items"]
    assert [line["change"] for line in earned] == ["6.13", "53.38", "8.75"]
    assert earned[0]["balanceAfter"] == (await got(admin, f"/admin/users/{lawyer.id}/wallet"))["balance"]
    assert earned[0]["id"] == lines[0]["id"]


async def test_the_whole_ledger_of_a_person_as_csv(api: Api) -> None:
    """Longer than a piece of it: an auditor gets every line once."""
    admin, user, lawyer = await api.admin(), await api.a_user("500.00"), await api.a_lawyer()
    for _ in range(230):
        await user.recharge("1.00")
    await user.end(await user.start(lawyer.id))
    session_id = await user.start(lawyer.id)
    await api.advance(7)
    await user.end(session_id)

    answer = await admin.get(f"/admin/users/{user.id}/ledger?format=csv&limit=1")
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert answer.headers["Content-Disposition"] == f'attachment; filename="ledger-{user.id}.csv"'
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert len(rows) == len({row["id"] for row in rows}) == 1 + 230 + 1
    assert sum(Decimal(row["change"]) for row in rows) == Decimal("723.00")
    for newer, older in pairwise(rows):
        assert newer["balanceBefore"] == older["balanceAfter"]
    newest = (await got(admin, f"/admin/users/{user.id}/ledger?limit=1"))["items"][0]
    shared = set(rows[0]) - {"transfers"}
    assert {name: rows[0][name] for name in shared} == {name: newest[name] for name in shared}
    assert rows[0]["transfers"] == (
        f"6.13 consultation_net wallet:{user.id} > earnings:{lawyer.id}; "
        f"0.87 consultation_commission wallet:{user.id} > revenue:consultations"
    )
    answer = await admin.get(f"/admin/users/{admin.id}/ledger?format=csv")
    assert (answer.status, answer.code) == (404, "NOT_FOUND")


# --- disabling


async def test_disabling_shuts_everything_and_says_why(api: Api) -> None:
    admin, user, lawyer = await api.admin(), await api.a_user("500.00"), await api.a_lawyer()
    session_id = await user.start(lawyer.id)
    socket = await api.connect(user.token)
    await api.advance(5)

    path = f"/admin/users/{user.id}"
    answer = await admin.post(f"{path}/disable", {"reason": "  Abuse of a lawyer.\n"})
    assert answer.status == 200, answer.text
    assert answer.json["isDisabled"] is True
    assert answer.json["disabling"]["by"] == admin.id
    assert answer.json["disabling"]["reason"] == "Abuse of a lawyer."
    await socket.gone.wait()
    assert (await user.get("/auth/me")).status == 401
    ended = await got(admin, f"/admin/sessions/{session_id}")
    assert (ended["status"], ended["endReason"], ended["totalAmount"]) == (
        "FORCE_ENDED",
        "ACCOUNT_DISABLED",
        "5.00",
    )
    login = await api.anonymous.post("/auth/login", {"email": user.email, "password": "correct horse"})
    assert login.code == "ACCOUNT_DISABLED"

    again = await admin.post(f"{path}/disable", {"reason": "Another reason."})
    assert again.json["disabling"]["reason"] == "Abuse of a lawyer.", "the first one counts"

    answer = await admin.post(f"{path}/enable")
    assert (answer.status, answer.json["isDisabled"], answer.json["disabling"]) == (200, False, None)
    await api.log_in(user.email)


async def test_a_disabled_lawyer_cannot_be_found_or_consulted(api: Api) -> None:
    admin, user, lawyer = await api.admin(), await api.a_user("500.00"), await api.a_lawyer()
    assert (await admin.post(f"/admin/users/{lawyer.id}/disable", {"reason": "Licence lost."})).status == 200
    assert (await user.get("/lawyers")).json["items"] == []
    assert (await user.post("/consult/start", {"lawyerId": lawyer.id})).status in {404, 409}


async def test_an_admin_cannot_shut_the_own_account(api: Api) -> None:
    admin = await api.admin()
    answer = await admin.post(f"/admin/users/{admin.id}/disable", {"reason": "Enough."})
    assert (answer.status, answer.code) == (409, "OWN_ACCOUNT")
    assert (await admin.get("/auth/me")).status == 200


@pytest.mark.parametrize(
    "body", [None, {}, {"reason": ""}, {"reason": " \n "}, {"reason": None}, {"reason": "x" * 501}]
)
async def test_nobody_is_disabled_without_a_reason(api: Api, body: Any) -> None:
    admin, user = await api.admin(), await api.a_user()
    answer = await admin.post(f"/admin/users/{user.id}/disable", body)
    assert (answer.status, answer.fields) == (422, ["reason"])
    assert (await user.get("/auth/me")).status == 200


# --- sessions


async def test_sessions_are_found_by_every_filter(api: Api) -> None:
    admin = await api.admin()
    user, other = await api.a_user("500.00"), await api.a_user("75.00")
    lawyer, second = await api.a_lawyer(), await api.a_lawyer()
    by_user = await user.start(lawyer.id)
    await api.advance(10)
    await user.end(by_user)
    before_ms = api.clock.now_ms()
    await api.advance(10)
    by_lawyer = await user.start(second.id)
    await api.advance(10)
    await second.end(by_lawyer)
    empty = await other.start(lawyer.id)
    await api.advance(100)
    by_admin = await user.start(lawyer.id)
    await api.advance(10)
    await admin.end(by_admin)
    running = await user.start(second.id)
    newest_first = [running, by_admin, empty, by_lawyer, by_user]

    async def found(query: str) -> list[str]:
        return await walked(admin, f"/admin/sessions?{query}", "sessionId", limit=2)

    assert await found("") == newest_first
    assert await found("status=ACTIVE") == [running]
    assert await found("status=PAUSED") == []
    assert await found("status=ENDED") == [by_admin, by_lawyer, by_user]
    assert await found("status=FORCE_ENDED") == [empty]
    assert await found("reason=WALLET_EMPTY") == [empty]
    assert await found("reason=LAWYER_ENDED") == [by_lawyer]
    assert await found("reason=ADMIN_ENDED&status=ENDED") == [by_admin]
    assert await found("reason=ADMIN_ENDED&status=ACTIVE") == []
    assert await found(f"userId={other.id}") == [empty]
    assert await found(f"lawyerId={second.id}") == [running, by_lawyer]
    assert await found(f"userId={user.id}&lawyerId={lawyer.id}") == [by_admin, by_user]
    assert await found(f"userId={user.id}&status=ENDED&reason=USER_ENDED") == [by_user]
    assert await found(f"userId={lawyer.id}") == []
    instant = "2026-01-01T00:00:00Z"
    assert before_ms - 1_767_225_600_000 == 10_000
    assert await found(f"to={instant}") == []
    assert await found(f"from={instant}") == newest_first
    assert await found("from=2026-01-01T00:00:10.001Z") == newest_first[:-1]
    assert await found("to=2026-01-01T00:00:20Z") == [by_user], "`to` itself is not in it"
    assert await found("from=2026-01-01T00:00:20Z&to=2026-01-01T00:00:20.001Z") == [by_lawyer]


async def test_a_paused_session_is_found_as_such(api: Api) -> None:
    """Its record says ACTIVE: only the bill knows."""
    admin, user, lawyer = await api.admin(), await api.a_user("500.00"), await api.a_lawyer()
    other, second = await api.a_user("500.00"), await api.a_lawyer()
    active = await user.start(lawyer.id)
    paused = await other.start(second.id)
    asked = api.services.consultations.get

    async def seen(session_id: str, **who: Any) -> SessionView:
        view = await asked(session_id, **who)
        return replace(view, status=Status.PAUSED) if session_id == paused else view

    with patch.object(api.services.consultations, "get", seen):
        assert await walked(admin, "/admin/sessions?status=ACTIVE", "sessionId") == [active]
        assert await walked(admin, "/admin/sessions?status=PAUSED", "sessionId") == [paused]
        assert await walked(admin, "/admin/sessions", "sessionId") == [paused, active]


async def test_one_session_with_its_bill_and_the_ledgers_word(api: Api) -> None:
    admin, user, lawyer = await api.admin(), await api.a_user("500.00"), await api.a_lawyer(rate="33.33")
    session_id = await user.start(lawyer.id, maxAmount="90.00")
    await api.advance(61)
    running = await got(admin, f"/admin/sessions/{session_id}")
    assert (running["totalAmount"], running["commission"], running["lawyerNet"]) == ("33.88", "4.23", "29.65")
    assert (running["commissionPercent"], running["maxAmount"]) == ("12.50", "90.00")
    assert (running["ledgerEntry"], running["status"]) == (None, "ACTIVE")
    assert running["remainingBalance"] == (await user.get("/wallet/balance")).json["walletBalance"]

    await user.end(session_id)
    ended = await got(admin, f"/admin/sessions/{session_id}")
    assert (ended["totalAmount"], ended["commission"], ended["lawyerNet"]) == ("33.88", "4.23", "29.65")
    assert [row["event"] for row in ended["timeline"]] == ["start", "end"]
    entry = ended["ledgerEntry"]
    assert (entry["kind"], entry["state"], entry["sessionId"]) == ("consultation", "posted", session_id)
    assert (entry["balanceBefore"], entry["balanceAfter"]) == ("500.00", "466.12")
    assert [transfer["amount"] for transfer in entry["transfers"]] == ["29.65", "4.23"]
    assert (await admin.get("/admin/sessions/nobody")).status == 404


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/admin/sessions?status=STARTING", "status"),
        ("/admin/sessions?from=yesterday", "from"),
        ("/admin/sessions?cursor=WyJhIl0", "cursor"),
        ("/admin/users?role=BOSS", "role"),
        ("/admin/users?query=", "query"),
        ("/admin/users?query=a&cursor=WzEsImEiXQ", "cursor"),
        ("/admin/users?cursor=WyJhIiwiYiJd", "cursor"),
        ("/admin/audit?state=DONE,REFUSED", "state"),
        ("/admin/audit?limit=101", "limit"),
        ("/admin/revenue?by=year", "by"),
        ("/admin/revenue?from=2026-01-02&to=2026-01-01", "from"),
        ("/admin/revenue?from=2024-01-01&to=2026-01-01", "from"),
        ("/admin/revenue?from=2000-01-01&to=2999-12-31&by=month", "from"),
    ],
)
async def test_a_bad_question_names_its_field(api: Api, path: str, field: str) -> None:
    answer: Answer = await (await api.admin()).get(path)
    assert (answer.status, answer.code, answer.fields) == (422, "VALIDATION_FAILED", [field])
