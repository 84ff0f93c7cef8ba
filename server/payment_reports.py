"""The daily report at the edge: when a local day is, who hears of its differences, and how a terminal shows it."""

import hashlib
import logging
from collections.abc import Iterator, Sequence
from datetime import date, datetime, time, timedelta, tzinfo
from typing import Final

from billing_engine.money import ASSETS, format_minor
from billing_engine.payments.errors import GatewayUnavailable, NoSuchDay
from billing_engine.payments.report import DailyReports
from billing_engine.payments.report_model import Amount, Difference, Report, ReportStatus
from server.admin.model import UserFilter
from server.admin.ports import Directory
from server.auth.model import Role
from server.metrics import Metrics
from server.notifications.model import Kind
from server.notifications.outbox import Outbox

log = logging.getLogger(__name__)

#: More admins than this have another way to tell each other.
_ADMINS: Final = 100
#: How many differences a letter names; the report has all.
_NAMED: Final = 10


def day_bounds(day: str, zone: tzinfo) -> tuple[int, int]:
    """The instants, in epoch milliseconds, at which the local day `YYYY-MM-DD` begins and the next one does."""
    first = date.fromisoformat(day)
    begin, end = (
        datetime.combine(on, time.min, zone).timestamp() for on in (first, first + timedelta(days=1))
    )
    return int(begin * 1000), int(end * 1000)


def check_day(reports: DailyReports, day: str) -> None:
    """Raises `NoSuchDay`: it is no day, or has not begun."""
    try:
        is_day = date.fromisoformat(day).isoformat() == day and day <= reports.today
    except ValueError:
        is_day = False
    if not is_day:
        raise NoSuchDay(day=day)


async def make_reports(reports: DailyReports, day: str, gateway: str | None) -> list[Report]:
    """The day's reports, made now: of one gateway, or of all.

    Raises:
        NoSuchDay: see `check_day`.
        GatewayUnavailable: this gateway is not set up here.
    """
    check_day(reports, day)
    if gateway is not None and gateway not in reports.gateways:
        raise GatewayUnavailable(reason="this gateway is not set up", gateway=gateway)
    return [await reports.make(name, day) for name in reports.gateways if gateway in (None, name)]


class PaymentReportNews:
    """`ReportNews`: metrics count, the log says which, and every admin gets a letter, once for the same differences."""

    def __init__(self, *, outbox: Outbox, directory: Directory, metrics: Metrics) -> None:
        self._outbox = outbox
        self._directory = directory
        self._metrics = metrics

    async def made(self, report: Report) -> None:
        for line in lines_of(report.differences):
            log.error("payments differ: %s", line, extra={"gateway": report.gateway, "day": report.day})
        if not report.differences:
            return
        facts = {
            "gateway": report.gateway,
            "day": report.day,
            "count": len(report.differences),
            "lines": "\n".join(lines_of(report.differences[:_NAMED])),
        }
        wanted = UserFilter(query=None, role=Role.ADMIN, is_disabled=False)
        page = await self._directory.newest(wanted, limit=_ADMINS, after=None)
        for admin in page.accounts:
            id_ = f"payments-report:{report.gateway}:{report.day}:{_mark(report)}:{admin.id}"
            await self._outbox.post(Kind.PAYMENT_DIFFERENCES, id_=id_, user_id=admin.id, facts=facts)

    def standing(self, gateway: str, reports: Sequence[Report]) -> None:
        self._metrics.payments_compared(
            gateway,
            differences=sum(len(report.differences) for report in reports),
            uncompared=sum(report.status is ReportStatus.UNAVAILABLE for report in reports),
        )


def _mark(report: Report) -> str:
    """The same for the same differences."""
    return hashlib.sha256(repr(report.differences).encode()).hexdigest()[:16]


def lines_of(differences: tuple[Difference, ...]) -> list[str]:
    """Each with both ids and both amounts."""
    return [
        f"{one.kind.value}: here {one.our_id or 'nothing'} {money_of(one.ours)},"
        f" there {one.gateway_id or 'nothing'} {money_of(one.theirs)}"
        for one in differences
    ]


def money_of(amount: Amount | None) -> str:
    """For people. A currency that is none of ours is shown in its smallest unit."""
    if amount is None:
        return "(no money)"
    asset = ASSETS.get(amount.currency)
    if asset is None:
        return f"{amount.minor} of the smallest unit {amount.currency}".strip()
    return f"{format_minor(amount.minor, asset)} {amount.currency}"


def printed(report: Report) -> Iterator[str]:
    """The report for a terminal."""
    title = f"{report.day} {report.gateway}: {report.status.value}"
    if report.status is ReportStatus.UNAVAILABLE:
        yield f"{title}: {report.problem}; it is made again later"
    else:
        yield (
            f"{title}: {report.collected} collected there, {report.credited} credited here, {report.refunded} refunded,"
            f" {len(report.differences)} differences, {len(report.healed)} healed, {report.foreign} not ours"
        )
    for difference, line in zip(report.differences, lines_of(report.differences), strict=True):
        yield f"difference: {line}"
        yield f"    {difference.what_to_do}"
    for line in lines_of(report.healed):
        yield f"healed: {line}"
    for one in report.not_ours:
        kind = "refund" if one.is_refund else "payment"
        yield f"not ours: {kind} {one.gateway_id} {money_of(one.amount)}"
