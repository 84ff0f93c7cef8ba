"""A person's ledger account as CSV: all of it, newest first, a page at a time, so that a long history fills no memory."""

import csv
import io
from collections.abc import AsyncIterator
from typing import Final

from server.admin.service import AdminDesk
from server.admin.wire import LedgerLineView
from server.auth.model import Account
from server.wire import rfc3339

#: Lines in one piece.
_PAGE: Final = 200
_COLUMNS: Final = (
    *("createdAt", "id", "kind", "change", "currency", "balanceBefore", "balanceAfter"),
    *("referenceId", "sessionId", "transfers"),
)


async def statement_csv(desk: AdminDesk, account: Account) -> AsyncIterator[bytes]:
    """The pieces, the first of which has been read: whoever has no ledger account is refused before anything is sent.

    Raises:
        NoWallet: the account's role has none.
        Unavailable: also between the pieces; what was written is then not complete.
    """
    first = await _piece(desk, account, None)

    async def pieces() -> AsyncIterator[bytes]:
        piece, before = first
        yield _rows([_COLUMNS]) + piece
        while before is not None:
            piece, before = await _piece(desk, account, before)
            yield piece

    return pieces()


async def _piece(
    desk: AdminDesk, account: Account, before: tuple[int, str] | None
) -> tuple[bytes, tuple[int, str] | None]:
    lines = await desk.ledger(account, limit=_PAGE, before=before)
    rows = [_row(LedgerLineView.of(line, row)) for line, row in lines]
    last = lines[-1][0] if len(lines) == _PAGE else None
    return _rows(rows), None if last is None else (last.at_ms, last.key)


def _row(line: LedgerLineView) -> tuple[str, ...]:
    moved = "; ".join(f"{one.amount} {one.kind} {one.from_} > {one.to}" for one in line.transfers)
    return (
        *(rfc3339(line.created_at), line.id, line.kind, line.change, line.currency),
        *(line.balance_before or "", line.balance_after or ""),
        *(line.reference_id, line.session_id or "", moved),
    )


def _rows(rows: list[tuple[str, ...]]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()
