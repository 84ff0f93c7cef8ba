"""New passwords: by who knows the old one, and by who reads the account's mail (SPEC 2).

A new password ends the log-ins that the old one opened. Both are one follow-up of the write that sets it: `carry_out` does it,
at once, and after a crash at the next start.
"""

import logging
from collections.abc import Callable
from typing import Final

from billing_engine.clock import Clock
from billing_engine.errors import Unavailable
from server.auth.accounts import Accounts
from server.auth.errors import ResetRefused, WrongCredentials, WrongPassword
from server.auth.login_guard import LoginGuard
from server.auth.model import Account, FollowUp, PasswordChange, Principal, SignOut, email_key
from server.auth.passwords import Passwords
from server.auth.ports import AccountRows
from server.auth.reset_tokens import LONGEST, ResetTokens
from server.auth.sign_ins import SignIns
from server.notifications.model import Kind
from server.notifications.outbox import Outbox

log = logging.getLogger(__name__)
#: Accounts that one round of healing looks at.
_PAGE: Final = 100


class PasswordChanges:
    """Change and reset. The caller of `change` stays logged in; a reset logs everybody out."""

    def __init__(
        self,
        *,
        rows: AccountRows,
        accounts: Accounts,
        passwords: Passwords,
        sign_ins: SignIns,
        outbox: Outbox,
        clock: Clock,
        new_id: Callable[[], str],
        reset_lifetime_ms: int,
        guard: LoginGuard | None = None,
    ) -> None:
        self._rows = rows
        self._accounts = accounts
        self._passwords = passwords
        self._sign_ins = sign_ins
        self._outbox = outbox
        self._clock = clock
        self._new_id = new_id
        self._reset_lifetime_ms = reset_lifetime_ms
        self._guard = guard

    @property
    def reset_lifetime_s(self) -> int:
        """How long a one-time token works."""
        return self._reset_lifetime_ms // 1000

    async def change(self, caller: Principal, *, current: str, new: str) -> None:
        """Set a new password for the caller, whose other log-ins end.

        Raises:
            WrongPassword: `current` is not the password, or is not any more: of two changes at once one is made.
            PasswordsBusy: nothing was done.
            StoreUnavailable: it may be changed or not; whichever password works tells.
        """
        try:
            account = await self._accounts.check_password(caller.user_id, current)
        except WrongCredentials as exc:
            raise WrongPassword from exc
        change = self._change(keep=caller.family_id)
        hashed = await self._passwords.hash(new)
        if not await self._rows.set_password(
            account.id, hashed, change, expect_version=account.password_version
        ):
            raise WrongPassword
        await self._carry_out_now(account.id)

    async def forget(self, email: str) -> None:
        """Somebody says that they forgot the password of this address: a one-time token goes to it, if it is an account's.

        Whether it is one is looked up later, by the outbox: here the same single write is made for every address, so that
        neither the answer nor its time tells.

        Raises:
            StoreUnavailable: ask again.
        """
        await self._outbox.post(
            Kind.PASSWORD_RESET,
            id_=self._new_id(),
            email=email_key(email),
            facts={"nonce": ResetTokens.new_nonce()},
            lifetime_ms=self._reset_lifetime_ms,
        )

    async def reset(self, token: str, new: str) -> None:
        """Set a new password with a one-time token; all log-ins end. Of many uses at once one succeeds.

        Raises:
            ResetRefused: unknown, expired, used, or not the newest.
            PasswordsBusy: nothing was done, the token is as good as before.
            StoreUnavailable: it may be set or not; logging in tells.
        """
        parsed = ResetTokens.parse(token[:LONGEST])
        now_ms = self._clock.now_ms()
        if not await self._rows.has_reset(parsed.account_id, digest=parsed.digest, now_ms=now_ms):
            raise ResetRefused
        hashed = await self._passwords.hash(new)
        if not await self._rows.use_reset(
            parsed.account_id,
            hashed,
            self._change(keep=None),
            digest=parsed.digest,
            now_ms=self._clock.now_ms(),
        ):
            raise ResetRefused
        account = await self._carry_out_now(parsed.account_id)
        if self._guard is not None and account is not None:
            await self._guard.proved(email_key(account.email))

    async def heal(self) -> int:
        """Carry out what a crash or a failing store cut short; how many changes there were."""
        found = await self._rows.with_due(FollowUp.PASSWORD, limit=_PAGE)
        for account in found:
            await self._carry_out(account)
        return len(found)

    def _change(self, *, keep: str | None) -> PasswordChange:
        return PasswordChange(id=self._new_id(), at_ms=self._clock.now_ms(), keep_family=keep)

    async def _carry_out_now(self, account_id: str) -> Account | None:
        """The password is set, and that is what the caller asked for: what cannot follow at once, `heal` does."""
        try:
            account = await self._rows.get(account_id)
            if account is not None:
                await self._carry_out(account)
        except Unavailable as exc:
            log.warning("log-ins of an old password end later: %r", exc, extra={"user_id": account_id})
            return None
        return account

    async def _carry_out(self, account: Account) -> None:
        """End the log-ins of the old password and tell the owner. Harmless when repeated."""
        change = account.password_change
        if change is None or account.due.get(FollowUp.PASSWORD) != change.id:
            return
        await self._sign_ins.end_others(
            account.id, keep=change.keep_family, until_ms=change.at_ms, why=SignOut.PASSWORD_CHANGED
        )
        await self._outbox.post(Kind.PASSWORD_CHANGED, id_=change.id, user_id=account.id)
        await self._rows.settle(account.id, FollowUp.PASSWORD, change.id)
