"""The admins' desk: people, their money, sessions, revenue, and what admins did (SPEC 4, 5, 14)."""

from typing import Any, Final

from billing_engine.consultations.errors import SessionNotFound
from billing_engine.consultations.model import Status
from billing_engine.money import ASSETS, format_minor
from server.admin.audit import AuditLog
from server.admin.errors import AccountNotFound, NoWallet
from server.admin.model import AuditFilter, SessionFilter, UserFilter
from server.admin.revenue import Revenue
from server.admin.service import AdminDesk
from server.admin.statement import statement_csv
from server.admin.wire import (
    AdminSessionDetailOut,
    AdminSessionOut,
    AdminUserDetailView,
    AdminUserView,
    AdminWalletView,
    AuditQuery,
    AuditView,
    DisableBody,
    EnableBody,
    EntryView,
    LedgerLineView,
    LedgerQuery,
    RevenueQuery,
    RevenueView,
    SessionsQuery,
    UsersQuery,
)
from server.auth.control import AccountControl
from server.auth.errors import OwnAccount
from server.auth.model import Role
from server.routing import Audited, Call, Route, Stream, only
from server.session_views import timeline_out
from server.wire import Page, decode_cursor, encode_cursor, time_place


def _desk(call: Call[Any, Any]) -> AdminDesk:
    desk: AdminDesk = call.services.admin
    return desk


# --- people


async def users(call: Call[None, UsersQuery]) -> Page[AdminUserView]:
    query = call.query
    wanted = UserFilter(query.query, query.role, query.disabled)
    if wanted.query is None:
        page = await _desk(call).newest_users(wanted, limit=query.limit, after=time_place(query.cursor))
    else:
        word = None if query.cursor is None else decode_cursor(query.cursor, str, str)
        page = await _desk(call).find_users(
            wanted, limit=query.limit, after=None if word is None else (word[0], word[1])
        )
    return Page[AdminUserView](
        items=[AdminUserView.of(account) for account in page.accounts],
        next_cursor=None if page.next is None else encode_cursor(*page.next),
    )


async def user(call: Call[None, None]) -> AdminUserDetailView:
    found = await _desk(call).user(call.path["user_id"], admin_id=call.caller.user_id)
    return AdminUserDetailView.with_all(found, call.services.asset, call.caller.user_id)


async def standing(call: Call[Any, None]) -> dict[str, Any]:
    """What disabling and enabling change, for the audit log. Raises `AccountNotFound`."""
    account = await _desk(call).account(call.path["user_id"])
    active = await call.services.consultations.active_of(account.id)
    return {
        "isDisabled": account.is_disabled,
        "reason": None if account.disabling is None else account.disabling.reason,
        "activeSessionId": None if active is None else active.session.id,
    }


async def disable(call: Call[DisableBody, None]) -> AdminUserView:
    control: AccountControl = call.services.control
    account = await control.disable(call.path["user_id"], reason=call.body.reason, by=call.caller.user_id)
    return AdminUserView.of(account)


async def enable(call: Call[EnableBody, None]) -> AdminUserView:
    control: AccountControl = call.services.control
    return AdminUserView.of(await control.enable(call.path["user_id"]))


# --- money


async def wallet(call: Call[None, None]) -> AdminWalletView:
    account = await _desk(call).account(call.path["user_id"])
    return AdminWalletView.of(await _desk(call).wallet(account))


async def ledger(call: Call[None, LedgerQuery]) -> Page[LedgerLineView] | Stream:
    limit, before = call.query.limit, time_place(call.query.cursor)
    account = await _desk(call).account(call.path["user_id"])
    if call.query.format == "csv":
        # The id in the name is one of ours: the account was found under it.
        saved_as = {"Content-Disposition": f'attachment; filename="ledger-{account.id}.csv"'}
        return Stream(await statement_csv(_desk(call), account), "text/csv; charset=utf-8", saved_as)
    lines = await _desk(call).ledger(account, limit=limit + 1, before=before)
    shown = lines[:limit]
    last = shown[-1][0] if len(lines) > limit else None
    return Page[LedgerLineView](
        items=[LedgerLineView.of(line, row) for line, row in shown],
        next_cursor=None if last is None else encode_cursor(last.at_ms, last.key),
    )


async def revenue(call: Call[None, RevenueQuery]) -> RevenueView:
    reports: Revenue = call.services.revenue
    query = call.query
    report = await reports.report(first_day=query.from_, last_day=query.to, by=query.by)
    return RevenueView.of(report, call.services.asset, reports.timezone)


# --- sessions


async def sessions(call: Call[None, SessionsQuery]) -> Page[AdminSessionOut]:
    query = call.query
    page = await _desk(call).sessions(
        SessionFilter(
            status=None if query.status is None else Status(query.status),
            user_id=query.user_id,
            lawyer_id=query.lawyer_id,
            reason=query.reason,
            from_ms=query.from_,
            to_ms=query.to,
        ),
        limit=query.limit,
        before=time_place(query.cursor),
        admin_id=call.caller.user_id,
    )
    return Page[AdminSessionOut](
        items=[AdminSessionOut.of(view, call.caller.user_id) for view in page.views],
        next_cursor=None if page.next is None else encode_cursor(*page.next),
    )


async def session(call: Call[None, None]) -> AdminSessionDetailOut:
    consultations = call.services.consultations
    admin_id, session_id = call.caller.user_id, call.path["session_id"]
    view = await consultations.get(session_id, caller_id=admin_id, is_admin=True)
    row = await _desk(call).closing_entry(view.session)
    book = (await call.services.refunds.books([session_id])).get(session_id)
    return AdminSessionDetailOut.of(
        view,
        admin_id,
        timeline=timeline_out(await consultations.timeline(session_id)),
        refunded_amount=format_minor(
            0 if book is None else book.refunded_minor, ASSETS[view.session.currency]
        ),
        ledger_entry=None if row is None else EntryView.of(row),
    )


# --- the audit log


async def audit(call: Call[None, AuditQuery]) -> Page[AuditView]:
    log: AuditLog = call.services.audit
    query = call.query
    wanted = AuditFilter(
        admin_id=query.admin_id,
        action=query.action,
        subject=query.subject,
        state=query.state,
        from_ms=query.from_,
        to_ms=query.to,
    )
    rows = await log.find(wanted, limit=query.limit + 1, before=time_place(query.cursor))
    shown = rows[: query.limit]
    return Page[AuditView](
        items=[AuditView.of(row) for row in shown],
        next_cursor=encode_cursor(shown[-1].at_ms, shown[-1].id) if len(rows) > query.limit else None,
    )


_ADMIN: Final = only(Role.ADMIN)
_TAGS: Final = ("admin",)
ROUTES: Final = (
    Route(
        method="GET",
        path="/admin/users",
        handler=users,
        summary="Accounts, newest first, or those found; a page may be short, only a null `nextCursor` is the end",
        access=_ADMIN,
        query=UsersQuery,
        response=Page[AdminUserView],
        tags=_TAGS,
    ),
    Route(
        method="GET",
        path="/admin/users/{user_id}",
        handler=user,
        summary="One account with everything that belongs to it",
        access=_ADMIN,
        response=AdminUserDetailView,
        errors=(AccountNotFound,),
        tags=_TAGS,
    ),
    Route(
        method="POST",
        path="/admin/users/{user_id}/disable",
        handler=disable,
        summary="Shut an account: its tokens stop working, its sockets close, its consultation ends",
        access=_ADMIN,
        body=DisableBody,
        response=AdminUserView,
        errors=(AccountNotFound, OwnAccount),
        audit=Audited("user.disable", "user_id", standing),
        tags=_TAGS,
    ),
    Route(
        method="POST",
        path="/admin/users/{user_id}/enable",
        handler=enable,
        summary="Open a disabled account again; its owner logs in anew",
        access=_ADMIN,
        body=EnableBody,
        response=AdminUserView,
        errors=(AccountNotFound,),
        audit=Audited("user.enable", "user_id", standing),
        tags=_TAGS,
    ),
    Route(
        method="GET",
        path="/admin/users/{user_id}/wallet",
        handler=wallet,
        summary="A user's or a company's wallet, or a lawyer's earnings, with what is held",
        access=_ADMIN,
        response=AdminWalletView,
        errors=(AccountNotFound, NoWallet),
        tags=_TAGS,
    ),
    Route(
        method="GET",
        path="/admin/users/{user_id}/ledger",
        handler=ledger,
        summary="Every entry of a user's ledger account with its transfers, newest first",
        access=_ADMIN,
        query=LedgerQuery,
        response=Page[LedgerLineView],
        errors=(AccountNotFound, NoWallet),
        also=("text/csv",),
        tags=_TAGS,
    ),
    Route(
        method="GET",
        path="/admin/sessions",
        handler=sessions,
        summary="Consultations, newest first; a page may be short, only a null `nextCursor` is the end",
        access=_ADMIN,
        query=SessionsQuery,
        response=Page[AdminSessionOut],
        tags=_TAGS,
    ),
    Route(
        method="GET",
        path="/admin/sessions/{session_id}",
        handler=session,
        summary="One consultation with its timeline, its bill and the ledger's entry",
        access=_ADMIN,
        response=AdminSessionDetailOut,
        errors=(SessionNotFound,),
        tags=_TAGS,
    ),
    Route(
        method="GET",
        path="/admin/revenue",
        handler=revenue,
        summary="Revenue, commission and recharges by day or month, summed over the ledger's rows",
        access=_ADMIN,
        query=RevenueQuery,
        response=RevenueView,
        tags=_TAGS,
    ),
    Route(
        method="GET",
        path="/admin/audit",
        handler=audit,
        summary="What admins did, newest first",
        access=_ADMIN,
        query=AuditQuery,
        response=Page[AuditView],
        tags=_TAGS,
    ),
)
