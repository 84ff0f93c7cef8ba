"""`RefundBooks` and `RefundRequests` of the refunds room, over two collections."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Final

from billing_engine.refunds.model import Decision, RefundBook, RefundRequest, RequestStatus
from server.storage.collection import Collection, Collections, CollectionSpec, Doc
from server.storage.errors import DuplicateId

REFUND_BOOKS: Final = CollectionSpec(
    name="refund_books", integer=("revision",), boolean=("is_open",), indexes=(("is_open",),)
)
REFUND_REQUESTS: Final = CollectionSpec(
    name="refund_requests",
    text=("session_id", "user_id", "status"),
    integer=("created_at_ms", "number"),
    indexes=(
        ("session_id", "number"),
        ("user_id", "created_at_ms"),
        ("status", "created_at_ms"),
        ("created_at_ms",),
    ),
)
_BOOK: Final = ("user_id", "lawyer_id", "currency", "gross_minor", "commission_minor", "revision")
_DECISION: Final = tuple(field.name for field in fields(Decision))
_REQUEST: Final = tuple(field.name for field in fields(RefundRequest) if field.name != "id")


class CollectionRefundBooks:
    """One document a session, under the session's id; it changes by compare-and-set on its revision."""

    def __init__(self, collection: Collection) -> None:
        self._books = collection

    @classmethod
    async def opened(cls, collections: Collections) -> "CollectionRefundBooks":
        return cls(await collections.open(REFUND_BOOKS))

    async def get(self, session_id: str) -> RefundBook | None:
        doc = await self._books.get(session_id)
        return None if doc is None else refund_book_of(doc)

    async def get_many(self, session_ids: Sequence[str]) -> dict[str, RefundBook]:
        found = await self._books.get_many(session_ids)
        return {id_: refund_book_of(doc) for id_, doc in found.items()}

    async def put(self, book: RefundBook, *, expect_revision: int) -> bool:
        facts: Doc = {name: getattr(book, name) for name in _BOOK}
        facts["decisions"] = [
            {name: getattr(decision, name) for name in _DECISION} for decision in book.decisions
        ]
        facts["is_open"] = book.is_open
        if expect_revision > 0:
            where = {"revision": expect_revision}
            return await self._books.update(book.session_id, where=where, set_=facts) is not None
        try:
            await self._books.insert({"_id": book.session_id, **facts})
        except DuplicateId:
            return False
        return True

    async def open(self, *, limit: int) -> list[RefundBook]:
        return [refund_book_of(doc) for doc in await self._books.find({"is_open": True}, limit=limit)]


def refund_book_of(doc: Doc) -> RefundBook:
    """The stored document as the domain knows it."""
    facts = {name: doc[name] for name in _BOOK}
    decisions = tuple(Decision(**decision) for decision in doc["decisions"])
    return RefundBook(session_id=doc["_id"], decisions=decisions, **facts)


class CollectionRefundRequests:
    """One document a request; only an open one changes, once."""

    def __init__(self, collection: Collection) -> None:
        self._requests = collection

    @classmethod
    async def open(cls, collections: Collections) -> "CollectionRefundRequests":
        return cls(await collections.open(REFUND_REQUESTS))

    async def add(self, request: RefundRequest) -> bool:
        try:
            await self._requests.insert({"_id": request.id, **_request_facts(request)})
        except DuplicateId:
            return False
        return True

    async def get(self, request_id: str) -> RefundRequest | None:
        doc = await self._requests.get(request_id)
        return None if doc is None else refund_request_of(doc)

    async def of_session(self, session_id: str) -> list[RefundRequest]:
        found = await self._requests.find({"session_id": session_id}, sort=(("number", "desc"),))
        return [refund_request_of(doc) for doc in found]

    async def settle(self, request: RefundRequest) -> None:
        where = {"status": RequestStatus.OPEN.value}
        await self._requests.update(request.id, where=where, set_=_request_facts(request))

    async def list_for(
        self, user_id: str, *, limit: int, before: tuple[int, str] | None
    ) -> list[RefundRequest]:
        page = await self._requests.find(
            {"user_id": user_id}, sort=(("created_at_ms", "desc"),), limit=limit, after=before
        )
        return [refund_request_of(doc) for doc in page]

    async def queue(
        self, status: RequestStatus | None, *, limit: int, after: tuple[int, str] | None
    ) -> list[RefundRequest]:
        waiting = status is RequestStatus.OPEN
        page = await self._requests.find(
            {} if status is None else {"status": status.value},
            sort=(("created_at_ms", "asc" if waiting else "desc"),),
            limit=limit,
            after=after,
        )
        return [refund_request_of(doc) for doc in page]


def _request_facts(request: RefundRequest) -> Doc:
    facts = {name: getattr(request, name) for name in _REQUEST}
    return facts | {"status": request.status.value}


def refund_request_of(doc: Doc) -> RefundRequest:
    """The stored document as the domain knows it."""
    facts = {name: doc[name] for name in _REQUEST}
    return RefundRequest(id=doc["_id"], **facts | {"status": RequestStatus(doc["status"])})
