"""The aiohttp application: mounts the route table and turns every failure into a problem document."""

import re
import time
from collections.abc import Callable, Iterable
from typing import Any, Final

import structlog
from aiohttp import web

from billing_engine.money import INR, Asset
from server.admin.audit import AuditLog
from server.errors import BodyTooLarge, MalformedJson, MethodNotAllowed, PathNotFound
from server.http.cors import Cors
from server.http.edge import CALLER, REQUEST_ID, ROUTE, Authenticate, CompanyDoor, Edge
from server.http.parsing import MAX_BODY_BYTES, ClientGone
from server.idempotency import Idempotency
from server.ids import new_id
from server.problems import CONTENT_TYPE, problem_of
from server.rate_limits.service import RateLimits
from server.routing import Route

_SANE_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._:-]{8,128}")
#: nginx's number for a client that hung up; nobody receives it.
_CLIENT_GONE: Final = 499
_log = structlog.get_logger(__name__)

#: The route's name (`POST /consult/start`), the status, the problem's code if it was one, and the seconds that it took.
OnRequest = Callable[[str, int, str | None, float], None]
#: The code of the problem that the request ended in.
CODE: Final = web.RequestKey("code", str)


def build_app(
    routes: Iterable[Route],
    *,
    services: Any,
    authenticate: Authenticate,
    idempotency: Idempotency,
    cors_origins: Iterable[str] = (),
    asset: Asset = INR,
    new_id: Callable[[], str] = new_id,
    foreign_paths: tuple[str, ...] = ("/socket.io/",),
    on_request: OnRequest = lambda _route, _status, _code, _took_s: None,
    audit: AuditLog | None = None,
    rate_limits: RateLimits | None = None,
    trusted_proxies: int = 0,
    companies: CompanyDoor | None = None,
) -> web.Application:
    """The application with every route mounted.

    `foreign_paths` are served by somebody else on this application, who answers for their own errors and origins.
    `on_request` hears of every answer; it must not raise. `audit` is where admins' acts are written down. `trusted_proxies`
    are those of ours that stand in front (`server.http.address`). `companies` knows API keys and members.
    """
    edge = Edge(
        authenticate=authenticate,
        idempotency=idempotency,
        services=services,
        new_id=new_id,
        audit=audit,
        rate_limits=rate_limits,
        trusted_proxies=trusted_proxies,
        companies=companies,
    )
    outer = _Outer(
        Cors(frozenset(cors_origins)),
        asset=asset,
        new_id=new_id,
        foreign_paths=foreign_paths,
        on_request=on_request,
    )

    @web.middleware
    async def middleware(request: web.Request, handler: Any) -> web.StreamResponse:
        return await outer.run(request, handler)

    app = web.Application(middlewares=[middleware], client_max_size=MAX_BODY_BYTES)
    for route in routes:
        app.router.add_route(route.method, route.path, edge.handler(route))
        if route.method == "GET":
            app.router.add_route("HEAD", route.path, edge.handler(route))

    async def drain(_: web.Application) -> None:
        await edge.drain()

    # After the connections are closed, so that no request begins behind its back.
    app.on_cleanup.append(drain)
    return app


class _Outer:
    """Around every request: its id, its log line, its problem document, its CORS headers."""

    def __init__(
        self,
        cors: Cors,
        *,
        asset: Asset,
        new_id: Callable[[], str],
        foreign_paths: tuple[str, ...],
        on_request: OnRequest,
    ) -> None:
        self._on_request = on_request
        self._cors = cors
        self._asset = asset
        self._new_id = new_id
        self._foreign_paths = foreign_paths

    async def run(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if request.path.startswith(self._foreign_paths):
            foreign: web.StreamResponse = await handler(request)
            return foreign
        given = request.headers.get("X-Request-Id", "")
        request_id = given if _SANE_REQUEST_ID.fullmatch(given) else self._new_id()
        request[REQUEST_ID] = request_id
        started_ns = time.monotonic_ns()
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            response = self._cors.preflight(request) or await self._answer(request, handler)
            response.headers["X-Request-Id"] = request_id
            # A document that never changes may say so itself.
            response.headers.setdefault("Cache-Control", "no-store")
            response.headers["X-Content-Type-Options"] = "nosniff"
            # Left alone, it would name the versions of Python and aiohttp, for whoever looks for their holes.
            response.headers["Server"] = "tarazu"
            self._cors.mark(request, response)
            self._note(request, response.status, (time.monotonic_ns() - started_ns) // 1_000)
        return response

    async def _answer(self, request: web.Request, handler: Any) -> web.StreamResponse:
        try:
            response: web.StreamResponse = await handler(request)
        except ClientGone:
            # In the middle of its own request: nobody to tell, nothing to log.
            return web.Response(status=_CLIENT_GONE)
        except web.HTTPException as exc:
            word = _own_word(exc)
            if word is None:
                raise
            return self._problem(request, word)
        except Exception as exc:  # noqa: BLE001 (the edge answers everything; what is unexpected is logged)
            return self._problem(request, exc)
        return response

    def _problem(self, request: web.Request, error: BaseException) -> web.Response:
        problem = problem_of(error, request_id=request[REQUEST_ID], path=request.path, asset=self._asset)
        request[CODE] = str(problem.body["code"])
        if problem.status >= 500:
            facts = getattr(error, "facts", None)
            if problem.status == 500:
                _log.error(
                    "request failed", method=request.method, path=request.path, facts=facts, exc_info=error
                )
            else:
                # Something of ours or a gateway is away: its name says it all, and a traceback a request would bury it.
                cause = repr(error.__cause__) if error.__cause__ is not None else None
                _log.warning(
                    "request failed",
                    method=request.method,
                    path=request.path,
                    error=type(error).__name__,
                    facts=facts,
                    cause=cause,
                )
        return web.Response(
            body=problem.encode(), status=problem.status, headers=problem.headers, content_type=CONTENT_TYPE
        )

    def _note(self, request: web.Request, status: int, took_us: int) -> None:
        route, caller = request.get(ROUTE), request.get(CALLER)
        # A path that is no route's stays nameless: a stranger could invent names without end.
        self._on_request(route.name if route else "none", status, request.get(CODE), took_us / 1_000_000)
        _log.info(
            "request",
            method=request.method,
            route=route.path if route else None,
            status=status,
            took_us=took_us,
            user_id=caller.user_id if caller else None,
        )


def _own_word(error: web.HTTPException) -> BaseException | None:
    """Our error for what aiohttp found; None for the rare rest, which goes out as aiohttp has it."""
    match error:
        case web.HTTPMethodNotAllowed():
            return MethodNotAllowed(allow=error.allowed_methods)
        case web.HTTPRequestEntityTooLarge():
            return BodyTooLarge(limit=MAX_BODY_BYTES)
        case web.HTTPNotFound():
            return PathNotFound()
        case web.HTTPBadRequest():
            return MalformedJson(reason="aiohttp refused the request")
        case _:
            return None
