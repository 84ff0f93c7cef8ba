"""What the edge asks before it runs a route."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from billing_engine.errors import Unavailable
from server.errors import RateLimited
from server.http.address import network_of
from server.rate_limits.model import Allowance
from server.rate_limits.ports import Buckets

log = logging.getLogger(__name__)


class Limited(StrEnum):
    """What is counted together. Its two allowances are the settings RATE_LIMIT_<NAME>_ADDRESS and RATE_LIMIT_<NAME>_ACCOUNT."""

    LOGIN = "login"
    REGISTER = "register"
    PASSWORD = "password"  # noqa: S105 (the name of a limit)
    RECHARGE = "recharge"
    WEBHOOK = "webhook"
    START = "start"


@dataclass(frozen=True, slots=True)
class RateLimit:
    """A route's limit. `account` says whose account a call is about, from the parsed call; None where only the address counts."""

    name: Limited
    account: Callable[[Any], str | None] | None = None


@dataclass(frozen=True, slots=True)
class Allowances:
    """What one name allows; None is no limit."""

    address: Allowance | None = None
    account: Allowance | None = None


class RateLimits:
    """Counts calls by address and by account."""

    def __init__(self, buckets: Buckets, allowances: Mapping[Limited, Allowances]) -> None:
        self._buckets = buckets
        self._allowances = allowances

    async def check(self, name: Limited, *, address: str, account: str | None) -> None:
        """Count one call. A store of counts that does not answer lets everybody pass: it guards the door, not the money.

        Raises:
            RateLimited: too many from this address or for this account; `retry_after_s` says when it is worth trying again.
        """
        allowed = self._allowances.get(name, _NONE)
        try:
            await self._take(f"{name}|address|{network_of(address)}", allowed.address)
            if account is not None:
                await self._take(f"{name}|account|{account}", allowed.account)
        except Unavailable as exc:
            log.warning("rate limits do not answer; the call passes: %r", exc)

    async def _take(self, key: str, allowance: Allowance | None) -> None:
        if allowance is None:
            return
        wait_ms = await self._buckets.take(key, allowance)
        if wait_ms:
            raise RateLimited(retry_after_s=wait_ms / 1000)


_NONE: Final = Allowances()
