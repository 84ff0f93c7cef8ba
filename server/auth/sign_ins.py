"""Log-ins: one family of tokens each, from the password to the log-out (SPEC 2).

A refresh token is used once. Used again within the grace (the reply was lost, or two tabs asked at once) it gives one more
successor; used again later, somebody else has a copy: the whole family ends.
"""

from collections.abc import Callable
from typing import Final

import structlog

from billing_engine.clock import Clock
from server.auth.errors import AccountDisabled, RefreshRefused, WrongCredentials
from server.auth.model import Account, Ended, Family, Principal, RefreshToken, SignOut, TokenPair
from server.auth.ports import AccountRows, TokenRows
from server.auth.tokens import AccessTokens, digest_of, new_refresh_token
from server.errors import Unauthenticated

#: How long a family that was found alive is not looked up again. What this process ends, it knows at once; what another process
#: ends, it knows after this time.
_TRUST_MS: Final = 5_000
_REMEMBERED: Final = 50_000
#: Other processes' clocks may be so far behind, and their writes under way for so long.
_CLOCKS_APART_MS: Final = 10_000
#: Told of every log-in that ends.
Revoked = Callable[[Ended], None]
_log = structlog.get_logger(__name__)


class SignIns:
    """Opens, continues and ends log-ins, and says who a token's bearer is."""

    def __init__(
        self,
        *,
        rows: TokenRows,
        accounts: AccountRows,
        access: AccessTokens,
        clock: Clock,
        new_id: Callable[[], str],
        refresh_lifetime_ms: int,
        grace_ms: int,
    ) -> None:
        self._rows = rows
        self._accounts = accounts
        self._access = access
        self._clock = clock
        self._new_id = new_id
        self._refresh_lifetime_ms = refresh_lifetime_ms
        self._grace_ms = grace_ms
        self._listeners: list[Revoked] = []
        # Family -> until when it counts as alive without asking the store.
        self._trusted: dict[str, int] = {}
        self._caught_up_to_ms = clock.now_ms()
        # Ended family -> when its last access token expires; in the order of ending, so the first are the first to go.
        self._ended: dict[str, int] = {}

    async def load(self) -> None:
        """At start-up: learn what ended lately, so that `verify` knows without asking."""
        since_ms = self._clock.now_ms() - self._access.lifetime_s * 1000
        for family in await self._rows.ended_since(since_ms):
            self._forget(family.id)

    async def catch_up(self) -> int:
        """Learn which log-ins other processes have ended since the last call, and close their sockets here; how many there were.

        The store is asked, since a hint between processes may be lost.
        """
        now_ms = self._clock.now_ms()
        ended = await self._rows.ended_since(self._caught_up_to_ms - _CLOCKS_APART_MS)
        news = [family for family in ended if family.id not in self._ended]
        accounts = await self._accounts.get_many([family.user_id for family in news])
        for family in news:
            self._forget(family.id)
            account = accounts.get(family.user_id)
            why = SignOut.ACCOUNT_DISABLED if account is None or account.is_disabled else SignOut.LOGGED_OUT
            self._tell(Ended(family.user_id, family.id, why))
        self._caught_up_to_ms = now_ms
        return len(news)

    def on_revoked(self, listener: Revoked) -> None:
        """Call `listener` whenever a family ends, or all of a user's do: close their sockets."""
        self._listeners.append(listener)

    async def open(self, account: Account) -> TokenPair:
        """A new family for somebody who proved who they are.

        Raises:
            AccountDisabled: the account was disabled in this very moment.
            WrongCredentials: its password was changed in this very moment.
        """
        family = Family(id=self._new_id(), user_id=account.id, created_at_ms=self._clock.now_ms())
        await self._rows.add_family(family)
        pair = await self._pair(account, family.id)
        # Disabling and a new password write the account first and end families second; whoever is late sees the other's write.
        fresh = await self._accounts.get(account.id)
        if fresh is None or fresh.is_disabled:
            await self._end(Ended(family.user_id, family.id, SignOut.ACCOUNT_DISABLED))
            raise AccountDisabled
        if not fresh.is_same_password(account):
            await self._end(Ended(family.user_id, family.id, SignOut.PASSWORD_CHANGED))
            raise WrongCredentials
        return pair

    async def refresh(self, refresh_token: str) -> TokenPair:
        """A new pair for a refresh token.

        Raises:
            RefreshRefused: it is not valid any more. If it was used before the grace, its family has ended.
        """
        now_ms = self._clock.now_ms()
        token = await self._rows.get_token(digest_of(refresh_token))
        if token is None or token.expires_at_ms <= now_ms:
            raise RefreshRefused
        family = await self._rows.get_family(token.family_id)
        if family is None or family.ended_at_ms is not None:
            raise RefreshRefused
        account = await self._accounts.get(family.user_id)
        if account is None or account.is_disabled:
            raise RefreshRefused
        if token.used_at_ms is not None:
            await self._within_grace(token, family)
        # The successor is stored before the token is marked: a crash in between leaves one that nobody has, and the token as
        # good as before.
        pair = await self._pair(account, family.id)
        if token.used_at_ms is None and not await self._rows.use_token(token.digest, at_ms=now_ms):
            await self._within_grace(await self._rows.get_token(token.digest), family)
        return pair

    async def authenticate(self, access_token: str) -> Principal:
        """The caller, whose log-in has not ended.

        Raises:
            Unauthenticated: the token is not valid, or its family has ended (logged out, stolen, disabled).
            StoreUnavailable: it is not known whether it has.
        """
        principal = self.verify(access_token)
        if self._trusted.get(principal.family_id, 0) <= self._clock.now_ms():
            family = await self._rows.get_family(principal.family_id)
            if family is None or family.ended_at_ms is not None or family.user_id != principal.user_id:
                self._forget(principal.family_id)
            # It may have ended here while the store was asked.
            if principal.family_id in self._ended:
                raise Unauthenticated(presented=True)
            self._trust(principal.family_id)
        return principal

    async def renew(self, access_token: str) -> tuple[Principal, int]:
        """`authenticate`, and when the token expires. Raises the same."""
        principal = await self.authenticate(access_token)
        return principal, self._access.expires_at_ms(access_token)

    def verify(self, access_token: str) -> Principal:
        """The caller, as far as is known without asking the store: for sockets, which are closed when their family ends.

        Raises:
            Unauthenticated: the token is not valid, or its family is known to have ended.
        """
        principal = self._access.verify(access_token)
        if principal.family_id in self._ended:
            raise Unauthenticated(presented=True)
        return principal

    async def end(self, principal: Principal) -> None:
        """Log out here: no token of this family works any more, its sockets close. Harmless when repeated."""
        await self._end(Ended(principal.user_id, principal.family_id, SignOut.LOGGED_OUT))

    async def end_all(self, user_id: str, why: SignOut = SignOut.LOGGED_OUT) -> None:
        """Log out everywhere. Harmless when repeated."""
        for family in await self._rows.live_families(user_id):
            await self._rows.end_family(family.id, at_ms=self._clock.now_ms())
            self._forget(family.id)
        self._tell(Ended(user_id, None, why))

    async def end_others(self, user_id: str, *, keep: str | None, until_ms: int, why: SignOut) -> None:
        """End the log-ins that were opened until then, but `keep`. Harmless when repeated."""
        for family in await self._rows.live_families(user_id):
            if family.id != keep and family.created_at_ms <= until_ms:
                await self._end(Ended(user_id, family.id, why))

    async def drop_expired(self, *, limit: int = 500) -> int:
        """Housekeeping: forget refresh tokens that expired; how many there were."""
        return await self._rows.drop_expired(before_ms=self._clock.now_ms(), limit=limit)

    async def _pair(self, account: Account, family_id: str) -> TokenPair:
        refresh_token = new_refresh_token()
        await self._rows.add_token(
            RefreshToken(
                digest=digest_of(refresh_token),
                family_id=family_id,
                expires_at_ms=self._clock.now_ms() + self._refresh_lifetime_ms,
            )
        )
        access_token = self._access.issue(Principal(account.id, account.role, family_id))
        return TokenPair(access_token, refresh_token, self._access.lifetime_s)

    async def _within_grace(self, token: RefreshToken | None, family: Family) -> None:
        if token is None or token.used_at_ms is None:
            raise RefreshRefused
        if self._clock.now_ms() - token.used_at_ms <= self._grace_ms:
            return
        _log.warning(
            "a used refresh token came again; its family ends", user_id=family.user_id, family_id=family.id
        )
        await self._end(Ended(family.user_id, family.id, SignOut.TOKEN_REUSED))
        raise RefreshRefused

    async def _end(self, ended: Ended) -> None:
        if ended.family_id is not None:
            await self._rows.end_family(ended.family_id, at_ms=self._clock.now_ms())
            self._forget(ended.family_id)
        self._tell(ended)

    def _tell(self, ended: Ended) -> None:
        for listener in self._listeners:
            try:
                listener(ended)
            except Exception:  # noqa: BLE001 (logged with its traceback)
                # The family has ended whoever listens; a failing listener must not undo the log-out's answer.
                _log.exception("a listener of ended log-ins failed", user_id=ended.user_id)

    def _trust(self, family_id: str) -> None:
        if len(self._trusted) >= _REMEMBERED:
            self._trusted.clear()
        self._trusted[family_id] = self._clock.now_ms() + _TRUST_MS

    def _forget(self, family_id: str) -> None:
        now_ms = self._clock.now_ms()
        self._trusted.pop(family_id, None)
        self._ended[family_id] = now_ms + self._access.lifetime_s * 1000
        while (oldest := next(iter(self._ended))) and self._ended[oldest] < now_ms:
            del self._ended[oldest]
