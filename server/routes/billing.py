"""The billing page of a company: its wallet, its usage, its ledger, its recharges (SPEC 9)."""

import csv
import io
from collections.abc import AsyncIterator
from typing import Any, Final

import orjson

from billing_engine.ledger.model import Entry
from billing_engine.money import Asset, MoneyInvalid, format_minor, parse_minor
from billing_engine.payments.errors import (
    AmountOutOfRange,
    GatewayRefused,
    GatewayUnavailable,
    NotSupported,
    PaymentMethodNotFound,
    PaymentNotFound,
)
from billing_engine.payments.model import Payment, Purpose
from billing_engine.usage.days import day_in, days_upto
from billing_engine.usage.rollups import WHOLE
from server.auth.model import CompanyRight
from server.billing_wire import (
    AlertsIn,
    AlertsOut,
    AutoRechargeIn,
    AutoRechargeOut,
    CardsOut,
    CompanyQuery,
    CompanyRechargeIn,
    CompanyRechargeOut,
    InvoiceOut,
    LedgerLineOut,
    LedgerQuery,
    StatusOut,
    UsagePageOut,
    UsageQuery,
    daily_of,
    job_usage_of,
)
from server.companies.errors import CompanyNotFound
from server.csv_cells import plain
from server.errors import ValidationFailed
from server.invoice_page import invoice_page
from server.rate_limits.service import Limited, RateLimit
from server.routes.company_calls import company_of
from server.routing import Call, Document, Route, Stream, company
from server.usage_room import UsageRoom
from server.wire import Page, PageQuery, decode_cursor, encode_cursor, rfc3339, time_place


def _room(call: Call[Any, Any]) -> UsageRoom:
    room: UsageRoom = call.services.usage
    return room


async def status(call: Call[None, CompanyQuery]) -> StatusOut:
    room = _room(call)
    company_id = company_of(call, call.query.company_id)
    terms = await room.companies.terms(company_id)
    account = await room.recharges.account(company_id)
    now_ms = room.clock.now_ms()
    return StatusOut.of(
        company_id,
        account,
        room.asset,
        time_zone=terms.time_zone,
        day=day_in(terms.time_zone, now_ms),
        now_ms=now_ms,
    )


async def usage(call: Call[None, UsageQuery]) -> UsagePageOut:
    room, query = _room(call), call.query
    company_id = company_of(call, query.company_id)
    terms = await room.companies.terms(company_id)
    days = int(query.days)
    book = await room.recharges.book(company_id)
    # Entries of a company that moved to an earlier time zone stand on a day that is still to come there.
    last_day = max(book.day, day_in(terms.time_zone, room.clock.now_ms()))
    shown_days = days_upto(last_day, days)
    first_day = shown_days[0]
    if query.job_id is None:
        found = await room.jobs.list_for(company_id, limit=query.limit + 1, before=time_place(query.cursor))
    else:
        job = await room.jobs.get(company_id, query.job_id)
        found = [] if job is None else [job]
    jobs = found[: query.limit]
    scopes = [query.job_id or WHOLE, *(job.id for job in jobs)]
    spent = await room.rollups.spent(company_id, first_day=first_day, last_day=last_day, scopes=scopes)
    whole = spent[scopes[0]]
    return UsagePageOut(
        company_id=company_id,
        currency=room.asset.code,
        days=days,
        from_=first_day,
        to=last_day,
        usage=CardsOut.of(whole.by_kind(query.type), room.asset),
        daily=daily_of(whole.by_day(query.type), shown_days, room.asset),
        jobs=[job_usage_of(job, spent[job.id].by_kind(query.type), room.asset) for job in jobs],
        next_cursor=encode_cursor(jobs[-1].created_at_ms, jobs[-1].id) if len(found) > query.limit else None,
    )


# -- ledger


async def ledger(call: Call[None, LedgerQuery]) -> Page[LedgerLineOut] | Stream:
    room, query = _room(call), call.query
    company_id = company_of(call, query.company_id)
    await room.companies.terms(company_id)
    if query.format == "csv":
        saved_as = {"Content-Disposition": 'attachment; filename="ledger.csv"'}
        return Stream(_csv(room, company_id, query.type), "text/csv; charset=utf-8", saved_as)
    below = None if query.cursor is None else int(decode_cursor(query.cursor, int)[0])
    lines, more = await room.lines.newest(company_id, entry_type=query.type, limit=query.limit, below=below)
    return Page[LedgerLineOut](
        items=[LedgerLineOut.of(line, room.asset) for line in lines],
        next_cursor=None if more is None else encode_cursor(more),
    )


_COLUMNS: Final = (
    *("createdAt", "entryType", "amount", "balanceBefore", "balanceAfter", "currency"),
    *("referenceId", "metadata"),
)
_CSV_ROWS: Final = 500


async def _csv(room: UsageRoom, company_id: str, entry_type: str | None) -> AsyncIterator[bytes]:
    yield _rows([_COLUMNS])
    below: int | None = None
    while True:
        lines, below = await room.lines.newest(
            company_id, entry_type=entry_type, limit=_CSV_ROWS, below=below
        )
        shown = [LedgerLineOut.of(line, room.asset) for line in lines]
        yield _rows(
            [
                (
                    *(rfc3339(line.created_at), line.entry_type, line.amount, line.balance_before),
                    *(line.balance_after, line.currency, plain(line.reference_id)),
                    orjson.dumps(line.metadata).decode(),
                )
                for line in shown
            ]
        )
        if below is None:
            return


def _rows(rows: list[tuple[str, ...]]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


# -- recharges


def _amount(text: object, asset: Asset) -> int:
    """Raises `MoneyInvalid`: no gateway takes a part of a cent."""
    amount_minor = parse_minor(text, asset)
    if amount_minor % 10 ** (asset.decimals - _CENTS):
        raise MoneyInvalid(field="amount", problem=f"has more than {_CENTS} decimals")
    return amount_minor


_CENTS: Final = 2


async def recharge(call: Call[CompanyRechargeIn, None]) -> CompanyRechargeOut:
    room, body = _room(call), call.body
    company_id = company_of(call)
    owner = await call.services.accounts.get(company_id)
    payment = await room.recharges.recharge(
        company_id=company_id,
        amount_minor=_amount(body.amount, room.asset),
        operation_id=call.operation_id,
        email=owner.email,
        method_id=body.payment_method_id,
        save_method=body.save_payment_method,
    )
    entry = await room.recharges.credit_of(payment)
    shown = _invoice(payment, entry, room.asset)
    balance = None
    if entry is not None:
        # What was owed is paid from it in the same write, after it.
        balance = format_minor((await room.recharges.account(company_id)).spendable, room.asset)
    return CompanyRechargeOut(**_fields(shown), wallet_balance=balance)


def _fields(invoice: InvoiceOut) -> dict[str, Any]:
    return {name: getattr(invoice, name) for name in InvoiceOut.model_fields}


async def set_auto_recharge(call: Call[AutoRechargeIn, None]) -> AutoRechargeOut:
    room, body = _room(call), call.body
    if body.enabled and body.payment_method_id is None:
        raise ValidationFailed([("paymentMethodId", "is required: which saved means of payment is charged")])
    book = await room.recharges.set_auto(
        company_id=company_of(call),
        is_enabled=body.enabled,
        amount_minor=_amount(body.amount, room.asset),
        method_id=body.payment_method_id,
    )
    return AutoRechargeOut.of(book, room.asset, room.clock.now_ms())


async def set_alerts(call: Call[AlertsIn, None]) -> AlertsOut:
    room = _room(call)
    thresholds = [
        parse_minor(text, room.asset, field=f"thresholds.{i}") for i, text in enumerate(call.body.thresholds)
    ]
    for i, threshold in enumerate(thresholds):
        if threshold <= 0:
            raise MoneyInvalid(field=f"thresholds.{i}", problem="must be above 0")
    book = await room.recharges.set_thresholds(company_of(call), thresholds)
    return AlertsOut(
        thresholds=[format_minor(threshold, room.asset) for threshold in book.thresholds],
        currency=room.asset.code,
    )


# -- invoices


def _invoice(payment: Payment, entry: Entry | None, asset: Asset) -> InvoiceOut:
    return InvoiceOut.of(
        payment,
        asset,
        number=None if entry is None else entry.facts.get("invoice"),
        paid_at_ms=None if entry is None else entry.at_ms,
    )


async def invoices(call: Call[None, "InvoicesQuery"]) -> Page[InvoiceOut]:
    room, query = _room(call), call.query
    company_id = company_of(call, query.company_id)
    await room.companies.terms(company_id)
    found = await room.recharges.list_for(company_id, limit=query.limit + 1, before=time_place(query.cursor))
    shown = found[: query.limit]
    entries = await room.recharges.credits_of(shown)
    return Page[InvoiceOut](
        items=[_invoice(payment, entries.get(payment.id), room.asset) for payment in shown],
        next_cursor=encode_cursor(shown[-1].created_at_ms, shown[-1].id)
        if len(found) > query.limit
        else None,
    )


class InvoicesQuery(PageQuery, CompanyQuery):
    """Which company's, and how many."""


async def _own(call: Call[Any, Any]) -> Payment:
    payment: Payment = await call.services.payments.own(call.path["invoice_id"], payer_id=company_of(call))
    if payment.purpose is not Purpose.COMPANY:
        raise PaymentNotFound(payment=payment.id)
    return payment


async def invoice(call: Call[None, None]) -> InvoiceOut:
    room = _room(call)
    payment = await _own(call)
    return _invoice(payment, await room.recharges.credit_of(payment), room.asset)


async def invoice_to_print(call: Call[None, None]) -> Document:
    room = _room(call)
    payment = await _own(call)
    terms = await room.companies.terms(payment.payer_id)
    shown = _invoice(payment, await room.recharges.credit_of(payment), room.asset)
    return invoice_page(shown, company_name=terms.name, time_zone=terms.time_zone)


_TAGS: Final = ("billing",)
_READ: Final = company(CompanyRight.READ, admins=True)
_MANAGE: Final = company(CompanyRight.MANAGE)
ROUTES: Final = (
    Route(
        method="GET",
        path="/api/billing/status",
        handler=status,
        summary="The wallet: balance, spent this month and ever, owed, automatic recharge",
        access=_READ,
        query=CompanyQuery,
        response=StatusOut,
        errors=(CompanyNotFound,),
        tags=_TAGS,
    ),
    Route(
        method="GET",
        path="/api/billing/usage",
        handler=usage,
        summary="What was used, by type, by day and by job",
        access=_READ,
        query=UsageQuery,
        response=UsagePageOut,
        errors=(CompanyNotFound,),
        tags=_TAGS,
    ),
    Route(
        method="GET",
        path="/api/billing/ledger",
        handler=ledger,
        summary="Every entry of the wallet, newest first; also as CSV",
        access=_READ,
        query=LedgerQuery,
        response=Page[LedgerLineOut],
        errors=(CompanyNotFound,),
        also=("text/csv",),
        tags=_TAGS,
    ),
    Route(
        method="POST",
        path="/api/billing/recharge",
        handler=recharge,
        summary="Recharge the wallet",
        access=_MANAGE,
        body=CompanyRechargeIn,
        response=CompanyRechargeOut,
        status=201,
        errors=(AmountOutOfRange, PaymentMethodNotFound, GatewayRefused, GatewayUnavailable, NotSupported),
        rate=RateLimit(Limited.RECHARGE, account=company_of),
        idempotent=True,
        tags=_TAGS,
    ),
    Route(
        method="PUT",
        path="/api/billing/auto-recharge",
        handler=set_auto_recharge,
        summary="Recharge by a saved means of payment whenever the balance runs out",
        access=_MANAGE,
        body=AutoRechargeIn,
        response=AutoRechargeOut,
        errors=(AmountOutOfRange, PaymentMethodNotFound),
        idempotent=True,
        tags=_TAGS,
    ),
    Route(
        method="PUT",
        path="/api/billing/alerts",
        handler=set_alerts,
        summary="At which balances to be told",
        access=_MANAGE,
        body=AlertsIn,
        response=AlertsOut,
        tags=_TAGS,
    ),
    Route(
        method="GET",
        path="/api/billing/invoices",
        handler=invoices,
        summary="Recharges, newest first",
        access=_READ,
        query=InvoicesQuery,
        response=Page[InvoiceOut],
        errors=(CompanyNotFound,),
        tags=_TAGS,
    ),
    Route(
        method="GET",
        path="/api/billing/invoices/{invoice_id}",
        handler=invoice,
        summary="One recharge",
        access=company(CompanyRight.READ),
        response=InvoiceOut,
        errors=(PaymentNotFound,),
        tags=_TAGS,
    ),
    Route(
        method="GET",
        path="/api/billing/invoices/{invoice_id}/page",
        handler=invoice_to_print,
        summary="One recharge, to be printed",
        access=company(CompanyRight.READ),
        response=InvoiceOut,
        errors=(PaymentNotFound,),
        media_type="text/html",
        tags=_TAGS,
    ),
)
