"""What admins ask and see, as it crosses the wire."""

import re
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, PlainValidator, WithJsonSchema

from billing_engine.consultations.billing import hold_id_of
from billing_engine.consultations.model import EndReason, SessionView
from billing_engine.ledger.model import Hold, KeyState
from billing_engine.ledger.ports import Line, Row
from billing_engine.money import ASSETS, Asset, commission_of, format_minor
from billing_engine.payments.refund_model import DISPUTE_PREFIX, REFUND_PREFIX
from billing_engine.payouts.model import PREFIX as PAYOUT_PREFIX
from server.admin.model import AuditRow, AuditState, UserDetail, Wallet
from server.admin.revenue import Period, Report, Turnover
from server.auth.model import Account, Profession, Role
from server.people.wire import LawyerView, Reason
from server.session_views import SessionOut, session_out
from server.wire import FromValue, Id, Instant, MoneyOut, PageQuery, WireModel, one_of

# --- what is asked

#: Years that this business can have records of; others would only try what a calendar can do.
_DAY: Final = r"2[0-9]{3}-[0-9]{2}-[0-9]{2}"
_TIME: Final = r"[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2})"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def _day(value: Any) -> date:
    try:
        if isinstance(value, str) and re.fullmatch(_DAY, value):
            return date.fromisoformat(value)
    except ValueError:
        pass
    raise ValueError("must be a day such as 2026-11-21")


def _instant_ms(value: Any) -> int:
    try:
        if isinstance(value, str) and re.fullmatch(f"{_DAY}T{_TIME}", value):
            return (datetime.fromisoformat(value) - _EPOCH) // timedelta(milliseconds=1)
    except ValueError:
        pass
    raise ValueError("must be an instant such as 2026-11-21T02:17:00Z")


#: A day where the business is.
LocalDay = Annotated[
    date,
    PlainValidator(_day),
    WithJsonSchema({"type": "string", "format": "date", "pattern": f"^{_DAY}$", "examples": ["2026-11-21"]}),
]
#: RFC 3339 on the wire, epoch milliseconds inside.
InstantIn = Annotated[
    int,
    PlainValidator(_instant_ms),
    WithJsonSchema(
        {
            "type": "string",
            "format": "date-time",
            "pattern": f"^{_DAY}T{_TIME}$",
            "examples": ["2026-11-21T02:17:00Z"],
        }
    ),
]


class UsersQuery(PageQuery):
    """Whom to look for: an id, the beginning of an email address, or beginnings of words of a name."""

    query: Id | None = None
    role: Annotated[Role, FromValue] | None = None
    disabled: bool | None = None


class SessionsQuery(PageQuery):
    """Which sessions: those that were started from `from` on and before `to`."""

    status: (
        Literal["REQUESTED", "ACTIVE", "PAUSED", "ENDED", "FORCE_ENDED", "DECLINED", "MISSED", "CANCELLED"]
        | None
    ) = None
    user_id: Id | None = None
    lawyer_id: Id | None = None
    reason: Annotated[EndReason, FromValue] | None = None
    from_: InstantIn | None = Field(default=None, alias="from")
    to: InstantIn | None = None


class LedgerQuery(PageQuery):
    """`csv` is the whole account, whatever `limit` and `cursor` say."""

    format: Literal["json", "csv"] = "json"


class RevenueQuery(WireModel):
    """Both days included; without them the last thirty days, or twelve months."""

    from_: LocalDay | None = Field(default=None, alias="from")
    to: LocalDay | None = None
    by: Annotated[Period, FromValue] = Period.DAY


class AuditQuery(PageQuery):
    """Which acts: from `from` on and before `to`."""

    admin_id: Id | None = None
    action: Id | None = None
    subject: Id | None = None
    state: Annotated[AuditState, FromValue] | None = None
    from_: InstantIn | None = Field(default=None, alias="from")
    to: InstantIn | None = None


class DisableBody(WireModel):
    """Why the account is shut; its owner is told."""

    reason: Reason


class EnableBody(WireModel):
    """Why it is opened again, for the audit log."""

    reason: Reason | None = None


# --- people


class DisablingView(WireModel):
    """Who shut an account, when and why."""

    by: str
    at: Instant
    reason: str


class AdminUserView(WireModel):
    """An account, to an admin. A deleted one has no address and no name left."""

    id: str
    email: str
    name: str
    role: Role
    profession: Profession | None
    company_name: str | None
    created_at: Instant
    is_disabled: bool
    disabling: DisablingView | None
    deleted_at: Instant | None

    @classmethod
    def of(cls, account: Account) -> "AdminUserView":
        return cls(**_account(account))


def _after(prefix: str, hold_id: str) -> str | None:
    return hold_id.removeprefix(prefix) if hold_id.startswith(prefix) else None


class HoldView(WireModel):
    """Money set aside for a running session, a payout that is requested, a refund on its way or a dispute that is open."""

    session_id: str | None
    payout_id: str | None
    refund_id: str | None
    dispute_id: str | None
    amount: MoneyOut

    @classmethod
    def of(cls, hold: Hold, asset: Asset) -> "HoldView":
        return cls(
            session_id=_after(_CONSULT, hold.id),
            payout_id=_after(PAYOUT_PREFIX, hold.id),
            refund_id=_after(REFUND_PREFIX, hold.id),
            dispute_id=_after(DISPUTE_PREFIX, hold.id),
            amount=format_minor(hold.amount_minor, asset),
        )


class AdminWalletView(WireModel):
    """A user's or a company's wallet, or a lawyer's earnings that are not paid out. `balance` may be spent, or paid out, now."""

    account: str
    balance: MoneyOut
    held: MoneyOut
    currency: str
    holds: list[HoldView]

    @classmethod
    def of(cls, wallet: Wallet) -> "AdminWalletView":
        asset = wallet.asset
        return cls(
            account=wallet.id,
            balance=format_minor(wallet.spendable_minor, asset),
            held=format_minor(wallet.held_minor, asset),
            currency=asset.code,
            holds=[HoldView.of(hold, asset) for hold in wallet.holds],
        )


class UserCountsView(WireModel):
    """Sessions as user or lawyer, and acts of admins about this account."""

    sessions: int
    audit_entries: int


class AdminUserDetailView(AdminUserView):
    """An account with what belongs to it; null where its role has no such thing."""

    lawyer: LawyerView | None
    wallet: AdminWalletView | None
    active_session: "AdminSessionOut | None"
    counts: UserCountsView

    @classmethod
    def with_all(cls, user: UserDetail, asset: Asset, admin_id: str) -> "AdminUserDetailView":
        return cls(
            **_account(user.account),
            lawyer=None if user.lawyer is None else LawyerView.for_admin(user.lawyer, asset),
            wallet=None if user.wallet is None else AdminWalletView.of(user.wallet),
            active_session=None if user.active is None else AdminSessionOut.of(user.active, admin_id),
            counts=UserCountsView(sessions=user.sessions, audit_entries=user.acts),
        )


def _account(account: Account) -> dict[str, Any]:
    why = account.disabling
    return {
        "id": account.id,
        "email": account.email,
        "name": account.name,
        "role": account.role,
        "profession": account.profession,
        "company_name": account.company_name,
        "created_at": account.created_at_ms,
        "is_disabled": account.is_disabled,
        "disabling": None if why is None else DisablingView(by=why.by, at=why.at_ms, reason=why.reason),
        "deleted_at": account.deleted_at_ms,
    }


# --- the ledger

_CONSULT: Final = hold_id_of("")


class TransferView(WireModel):
    """Money from one account of the ledger to another."""

    from_: str = Field(alias="from")
    to: str
    amount: MoneyOut
    kind: str


class EntryView(WireModel):
    """One entry: immutable, with all its transfers; `id` is its permanent key. Balances are the committing account's."""

    id: str
    account: str
    kind: str
    state: Annotated[str, one_of(KeyState)]
    reference_id: str
    session_id: str | None
    currency: str
    balance_before: MoneyOut
    balance_after: MoneyOut
    transfers: list[TransferView]
    created_at: Instant

    @classmethod
    def of(cls, row: Row) -> "EntryView":
        entry = row.entry
        asset = ASSETS[entry.asset]
        return cls(
            **_entry(row),
            balance_before=format_minor(entry.posted_before, asset),
            balance_after=format_minor(entry.posted_after, asset),
        )


class LedgerLineView(WireModel):
    """An entry as one account sees it. `change` is signed; the balances are null until a credit that was just committed
    elsewhere has arrived.
    """

    id: str
    account: str
    kind: str
    state: Annotated[str, one_of(KeyState)]
    reference_id: str
    session_id: str | None
    change: MoneyOut
    currency: str
    balance_before: MoneyOut | None
    balance_after: MoneyOut | None
    transfers: list[TransferView]
    created_at: Instant

    @classmethod
    def of(cls, line: Line, row: Row) -> "LedgerLineView":
        asset = ASSETS[row.entry.asset]
        after = line.balance_after
        return cls(
            **_entry(row),
            change=format_minor(line.change_minor, asset),
            balance_before=None if after is None else format_minor(after - line.change_minor, asset),
            balance_after=None if after is None else format_minor(after, asset),
        )


def _entry(row: Row) -> dict[str, Any]:
    entry = row.entry
    asset = ASSETS[entry.asset]
    return {
        "id": entry.key,
        "account": entry.account,
        "kind": entry.kind,
        "state": entry.state.value,
        "reference_id": entry.reference.removeprefix(_CONSULT),
        "session_id": entry.facts.get("sessionId"),
        "currency": asset.code,
        "transfers": [
            TransferView(
                from_=transfer.debit,
                to=transfer.credit,
                amount=format_minor(transfer.amount_minor, asset),
                kind=transfer.kind,
            )
            for transfer in entry.transfers
        ],
        "created_at": entry.at_ms,
    }


# --- sessions


class AdminSessionOut(SessionOut):
    """A session with both parties' money: what it costs, what of that is the platform's and what the lawyer's, so far."""

    commission_percent: MoneyOut
    commission: MoneyOut
    lawyer_net: MoneyOut

    @classmethod
    def of(cls, view: SessionView, admin_id: str, **more: Any) -> Self:
        session = view.session
        asset = ASSETS[session.currency]
        # The final record has the ledger's word; before the end it is what the ledger would say now.
        commission_minor = (
            commission_of(view.total_minor, session.commission_bp)
            if session.ended_at_ms is None
            else session.commission_minor
        )
        shared = session_out(view, admin_id)
        return cls(
            **{name: getattr(shared, name) for name in SessionOut.model_fields} | more,
            commission_percent=f"{session.commission_bp // 100}.{session.commission_bp % 100:02d}",
            commission=format_minor(commission_minor, asset),
            lawyer_net=format_minor(view.total_minor - commission_minor, asset),
        )


class AdminSessionDetailOut(AdminSessionOut):
    """With its timeline, and the ledger's entry that ended it."""

    ledger_entry: EntryView | None


# --- revenue


class TurnoverView(WireModel):
    """The business of some days. `gross` is what consultations cost, `commission` the platform's part, `net` the lawyers', each less
    what was given back on these days: of gross that is `refunded`.
    """

    gross: MoneyOut
    commission: MoneyOut
    net: MoneyOut
    sessions: int
    seconds: int
    recharged: MoneyOut
    recharges: int
    refunded: MoneyOut
    refunds: int

    @classmethod
    def of(cls, turnover: Turnover, asset: Asset, **more: Any) -> Self:
        return cls(
            gross=format_minor(turnover.gross_minor, asset),
            commission=format_minor(turnover.commission_minor, asset),
            net=format_minor(turnover.net_minor, asset),
            sessions=turnover.sessions,
            seconds=turnover.seconds,
            recharged=format_minor(turnover.recharged_minor, asset),
            recharges=turnover.recharges,
            refunded=format_minor(turnover.refunded_minor, asset),
            refunds=turnover.refunds,
            **more,
        )


class PeriodView(TurnoverView):
    """One day (`2026-11-21`) or month (`2026-11`) of TIMEZONE. The first and the last month end with the report's days."""

    period: str


class RevenueView(WireModel):
    """Every period from `from` to `to`, those without any business too, summed over the ledger's rows."""

    from_: Annotated[str, WithJsonSchema({"type": "string", "format": "date"})] = Field(alias="from")
    to: Annotated[str, WithJsonSchema({"type": "string", "format": "date"})]
    by: Period
    timezone: str
    currency: str
    items: list[PeriodView]
    total: TurnoverView

    @classmethod
    def of(cls, report: Report, asset: Asset, timezone: str) -> "RevenueView":
        return cls(
            from_=report.first_day.isoformat(),
            to=report.last_day.isoformat(),
            by=report.by,
            timezone=timezone,
            currency=asset.code,
            items=[PeriodView.of(turnover, asset, period=turnover.period) for turnover in report.periods],
            total=TurnoverView.of(report.total, asset),
        )


# --- the audit log


class AuditView(WireModel):
    """One act of an admin. INTENDED: nobody can say how it ended; it may have happened or not."""

    id: str
    at: Instant
    admin_id: str
    action: str
    subject: str
    reason: str | None
    asked: dict[str, Any]
    before: dict[str, Any]
    after: dict[str, Any] | None
    state: AuditState
    code: str | None
    request_id: str

    @classmethod
    def of(cls, row: AuditRow) -> "AuditView":
        return cls(
            id=row.id,
            at=row.at_ms,
            admin_id=row.admin_id,
            action=row.action,
            subject=row.subject,
            reason=row.reason,
            asked=dict(row.asked),
            before=dict(row.before),
            after=None if row.after is None else dict(row.after),
            state=row.state,
            code=row.code,
            request_id=row.request_id,
        )
