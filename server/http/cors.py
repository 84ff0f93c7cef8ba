"""Which browsers' origins may call (SPEC 1). Socket.IO answers its own preflights."""

from dataclasses import dataclass
from typing import Final

from aiohttp import web

_ALLOWED_HEADERS: Final = "Authorization, Content-Type, Idempotency-Key, X-Request-Id"
_EXPOSED_HEADERS: Final = "Idempotency-Replayed, Retry-After, WWW-Authenticate, X-Request-Id"
_PREFLIGHT_SECONDS: Final = "600"


@dataclass(frozen=True, slots=True)
class Cors:
    """The allowed origins; none by default. Credentials travel in a header, so no cookie is ever allowed."""

    origins: frozenset[str]

    def preflight(self, request: web.Request) -> web.Response | None:
        """The answer to a browser's question before the call, None if this is no such question from an allowed origin."""
        if request.method != "OPTIONS" or "Access-Control-Request-Method" not in request.headers:
            return None
        if request.headers.get("Origin") not in self.origins:
            return None
        response = web.Response(status=204)
        response.headers["Access-Control-Allow-Methods"] = "GET, POST, PUT, PATCH, DELETE"
        response.headers["Access-Control-Allow-Headers"] = _ALLOWED_HEADERS
        response.headers["Access-Control-Max-Age"] = _PREFLIGHT_SECONDS
        return response

    def mark(self, request: web.Request, response: web.StreamResponse) -> None:
        """Say that this origin may read the answer, if it may."""
        if not self.origins:
            return
        response.headers.add("Vary", "Origin")
        origin = request.headers.get("Origin")
        if origin in self.origins and origin is not None:
            response.headers["Access-Control-Allow-Origin"] = origin
            response.headers["Access-Control-Expose-Headers"] = _EXPOSED_HEADERS
