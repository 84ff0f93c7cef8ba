"""A fresh token for a connection that is open: the same person, perhaps from another log-in."""

from collections.abc import Awaitable, Callable
from typing import Any

from chat import wire
from chat.connections import Connection
from chat.errors import OtherPerson
from chat.login_events import AuthRefresh
from chat.ports import Principal

#: Who a token names and when it expires (milliseconds since the epoch), if its log-in has not ended.
#: Raises `Unauthenticated`; `Unavailable` when nobody can tell.
Renew = Callable[[str], Awaitable[tuple[Principal, int]]]


class TokenRefresh:
    """The handler of `auth:refresh`."""

    def __init__(self, renew: Renew) -> None:
        self._renew = renew

    async def __call__(self, connection: Connection, request: AuthRefresh) -> dict[str, Any]:
        """Put the token's log-in behind the connection. A refused one changes nothing.

        Nothing is awaited between the answer, which knows of every end of a log-in that this process has heard of, and the change: an
        end that is heard of later finds the connection under its new log-in.
        """
        principal, expires_at_ms = await self._renew(request.token)
        if principal.user_id != connection.user_id:
            raise OtherPerson(user_id=connection.user_id)
        connection.principal = principal
        return wire.ok({"expiresAt": wire.instant(expires_at_ms)})
