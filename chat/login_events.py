"""The events about the log-in behind a connection."""

from typing import Annotated, Final

from pydantic import AfterValidator, StringConstraints

from chat.buckets import Kind
from chat.errors import OtherPerson, Unauthenticated
from chat.event_types import Ack, ClientEvent, Instant, Payload, Turn, printable_ascii

#: Longest token that is looked at.
MAX_TOKEN: Final = 8_192


class AuthRefresh(Payload):
    """A fresh access token of the same person."""

    token: Annotated[
        str, StringConstraints(min_length=1, max_length=MAX_TOKEN), AfterValidator(printable_ascii)
    ]


class AuthAck(Ack):
    """Until when the token is good. The connection outlives that too; it ends with its log-in."""

    expires_at: Instant


LOGIN_EVENTS: Final = (
    ClientEvent(
        "auth:refresh",
        AuthRefresh,
        AuthAck,
        Turn.ALONE,
        "Put a fresh access token behind this connection: from now on it ends when *that* token's log-in does.",
        (Unauthenticated, OtherPerson),
        Kind.LOGIN,
    ),
)
