"""A lawyer's monthly statement (SPEC 11), as JSON and as CSV."""

import csv
import io
import re
from typing import Annotated, Any, Final, Literal

from pydantic import PlainValidator, WithJsonSchema

from billing_engine.money import Asset, format_minor
from server.auth.model import Role
from server.csv_cells import plain
from server.people.statements import RowKind, Statement, StatementRow, Statements
from server.routing import Call, Document, Route, only
from server.wire import Instant, MoneyOut, WireModel, rfc3339

_MONTH: Final = r"2[0-9]{3}-(0[1-9]|1[0-2])"
_COLUMNS: Final = (
    *("createdAt", "id", "kind", "gross", "commission", "amount", "balance", "currency"),
    *("sessionId", "payoutId", "reference"),
)


def _month(value: Any) -> str:
    if isinstance(value, str) and re.fullmatch(_MONTH, value, re.ASCII):
        return value
    raise ValueError("must be a month such as 2026-11")


class StatementQuery(WireModel):
    """Which month, of TIMEZONE."""

    month: Annotated[
        str,
        PlainValidator(_month),
        WithJsonSchema({"type": "string", "pattern": f"^{_MONTH}$", "examples": ["2026-11"]}),
    ]
    format: Literal["json", "csv"] = "json"


class StatementRowOut(WireModel):
    """One entry. `amount` is what it changes, signed: of an EARNING gross less commission, of a REFUND the same taken back."""

    id: str
    kind: RowKind
    created_at: Instant
    gross: MoneyOut | None
    commission: MoneyOut | None
    amount: MoneyOut
    balance: MoneyOut
    session_id: str | None
    payout_id: str | None
    reference: str | None

    @classmethod
    def of(cls, row: StatementRow, asset: Asset) -> "StatementRowOut":
        def shown(minor: int | None) -> str | None:
            return None if minor is None else format_minor(minor, asset)

        return cls(
            id=row.key.partition("|")[2],
            kind=row.kind,
            created_at=row.at_ms,
            gross=shown(row.gross_minor),
            commission=shown(row.commission_minor),
            amount=format_minor(row.amount_minor, asset),
            balance=format_minor(row.balance_minor, asset),
            session_id=row.session_id,
            payout_id=row.payout_id,
            reference=row.reference,
        )


class StatementOut(WireModel):
    """A month's earnings account, rows oldest first: opening + earned + refunded + paidOut = closing. A payout that is open has not
    left the account yet.
    """

    month: str
    timezone: str
    currency: str
    opening: MoneyOut
    earned: MoneyOut
    refunded: MoneyOut
    paid_out: MoneyOut
    closing: MoneyOut
    items: list[StatementRowOut]


async def statement(call: Call[None, StatementQuery]) -> StatementOut | Document:
    statements: Statements = call.services.statements
    found = await statements.of(call.caller.user_id, call.query.month)
    asset: Asset = call.services.asset
    items = [StatementRowOut.of(row, asset) for row in found.rows]
    if call.query.format == "csv":
        # The month is ours by its pattern.
        saved_as = {"Content-Disposition": f'attachment; filename="statement-{found.month}.csv"'}
        return Document(_csv(found, items, asset), "text/csv; charset=utf-8", saved_as)
    return StatementOut(
        month=found.month,
        timezone=statements.timezone,
        currency=asset.code,
        opening=format_minor(found.opening_minor, asset),
        earned=format_minor(found.total_minor(RowKind.EARNING) + found.total_minor(RowKind.OTHER), asset),
        refunded=format_minor(found.total_minor(RowKind.REFUND), asset),
        paid_out=format_minor(found.total_minor(RowKind.PAYOUT), asset),
        closing=format_minor(found.closing_minor, asset),
        items=items,
    )


def _csv(found: Statement, items: list[StatementRowOut], asset: Asset) -> bytes:
    text = io.StringIO()
    table = csv.writer(text)
    table.writerow(_COLUMNS)
    table.writerow(_edge("OPENING", found.opening_minor, asset))
    for row in items:
        table.writerow(
            (
                *(rfc3339(row.created_at), row.id, row.kind.value, row.gross or "", row.commission or ""),
                *(row.amount, row.balance, asset.code),
                *(row.session_id or "", row.payout_id or "", plain(row.reference or "")),
            )
        )
    table.writerow(_edge("CLOSING", found.closing_minor, asset))
    return text.getvalue().encode()


def _edge(kind: str, balance_minor: int, asset: Asset) -> tuple[str, ...]:
    return ("", "", kind, "", "", "", format_minor(balance_minor, asset), asset.code, "", "", "")


ROUTES: Final = (
    Route(
        method="GET",
        path="/lawyer/statements",
        handler=statement,
        summary="My earnings account of a month: opening and closing balance, every earning, refund and payout",
        access=only(Role.LAWYER),
        query=StatementQuery,
        response=StatementOut,
        also=("text/csv",),
        tags=("earnings",),
    ),
)
