"""The daily comparison of our books with the gateways' lists, for the admins (SPEC 11). Reading makes none."""

from typing import Annotated, Any, Final, Self

from billing_engine.payments.errors import GatewayUnavailable, NoSuchDay
from billing_engine.payments.report import DailyReports
from billing_engine.payments.report_model import (
    Amount,
    Difference,
    DifferenceKind,
    Foreign,
    Report,
    ReportStatus,
)
from server.admin.wire import LocalDay
from server.auth.model import Role
from server.payment_reports import check_day, make_reports, money_of
from server.routing import Audited, Call, Route, only
from server.wire import Instant, Name, WireModel, one_of


class PaymentReportsQuery(WireModel):
    """Which day; `gateway` for one alone."""

    day: LocalDay
    gateway: Name | None = None


class PaymentReportIn(WireModel):
    """`gateway` for one alone."""

    gateway: Name | None = None


class AmountOut(WireModel):
    """Money in a currency that may be none of ours: a gateway reports what it likes."""

    amount: str
    currency: str

    @classmethod
    def of(cls, amount: Amount | None) -> Self | None:
        if amount is None:
            return None
        return cls(amount=money_of(amount).removesuffix(amount.currency).strip(), currency=amount.currency)


class DifferenceOut(WireModel):
    """What does not agree: our payment or refund, the gateway's, and both amounts where there are any."""

    kind: Annotated[str, one_of(DifferenceKind)]
    our_id: str | None
    gateway_id: str | None
    ours: AmountOut | None
    theirs: AmountOut | None
    what_to_do: str

    @classmethod
    def of(cls, difference: Difference) -> Self:
        return cls(
            kind=difference.kind.value,
            our_id=difference.our_id,
            gateway_id=difference.gateway_id,
            ours=AmountOut.of(difference.ours),
            theirs=AmountOut.of(difference.theirs),
            what_to_do=difference.what_to_do,
        )


class ForeignOut(WireModel):
    """What the gateway has and none of our payments is behind."""

    kind: Annotated[str, one_of(("PAYMENT", "REFUND"))]
    gateway_id: str
    amount: AmountOut | None

    @classmethod
    def of(cls, foreign: Foreign) -> Self:
        return cls(
            kind="REFUND" if foreign.is_refund else "PAYMENT",
            gateway_id=foreign.gateway_id,
            amount=AmountOut.of(foreign.amount),
        )


class PaymentReportOut(WireModel):
    """One gateway's day. `UNAVAILABLE`: it did not answer, for the reason in `problem`; the report is made again later. What is
    `healed` did not agree and does now. `notOurs` counts what `foreign` lists, up to 500.
    """

    gateway: str
    day: str
    made_at: Instant
    status: Annotated[str, one_of(ReportStatus)]
    problem: str | None
    collected: int
    credited: int
    refunded: int
    differences: list[DifferenceOut]
    healed: list[DifferenceOut]
    not_ours: int
    foreign: list[ForeignOut]

    @classmethod
    def of(cls, report: Report) -> Self:
        return cls(
            gateway=report.gateway,
            day=report.day,
            made_at=report.made_at_ms,
            status=report.status.value,
            problem=report.problem,
            collected=report.collected,
            credited=report.credited,
            refunded=report.refunded,
            differences=[DifferenceOut.of(one) for one in report.differences],
            healed=[DifferenceOut.of(one) for one in report.healed],
            not_ours=report.foreign,
            foreign=[ForeignOut.of(one) for one in report.not_ours],
        )


class PaymentReportsOut(WireModel):
    """The day's reports that there are, by gateway. A day begins where `timezone` says."""

    timezone: str
    reports: list[PaymentReportOut]


def _out(call: Call[Any, Any], reports: list[Report]) -> PaymentReportsOut:
    return PaymentReportsOut(
        timezone=call.services.revenue.timezone, reports=[PaymentReportOut.of(report) for report in reports]
    )


async def stored(call: Call[None, PaymentReportsQuery]) -> PaymentReportsOut:
    reports: DailyReports = call.services.payment_reports
    query = call.query
    names = reports.gateways if query.gateway is None else [query.gateway]
    found = [await reports.of(name, query.day.isoformat()) for name in names]
    return _out(call, [report for report in found if report is not None])


async def make(call: Call[PaymentReportIn, None]) -> PaymentReportsOut:
    return _out(call, await make_reports(call.services.payment_reports, call.path["day"], call.body.gateway))


async def standing(call: Call[Any, None]) -> dict[str, Any]:
    """How the stored reports of the day stand, for the audit log. Raises `NoSuchDay`."""
    reports: DailyReports = call.services.payment_reports
    check_day(reports, call.path["day"])
    found = {name: await reports.of(name, call.path["day"]) for name in reports.gateways}
    return {name: None if report is None else report.status.value for name, report in found.items()}


_TAGS: Final = ("payments",)
ROUTES: Final = (
    Route(
        method="GET",
        path="/admin/payments/report",
        handler=stored,
        summary="What the last comparison of a day's payments with the gateways' lists found",
        access=only(Role.ADMIN),
        query=PaymentReportsQuery,
        response=PaymentReportsOut,
        tags=_TAGS,
    ),
    Route(
        method="POST",
        path="/admin/payments/report/{day}",
        handler=make,
        summary="Compare a day's payments with the gateways' lists now, and heal what only got lost",
        access=only(Role.ADMIN),
        body=PaymentReportIn,
        response=PaymentReportsOut,
        errors=(NoSuchDay, GatewayUnavailable),
        audit=Audited("payments.compared", "day", standing),
        tags=_TAGS,
    ),
)
