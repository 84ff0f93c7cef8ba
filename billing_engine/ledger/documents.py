"""The account documents that one process remembers, and the versions that it writes."""

import itertools
import secrets
from collections.abc import Iterable
from typing import Final

from billing_engine.ledger.model import Account
from billing_engine.ledger.ports import Versioned, Write

#: A document as it was read, or as it was written.
Document = Versioned | Write


class Documents:
    """Documents with open holds or with a tail, as this process last wrote them: a tick needs no read. A moved version is found by
    the store's compare-and-set, never here.
    """

    def __init__(self) -> None:
        self._kept: dict[str, Document] = {}
        # A version must never repeat, also after a rollback (LEDGER 1): random per process, counted within it.
        self._numbers: Final = map("{:x}".format, itertools.count())
        self.prefix = secrets.token_hex(8)

    def get(self, account_id: str) -> Document | None:
        """The document, if it is remembered."""
        return self._kept.get(account_id)

    def write(self, found: Document, account: Account) -> Write:
        """The write that replaces `found`, under a new version."""
        return Write(found.version, self.prefix + next(self._numbers), account)

    def remember(self, writes: Iterable[Write], moved: frozenset[str] = frozenset()) -> None:
        """These are written, except the accounts in `moved`: of them nothing is known."""
        kept = self._kept
        for write in writes:
            account = write[2]
            if (account.holds or account.tail) and account[0] not in moved:
                kept[account[0]] = write
            else:
                kept.pop(account[0], None)

    def forget(self, account_ids: Iterable[str]) -> None:
        """Read them again next time."""
        for account_id in account_ids:
            self._kept.pop(account_id, None)
