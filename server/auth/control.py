"""Shutting an account, opening it again, and deleting it: one write decides, the rest follows and is healed (SPEC 2, 14).

The write puts a token into the account's row. What follows (log-ins, sockets, a running consultation, the lawyer's profile,
the letter) is carried out from the row *as it is then*, every step harmless when repeated, and the token goes last. A crash
anywhere leaves the token; `heal` finds it. Two admins who disable and enable at once both end with what the row says.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import structlog

from billing_engine.clock import Clock
from billing_engine.errors import Unavailable
from billing_engine.money import Asset
from server.auth.accounts import Accounts
from server.auth.errors import (
    AccountNotFound,
    CompanyUnsettled,
    CreditsLeft,
    DebtLeft,
    InSession,
    LastAdmin,
    MoneyLeft,
    OwnAccount,
    WrongCredentials,
    WrongPassword,
)
from server.auth.model import Account, Disabling, FollowUp, Role, SignOut, email_key
from server.auth.ports import AccountRows
from server.auth.sign_ins import SignIns
from server.notifications.model import Kind
from server.notifications.outbox import Outbox

log = structlog.get_logger(__name__)
#: Accounts that one round of healing looks at.
_PAGE: Final = 100


class RunningSessions(Protocol):
    """Billing's answer to who is being served."""

    async def is_busy(self, person_id: str) -> bool:
        """Whether the person is in a consultation. Raises `Unavailable`."""
        ...

    async def end_for_account(self, person_id: str) -> None:
        """End it with the reason ACCOUNT_DISABLED; harmless when there is none. Raises `Unavailable`."""
        ...


class LawyerListing(Protocol):
    """Where lawyers are found."""

    async def suspend(self, lawyer_id: str) -> None:
        """Take the lawyer offline and out of every list; nobody can start with them. Harmless when repeated."""
        ...

    async def restore(self, lawyer_id: str) -> None:
        """Put the lawyer back, offline. Harmless when repeated."""
        ...

    async def anonymise(self, lawyer_id: str) -> None:
        """`suspend` for good, with everything personal overwritten. Harmless when repeated."""
        ...


class SavedMeans(Protocol):
    """The payments' saved cards and mandates."""

    async def forget_all(self, payer_id: str) -> None:
        """Nothing of the payer's can be charged any more. Harmless when repeated. Raises `Unavailable`."""
        ...


class Funds(Protocol):
    """The ledger's answer to what an account owns."""

    async def owned_minor(self, person_id: str) -> int:
        """Spendable in the wallet, and earnings not paid out. Raises `Unavailable`, never answers 0 for unknown."""
        ...

    async def owned_credits(self, person_id: str) -> int:
        """Application credits. Raises as above."""
        ...


@dataclass(frozen=True, slots=True)
class CompanyStanding:
    """A company's wallet, what is set aside included, and its debt, in smallest units of `asset`. `is_settled`: neither will change by
    itself.
    """

    asset: Asset
    owned_minor: int
    owed_minor: int
    is_settled: bool


class CompanyFunds(Protocol):
    """The usage meter's answer to what a company owns and owes."""

    async def standing(self, company_id: str) -> CompanyStanding:
        """Raises `Unavailable`, never answers 0 for unknown."""
        ...


class CompanyProjects(Protocol):
    """Where companies look for freelancers."""

    async def close_all_of(self, company_id: str) -> None:
        """Nobody can apply any more. Harmless when repeated."""
        ...


class CompanyKeys(Protocol):
    """With what companies' programs call."""

    async def revoke_all(self, company_id: str) -> None:
        """None of them works any more. Harmless when repeated. Raises `Unavailable`."""
        ...


class CompanyHooks(Protocol):
    """Where companies want to be told of their wallets."""

    async def forget(self, company_id: str) -> None:
        """Nothing is sent there any more. Harmless when repeated."""
        ...


@dataclass(frozen=True, slots=True)
class Deletion:
    """What a deletion left behind: money that its owner gave up, in smallest units, and application credits. `asset` is a company's;
    None: the one of everybody else's wallets.
    """

    forfeited_minor: int
    forfeited_credits: int = 0
    asset: Asset | None = None


class AccountControl:
    """`disable`, `enable`, `delete`; each may be called again, and then finishes what an earlier call began."""

    def __init__(
        self,
        *,
        rows: AccountRows,
        accounts: Accounts,
        sign_ins: SignIns,
        sessions: RunningSessions,
        lawyers: LawyerListing,
        funds: Funds,
        methods: SavedMeans,
        outbox: Outbox,
        clock: Clock,
        new_id: Callable[[], str],
        projects: CompanyProjects | None = None,
        company_keys: CompanyKeys | None = None,
        hooks: CompanyHooks | None = None,
        company_funds: CompanyFunds | None = None,
    ) -> None:
        self._rows = rows
        self._accounts = accounts
        self._sign_ins = sign_ins
        self._sessions = sessions
        self._lawyers = lawyers
        self._funds = funds
        self._methods = methods
        self._outbox = outbox
        self._clock = clock
        self._new_id = new_id
        self._projects = projects
        self._company_keys = company_keys
        self._hooks = hooks
        self._company_funds = company_funds

    async def disable(self, account_id: str, *, reason: str, by: str) -> Account:
        """Shut the account: its tokens stop working, its sockets close, its consultation ends, a lawyer is not found any more.

        The first who disables is remembered with the reason; doing it again changes neither, and finishes the rest.

        Raises:
            AccountNotFound: no such account, or a deleted one.
            OwnAccount: an admin's own.
            Unavailable: it may be shut, and not everything may have followed yet. Again, or in a minute by itself.
        """
        if account_id == by:
            raise OwnAccount
        await self._existing(account_id)
        disabling = Disabling(by=by, at_ms=self._clock.now_ms(), reason=reason)
        await self._rows.disable(account_id, disabling, due=self._new_id())
        return await self._follow_standing(account_id)

    async def enable(self, account_id: str) -> Account:
        """Open a disabled account again. Its owner logs in anew; a lawyer is back in the list, offline.

        Raises:
            AccountNotFound: no such account, or a deleted one.
            Unavailable: as in `disable`.
        """
        await self._existing(account_id)
        await self._rows.enable(account_id, due=self._new_id())
        return await self._follow_standing(account_id)

    async def delete(self, account_id: str, *, password: str, forfeit: bool) -> Deletion:
        """Close the caller's account for good and erase who they were. The books keep the opaque id and nothing else of them.

        Raises:
            WrongPassword: not the account's.
            InSession: a consultation is running.
            LastAdmin: no other admin would be left.
            DebtLeft, CompanyUnsettled: a company owes us, or nobody knows yet whether it does; nothing was done.
            MoneyLeft, CreditsLeft: there is money, or there are credits, and `forfeit` is not set; nothing was done.
            PasswordsBusy: nothing was done.
            Unavailable: it may be deleted or not; logging in tells.
        """
        try:
            account = await self._accounts.check_password(account_id, password)
        except WrongCredentials as exc:
            raise WrongPassword from exc
        if await self._sessions.is_busy(account_id):
            raise InSession
        if account.role is Role.ADMIN and not await self._rows.has_other_admin(account_id):
            raise LastAdmin
        if account.is_owner and self._company_funds is not None:
            owned_minor, asset = await self._left_of_company(self._company_funds, account_id)
        else:
            owned_minor, asset = await self._funds.owned_minor(account_id), None
        if owned_minor > 0 and not forfeit:
            raise MoneyLeft(available_minor=owned_minor, asset=asset)
        credits_left = await self._funds.owned_credits(account_id)
        if credits_left > 0 and not forfeit:
            raise CreditsLeft(available_credits=credits_left)
        if not await self._rows.delete(
            account_id,
            expect_version=account.password_version,
            at_ms=self._clock.now_ms(),
            due=self._new_id(),
        ):
            raise WrongPassword
        log.info("account deleted", user_id=account_id, role=account.role.value, forfeited_minor=owned_minor)
        await self._follow_deletion_now(account_id)
        return Deletion(forfeited_minor=owned_minor, forfeited_credits=credits_left, asset=asset)

    @staticmethod
    async def _left_of_company(funds: CompanyFunds, company_id: str) -> tuple[int, Asset]:
        """A debtor cannot vanish, nor one of whom nobody knows yet; giving money up pays no debt."""
        standing = await funds.standing(company_id)
        if standing.owed_minor > 0:
            raise DebtLeft(required_minor=standing.owed_minor, asset=standing.asset)
        if not standing.is_settled:
            raise CompanyUnsettled(company=company_id)
        return standing.owned_minor, standing.asset

    async def remove_member(self, account_id: str) -> None:
        """Delete a company's member's account, which is for that company and nothing else. Harmless when repeated.

        Raises:
            AccountNotFound: there is no such member.
            Unavailable: it may be deleted or not; call it again.
        """
        while True:
            account = await self._rows.get(account_id)
            if account is None or account.company_id is None:
                raise AccountNotFound
            if account.deleted_at_ms is not None:
                break
            # Not if a password is set in this very moment: then once more.
            await self._rows.delete(
                account_id,
                expect_version=account.password_version,
                at_ms=self._clock.now_ms(),
                due=self._new_id(),
            )
        await self._follow_deletion_now(account_id)

    async def _follow_deletion_now(self, account_id: str) -> None:
        try:
            await self._follow_deletion(account_id)
        except Unavailable as exc:
            # It is deleted, and cannot be asked again: its tokens may have gone already. `heal` does the rest.
            log.warning("a deleted account is erased later", user_id=account_id, error=repr(exc))

    async def heal(self) -> int:
        """Carry out what a crash or a failing store cut short; how many accounts there were."""
        standing = await self._rows.with_due(FollowUp.STANDING, limit=_PAGE)
        for account in standing:
            if account.deleted_at_ms is None:
                await self._follow_standing(account.id)
            else:
                # Deleting does all that disabling does, and more.
                await self._rows.settle(account.id, FollowUp.STANDING, account.due[FollowUp.STANDING])
        deleted = await self._rows.with_due(FollowUp.DELETION, limit=_PAGE)
        for account in deleted:
            await self._follow_deletion(account.id)
        return len(standing) + len(deleted)

    async def _existing(self, account_id: str) -> Account:
        account = await self._rows.get(account_id)
        if account is None or account.deleted_at_ms is not None:
            raise AccountNotFound
        return account

    async def _follow_standing(self, account_id: str) -> Account:
        while True:
            account = await self._existing(account_id)
            token = account.due.get(FollowUp.STANDING)
            await (self._shut(account) if account.is_disabled else self._reopen(account))
            if token is not None:
                await self._tell(account, token)
            if await self._rows.settle(account_id, FollowUp.STANDING, token):
                return account
            # Somebody enabled or disabled it meanwhile, and our steps may have come after theirs: again, as the row says now.

    async def _shut(self, account: Account) -> None:
        """Access first: what comes after it cannot be undone by the account any more."""
        await self._sign_ins.end_all(account.id, SignOut.ACCOUNT_DISABLED)
        if account.role is Role.LAWYER:
            await self._lawyers.suspend(account.id)
        await self._sessions.end_for_account(account.id)

    async def _reopen(self, account: Account) -> None:
        if account.role is Role.LAWYER:
            await self._lawyers.restore(account.id)

    async def _tell(self, account: Account, token: str) -> None:
        if account.disabling is not None:
            facts = {"reason": account.disabling.reason}
            await self._outbox.post(Kind.ACCOUNT_DISABLED, id_=token, user_id=account.id, facts=facts)
        else:
            await self._outbox.post(Kind.ACCOUNT_ENABLED, id_=token, user_id=account.id)

    async def _follow_deletion(self, account_id: str) -> None:
        account = await self._rows.get(account_id)
        token = account.due.get(FollowUp.DELETION) if account is not None else None
        if account is None or token is None:
            return
        await self._sign_ins.end_all(account.id, SignOut.ACCOUNT_DISABLED)
        if account.role is Role.LAWYER:
            await self._lawyers.anonymise(account.id)
        if account.is_owner:
            await self._close_company(account.id)
        # One that was started while we looked: its parties are still served to the second that is paid.
        await self._sessions.end_for_account(account.id)
        await self._methods.forget_all(account.id)
        if account.email:
            # The row is erased last, so that all steps before it know whom they are about.
            await self._outbox.post(
                Kind.ACCOUNT_DELETED,
                id_=token,
                user_id=account.id,
                email=account.email,
                facts={"name": account.name, "wasMember": int(account.company_id is not None)},
            )
            await self._rows.free_email(email_key(account.email), account.id)
        await self._rows.erase(account.id)
        await self._rows.settle(account.id, FollowUp.DELETION, token)

    async def _close_company(self, company_id: str) -> None:
        """What acts for a company ends with it: its keys first, for they need no log-in."""
        if self._company_keys is not None:
            await self._company_keys.revoke_all(company_id)
        if self._projects is not None:
            await self._projects.close_all_of(company_id)
        if self._hooks is not None:
            await self._hooks.forget(company_id)
        while members := await self._rows.members_of(company_id, limit=_PAGE):
            for member in members:
                await self.remove_member(member.id)
