"""The daily report: every kind of difference that is planted is named, and a clean day is clean, at midnight too."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

import pytest

from billing_engine.ledger.accounts import gateway_of, wallet_of
from billing_engine.ledger.model import Movement, Transfer
from billing_engine.payments import report as report_module
from billing_engine.payments.model import Attempt, AttemptStatus, GatewayRefund, PaymentStatus, RefundStatus
from billing_engine.payments.report import AGAIN_MS, DAYS_BACK, SLACK_MS, DailyReports
from billing_engine.payments.report_model import WHAT_TO_DO, DifferenceKind, Report, ReportStatus
from server.metrics import Metrics
from server.payment_reports import PaymentReportNews, day_bounds, printed
from server.people.model import local_day
from server.storage.repositories.payment_reports import CollectionReports, report_doc, report_of
from server.storage.sqlite.collection import SqliteCollections
from server.storage.sqlite.engine import SqliteOptions, open_database
from tests.support.api import Api, ApiClock, open_api
from tests.support.manual_clock import ManualClock
from tests.support.payments import AMOUNT
from tests.support.returns import Desk, ReturningGateway

ZONE: Final = ZoneInfo("Asia/Kolkata")
#: The clock starts in it, at half past five in the morning.
DAY: Final = "2026-01-01"
NEXT_DAY: Final = "2026-01-02"
FROM_MS, TO_MS = day_bounds(DAY, ZONE)
_HOUR_MS: Final = 3_600_000


@dataclass
class DatedGateway(ReturningGateway):
    """Says when."""

    clock: ManualClock = field(default_factory=ManualClock)

    def pay(self, order_id: str, *, status: AttemptStatus = AttemptStatus.COLLECTED) -> Attempt:
        attempt = super().pay(order_id, status=status)
        self.tries[attempt.id] = replace(attempt, at_ms=self.clock.now_ms())
        return self.tries[attempt.id]

    async def refund(self, attempt_id: str, **more: Any) -> GatewayRefund:
        refund = await super().refund(attempt_id, **more)
        return self.dated(refund)

    def refund_outside(self, attempt_id: str, amount_minor: int, *more: Any) -> GatewayRefund:
        return self.dated(super().refund_outside(attempt_id, amount_minor, *more))

    def dated(self, refund: GatewayRefund) -> GatewayRefund:
        for name, known in self.sent_back.items():
            if known.id == refund.id and known.at_ms == 0:
                self.sent_back[name] = refund = replace(known, at_ms=self.clock.now_ms())
        return refund


@dataclass
class Accountant(Desk):
    """A desk whose days are compared."""

    heard: list[Report] = field(default_factory=list)
    _metrics: Metrics = field(default_factory=Metrics)

    async def boot(self) -> None:
        await super().boot()
        world = self.world
        world.ledger._day_of = partial(local_day, zone=ZONE)
        self.reports = DailyReports(
            ledger=world.ledger,
            service=world.payments,
            payments=world.payments._payments,
            refunds=self.refunds,
            rows=await CollectionReports.open(SqliteCollections(world.db)),
            gateways={self.gateway.name: self.gateway},
            clock=self.clock,
            bounds=partial(day_bounds, zone=ZONE),
            news=self,
        )

    async def made(self, report: Report) -> None:
        """`ReportNews`."""
        self.heard.append(report)

    def standing(self, gateway: str, reports: Sequence[Report]) -> None:
        PaymentReportNews.standing(self, gateway, reports)  # type: ignore[arg-type]

    async def compare(self, day: str = DAY) -> Report:
        """Made when the day is over, and long enough."""
        _, to_ms = day_bounds(day, ZONE)
        self.clock.jump_ms(max(0, to_ms + SLACK_MS - self.clock.now_ms()))
        report = await self.reports.make(self.gateway.name, day)
        assert await self.reports.of(self.gateway.name, day) == report
        return report

    async def the_difference(self, kind: DifferenceKind) -> Any:
        """The only one, which is named again when it is asked again."""
        report = await self.compare()
        assert report.status is ReportStatus.DIFFERENCES
        assert [one.kind for one in report.differences] == [kind]
        assert (await self.compare()).differences == report.differences
        return report.differences[0]

    async def the_healed(self, kind: DifferenceKind) -> Any:
        report = await self.compare()
        assert (report.status, report.differences) == (ReportStatus.CLEAN, ())
        assert [one.kind for one in report.healed] == [kind]
        again = await self.compare()
        assert (again.status, again.healed) == (ReportStatus.CLEAN, ())
        await self.is_clean()
        return report.healed[0]

    async def unheard(self, key: str = "r1") -> Attempt:
        """Paid, and every message about it lost."""
        payment = await self.order(key)
        return self.gateway.pay(payment.order_id or "")


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Accountant]:
    async with open_database(tmp_path / "desk.db", SqliteOptions(synchronous="OFF")) as db:
        clock = ManualClock()
        desk = Accountant(db, gateway=DatedGateway(clock=clock), clock=clock)
        await desk.boot()
        yield desk
        await desk.world.webhooks.stop()
        await desk.world.stop()


# -- clean -----------------------------------------------------------------------------------------------------------


async def test_a_day_of_payments_and_refunds_is_clean(desk: Accountant) -> None:
    for number in range(3):
        await desk.paid(f"r{number}")
    await desk.order("never paid")
    failed = await desk.order("failed")
    desk.gateway.pay(failed.order_id or "", status=AttemptStatus.FAILED)
    await desk.refund(AMOUNT, payment_id="r1")

    report = await desk.compare()

    assert (report.status, report.differences, report.healed) == (ReportStatus.CLEAN, (), ())
    assert (report.collected, report.credited, report.refunded) == (3, 3, 1)
    assert (report.foreign, report.not_ours) == (0, ())
    assert desk.heard == [report]


async def test_a_day_without_business_is_clean(desk: Accountant) -> None:
    assert (await desk.compare()).status is ReportStatus.CLEAN


@pytest.mark.parametrize("late_ms", [1, 5_000, _HOUR_MS])
async def test_a_payment_at_midnight_is_no_false_alarm(desk: Accountant, late_ms: int) -> None:
    """The gateway has it just before midnight, we credit it just after; an hour after is outside of every list."""
    payment = await desk.order()
    desk.clock.jump_ms(TO_MS - 1 - desk.clock.now_ms())
    attempt = desk.gateway.pay(payment.order_id or "")
    desk.clock.jump_ms(late_ms)
    await desk.world.payments.learn(payment, attempt)

    first, second = await desk.compare(), await desk.compare(NEXT_DAY)

    assert (first.status, first.collected, first.credited) == (ReportStatus.CLEAN, 1, 0)
    assert (second.status, second.collected, second.credited) == (ReportStatus.CLEAN, 0, 1)
    assert (first.healed, second.healed) == ((), ())


async def test_a_refund_at_midnight_is_no_false_alarm(desk: Accountant) -> None:
    await desk.paid()
    desk.clock.jump_ms(TO_MS - 1 - desk.clock.now_ms())
    desk.gateway.lost_answers = 1
    await desk.refund()
    await desk.time_passes()

    for day in (DAY, NEXT_DAY):
        report = await desk.compare(day)
        assert (report.status, report.healed) == (ReportStatus.CLEAN, ())


async def test_the_second_payment_of_an_order_that_went_back_is_no_difference(desk: Accountant) -> None:
    payment = await desk.paid()
    second = desk.gateway.pay(payment.order_id or "")
    await desk.world.payments.learn(payment, second)

    report = await desk.compare()

    assert (report.status, report.collected, report.credited) == (ReportStatus.CLEAN, 2, 1)


async def test_what_is_on_its_way_while_the_day_lasts_is_no_difference(desk: Accountant) -> None:
    await desk.unheard()

    report = await desk.reports.make(desk.gateway.name, DAY)

    assert (report.status, report.healed) == (ReportStatus.CLEAN, ())
    assert await desk.wallet() == AMOUNT


async def test_a_refund_on_its_way_is_no_difference(desk: Accountant) -> None:
    await desk.paid()
    desk.gateway.refunds_are = RefundStatus.PENDING
    await desk.refund()

    report = await desk.compare()

    assert (report.status, report.refunded, report.healed) == (ReportStatus.CLEAN, 1, ())


async def test_what_is_not_ours_is_listed_apart(desk: Accountant) -> None:
    """Somebody else's shop under the same keys, and a refund of it."""
    foreign = Attempt(
        "pay_x", "order_x", None, 700, "EUR", AttemptStatus.COLLECTED, at_ms=desk.clock.now_ms()
    )
    desk.gateway.tries["pay_x"] = foreign
    desk.gateway.refund_outside("pay_x", 300)

    report = await desk.compare()

    assert (report.status, report.collected, report.foreign) == (ReportStatus.CLEAN, 0, 2)
    assert [(one.is_refund, one.amount.minor) for one in report.not_ours] == [(False, 700), (True, 300)]
    assert any("not ours: payment pay_x 700 of the smallest unit EUR" in line for line in printed(report))


async def test_more_entries_than_a_page_are_all_compared(
    desk: Accountant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_module, "_PAGE", 2)
    for number in range(5):
        await desk.paid(f"r{number}")
    # Written first, so that it is on the last page.
    lost = next(iter(desk.gateway.tries))
    del desk.gateway.tries[lost]

    report = await desk.compare()

    assert (report.credited, [one.gateway_id for one in report.differences]) == (5, [lost])


# -- healed ----------------------------------------------------------------------------------------------------------


async def test_a_lost_webhook_is_healed(desk: Accountant) -> None:
    attempt = await desk.unheard()

    healed = await desk.the_healed(DifferenceKind.NOT_CREDITED)

    assert (healed.our_id, healed.gateway_id, healed.theirs.minor) == ("r1", attempt.id, AMOUNT)
    assert (await desk.stored()).status is PaymentStatus.PAID
    assert await desk.wallet() == AMOUNT


async def test_a_second_payment_nobody_heard_of_goes_back(desk: Accountant) -> None:
    payment = await desk.paid()
    second = desk.gateway.pay(payment.order_id or "")

    healed = await desk.the_healed(DifferenceKind.PAID_TWICE)

    assert (healed.our_id, healed.gateway_id) == ("r1", second.id)
    assert desk.gateway.tries[second.id].refunded_minor == AMOUNT
    assert await desk.wallet() == AMOUNT


async def test_a_refund_from_the_dashboard_is_booked(desk: Accountant) -> None:
    payment = await desk.paid()
    refund = desk.gateway.refund_outside(payment.collected_id or "", 20_000)

    healed = await desk.the_healed(DifferenceKind.REFUND_NOT_BOOKED)

    assert (healed.gateway_id, healed.theirs.minor) == (refund.id, 20_000)
    assert await desk.wallet() == AMOUNT - 20_000


async def test_a_refund_that_came_back_is_put_back(desk: Accountant) -> None:
    """The bank could not pay it out, and the message about that got lost."""
    await desk.paid()
    await desk.refund()
    assert await desk.wallet() == 0
    desk.gateway.refund_becomes("f1", RefundStatus.FAILED)

    healed = await desk.the_healed(DifferenceKind.REFUND_NOT_SENT)

    assert healed.our_id == "f1"
    assert await desk.wallet() == AMOUNT


# -- different -------------------------------------------------------------------------------------------------------


async def test_collected_there_and_not_credited_here(desk: Accountant) -> None:
    """The payment's record says that it is paid: the ledger is what counts."""
    attempt = await desk.unheard()
    payment = await desk.stored()
    lying = replace(
        payment,
        status=PaymentStatus.PAID,
        collected_id=attempt.id,
        check_at_ms=None,
        revision=payment.revision + 1,
    )
    assert await desk.world.payments._payments.replace(lying, expect_revision=payment.revision)

    found = await desk.the_difference(DifferenceKind.NOT_CREDITED)

    assert (found.our_id, found.gateway_id, found.ours) == ("r1", attempt.id, None)
    assert (found.theirs.minor, found.theirs.currency) == (AMOUNT, "INR")


async def test_credited_here_and_not_collected_there(desk: Accountant) -> None:
    payment = await desk.paid()
    del desk.gateway.tries[payment.collected_id or ""]

    found = await desk.the_difference(DifferenceKind.NOT_COLLECTED)

    assert (found.our_id, found.gateway_id, found.theirs) == ("r1", payment.collected_id, None)
    assert (found.ours.minor, found.ours.currency) == (AMOUNT, "INR")


async def test_credited_here_and_failed_there(desk: Accountant) -> None:
    payment = await desk.paid()
    desk.gateway.becomes(payment.collected_id or "", AttemptStatus.FAILED, "BANK")

    await desk.the_difference(DifferenceKind.NOT_COLLECTED)


async def test_an_entry_without_any_payment_behind_it(desk: Accountant) -> None:
    """Written past the payments: only the ledger knows of it."""
    gateway, wallet = gateway_of(desk.gateway.name), wallet_of("u1")
    source = f"payment:{desk.gateway.name}:pay_forged"
    forged = Transfer(gateway, wallet, 123_400, "recharge")
    await desk.world.ledger.post(Movement(wallet, source, "recharge", "INR", "nobody", (forged,)))

    found = await desk.the_difference(DifferenceKind.NOT_COLLECTED)

    assert (found.our_id, found.gateway_id, found.ours.minor) == ("nobody", "pay_forged", 123_400)


@pytest.mark.parametrize(
    "change", [{"amount_minor": AMOUNT - 1}, {"currency": "USD"}], ids=["amount", "currency"]
)
async def test_another_amount_or_currency_there_before_the_credit(
    desk: Accountant, change: dict[str, Any]
) -> None:
    attempt = await desk.unheard()
    desk.gateway.tries[attempt.id] = replace(attempt, **change)

    found = await desk.the_difference(DifferenceKind.AMOUNT_DIFFERS)

    assert (found.our_id, found.gateway_id, found.ours.minor) == ("r1", attempt.id, AMOUNT)
    assert await desk.wallet() == 0


@pytest.mark.parametrize(
    "change", [{"amount_minor": AMOUNT - 1}, {"currency": "USD"}], ids=["amount", "currency"]
)
async def test_another_amount_or_currency_there_after_the_credit(
    desk: Accountant, change: dict[str, Any]
) -> None:
    payment = await desk.paid()
    attempt = desk.gateway.tries[payment.collected_id or ""]
    desk.gateway.tries[attempt.id] = replace(attempt, **change)

    await desk.the_difference(DifferenceKind.AMOUNT_DIFFERS)


async def test_a_payment_of_ours_that_this_database_has_lost(desk: Accountant) -> None:
    attempt = await desk.unheard()
    lost = replace(attempt, order_id="order_lost", reference="lost")
    desk.gateway.tries[attempt.id] = lost

    found = await desk.the_difference(DifferenceKind.UNKNOWN_PAYMENT)

    assert (found.our_id, found.gateway_id, found.theirs.minor) == ("lost", attempt.id, AMOUNT)


async def test_a_second_payment_that_cannot_go_back(
    desk: Accountant, monkeypatch: pytest.MonkeyPatch
) -> None:
    payment = await desk.paid()
    second = desk.gateway.pay(payment.order_id or "")
    monkeypatch.setattr(desk.world.payments, "_send_back", nothing_happens)

    found = await desk.the_difference(DifferenceKind.PAID_TWICE)

    assert (found.our_id, found.gateway_id, found.theirs.minor) == ("r1", second.id, AMOUNT)


async def nothing_happens(*_: Any, **__: Any) -> bool:
    return False


async def test_a_record_that_stands_alone(desk: Accountant) -> None:
    payment = await desk.order()
    lying = replace(
        payment, status=PaymentStatus.PAID, collected_id="pay_nowhere", revision=payment.revision + 1
    )
    assert await desk.world.payments._payments.replace(lying, expect_revision=payment.revision)

    found = await desk.the_difference(DifferenceKind.RECORD_ALONE)

    assert (found.our_id, found.gateway_id, found.ours.minor) == ("r1", "pay_nowhere", AMOUNT)


async def test_gone_back_there_and_not_booked_here(desk: Accountant, monkeypatch: pytest.MonkeyPatch) -> None:
    payment = await desk.paid()
    refund = desk.gateway.refund_outside(payment.collected_id or "", 20_000)
    monkeypatch.setattr(desk.refunds, "take", nothing_happens)

    found = await desk.the_difference(DifferenceKind.REFUND_NOT_BOOKED)

    assert (found.our_id, found.gateway_id, found.ours) == ("r1", refund.id, None)


async def test_taken_here_and_not_gone_back_there(desk: Accountant) -> None:
    await desk.paid()
    await desk.refund(20_000)
    desk.gateway.sent_back.clear()

    found = await desk.the_difference(DifferenceKind.REFUND_NOT_SENT)

    assert (found.our_id, found.gateway_id, found.ours.minor) == ("f1", None, 20_000)


async def test_a_refund_of_another_amount_there(desk: Accountant) -> None:
    await desk.paid()
    await desk.refund(20_000)
    sent = desk.gateway.sent_back["f1"]
    desk.gateway.sent_back["f1"] = replace(sent, amount_minor=19_999)

    found = await desk.the_difference(DifferenceKind.REFUND_AMOUNT_DIFFERS)

    assert (found.our_id, found.gateway_id) == ("f1", sent.id)
    assert (found.ours.minor, found.theirs.minor) == (20_000, 19_999)


def test_every_kind_says_what_to_do() -> None:
    assert set(WHAT_TO_DO) == set(DifferenceKind)


async def test_a_difference_is_printed_with_both_ids_both_amounts_and_what_to_do(desk: Accountant) -> None:
    payment = await desk.paid()
    attempt = desk.gateway.tries[payment.collected_id or ""]
    desk.gateway.tries[attempt.id] = replace(attempt, amount_minor=49_900)
    report = await desk.compare()

    lines = list(printed(report))

    assert lines[0].startswith(f"{DAY} razorpay: DIFFERENCES: 1 collected there, 1 credited here")
    assert lines[1] == (f"difference: AMOUNT_DIFFERS: here r1 500.00 INR, there {attempt.id} 499.00 INR")
    assert lines[2].strip() == WHAT_TO_DO[DifferenceKind.AMOUNT_DIFFERS]
    assert report_of(report_doc(report)) == report


# -- nobody knows ----------------------------------------------------------------------------------------------------


async def test_a_gateway_that_does_not_answer_is_never_clean_and_is_asked_again(desk: Accountant) -> None:
    await desk.paid()
    desk.gateway.is_down = True

    report = await desk.compare()
    assert report.status is ReportStatus.UNAVAILABLE
    assert report.problem == "GATEWAY_UNAVAILABLE: down"
    assert next(iter(printed(report))).endswith("GATEWAY_UNAVAILABLE: down; it is made again later")

    desk.gateway.is_down = False
    await desk.reports.make_missing()
    assert await state_of(desk, DAY) is ReportStatus.UNAVAILABLE, "not at once, either"
    desk.clock.jump_ms(AGAIN_MS)
    await desk.reports.make_missing()
    assert await state_of(desk, DAY) is ReportStatus.CLEAN


async def test_silence_in_the_middle_leaves_nothing_called_clean(
    desk: Accountant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The list is there, and a single payment cannot be asked for."""
    payment = await desk.paid()
    attempt = desk.gateway.tries[payment.collected_id or ""]
    desk.gateway.tries[attempt.id] = replace(attempt, at_ms=0)

    async def silent(attempt_id: str) -> Attempt:
        desk.gateway.is_down = True
        return await DatedGateway.attempt(desk.gateway, attempt_id)  # type: ignore[arg-type]

    monkeypatch.setattr(desk.gateway, "attempt", silent)

    report = await desk.compare()
    assert (report.status, report.differences) == (ReportStatus.UNAVAILABLE, ())


async def test_every_day_that_is_over_gets_its_report_once(desk: Accountant) -> None:
    await desk.paid()
    desk.clock.jump_ms(TO_MS - desk.clock.now_ms())
    await desk.reports.make_missing()
    assert await state_of(desk, DAY) is None, "its last payments may still be on their way"

    desk.clock.jump_ms(SLACK_MS)
    assert await desk.reports.make_missing() == 1
    assert await state_of(desk, DAY) is ReportStatus.CLEAN
    assert await desk.reports.make_missing() == 0

    # Nobody was at work for three days.
    desk.clock.jump_ms(3 * 24 * _HOUR_MS)
    assert await desk.reports.make_missing() == 3
    assert len({report.day for report in desk.heard}) == len(desk.heard) == DAYS_BACK + 4


async def test_the_metric_counts_what_stands_in_the_last_days(desk: Accountant) -> None:
    """Also in a process that has just started, and until somebody has made it good."""
    first, second = await desk.paid("r1"), await desk.paid("r2")
    gone = {id_: desk.gateway.tries.pop(id_) for id_ in (first.collected_id or "", second.collected_id or "")}
    await desk.compare()
    desk.clock.jump_ms(24 * _HOUR_MS)
    desk.gateway.is_down = True
    await desk.reports.make_missing()
    assert counted(desk) == (2, DAYS_BACK - 1)

    desk.gateway.is_down = False
    desk.gateway.tries |= gone
    await desk.compare()
    desk.clock.jump_ms(AGAIN_MS)
    await desk.reports.make_missing()
    assert counted(desk) == (0, 0)


def counted(desk: Accountant) -> tuple[float, float]:
    lines = desk._metrics.render().decode().splitlines()
    found = dict(line.split(" ") for line in lines if "{gateway" in line)
    return (
        float(found['tarazu_payment_differences{gateway="razorpay"}']),
        float(found['tarazu_payments_uncompared{gateway="razorpay"}']),
    )


async def state_of(desk: Accountant, day: str) -> ReportStatus | None:
    report = await desk.reports.of(desk.gateway.name, day)
    return None if report is None else report.status


# -- days ------------------------------------------------------------------------------------------------------------


def test_a_day_begins_where_the_business_is() -> None:
    assert day_bounds("2026-01-01", ZONE) == (1_767_205_800_000, 1_767_205_800_000 + 24 * _HOUR_MS)
    for day, hours in (("2026-03-29", 23), ("2026-10-25", 25), ("2026-06-01", 24)):
        from_ms, to_ms = day_bounds(day, ZoneInfo("Europe/Berlin"))
        assert to_ms - from_ms == hours * _HOUR_MS, day


# -- over HTTP -------------------------------------------------------------------------------------------------------


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with open_api(tmp_path, clock=ApiClock()) as api:
        yield api


async def test_an_admin_makes_a_report_and_reads_it(api: Api) -> None:
    user, admin = await api.a_user("500.00"), await api.admin()
    assert (await admin.get(f"/admin/payments/report?day={DAY}")).json["reports"] == []

    made = await admin.post(f"/admin/payments/report/{DAY}", {})
    read = await admin.get(f"/admin/payments/report?day={DAY}&gateway=simulated")

    assert (made.status, read.json) == (200, made.json)
    (report,) = made.json["reports"]
    assert (report["status"], report["credited"], made.json["timezone"]) == ("CLEAN", 1, "Asia/Kolkata")
    assert (await user.get(f"/admin/payments/report?day={DAY}")).status == 403
    assert (await admin.get(f"/admin/payments/report?day={DAY}&gateway=stripe")).json["reports"] == []


@pytest.mark.parametrize("day", ["2026-01-02", "2026-1-1", "2026-02-30", "yesterday", "20260101"])
async def test_a_day_that_is_none_or_has_not_begun(api: Api, day: str) -> None:
    answer = await (await api.admin()).post(f"/admin/payments/report/{day}", {})
    assert (answer.status, answer.code) == (404, "NOT_FOUND")


async def test_a_gateway_that_is_not_set_up(api: Api) -> None:
    answer = await (await api.admin()).post(f"/admin/payments/report/{DAY}", {"gateway": "stripe"})
    assert (answer.status, answer.code) == (503, "GATEWAY_UNAVAILABLE")


async def test_admins_get_a_letter_once(api: Api) -> None:
    """Who is hurt if it fails: everybody whose money is missing while nobody looks."""
    await api.admin()
    gateway, wallet = gateway_of("simulated"), wallet_of("u1")
    forged = Transfer(gateway, wallet, 123_400, "recharge")
    ledger = api.services.wallets._ledger
    await ledger.post(
        Movement(wallet, "payment:simulated:pay_forged", "recharge", "INR", "nobody", (forged,))
    )

    for _ in range(2):
        made = await (await api.admin()).post(f"/admin/payments/report/{DAY}", {})
        (found,) = made.json["reports"][0]["differences"]
    await api.idle()

    assert (found["kind"], found["ourId"], found["gatewayId"]) == ("NOT_COLLECTED", "nobody", "pay_forged")
    assert (found["ours"], found["theirs"]) == ({"amount": "1234.00", "currency": "INR"}, None)
    assert found["whatToDo"] == WHAT_TO_DO[DifferenceKind.NOT_COLLECTED]
    (outbox,) = (rows for table, rows in api.everything().items() if "notices" in table)
    assert sum("payments-report:simulated" in repr(notice) for notice in outbox) == 1
