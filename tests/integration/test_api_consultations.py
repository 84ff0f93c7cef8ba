"""Consultations as an app team meets them (SPEC 5): refusals in order, the quote that comes true, the end that is one end."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from billing_engine.money import price
from server.auth.model import Account, Role
from server.ids import new_id
from tests.support.api import Api, Person, open_api
from tests.support.http import Answer


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with open_api(tmp_path) as api:
        yield api
        await api.books_are_clean()


async def _start(user: Person, lawyer: Person, **more: str) -> Answer:
    return await user.post("/consult/start", {"lawyerId": lawyer.id, **more})


async def test_refusals_come_in_the_documented_order(api: Api) -> None:
    """Everything is wrong at first, and is put right one by one."""
    user, other = await api.register(), await api.a_user("500.00")
    lawyer = await api.a_lawyer(rate="90.00", verified=False, online=False)
    second = await api.a_lawyer()
    admin = await api.admin()

    poor = await _start(user, lawyer)
    assert (poor.status, poor.code) == (402, "INSUFFICIENT_BALANCE")
    assert (poor.json["required"], poor.json["available"]) == ("90.00", "0.00")
    await user.recharge("89.99")
    assert (await _start(user, lawyer)).json["available"] == "89.99"
    await user.recharge("100.01")
    assert (await _start(user, lawyer)).code == "LAWYER_NOT_VERIFIED"
    await admin.patch(f"/lawyer/{lawyer.id}/verify")
    assert (await _start(user, lawyer)).code == "LAWYER_OFFLINE"
    await lawyer.patch("/lawyer/availability", {"isOnline": True})
    taken = await other.start(lawyer.id)
    mine = await user.start(second.id)
    busy = await _start(user, lawyer)
    assert (busy.status, busy.code) == (409, "USER_BUSY")
    await user.end(mine)
    busy = await _start(user, lawyer)
    assert (busy.status, busy.code) == (409, "LAWYER_BUSY")
    # Whose session it is that keeps the lawyer busy is nobody's business.
    assert taken not in busy.text
    await other.end(taken)
    assert (await _start(user, lawyer)).status == 201


@pytest.mark.parametrize(
    ("rate", "required"), [("10.00", "50.00"), ("50.00", "50.00"), ("50.01", "50.01"), ("120.00", "120.00")]
)
async def test_the_minimum_is_the_larger_of_both(api: Api, rate: str, required: str) -> None:
    user, lawyer = await api.register(), await api.a_lawyer(rate=rate)
    poor = await _start(user, lawyer)
    assert (poor.status, poor.json["required"]) == (402, required)
    quote = (await user.get(f"/consult/quote?lawyerId={lawyer.id}")).json
    assert (quote["requiredBalance"], quote["canStart"]) == (required, False)
    await user.recharge(required)
    assert (await user.get(f"/consult/quote?lawyerId={lawyer.id}")).json["canStart"] is True
    assert (await _start(user, lawyer)).status == 201


@pytest.mark.parametrize(
    ("rate", "balance"), [("60.00", "75.50"), ("33.33", "100.00"), ("59.99", "59.99"), ("47.11", "123.45")]
)
async def test_the_quote_comes_true_to_the_second(api: Api, rate: str, balance: str) -> None:
    user, lawyer = await api.a_user(balance), await api.a_lawyer(rate=rate)
    quote = (await user.get(f"/consult/quote?lawyerId={lawyer.id}")).json
    session = (await _start(user, lawyer)).json
    assert session["remainingSeconds"] == quote["affordableSeconds"]
    assert (session["ratePerMinute"], quote["walletBalance"]) == (quote["ratePerMinute"], balance)

    await api.advance(quote["affordableSeconds"] - 0.001)
    assert (await user.get("/consult/active")).json["status"] == "ACTIVE"
    await api.advance(0.001)
    ended = (await user.get(f"/consult/{session['sessionId']}")).json

    assert (ended["status"], ended["endReason"]) == ("FORCE_ENDED", "WALLET_EMPTY")
    assert ended["durationSeconds"] == quote["affordableSeconds"]
    owed = price(int(rate.replace(".", "")), ended["durationSeconds"])
    assert ended["totalAmount"] == f"{owed // 100}.{owed % 100:02d}"
    left = int(balance.replace(".", "")) - owed
    assert ended["remainingBalance"] == f"{left // 100}.{left % 100:02d}"
    # Another second would have cost more than there was.
    assert price(int(rate.replace(".", "")), ended["durationSeconds"] + 1) > owed + left


async def test_a_quote_says_whether_a_start_would_succeed(api: Api) -> None:
    user, other = await api.a_user("500.00"), await api.a_user("500.00")
    for lawyer, can_start in (
        (await api.a_lawyer(), True),
        (await api.a_lawyer(online=False), False),
        (await api.a_lawyer(verified=False), False),
    ):
        quote = await user.get(f"/consult/quote?lawyerId={lawyer.id}")
        assert quote.json["canStart"] is can_start
        started = await _start(user, lawyer)
        assert (started.status == 201) is can_start, started.text
        if can_start:
            assert (await other.get(f"/consult/quote?lawyerId={lawyer.id}")).json["canStart"] is False
            await user.end(started.json["sessionId"])


async def test_the_bill_is_for_whole_served_seconds(api: Api) -> None:
    user, lawyer = await api.a_user("500.00"), await api.a_lawyer(rate="30.00")
    for served_s, total in (
        (0.0, "0.00"),
        (0.999, "0.00"),
        (1.0, "0.50"),
        (59.999, "29.50"),
        (61.0, "30.50"),
    ):
        session_id = await user.start(lawyer.id)
        await api.advance(served_s)
        ended = (await user.end(session_id)).json
        assert (ended["durationSeconds"], ended["totalAmount"]) == (int(served_s), total)
        assert (ended["status"], ended["endReason"]) == ("ENDED", "USER_ENDED")
    debits = [row for row in (await user.get("/wallet/transactions")).json["items"] if row["type"] == "DEBIT"]
    # Nothing served, nothing taken, no row.
    assert [row["amount"] for row in debits] == ["30.50", "29.50", "0.50"]
    earned = (await lawyer.get("/lawyer/earnings")).json["items"]
    assert [row["net"] for row in earned] == ["30.50", "29.50", "0.50"]
    assert (await lawyer.get("/lawyer/earnings/summary")).json["totalSessions"] == 3


async def test_a_paisa_a_minute_is_a_price(api: Api) -> None:
    """Whole minutes for nothing, then a paisa each: neither free for ever nor cut off at once."""
    user, lawyer = await api.a_user("50.00"), await api.a_lawyer(rate="0.01")
    session_id = await user.start(lawyer.id)
    await api.advance(59.999)
    assert (await user.get("/consult/active")).json["totalAmount"] == "0.00"
    await api.advance(61)
    ended = (await user.end(session_id)).json
    assert (ended["durationSeconds"], ended["totalAmount"], ended["remainingBalance"]) == (
        120,
        "0.02",
        "49.98",
    )


async def test_money_that_is_held_is_not_spendable_and_comes_back(api: Api) -> None:
    user, lawyer = await api.a_user("100.00"), await api.a_lawyer()
    session_id = await user.start(lawyer.id)
    at_start = (await user.get("/wallet/balance")).json
    assert at_start == {"walletBalance": "87.00", "held": "13.00", "currency": "INR"}
    await api.advance(3)
    ended = (await user.end(session_id)).json
    assert (ended["totalAmount"], ended["remainingBalance"]) == ("3.00", "97.00")
    assert (await user.get("/wallet/balance")).json == {
        "walletBalance": "97.00",
        "held": "0.00",
        "currency": "INR",
    }


async def test_no_active_session_is_null(api: Api) -> None:
    user, lawyer = await api.a_user("100.00"), await api.a_lawyer()
    for person in (user, lawyer):
        answer = await person.get("/consult/active")
        assert (answer.status, answer.text) == (200, "null")
    session_id = await user.start(lawyer.id)
    for person in (user, lawyer):
        assert (await person.get("/consult/active")).json["sessionId"] == session_id
    await lawyer.end(session_id)
    for person in (user, lawyer):
        assert (await person.get("/consult/active")).text == "null"


async def test_a_cap_ends_the_session_at_its_last_paid_second(api: Api) -> None:
    user, lawyer = await api.a_user("500.00"), await api.a_lawyer()
    session = (await _start(user, lawyer, maxAmount="70.50")).json
    assert (session["maxAmount"], session["remainingSeconds"]) == ("70.50", 70)
    await api.advance(70)
    ended = (await user.get(f"/consult/{session['sessionId']}")).json
    assert (ended["status"], ended["endReason"], ended["totalAmount"]) == (
        "FORCE_ENDED",
        "MAX_AMOUNT",
        "70.00",
    )
    assert (await user.get("/wallet/balance")).json["walletBalance"] == "430.00"


async def test_a_cap_above_the_wallet_changes_nothing(api: Api) -> None:
    user, lawyer = await api.a_user("75.00"), await api.a_lawyer()
    session = (await _start(user, lawyer, maxAmount="9999.00")).json
    assert session["remainingSeconds"] == 75
    await api.advance(75)
    assert (await user.get(f"/consult/{session['sessionId']}")).json["endReason"] == "WALLET_EMPTY"


async def test_a_running_session_keeps_its_rate_and_its_lawyer(api: Api) -> None:
    """Un-verified, offline, dearer, renamed: what was agreed at the start holds until the end."""
    user, lawyer = await api.a_user("500.00"), await api.a_lawyer()
    admin = await api.admin()
    session_id = await user.start(lawyer.id)
    await api.advance(5)
    assert (await lawyer.patch("/lawyer/profile", {"ratePerMinute": "600.00"})).status == 200
    assert (await lawyer.patch("/lawyer/profile", {"name": "Somebody Else"})).json["isVerified"] is False
    verdict = {"isVerified": False, "reason": "The papers are not in order. " * 15}
    answer = await admin.patch(f"/lawyer/{lawyer.id}/verify", verdict)
    assert (answer.status, answer.json["isVerified"]) == (200, False), answer.text
    assert (await lawyer.patch("/lawyer/availability", {"isOnline": False})).json["isOnline"] is False
    await api.advance(30)

    running = (await user.get("/consult/active")).json
    assert (running["status"], running["durationSeconds"], running["ratePerMinute"]) == (
        "ACTIVE",
        35,
        "60.00",
    )
    ended = (await lawyer.end(session_id)).json
    assert (ended["totalAmount"], ended["ratePerMinute"]) == ("35.00", "60.00")
    assert (await _start(user, lawyer)).code == "INSUFFICIENT_BALANCE"
    await user.recharge("1000.00")
    assert (await _start(user, lawyer)).code == "LAWYER_NOT_VERIFIED"
    await admin.patch(f"/lawyer/{lawyer.id}/verify")
    assert (await _start(user, lawyer)).code == "LAWYER_OFFLINE"
    await lawyer.patch("/lawyer/availability", {"isOnline": True})
    assert (await _start(user, lawyer)).json["ratePerMinute"] == "600.00"


async def test_a_recharge_lengthens_the_running_session(api: Api) -> None:
    user, lawyer = await api.a_user("60.00"), await api.a_lawyer()
    phone = await api.connect(user.token)
    session_id = await user.start(lawyer.id)
    await api.advance(59)
    await user.recharge("60.00")
    news = (await phone.hears("session:recharged"))[0]
    assert (news["remainingSeconds"], news["sessionId"]) == (61, session_id)
    await api.advance(60.999)
    assert (await user.get("/consult/active")).json["sessionId"] == session_id
    await api.advance(0.001)
    ended = (await phone.hears("session:ended"))[0]
    assert (ended["elapsedSeconds"], ended["totalAmount"], ended["status"]) == (120, "120.00", "FORCE_ENDED")
    assert (ended["reason"], ended["walletBalance"], ended["remainingSeconds"]) == ("WALLET_EMPTY", "0.00", 0)


async def test_the_timeline_recomputes_the_bill(api: Api) -> None:
    user, lawyer = await api.a_user("500.00"), await api.a_lawyer()
    session_id = await user.start(lawyer.id)
    await api.advance(12.345)
    assert [row["event"] for row in (await lawyer.get(f"/consult/{session_id}")).json["timeline"]] == [
        "start"
    ]
    await lawyer.end(session_id)
    for person in (user, lawyer, await api.admin()):
        session = (await person.get(f"/consult/{session_id}")).json
        assert session["timeline"] == [
            {"at": session["startedAt"], "event": "start", "reason": None},
            {"at": session["endedAt"], "event": "end", "reason": "LAWYER_ENDED"},
        ]
        assert (session["startedAt"], session["endedAt"]) == (
            "2026-01-01T00:00:00.000Z",
            "2026-01-01T00:00:12.345Z",
        )
        assert (session["durationSeconds"], session["totalAmount"]) == (12, "12.00")


async def test_an_admin_s_end_says_so(api: Api) -> None:
    user, lawyer = await api.a_user("500.00"), await api.a_lawyer()
    session_id = await user.start(lawyer.id)
    ended = (await (await api.admin()).end(session_id)).json
    assert (ended["status"], ended["endReason"]) == ("ENDED", "ADMIN_ENDED")


@pytest.mark.parametrize("shut", ["user", "lawyer"])
async def test_shutting_an_account_ends_its_session_to_the_second(api: Api, shut: str) -> None:
    """Nobody pays to talk with somebody whom an admin has just thrown out."""
    user, lawyer = await api.a_user("500.00"), await api.a_lawyer()
    people = {"user": user, "lawyer": lawyer}
    other = lawyer if shut == "user" else user
    phone = await api.connect(other.token)
    session_id = await user.start(lawyer.id)
    await api.advance(9)
    await api.disable(people[shut])
    ended = (await phone.hears("session:ended"))[0]
    assert (ended["status"], ended["reason"], ended["elapsedSeconds"]) == (
        "FORCE_ENDED",
        "ACCOUNT_DISABLED",
        9,
    )
    session = (await other.get(f"/consult/{session_id}")).json
    assert (session["endReason"], session["totalAmount"]) == ("ACCOUNT_DISABLED", "9.00")
    assert (await people[shut].get("/auth/me")).status == 401
    assert (await other.get("/consult/active")).json is None


@pytest.mark.parametrize("served_s", [0, 7])
async def test_both_parties_end_at_once_and_hear_of_one_end(api: Api, served_s: int) -> None:
    """Rounds of the race, over separate connections; whoever is second gets the first one's outcome."""
    user, lawyer = await api.a_user("5000.00"), await api.a_lawyer()
    admin = await api.admin()
    for _ in range(15):
        session_id = await user.start(lawyer.id)
        await api.advance(served_s)
        answers = await asyncio.gather(
            *(person.post(f"/consult/{session_id}/end") for person in (user, lawyer, admin, user, lawyer))
        )
        assert {answer.status for answer in answers} == {200}
        facts = {
            tuple(
                answer.json[name]
                for name in ("status", "endReason", "endedAt", "durationSeconds", "totalAmount")
            )
            for answer in answers
        }
        assert len(facts) == 1, facts
        assert (await user.get("/consult/active")).json is None
    rows = (await user.get("/wallet/transactions?limit=100")).json["items"]
    assert len([row for row in rows if row["type"] == "DEBIT"]) == (15 if served_s else 0)
    earned = (await lawyer.get("/lawyer/earnings/summary")).json
    assert earned["totalEarnings"] == f"{15 * served_s}.00"


async def test_a_recharge_at_the_instant_of_the_cut_off_loses_no_money(api: Api) -> None:
    """Either it came in time and the session goes on, or the session ended and the money is in the wallet."""
    for _ in range(10):
        user, lawyer = await api.a_user("60.00"), await api.a_lawyer()
        session_id = await user.start(lawyer.id)
        await api.advance(59.999)
        await asyncio.gather(api.advance(0.001), user.recharge("10.00"))
        await api.idle()
        session = (await user.get(f"/consult/{session_id}")).json
        wallet = (await user.get("/wallet/balance")).json
        if session["status"] == "ACTIVE":
            assert session["remainingSeconds"] == 10
            await api.advance(10)
            session = (await user.get(f"/consult/{session_id}")).json
            assert (session["totalAmount"], session["endReason"]) == ("70.00", "WALLET_EMPTY")
        else:
            assert (session["totalAmount"], wallet["walletBalance"]) == ("60.00", "10.00")


async def _rich_strangers(api: Api, count: int) -> list[Person]:
    """Users with 100.00 each, made behind the door: a thousand registrations are not what is tested."""
    services = api.services

    async def one() -> Person:
        account = Account(
            id=new_id(),
            email=f"{new_id()}@example.com",
            name="Asha",
            role=Role.USER,
            password_hash="-",
            created_at_ms=api.clock.now_ms(),
        )
        await services.accounts._rows.add(account)
        pair = await services.sign_ins.open(account)
        await services.wallets.recharge(user_id=account.id, amount_minor=10_000, operation_id=new_id())
        signed_in = {
            "user": {"id": account.id, "role": "USER"},
            "accessToken": pair.access_token,
            "refreshToken": pair.refresh_token,
        }
        return Person(api.http, api.base_url, signed_in, account.email)

    return list(await asyncio.gather(*(one() for _ in range(count))))


async def test_of_a_thousand_starts_at_once_for_one_lawyer_one_succeeds(api: Api) -> None:
    lawyer = await api.a_lawyer()
    users = await _rich_strangers(api, 1_000)
    answers = await asyncio.gather(*(_start(user, lawyer) for user in users))

    said = [(answer.status, answer.json.get("code")) for answer in answers]
    assert said.count((201, None)) == 1, set(said)
    assert said.count((409, "LAWYER_BUSY")) == 999, set(said)
    winner = users[said.index((201, None))]
    # What did not come through was never a consultation.
    losers = [user for user in users[:20] if user is not winner]
    assert [(await user.get("/consult")).json["items"] for user in losers] == [[]] * len(losers)
    session_id = (await lawyer.get("/consult/active")).json["sessionId"]
    assert (await winner.get("/consult/active")).json["sessionId"] == session_id
    balances = await asyncio.gather(*(user.get("/wallet/balance") for user in users))
    assert [
        user.id for user, answer in zip(users, balances, strict=True) if answer.json["held"] != "0.00"
    ] == [winner.id]
    await winner.end(session_id)
    assert (await _start(users[0], lawyer)).status == 201


async def test_of_many_starts_at_once_by_one_user_one_succeeds(api: Api) -> None:
    """Every device of a person presses the button, for a different lawyer each."""
    user = await api.a_user("500.00")
    lawyers = [await api.a_lawyer() for _ in range(12)]
    answers = await asyncio.gather(*(_start(user, lawyer) for lawyer in lawyers))

    said = [(answer.status, answer.json.get("code")) for answer in answers]
    assert said.count((201, None)) == 1
    assert said.count((409, "USER_BUSY")) == 11, said
    free = (await user.get("/lawyers?free=true&limit=100")).json["items"]
    assert len(free) == 11
