"""A company's webhook, and what is on its way to it."""

import base64
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

import orjson

from server.wire import rfc3339

_PREFIX: Final = "whsec_"
#: How long the secret before the present one still signs, too, so that the receiver may change over when it likes.
OVERLAP_MS: Final = 86_400_000
#: What is waited after each attempt; after the one that follows the last pause it is given up.
PAUSES_MS: Final = (60_000, 300_000, 1_800_000, 7_200_000, 21_600_000, 43_200_000)
#: So much later, at most, in parts of the pause: what failed together does not come back together.
JITTER: Final = 5
#: The type of what `POST /api/company/webhook/test` sends.
TEST_TYPE: Final = "webhook.test"
#: "It is gone": the receiver asks us to stop.
GONE: Final = 410


def new_secret() -> str:
    """`whsec_` and 32 random bytes in base64, as Standard Webhooks has it."""
    return _PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()


def key_of(secret: str) -> bytes:
    """The bytes that sign."""
    return base64.b64decode(secret.removeprefix(_PREFIX))


@dataclass(frozen=True, slots=True)
class Webhook:
    """Where a company wants to be told. `disabled_at_ms`: the receiver said that it is gone; setting it again opens it again.

    `created_at_ms` is when this URL was set; with `secret` it tells one setting from the next.
    """

    company_id: str
    url: str
    secret: str = field(repr=False)
    created_at_ms: int
    disabled_at_ms: int | None = None
    previous_secret: str | None = field(default=None, repr=False)
    previous_until_ms: int = 0

    def keys(self, now_ms: int) -> tuple[bytes, ...]:
        """What an attempt is signed with, the present secret first."""
        both = self.previous_secret is not None and now_ms < self.previous_until_ms
        names = (self.secret, self.previous_secret) if both else (self.secret,)
        return tuple(key_of(name) for name in names if name is not None)


class DeliveryState(StrEnum):
    """PENDING → DONE | DEAD."""

    PENDING = "PENDING"
    DONE = "DONE"
    #: Given up; `problem` says why.
    DEAD = "DEAD"


class Failure(StrEnum):
    """Why there was no answer."""

    TIMEOUT = "TIMEOUT"
    NO_CONNECTION = "NO_CONNECTION"
    #: The name leads to an address that is not on the public internet.
    ADDRESS_REFUSED = "ADDRESS_REFUSED"
    #: The server's certificate does not fit.
    TLS = "TLS"
    #: What came was no HTTP.
    BAD_ANSWER = "BAD_ANSWER"
    #: There is no webhook any more, or it is disabled.
    NO_WEBHOOK = "NO_WEBHOOK"


@dataclass(frozen=True, slots=True)
class Answer:
    """What an endpoint said: a status, or why there is none."""

    status: int | None = None
    failure: Failure | None = None

    @property
    def is_success(self) -> bool:
        """Whether the endpoint has taken it over: any 2xx."""
        return self.status is not None and 200 <= self.status < 300


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event on its way to a company's webhook.

    `attempts` counts what was begun; `next_at_ms` is when the next one may begin, and moves on as an attempt begins, so that no
    other process begins it too.
    """

    id: str
    event_id: str
    company_id: str
    type: str
    data: Mapping[str, Any]
    at_ms: int
    created_at_ms: int
    next_at_ms: int
    state: DeliveryState = DeliveryState.PENDING
    attempts: int = 0
    last_status: int | None = None
    failure: Failure | None = None
    last_attempt_at_ms: int | None = None


def body_of(event_id: str, type_: str, at_ms: int, company_id: str, data: Mapping[str, Any]) -> bytes:
    """What is posted: the same bytes at every attempt."""
    return orjson.dumps(
        {
            "id": event_id,
            "type": type_,
            "createdAt": rfc3339(at_ms),
            "data": {**data, "companyId": company_id},
        }
    )


def pause_ms(attempts: int, *, jitter: float) -> int | None:
    """How long to wait after so many attempts, `jitter` from 0 to 1; None: no more."""
    if attempts > len(PAUSES_MS):
        return None
    pause = PAUSES_MS[max(attempts, 1) - 1]
    return pause + int(jitter * pause) // JITTER
