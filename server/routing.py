"""The route table: one row drives routing, access, validation, idempotency, error documents and the API description.

A resource's module in `server/routes/` exports `ROUTES: tuple[Route, ...]`; `server/app.py` mounts them.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

from pydantic import BaseModel

from billing_engine.errors import InvariantBroken
from server.auth.model import CompanyRight, Principal, Role
from server.rate_limits.service import RateLimit

BodyT = TypeVar("BodyT")
QueryT = TypeVar("QueryT")


@dataclass(frozen=True, slots=True)
class Access:
    """Who may call: everybody, or the signed-in of these roles.

    With a `right`, a COMPANY caller is whoever has it in their company: the owner, a member, an API key. Without one, API keys
    are refused, and what is for companies is for their owners alone.
    """

    roles: frozenset[Role]
    public: bool = False
    right: CompanyRight | None = None


#: No token is looked at.
PUBLIC: Final = Access(frozenset(), public=True)
#: Any role.
SIGNED_IN: Final = Access(frozenset(Role))


def only(*roles: Role) -> Access:
    """The signed-in of `roles`; others get 403."""
    return Access(frozenset(roles))


def company(right: CompanyRight, *, admins: bool = False) -> Access:
    """A company's people and API keys that have the right. `admins` may call, too, and then say which company is meant."""
    return Access(frozenset({Role.COMPANY, Role.ADMIN} if admins else {Role.COMPANY}), right=right)


@dataclass(frozen=True, slots=True)
class Call(Generic[BodyT, QueryT]):
    """One request, parsed and authorised.

    `operation_id` is the idempotency row's id where the client sent a key, else fresh: sessions, holds and transfers are
    named after it, so the same request run again moves nothing twice. `services` is what the composition root built.
    """

    body: BodyT
    query: QueryT
    path: Mapping[str, str]
    principal: Principal | None
    operation_id: str
    services: Any
    request_id: str
    remote: str

    @property
    def caller(self) -> Principal:
        """The signed-in caller; routes that are not public have one."""
        if self.principal is None:
            raise InvariantBroken(rule="a public route knows no caller")
        return self.principal


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer with a status or headers of its own."""

    model: BaseModel
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Document:
    """An answer that is ready to be sent as it is: a page, a picture, JSON that was made at start-up.

    Its route names the media type in `media_type`, and the status in `status`, unless the document has one of its own.
    """

    body: bytes
    media_type: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    status: int | None = None


@dataclass(frozen=True, slots=True)
class Stream:
    """An answer that is written while it is sent, for what may be long. A piece is asked for when the one before was taken.

    What can be refused has been refused by then: an error between two pieces cuts the connection, which tells the client
    that the answer is not complete. `close` is called when it has ended, however that was, or when its client has gone while a
    piece was waited for; more than once, maybe.
    """

    pieces: AsyncIterator[bytes]
    media_type: str
    headers: Mapping[str, str] = field(default_factory=dict)
    close: Callable[[], Awaitable[None]] | None = None


@dataclass(frozen=True, slots=True)
class RawBody:
    """A body as it came, for whoever checks a signature over it or passes it on, with the query. Header names are in lower case."""

    body: bytes
    headers: Mapping[str, str]
    query: Mapping[str, str] = field(default_factory=dict)


Answer = BaseModel | Reply | Document | Stream
Handler = Callable[[Call[Any, Any]], Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class Audited:
    """How an admin's call of a route is written down (`server.admin.audit`).

    `action` names it, `subject` is the path's parameter, or the body's field, that says whom or what it is about; where it is
    neither, it is itself the subject: there is only one such thing. `facts` tells what is known of the
    subject, asked before the act and after it; it raises the handler's own error where the subject does not exist.
    """

    action: str
    subject: str
    facts: Callable[[Call[Any, Any]], Awaitable[Mapping[str, Any]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One row of the table.

    `path` writes its parameters as `{session_id}`. `body` and `query` are None where the route takes none: the handler then
    gets None; with `raw_limit` (bytes) it gets a `RawBody` instead. `errors` are the domain errors beyond those that every
    route may give (401, 403, 422, …). `idempotent` routes take an `Idempotency-Key` and run to their end even when the client
    goes away. `media_type` is what the answer is, where it is not JSON; `also` what else it may be, on demand, always text.
    `audit` is how an admin's call is written down: every write that only some roles, the admin's among them, may make has
    one. `rate` is what its calls are counted as, and limited. `documented` is False for what is no part of the API, such as
    the pages that describe it. `body_limit` (bytes) is for bodies that may be longer than all others.
    """

    method: str
    path: str
    handler: Handler
    summary: str
    access: Access
    response: type[BaseModel]
    body: type[BaseModel] | None = None
    query: type[BaseModel] | None = None
    status: int = 200
    errors: tuple[type[Exception], ...] = ()
    idempotent: bool = False
    tags: tuple[str, ...] = ()
    media_type: str = "application/json"
    also: tuple[str, ...] = ()
    documented: bool = True
    audit: Audited | None = None
    rate: RateLimit | None = None
    raw_limit: int = 0
    body_limit: int = 0

    @property
    def name(self) -> str:
        """`POST /consult/start`: the route in idempotency keys and logs."""
        return f"{self.method} {self.path}"
