"""Guessing passwords, made slow, without a stranger being able to shut the owner out (docs/decisions/0010-wrong-passwords.md).

Wrong passwords are counted twice: for this account *from this address*, and for this account from all addresses together that
the account has never logged in from. So a guesser runs dry at one address, a thousand addresses run dry together, and the
owner, whose address the account knows, is only ever stopped by their own mistakes.
"""

import hashlib
import hmac
import logging
from dataclasses import dataclass
from typing import Final

from billing_engine.errors import Unavailable
from server.errors import RateLimited
from server.http.address import network_of
from server.rate_limits.model import Allowance
from server.rate_limits.ports import Buckets

log = logging.getLogger(__name__)
#: Hexadecimal digits kept of an address: enough to know it again, no use to whoever reads the store.
_DIGITS: Final = 16


@dataclass(frozen=True, slots=True)
class Attempt:
    """A password that is about to be tried: what it used up, to be given back when it was right."""

    taken: tuple[tuple[str, Allowance], ...]


class LoginGuard:
    """Counts wrong passwords. `here` allows them to one account from one address, `strangers` from all unknown addresses."""

    def __init__(
        self, buckets: Buckets, *, here: Allowance | None, strangers: Allowance | None, key: bytes
    ) -> None:
        self._buckets = buckets
        self._here = here
        self._strangers = strangers
        self._key = key

    def mark_of(self, address: str) -> str:
        """What is stored of an address, to know it again: a keyed hash, for addresses are few enough to be tried out."""
        return hmac.new(self._key, network_of(address).encode(), hashlib.sha256).hexdigest()[:_DIGITS]

    async def begin(self, email_key: str, address: str, known: tuple[str, ...]) -> Attempt:
        """Count an attempt before the password is looked at, so that many at once cannot all pass.

        Whether there is such an account makes no difference: an answer must not tell.

        Raises:
            RateLimited: no more for now; `retry_after_s`.
        """
        wanted = [(f"login|{email_key}|{self.mark_of(address)}", self._here)]
        if self.mark_of(address) not in known:
            wanted.append((_strangers(email_key), self._strangers))
        taken: list[tuple[str, Allowance]] = []
        for key, allowance in wanted:
            if allowance is None:
                continue
            wait_ms = await self._take(key, allowance)
            if wait_ms:
                await self.forgive(Attempt(tuple(taken)))
                raise RateLimited(retry_after_s=wait_ms / 1000)
            taken.append((key, allowance))
        return Attempt(tuple(taken))

    async def forgive(self, attempt: Attempt) -> None:
        """The password was right, or never looked at: it does not count."""
        try:
            for key, allowance in attempt.taken:
                await self._buckets.give_back(key, allowance)
        except Unavailable as exc:
            log.warning("a log-in stays counted: %r", exc)

    async def proved(self, email_key: str) -> None:
        """The owner proved otherwise who they are (a reset by mail): what strangers used up is theirs again."""
        try:
            await self._buckets.clear(_strangers(email_key))
        except Unavailable as exc:
            log.warning("wrong passwords stay counted: %r", exc)

    async def _take(self, key: str, allowance: Allowance) -> int:
        try:
            return await self._buckets.take(key, allowance)
        except Unavailable as exc:
            log.warning("wrong passwords are not counted: %r", exc)
            return 0


def _strangers(email_key: str) -> str:
    return f"login|{email_key}"
