"""The operator's settings, seen from outside: bounds, minima, commission, another currency (SPEC 1, 5, 12)."""

from pathlib import Path

import pytest

from tests.support.api import open_api


async def test_the_bounds_of_a_recharge_are_settings(tmp_path: Path) -> None:
    async with open_api(tmp_path, recharge_min="10", recharge_max="20.50") as api:
        user = await api.register()
        for amount, status in (("9.99", 422), ("10", 201), ("20.50", 201), ("20.51", 422)):
            answer = await user.post("/wallet/recharge", {"amount": amount})
            assert answer.status == status, answer.text
            if status == 422:
                assert "10.00 to 20.50" in answer.json["detail"]
        assert (await user.get("/wallet/balance")).json["walletBalance"] == "30.50"


@pytest.mark.parametrize(
    ("min_balance", "min_seconds", "required"),
    [
        ("0", 1, "1.00"),
        ("0", 30, "30.00"),
        ("10.00", 30, "30.00"),
        ("45.50", 30, "45.50"),
        ("50", 90, "90.00"),
    ],
)
async def test_the_minima_of_a_start_are_settings(
    tmp_path: Path, min_balance: str, min_seconds: int, required: str
) -> None:
    async with open_api(tmp_path, min_balance=min_balance, min_seconds=min_seconds) as api:
        user, lawyer = await api.register(), await api.a_lawyer()
        poor = await user.post("/consult/start", {"lawyerId": lawyer.id})
        assert (poor.status, poor.json["required"]) == (402, required)
        await user.recharge(required)
        await user.start(lawyer.id)


async def test_commission_is_fixed_at_the_start_and_its_rounding_is_the_lawyer_s(tmp_path: Path) -> None:
    async with open_api(tmp_path, commission_percent="12.5") as api:
        user, lawyer = await api.a_user("500.00"), await api.a_lawyer()
        session_id = await user.start(lawyer.id)
        await api.advance(7)
        assert (await user.end(session_id)).json["totalAmount"] == "7.00"
        row = (await lawyer.get("/lawyer/earnings")).json["items"][0]
        # 12.5 % of 7.00 is 0.875.
        assert (row["gross"], row["commission"], row["net"]) == ("7.00", "0.87", "6.13")
        await api.books_are_clean()


async def test_all_of_it_may_be_commission(tmp_path: Path) -> None:
    async with open_api(tmp_path, commission_percent="100") as api:
        user, lawyer = await api.a_user("500.00"), await api.a_lawyer()
        session_id = await user.start(lawyer.id)
        await api.advance(7)
        await user.end(session_id)
        assert (await lawyer.get("/lawyer/earnings/summary")).json["totalEarnings"] == "0.00"
        assert (await user.get("/wallet/balance")).json["walletBalance"] == "493.00"
        await api.books_are_clean()


async def test_another_currency_has_its_own_smallest_unit(tmp_path: Path) -> None:
    """A USD has six decimals here: all are kept, printed as far as they say something, and a seventh is refused."""
    async with open_api(tmp_path, currency="USD", min_balance="1.00") as api:
        user, lawyer = await api.register(), await api.a_lawyer(rate="0.05")
        refused = await user.post("/wallet/recharge", {"amount": "2.1234567"})
        assert (refused.status, refused.fields) == (422, ["amount"])
        poor = await user.post("/consult/start", {"lawyerId": lawyer.id})
        assert (poor.json["required"], poor.json["available"]) == ("1.00", "0.00")
        recharged = await user.recharge("2.123456")
        assert (recharged.json["walletBalance"], recharged.json["currency"]) == ("2.123456", "USD")
        session_id = await user.start(lawyer.id)
        await api.advance(7)
        ended = (await user.end(session_id)).json
        # 0.05 x 7 / 60 is 0.0058333…: down to the millionth.
        assert (ended["totalAmount"], ended["remainingBalance"]) == ("0.005833", "2.117623")
        await user.recharge("2.382377")
        assert (await user.get("/wallet/balance")).json["walletBalance"] == "4.50"
        await api.books_are_clean()


async def test_how_often_the_bill_is_looked_at_changes_nothing(tmp_path: Path) -> None:
    """The same minute and a bit, with ticks of a second, ten seconds and an hour: one bill."""
    bills = []
    for tick_seconds in (1, 10, 3_600):
        directory = tmp_path / str(tick_seconds)
        directory.mkdir()
        async with open_api(directory, tick_seconds=tick_seconds) as api:
            user, lawyer = await api.a_user("500.00"), await api.a_lawyer(rate="47.11")
            session_id = await user.start(lawyer.id)
            await api.advance(73.5)
            ended = (await user.end(session_id)).json
            bills.append((ended["durationSeconds"], ended["totalAmount"], ended["remainingBalance"]))
            await api.books_are_clean()
    assert bills == [(73, "57.31", "442.69")] * 3
