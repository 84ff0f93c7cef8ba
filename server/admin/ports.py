"""What admins need to look at, in their own words. Every method raises `StoreUnavailable` when the store does not answer."""

from collections.abc import Sequence
from typing import Protocol

from billing_engine.consultations.model import Session, SessionView
from billing_engine.ledger.model import Account as LedgerAccount
from billing_engine.ledger.ports import Activity, Line, Row
from server.admin.model import SessionFilter, UserFilter, UserPage
from server.auth.model import Account
from server.people.model import LawyerCard


class Directory(Protocol):
    """Accounts to be found. No call looks at all of them."""

    async def get(self, account_id: str) -> Account | None: ...

    async def newest(self, wanted: UserFilter, *, limit: int, after: tuple[int, str] | None) -> UserPage:
        """Without a query: newest first; `after` is (created_at_ms, id)."""
        ...

    async def search(self, wanted: UserFilter, *, limit: int, after: tuple[str, str] | None) -> UserPage:
        """With a query: by the word that matches, every account once; `after` is (word, id)."""
        ...


class SessionIndex(Protocol):
    """The session records, newest first."""

    async def newest(
        self, wanted: SessionFilter, *, limit: int, before: tuple[int, str] | None
    ) -> list[Session]:
        """Records by one of the filters that are asked for; the caller looks at the others. `before` is (created_at_ms, id)."""
        ...

    async def count_of(self, person_id: str) -> int:
        """In how many sessions the person is or was, as user or lawyer."""
        ...


class Consultations(Protocol):
    """Billing's word on sessions."""

    async def get(self, session_id: str, *, caller_id: str, is_admin: bool = False) -> SessionView: ...

    async def active_of(self, person_id: str) -> SessionView | None: ...


class Lawyers(Protocol):
    """Profiles. `look_up` raises `LawyerNotFound`."""

    async def look_up(self, lawyer_id: str, *, viewer_id: str, viewer_is_admin: bool) -> LawyerCard: ...


class Books(Protocol):
    """The ledger, to be read."""

    async def account(self, account_id: str, asset: str) -> LedgerAccount: ...

    async def lines(
        self,
        account_id: str,
        *,
        limit: int,
        before: tuple[int, str] | None = None,
        kinds: Sequence[str] | None = None,
    ) -> list[Line]: ...

    async def copied_out(self, keys: Sequence[str]) -> dict[str, Row]: ...

    async def activity(self, asset: str, *, first_day: str, last_day: str) -> Activity: ...


class AuditCount(Protocol):
    """How often a subject stands in the audit log."""

    async def count_about(self, subject: str) -> int: ...
