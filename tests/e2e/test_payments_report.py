"""`tarazu payments-report`, with Razorpay's own package against a Razorpay over loopback: before, beside and after a server."""

import asyncio
import tempfile
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

import pytest

from tests.e2e.people import people_of
from tests.support.fake_razorpay import FakeRazorpay
from tests.support.gateway_faults import Fault
from tests.support.server_process import Ran, ServerProcess

#: More than a page of Razorpay's list.
_MANY: Final = 103


@pytest.fixture
def directory() -> Iterator[Path]:
    """With a short name: a Unix socket's path has room for 103 bytes."""
    with tempfile.TemporaryDirectory(prefix="tz-", dir="/tmp") as name:
        yield Path(name)


def settings_of(fake: FakeRazorpay) -> dict[str, str]:
    return {
        "PAYMENT_GATEWAY": "razorpay",
        "RAZORPAY_KEY_ID": fake.key_id,
        "RAZORPAY_KEY_SECRET": fake.key_secret,
        "RAZORPAY_WEBHOOK_SECRET": fake.webhook_secret,
        "RAZORPAY_URL": fake.url,
        "GATEWAY_TIMEOUT_SECONDS": "5",
    }


def report(server: ServerProcess, day: str, *more: str) -> Ran:
    return server.tarazu("payments-report", "--day", day, *more)


async def pay(server: ServerProcess, fake: FakeRazorpay, number: int) -> None:
    """So many recharges are paid, and no message about them ever comes."""
    async with people_of(server) as world:
        user = await world.user()
        for _ in range(number):
            made = await user.recharge("500.00")
            fake.pay(made["order"]["orderId"])


def test_lost_webhooks_of_more_than_a_page_are_healed_beside_the_server_and_the_day_is_clean_after(
    directory: Path,
) -> None:
    with FakeRazorpay() as fake:
        server = ServerProcess(directory, **settings_of(fake))
        today = datetime.now(ZoneInfo("Asia/Kolkata")).date().isoformat()
        none = report(server, today)
        assert none.code == 0, none.err
        assert none.out.startswith(f"{today} razorpay: CLEAN: 0 collected there, 0 credited here")
        with server:
            asyncio.run(pay(server, fake, _MANY))
            beside = report(server, today, "--gateway", "razorpay")
        after = report(server, today)

        # They came a moment ago: they were on their way, and are no difference.
        for ran in (beside, after):
            assert ran.code == 0, ran.out + ran.err
            assert ran.out.startswith(
                f"{today} razorpay: CLEAN: {_MANY} collected there, {_MANY} credited here, 0 refunded"
            )
        assert server.tarazu("verify-ledger").code == 0


def test_what_it_says_and_how_it_ends_when_nobody_knows_or_the_question_is_none(directory: Path) -> None:
    with FakeRazorpay() as fake:
        server = ServerProcess(directory, **settings_of(fake))
        with fake.broken(Fault.HTML_5XX):
            silent = report(server, "2026-01-01")
        assert silent.code == 1
        assert silent.out.startswith("2026-01-01 razorpay: UNAVAILABLE: GATEWAY_UNAVAILABLE")
        assert "made again later" in silent.out
        for arguments, told in (
            (("2999-01-01",), "nothing to compare"),
            (("2026-01-01", "--gateway", "stripe"), "did not answer"),
        ):
            refused = report(server, *arguments)
            assert (refused.code, told in refused.err) == (1, True), refused
            assert "Traceback" not in refused.err
        for secret in (fake.key_secret, fake.webhook_secret):
            assert secret not in silent.out + silent.err
