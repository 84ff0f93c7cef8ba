"""Why the server closes a connection. Told in `server:bye` first, wherever the client may still read it.

Below 3500 the client is welcome to come back, after `retryAfterMs`: drawn at random, so that those who were sent away together do
not return together.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

#: Clients told to come back after a deploy: so many of them a second.
_RETURNS_A_SECOND: Final = 200
#: Within the grace that a lost participant has (`PEER_GRACE_SECONDS`).
_LONGEST_SPREAD_MS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Bye:
    """One reason. `wait_ms`: the least and the most that a client is asked to wait, where it may come back."""

    code: int
    reason: str
    meaning: str
    wait_ms: tuple[int, int] | None = None

    @property
    def reconnect(self) -> bool:
        return self.wait_ms is not None


DRAIN: Final = Bye(3001, "DRAIN", "The server restarts. Connect again: sessions go on.", (500, 1_500))
SLOW: Final = Bye(
    3008,
    "SLOW",
    "This client takes less than it is sent. What waited for it was dropped: connect again and join with `afterSeq`.",
    (1_000, 3_000),
)
NO_PONG: Final = Bye(
    3012, "NO_PONG", "This client did not answer a ping in time. Connect again.", (500, 1_500)
)
RATE: Final = Bye(
    3013,
    "RATE",
    "This client goes on sending what is refused as `RATE_LIMITED`. Connect again after `retryAfterMs`.",
    (5_000, 10_000),
)
BAD_PACKET: Final = Bye(
    3014, "BAD_PACKET", "What this client sent is no Socket.IO: a defect of the client.", (1_000, 5_000)
)
TOO_LARGE: Final = Bye(
    3015, "TOO_LARGE", "A frame was larger than 128 KiB, or not well formed. It was not read.", (1_000, 5_000)
)
TOKEN_REVOKED: Final = Bye(3500, "TOKEN_REVOKED", "The log-in has ended. Log in again.")
ACCOUNT_DISABLED: Final = Bye(3501, "ACCOUNT_DISABLED", "An admin has disabled the account.")

BYES: Final = (DRAIN, SLOW, NO_PONG, RATE, BAD_PACKET, TOO_LARGE, TOKEN_REVOKED, ACCOUNT_DISABLED)

#: A number from 0 to below 1.
Draw = Callable[[], float]


def bye_view(
    code: int, reason: str, *, reconnect: bool, others: int = 0, draw: Draw = random.random
) -> dict[str, Any]:
    """`server:bye` as clients see it. `others` are sent away at the same time: the more there are, the longer they spread out."""
    view: dict[str, Any] = {"code": code, "reason": reason, "reconnect": reconnect}
    if reconnect:
        known = next((bye for bye in BYES if bye.code == code), None)
        view["retryAfterMs"] = _wait_ms(known or NO_PONG, others, draw)
    return view


def view_of(bye: Bye, *, draw: Draw = random.random) -> dict[str, Any]:
    """The same, for one of the reasons of this table."""
    return bye_view(bye.code, bye.reason, reconnect=bye.reconnect, draw=draw)


def _wait_ms(bye: Bye, others: int, draw: Draw) -> int:
    least_ms, most_ms = bye.wait_ms or (0, 0)
    crowd_ms = min(_LONGEST_SPREAD_MS, others * 1_000 // _RETURNS_A_SECOND)
    return least_ms + int(draw() * (max(most_ms, crowd_ms) - least_ms))
