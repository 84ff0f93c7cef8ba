"""Every event of the socket: its name, what it carries, what is answered. One table drives dispatch, validation and documentation.

Each concern has a table of its own; here they are one.
"""

from typing import Final

from chat.billing_events import BILLING_EVENTS
from chat.call_events import CLIENT_CALL_EVENTS, SERVER_CALL_EVENTS
from chat.consult_events import CLIENT_CONSULT_EVENTS, SERVER_CONSULT_EVENTS
from chat.event_types import ClientEvent, ServerEvent, View
from chat.login_events import LOGIN_EVENTS
from chat.message_events import CLIENT_CHAT_EVENTS, SERVER_CHAT_EVENTS


class ByeView(View):
    """Said before the server closes a connection. Codes below 3500: connect again, after `retryAfterMs`."""

    code: int
    reason: str
    reconnect: bool
    retry_after_ms: int | None = None


CONNECTION_EVENTS: Final = (
    ServerEvent("server:bye", ByeView, "socket", "The server is about to close this connection."),
)

CLIENT_EVENTS: Final[dict[str, ClientEvent]] = {
    event.name: event
    for event in (*CLIENT_CHAT_EVENTS, *CLIENT_CALL_EVENTS, *CLIENT_CONSULT_EVENTS, *LOGIN_EVENTS)
}

SERVER_EVENTS: Final[dict[str, ServerEvent]] = {
    event.name: event
    for event in (
        *SERVER_CHAT_EVENTS,
        *SERVER_CALL_EVENTS,
        *BILLING_EVENTS,
        *SERVER_CONSULT_EVENTS,
        *CONNECTION_EVENTS,
    )
}

EPHEMERAL: Final = frozenset(name for name, event in SERVER_EVENTS.items() if event.ephemeral)
