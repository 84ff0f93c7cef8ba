"""What refunds need from the outside, in their own words."""

from collections.abc import Sequence
from typing import Protocol

from billing_engine.consultations.model import Session
from billing_engine.refunds.model import Decision, RefundBook, RefundRequest, RequestStatus


class SessionRecords(Protocol):
    """The consultations' records."""

    async def get(self, session_id: str) -> Session | None: ...


class RefundBooks(Protocol):
    """The stored books, one a session. All methods raise `Unavailable`."""

    async def get(self, session_id: str) -> RefundBook | None: ...

    async def get_many(self, session_ids: Sequence[str]) -> dict[str, RefundBook]:
        """Those that exist, by session."""
        ...

    async def put(self, book: RefundBook, *, expect_revision: int) -> bool:
        """Compare-and-set on the revision (0: there is none yet); whether it was."""
        ...

    async def open(self, *, limit: int) -> list[RefundBook]:
        """Books with decisions that are not settled."""
        ...


class RefundRequests(Protocol):
    """The stored requests. All methods raise `Unavailable`."""

    async def add(self, request: RefundRequest) -> bool:
        """Insert; False if the id exists."""
        ...

    async def get(self, request_id: str) -> RefundRequest | None: ...

    async def of_session(self, session_id: str) -> list[RefundRequest]:
        """All requests about the session, the newest first."""
        ...

    async def settle(self, request: RefundRequest) -> None:
        """Write how an open request was decided. One that is decided stays as it is."""
        ...

    async def list_for(
        self, user_id: str, *, limit: int, before: tuple[int, str] | None
    ) -> list[RefundRequest]:
        """The user's, newest first; `before` is (created_at_ms, id) of the last one of the previous page."""
        ...

    async def queue(
        self, status: RequestStatus | None, *, limit: int, after: tuple[int, str] | None
    ) -> list[RefundRequest]:
        """Everybody's: open ones oldest first, others and all together newest first. `after` as above."""
        ...


class RefundNews(Protocol):
    """Tells the user. On return they will be told, once for the same decision; raises `Unavailable`."""

    async def refund_decided(self, book: RefundBook, decision: Decision) -> None:
        """Money was given back, or a request was turned down."""
        ...
