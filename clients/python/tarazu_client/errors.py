"""What can go wrong at a client."""

from collections.abc import Mapping
from typing import Any


class ClientError(Exception):
    """Base of all of them."""


class ConnectionLost(ClientError):
    """There is no connection, or it broke before the acknowledgement: it may have been done or not."""


class AckTimeout(ClientError):
    """No acknowledgement in time: it may have been done or not."""


class Refused(ClientError):
    """The server said no. `code` is for programs, `message` for people."""

    def __init__(self, problem: Mapping[str, Any]) -> None:
        self.code = str(problem.get("code", "INTERNAL"))
        self.message = str(problem.get("message", ""))
        self.retryable = problem.get("retryable") is True
        self.retry_after_ms = retry_after_ms(problem)
        self.fields: list[Mapping[str, str]] = list(problem.get("fields") or ())
        super().__init__(f"{self.code}: {self.message}")


class SignedOut(ClientError):
    """The server will not have this login back: the person must log in again, or may not. `code` is that of `server:bye`, or
    of the refused connection.
    """

    def __init__(self, code: int | str, reason: str) -> None:
        self.code = code
        self.reason = reason
        super().__init__(f"{code}: {reason}")


def retry_after_ms(facts: Mapping[str, Any]) -> float | None:
    """When the server wants to be asked again, if it says so; an older one does not."""
    value = facts.get("retryAfterMs")
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        return None
    return float(value)
