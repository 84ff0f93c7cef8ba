"""One pipeline for every route: who calls, what they say, run it once, answer."""

import asyncio
import hashlib
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any, Final, Protocol

import structlog
from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from billing_engine.errors import BillingError, InvariantBroken, Unavailable
from server.admin.audit import AuditLog
from server.auth.model import CompanyAccess, Principal, Role
from server.errors import Forbidden, Unauthenticated
from server.http.address import client_address
from server.http.parsing import read_body, read_path, read_query, read_raw
from server.idempotency import Idempotency, IdempotencyRow, StoredAnswer
from server.problems import status_of
from server.rate_limits.service import RateLimits
from server.routing import Access, Answer, Call, Document, Reply, Route, Stream

#: Turns an access token into its caller. Raises `Unauthenticated`, or `Unavailable` when that cannot be known now.
Authenticate = Callable[[str], Awaitable[Principal]]


class CompanyDoor(Protocol):
    """Who acts for which company. All methods raise `Unavailable` when that cannot be known now."""

    def is_key(self, token: str) -> bool:
        """Whether a bearer token means to be an API key."""
        ...

    async def of_key(self, key: str) -> Principal:
        """The caller of a key, with its company. Raises `Unauthenticated`: unknown, revoked, or its company is shut."""
        ...

    async def access_of(self, user_id: str) -> CompanyAccess | None:
        """What an account may do, in which company; None if that is shut, or the account is."""
        ...


REQUEST_ID: Final = web.RequestKey("request_id", str)
#: Who called and on which row of the table, for the log line of the request.
CALLER: Final = web.RequestKey("caller", Principal)
ROUTE: Final = web.RequestKey("route", Route)

#: How often it is looked whether the client of a stream is still there.
_ALONE_EVERY_S: Final = 0.5
_BEARER: Final = re.compile(r"Bearer +([\x21-\x7e]{1,4096}) *", re.IGNORECASE)
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Rendered:
    """An answer as it goes out."""

    status: int
    body: str
    headers: dict[str, str] = field(default_factory=dict)


class Edge:
    """Runs the rows of the table. What moves money or is written down goes on when its client hangs up; `drain` waits."""

    def __init__(
        self,
        *,
        authenticate: Authenticate,
        idempotency: Idempotency,
        services: Any,
        new_id: Callable[[], str],
        audit: AuditLog | None = None,
        rate_limits: RateLimits | None = None,
        trusted_proxies: int = 0,
        companies: CompanyDoor | None = None,
    ) -> None:
        """`audit` is needed as soon as a route says how it is written down, `companies` as soon as one names a right; without
        `rate_limits` nothing is limited.
        """
        self._authenticate = authenticate
        self._idempotency = idempotency
        self._services = services
        self._new_id = new_id
        self._audit = audit
        self._rate_limits = rate_limits
        self._trusted_proxies = trusted_proxies
        self._companies = companies
        self._running: set[asyncio.Task[Rendered]] = set()

    def handler(self, route: Route) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        """The aiohttp handler of one row."""
        if route.audit is not None and self._audit is None:
            raise InvariantBroken(rule="what admins do is written down", route=route.name)
        if route.access.right is not None and self._companies is None:
            raise InvariantBroken(rule="rights are looked up somewhere", route=route.name)

        async def handle(request: web.Request) -> web.StreamResponse:
            request[ROUTE] = route
            return await self._handle(route, request)

        return handle

    async def drain(self) -> None:
        """Wait until no money is moving for a client that may be gone."""
        while self._running:
            await asyncio.wait(set(self._running))

    async def _handle(self, route: Route, request: web.Request) -> web.StreamResponse:
        principal = await self._principal(route.access, request)
        path = read_path(request.match_info)
        query = read_query(request.query, route.query) if route.query is not None else None
        body = await _body(route, request)
        call = Call(
            body=body,
            query=query,
            path=path,
            principal=principal,
            operation_id=self._new_id(),
            services=self._services,
            request_id=request[REQUEST_ID],
            remote=client_address(request, self._trusted_proxies),
        )
        await self._limit(route, call)
        if route.idempotent:
            keys = request.headers.getall("Idempotency-Key", [])
            # Two headers are one list (RFC 9110), and a list is no key: the comma and blank make it invalid.
            rendered = await self._to_its_end(self._once(route, call, ", ".join(keys) if keys else None))
        elif route.audit is not None:
            rendered = await self._to_its_end(self._plainly(route, call))
        else:
            answer = await route.handler(call)
            if isinstance(answer, Document):
                return _document(route, answer)
            if isinstance(answer, Stream):
                return _stream(route, answer)
            rendered = _render(route, answer)
        return web.Response(
            body=rendered.body.encode(),
            status=rendered.status,
            headers=rendered.headers,
            content_type="application/json",
            charset="utf-8",
        )

    async def _principal(self, access: Access, request: web.Request) -> Principal | None:
        if access.public:
            return None
        header = request.headers.get("Authorization", "")
        token = _BEARER.fullmatch(header)
        if token is None:
            raise Unauthenticated(presented=bool(header))
        companies = self._companies
        if companies is not None and companies.is_key(token[1]):
            principal = await companies.of_key(token[1])
        else:
            principal = await self._authenticate(token[1])
        request[CALLER] = principal
        structlog.contextvars.bind_contextvars(user_id=principal.user_id)
        if principal.role not in access.roles:
            raise Forbidden(role=principal.role)
        if principal.role is not Role.COMPANY or companies is None:
            return principal
        return await _for_company(companies, access, principal)

    async def _limit(self, route: Route, call: Call[Any, Any]) -> None:
        """Count the call where its route says so. Raises `RateLimited`."""
        if route.rate is None or self._rate_limits is None:
            return
        account = route.rate.account(call) if route.rate.account is not None else None
        await self._rate_limits.check(route.rate.name, address=call.remote, account=account)

    async def _to_its_end(self, work: Coroutine[Any, Any, Rendered]) -> Rendered:
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    def _ended(self, task: "asyncio.Task[Rendered]") -> None:
        self._running.discard(task)
        # Retrieved here too, for the case that its client has gone; the middleware logs what a client still hears.
        if (
            not task.cancelled()
            and (error := task.exception()) is not None
            and not isinstance(error, BillingError)
        ):
            _log.debug("money request failed", error=repr(error))

    async def _act(self, route: Route, call: Call[Any, Any]) -> Answer:
        """Run the handler; written down, if it is an admin who calls a route that says so."""
        if self._audit is None or route.audit is None or call.caller.role is not Role.ADMIN:
            return await route.handler(call)
        return await self._audit.perform(route.audit, call, route.handler)

    async def _plainly(self, route: Route, call: Call[Any, Any]) -> Rendered:
        return _render(route, await self._act(route, call))

    async def _once(self, route: Route, call: Call[Any, Any], key: str | None) -> Rendered:
        if key is None:
            return await self._plainly(route, call)
        row = await self._idempotency.begin(
            caller=call.principal.user_id if call.principal else "-",
            route=route.name,
            key=key,
            fingerprint=_fingerprint(call),
        )
        if row.answer is not None:
            return Rendered(row.answer.status, row.answer.body, {"Idempotency-Replayed": "true"})
        try:
            rendered = await self._plainly(route, _under(call, row.operation_id))
        except BaseException as exc:
            await self._settle_failure(row, exc)
            raise
        try:
            await self._idempotency.keep(row, StoredAnswer(rendered.status, rendered.body))
        except Unavailable:
            # It took effect and the client hears so. A retry runs again under the same operation id and finds it.
            _log.warning("the answer of a request was not kept", row=row.id, exc_info=True)
        return rendered

    async def _settle_failure(self, row: IdempotencyRow, error: BaseException) -> None:
        refused = status_of(type(error)) < 500
        try:
            await (self._idempotency.forget(row) if refused else self._idempotency.leave(row))
        except Unavailable:
            # The lease ends by itself.
            _log.warning("an idempotency row was left to its lease", row=row.id, exc_info=True)


async def _for_company(companies: CompanyDoor, access: Access, principal: Principal) -> Principal:
    """The principal with its company, if that is asked about. Raises `Forbidden`."""
    if access.right is None and (principal.is_api_key or access.roles == frozenset(Role)):
        if principal.is_api_key:
            raise Forbidden(key=principal.user_id)
        return principal
    # Looked up every time: who was a member, or a manager, a moment ago, may be none now.
    found = principal.company or await companies.access_of(principal.user_id)
    if access.right is None:
        may = found is not None and found.company_id == principal.user_id
    else:
        may = found is not None and access.right in found.rights
    if not may:
        raise Forbidden(right=access.right)
    return replace(principal, company=found)


async def _body(route: Route, request: web.Request) -> Any:
    if route.raw_limit:
        return await read_raw(request, route.raw_limit)
    return await read_body(request, route.body, limit=route.body_limit) if route.body is not None else None


def _under(call: Call[Any, Any], operation_id: str) -> Call[Any, Any]:
    return Call(
        body=call.body,
        query=call.query,
        path=call.path,
        principal=call.principal,
        operation_id=operation_id,
        services=call.services,
        request_id=call.request_id,
        remote=call.remote,
    )


def _document(route: Route, document: Document) -> web.Response:
    headers = {"Content-Type": document.media_type or route.media_type, **document.headers}
    return web.Response(body=document.body, status=document.status or route.status, headers=headers)


def _stream(route: Route, stream: Stream) -> web.Response:
    headers = {"Content-Type": stream.media_type, **stream.headers}
    body = _whole_or_cut(route, stream)
    if stream.close is None:
        return web.Response(body=body, status=route.status, headers=headers)
    return _Watched(stream.close, body=body, status=route.status, headers=headers)


class _Watched(web.Response):
    """A streamed answer whose source hears when nobody reads it any more, also while it has nothing to send."""

    def __init__(self, close: Callable[[], Awaitable[None]], **answer: Any) -> None:
        super().__init__(**answer)
        self._close = close

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        try:
            return await super().prepare(request)
        except BaseException:
            await self._close()
            raise

    async def write_eof(self, data: bytes = b"") -> None:
        watch = asyncio.create_task(self._watch())
        try:
            await super().write_eof(data)
        finally:
            watch.cancel()
            await self._close()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_ALONE_EVERY_S)
            if self._is_alone():
                await self._close()
                return

    def _is_alone(self) -> bool:
        transport = None if self._req is None else self._req.transport
        return transport is None or transport.is_closing()


async def _whole_or_cut(route: Route, stream: Stream) -> AsyncIterator[bytes]:
    """The pieces; trouble on the way is logged here and ends the connection without the end mark of a complete answer."""
    try:
        async for piece in stream.pieces:
            yield piece
    except Unavailable as exc:
        # Somebody we depend on broke off: where we were is no news.
        _log.warning("an answer was cut short", route=route.name, error=repr(exc))
        raise ConnectionAbortedError from exc
    except Exception as exc:
        _log.warning("an answer was cut short", route=route.name, exc_info=exc)
        raise ConnectionAbortedError from exc


def _render(route: Route, answer: Answer) -> Rendered:
    if isinstance(answer, Document | Stream):
        raise InvariantBroken(rule="an answer that is kept for repeats is JSON", route=route.name)
    reply = answer if isinstance(answer, Reply) else Reply(answer)
    return Rendered(
        reply.status or route.status, reply.model.model_dump_json(by_alias=True), dict(reply.headers)
    )


def _fingerprint(call: Call[Any, Any]) -> str:
    """Of what the request asks for, as it was understood: spelling and order of the JSON do not matter."""
    asked = {
        "path": dict(call.path),
        "query": call.query.model_dump() if call.query is not None else None,
        "body": call.body.model_dump() if call.body is not None else None,
    }
    # Not orjson: an amount may be an integer beyond 64 bits until the handler refuses it.
    return hashlib.sha256(json.dumps(asked, sort_keys=True, default=_exact).encode()).hexdigest()


def _exact(value: Any) -> str:
    if isinstance(value, Decimal):
        return str(value)
    raise TypeError(type(value).__name__)
