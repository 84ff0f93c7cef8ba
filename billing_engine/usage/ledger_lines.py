"""A company's ledger as its people read it: what moved its wallet, in the order in which it did."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from billing_engine.ledger.accounts import company_wallet_of
from billing_engine.ledger.model import Entry, KeyState, effect_on
from billing_engine.ledger.service import Ledger
from billing_engine.payments.disputes import OUTCOME, WORD_AT
from billing_engine.payments.returns import BOUND, RETURN_KINDS

#: What an entry is called that is neither this meter's nor money that went back to the payer.
OTHER: Final = "ADJUSTMENT"
#: What an entry remembers for the books alone. Of a refund the admin who made it.
_HIDDEN: Final = frozenset(
    [
        *("held", "entryType", "crossed", "owing", "owedUpto", "usage", "by", "balance", "owed"),
        *("amount", BOUND, OUTCOME, WORD_AT),
    ]
)
#: Entries that are read at once, and how often, for a page that its own number of entries did not fill.
_AT_ONCE: Final = 250
_LOOKS: Final = 8


@dataclass(frozen=True, slots=True)
class LedgerLine:
    """One entry that changed the wallet. `amount_minor` is signed; `number` is the entry's in its account."""

    number: int
    entry_type: str
    amount_minor: int
    before_minor: int
    after_minor: int
    reference: str
    at_ms: int
    metadata: Mapping[str, Any]


class LedgerLines:
    """Reads the ledger of one company at a time."""

    def __init__(self, *, ledger: Ledger, asset: str) -> None:
        self._ledger = ledger
        self._asset = asset

    async def newest(
        self, company_id: str, *, entry_type: str | None, limit: int, below: int | None
    ) -> tuple[list[LedgerLine], int | None]:
        """Up to `limit` lines, newest first, and below which number to go on (None: that was all). `below` None begins at the newest.

        What moved no money (a usage that is owed) is no line. Of a rare type a page may be short, or empty, before the last: so many
        entries are looked at for one page, and no more.
        """
        account_id = company_wallet_of(company_id)
        await self._ledger.account(account_id, self._asset)
        lines: list[LedgerLine] = []
        # Almost every entry is a line: of most pages the first look is the last.
        for at_once in (limit, *(_AT_ONCE for _ in range(_LOOKS))):
            entries = await self._ledger.entries(account_id, below=below, limit=at_once, newest_first=True)
            for entry in entries:
                if entry_type in (None, _type_of(entry)) and (line := _line_of(entry)) is not None:
                    lines.append(line)
                    if len(lines) == limit:
                        return lines, entry.seq if entry.seq > 1 else None
            if len(entries) < at_once:
                return lines, None
            below = entries[-1].seq
        return lines, below


def _type_of(entry: Entry) -> str:
    """Money that goes back to the payer, or is asked back, is called by its kind (`PAYER_REFUND`)."""
    named: str = entry.kind.upper() if entry.kind in RETURN_KINDS else OTHER
    return str(entry.facts.get("entryType", named))


def _line_of(entry: Entry) -> LedgerLine | None:
    """Money that goes back to the payer refers to the invoice."""
    change = effect_on(entry.account, entry.transfers) if entry.state is KeyState.POSTED else 0
    if change == 0:
        return None
    goes_back = entry.kind in RETURN_KINDS
    return LedgerLine(
        number=entry.seq,
        entry_type=_type_of(entry),
        amount_minor=change,
        before_minor=entry.posted_before,
        after_minor=entry.posted_after,
        reference=entry.facts.get("paymentId", entry.reference) if goes_back else entry.reference,
        at_ms=entry.at_ms,
        metadata={name: value for name, value in entry.facts.items() if name not in _HIDDEN},
    )
