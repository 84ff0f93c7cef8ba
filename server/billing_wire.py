"""The billing page of a company, as it crosses the wire (SPEC 9)."""

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from billing_engine.ledger.model import Account
from billing_engine.money import Asset, format_minor
from billing_engine.payments.model import Payment
from billing_engine.usage.book import Book, book_of
from billing_engine.usage.ledger_lines import LedgerLine
from billing_engine.usage.model import CV_PARSING, QUESTION_GENERATION, VIDEO_INTERVIEW
from billing_engine.usage.ports import Job
from billing_engine.usage.recharges import AUTO
from billing_engine.usage.series import Kind, Spending
from server.routes.payments import OrderOut, order_of
from server.wire import CentsIn, CompanyMoneyIn, Id, Instant, MoneyOut, PageQuery, WireModel, one_of, rfc3339

#: How far back the usage page looks (document 001).
DAYS: Final = (7, 30, 90, 365)


class CompanyQuery(WireModel):
    """Which company: one's own, which need not be named."""

    company_id: Id | None = None


# -- status


class AutoRechargeState(StrEnum):
    """What the automatic recharge is doing."""

    OFF = "OFF"
    READY = "READY"
    #: A payment is under way.
    CHARGING = "CHARGING"
    #: The last payment was declined; it is not tried before `retryAt`.
    PAUSED = "PAUSED"
    #: Declined three times: it is not tried until it is set again.
    STOPPED = "STOPPED"


class AutoRechargeOut(WireModel):
    """What the company has asked for, and how it goes. `declines` counts those since the last payment that went through."""

    enabled: bool
    amount: MoneyOut | None
    payment_method_id: str | None
    state: Annotated[str, one_of(AutoRechargeState)]
    declines: int
    retry_at: Instant | None

    @classmethod
    def of(cls, book: Book, asset: Asset, now_ms: int) -> "AutoRechargeOut":
        state = _state_of(book, now_ms)
        return cls(
            enabled=book.auto.is_enabled,
            amount=format_minor(book.auto.amount_minor, asset) if book.auto.amount_minor else None,
            payment_method_id=book.auto.method_id,
            state=state.value,
            declines=book.declines,
            retry_at=book.not_before_ms if state is AutoRechargeState.PAUSED else None,
        )


def _state_of(book: Book, now_ms: int) -> AutoRechargeState:
    if book.open is not None:
        return AutoRechargeState.CHARGING
    if not book.auto.is_enabled:
        return AutoRechargeState.OFF
    if book.is_stopped:
        return AutoRechargeState.STOPPED
    return AutoRechargeState.PAUSED if now_ms < book.not_before_ms else AutoRechargeState.READY


class StatusOut(WireModel):
    """The wallet of now. Spent counts usage and nothing else, owed usage too; months are the company's own. Always
    `walletBalance + held` = what was recharged (less what went back to the payer) + `totalRefunded` - `totalSpent` + `owed`.
    """

    company_id: str
    currency: str
    wallet_balance: MoneyOut
    held: MoneyOut
    month: str
    current_month_spent: MoneyOut
    total_spent: MoneyOut
    total_refunded: MoneyOut
    owed: MoneyOut
    time_zone: str
    auto_recharge: AutoRechargeOut
    alert_thresholds: list[MoneyOut]

    @classmethod
    def of(
        cls, company_id: str, account: Account, asset: Asset, *, time_zone: str, day: str, now_ms: int
    ) -> "StatusOut":
        book = book_of(account)
        month = max(day, book.day)[:7]
        return cls(
            company_id=company_id,
            currency=asset.code,
            wallet_balance=format_minor(account.spendable, asset),
            held=format_minor(account.held, asset),
            month=month,
            current_month_spent=format_minor(book.spent_in(month), asset),
            total_spent=format_minor(book.spent_minor, asset),
            total_refunded=format_minor(book.refunded_minor, asset),
            owed=format_minor(book.owed_minor, asset),
            time_zone=time_zone,
            auto_recharge=AutoRechargeOut.of(book, asset, now_ms),
            alert_thresholds=[format_minor(threshold, asset) for threshold in book.thresholds],
        )


class AutoRechargeIn(WireModel):
    """`amount` is what is charged when the balance runs out, or the smallest multiple of it that covers the cost and what is owed.
    Setting it ends a pause, and a stop after three declined payments.
    """

    enabled: bool
    amount: CentsIn = "100.00"
    payment_method_id: Id | None = None


class CompanyRechargeIn(WireModel):
    """By a saved means of payment, or else at a page of the gateway; with `savePaymentMethod` the means of payment is kept."""

    amount: CentsIn
    payment_method_id: Id | None = None
    save_payment_method: bool = False


class AlertsIn(WireModel):
    """At which balances the company is told, once each time the balance falls below one; an empty list switches it off."""

    thresholds: Annotated[list[CompanyMoneyIn], Field(max_length=10)]


class AlertsOut(WireModel):
    """From the highest down."""

    thresholds: list[MoneyOut]
    currency: str


# -- usage


class UsageQuery(PageQuery):
    """Which usage; `limit` and `cursor` are for the jobs."""

    company_id: Id | None = None
    job_id: Id | None = None
    type: Id | None = None
    days: Literal["7", "30", "90", "365"] = "30"


class QuantityOut(WireModel):
    """How much was used, in one unit."""

    unit: str
    quantity: int


class CardOut(WireModel):
    """One kind of usage. Usually there is one unit; a company that changed its price list has used in two."""

    count: int
    cost: MoneyOut
    quantities: list[QuantityOut]


class UsageTotalOut(WireModel):
    """All kinds together."""

    count: int
    cost: MoneyOut


class CardsOut(WireModel):
    """The four cards (document 001), and what else the price book has, by type."""

    cv_parsing: CardOut
    question_generation: CardOut
    video_interview: CardOut
    other: dict[str, CardOut]
    total: UsageTotalOut

    @classmethod
    def of(cls, spent: Mapping[Kind, Spending], asset: Asset) -> "CardsOut":
        by_type: dict[str, dict[Kind, Spending]] = {}
        for kind, spending in spent.items():
            by_type.setdefault(kind.type, {})[kind] = spending
        cards = {type_: _card(mine, asset) for type_, mine in sorted(by_type.items())}
        none = _card({}, asset)
        return cls(
            cv_parsing=cards.pop(CV_PARSING, none),
            question_generation=cards.pop(QUESTION_GENERATION, none),
            video_interview=cards.pop(VIDEO_INTERVIEW, none),
            other=cards,
            total=_total(spent.values(), asset),
        )


def _card(spent: Mapping[Kind, Spending], asset: Asset) -> CardOut:
    total = _total(spent.values(), asset)
    by_unit: dict[str, int] = {}
    for kind, spending in spent.items():
        by_unit[kind.unit] = by_unit.get(kind.unit, 0) + spending.quantity
    return CardOut(
        count=total.count,
        cost=total.cost,
        quantities=[QuantityOut(unit=unit, quantity=number) for unit, number in sorted(by_unit.items())],
    )


def _total(spendings: Iterable[Spending], asset: Asset) -> UsageTotalOut:
    found = list(spendings)
    return UsageTotalOut(
        count=sum(one.uses for one in found),
        cost=format_minor(sum(one.cost_minor for one in found), asset),
    )


class DayOut(WireModel):
    """One day of the chart: what it cost, and by type."""

    date: str
    cost: MoneyOut
    costs: dict[str, MoneyOut]


class JobUsageOut(WireModel):
    """A job and its cards."""

    job_id: str
    created_at: Instant
    published_at: Instant | None
    usage: CardsOut


class UsagePageOut(WireModel):
    """What was charged on these days of the company, both included: the cards, every day of the chart, and the jobs, newest first."""

    company_id: str
    currency: str
    days: int
    from_: Annotated[str, Field(alias="from")]
    to: str
    usage: CardsOut
    daily: list[DayOut]
    jobs: list[JobUsageOut]
    next_cursor: str | None


def daily_of(spent: Mapping[str, Mapping[Kind, Spending]], days: Sequence[str], asset: Asset) -> list[DayOut]:
    """One row for each day, also where nothing was used."""
    return [_day(day, spent.get(day, {}), asset) for day in days]


def _day(day: str, spent: Mapping[Kind, Spending], asset: Asset) -> DayOut:
    costs: dict[str, int] = {}
    for kind, spending in spent.items():
        costs[kind.type] = costs.get(kind.type, 0) + spending.cost_minor
    return DayOut(
        date=day,
        cost=format_minor(sum(costs.values()), asset),
        costs={type_: format_minor(cost, asset) for type_, cost in sorted(costs.items())},
    )


def job_usage_of(job: Job, spent: Mapping[Kind, Spending], asset: Asset) -> JobUsageOut:
    """A job's row."""
    return JobUsageOut(
        job_id=job.id,
        created_at=job.created_at_ms,
        published_at=job.published_at_ms,
        usage=CardsOut.of(spent, asset),
    )


# -- ledger


class LedgerQuery(PageQuery):
    """Which entries: `type` is an entry type such as CV_PARSE. As CSV it is the whole ledger, oldest pages last."""

    company_id: Id | None = None
    type: Id | None = None
    format: Literal["json", "csv"] = "json"


class LedgerLineOut(WireModel):
    """One entry, signed. `referenceId` is the usage's, or the invoice's."""

    entry_type: str
    amount: MoneyOut
    balance_before: MoneyOut
    balance_after: MoneyOut
    currency: str
    reference_id: str
    metadata: dict[str, Any]
    created_at: Instant

    @classmethod
    def of(cls, line: LedgerLine, asset: Asset) -> "LedgerLineOut":
        return cls(
            entry_type=line.entry_type,
            amount=format_minor(line.amount_minor, asset),
            balance_before=format_minor(line.before_minor, asset),
            balance_after=format_minor(line.after_minor, asset),
            currency=asset.code,
            reference_id=line.reference,
            metadata=_metadata(line.metadata, asset),
            created_at=line.at_ms,
        )


def _metadata(facts: Mapping[str, Any], asset: Asset) -> dict[str, Any]:
    """The entry's facts in the words of the wire."""
    shown = {name: value for name, value in facts.items() if name not in _INSIDE and value is not None}
    details = shown.pop("details", {})
    if "usedAt" in shown:
        shown["occurredAt"] = rfc3339(shown.pop("usedAt"))
    if "invoice" in shown:
        shown["invoice"] = number_of(shown.pop("invoice"))
    if "job" in shown:
        shown["jobId"] = shown.pop("job")
    return shown | shown_details(details, asset)


#: What an entry remembers for the meter alone.
_INSIDE: Final = frozenset({"collectedUpto"})


def shown_details(details: Mapping[str, Any], asset: Asset) -> dict[str, Any]:
    """What was said of a usage; the price as money."""
    shown = dict(details)
    if "priceMinor" in shown:
        shown["price"] = format_minor(int(shown.pop("priceMinor")), asset)
    return shown


# -- invoices


INVOICE_STATUSES: Final = ("PENDING", "PAID", "FAILED", "EXPIRED", "REFUNDED")


class InvoiceOut(WireModel):
    """A recharge. Its number comes when it is PAID, the company's next without a gap. `order` is there while it can be paid."""

    invoice_id: str
    number: str | None
    status: Annotated[str, one_of(INVOICE_STATUSES)]
    automatic: bool
    amount: MoneyOut
    currency: str
    refunded_amount: MoneyOut
    failure: str | None
    order: OrderOut | None
    created_at: Instant
    paid_at: Instant | None

    @classmethod
    def of(
        cls, payment: Payment, asset: Asset, *, number: int | None, paid_at_ms: int | None
    ) -> "InvoiceOut":
        return cls(
            invoice_id=payment.id,
            number=None if number is None else number_of(number),
            status=invoice_status(payment),
            automatic=payment.item == AUTO,
            amount=format_minor(payment.amount_minor, asset),
            currency=payment.currency,
            refunded_amount=format_minor(payment.refunded_minor, asset),
            failure=payment.failure if invoice_status(payment) == "FAILED" else None,
            order=order_of(payment),
            created_at=payment.created_at_ms,
            paid_at=paid_at_ms,
        )


def number_of(number: int) -> str:
    """`INV-000012`: within one company."""
    return f"INV-{number:06}"


def invoice_status(payment: Payment) -> str:
    """As the company is told: what is not known to be paid is PENDING."""
    status = payment.status.value
    return status if status in INVOICE_STATUSES else "PENDING"


class CompanyRechargeOut(InvoiceOut):
    """The invoice of a recharge, and the balance of then, what was owed being paid; null until it is PAID."""

    wallet_balance: MoneyOut | None
