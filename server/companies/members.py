"""A company's people: its owner, and the members whom it invites (SPEC 9).

A member's account is for that company and nothing else, so whoever is removed has their account deleted: tokens stop, the address
is free for an account of their own, and the name is erased.
"""

from dataclasses import dataclass
from typing import Protocol

from server.auth.accounts import Accounts
from server.auth.errors import AccountNotFound
from server.auth.model import Account, MemberAccess, email_key
from server.auth.ports import AccountRows
from server.auth.reset_tokens import ResetTokens
from server.companies.errors import CompanyNotFound, MemberNotFound, OwnerFixed, TooManyMembers
from server.companies.model import MEMBERS_MAX
from server.notifications.composer import INVITATION_MS
from server.notifications.model import Kind
from server.notifications.outbox import Outbox


class Removal(Protocol):
    """Identity's end of a member's account."""

    async def remove_member(self, account_id: str) -> None:
        """Harmless when repeated. Raises `AccountNotFound`, `Unavailable`."""
        ...


@dataclass(frozen=True, slots=True)
class Member:
    """Somebody of a company. `access` is None for the owner; `is_invited` until they have chosen a password."""

    account: Account
    access: MemberAccess | None
    is_invited: bool

    @classmethod
    def of(cls, account: Account) -> "Member":
        """The account, in its company."""
        return cls(
            account, account.company_access, not account.password_hash and account.deleted_at_ms is None
        )


class Members:
    """Invite, list, change, remove."""

    def __init__(self, *, rows: AccountRows, accounts: Accounts, removal: Removal, outbox: Outbox) -> None:
        self._rows = rows
        self._accounts = accounts
        self._removal = removal
        self._outbox = outbox

    async def invite(
        self, company_id: str, *, email: str, name: str, access: MemberAccess, operation_id: str
    ) -> Member:
        """A new member, to whom a letter goes with a one-time token: they choose a password with `POST /auth/reset`. The same
        `operation_id` again: the same member.

        Raises:
            ValidationFailed: the address or the name is not valid.
            EmailTaken: an account has the address, here or elsewhere.
            TooManyMembers: there are `MEMBERS_MAX`.
            StoreUnavailable: call it again with the same id.
        """
        known = await self._rows.get(operation_id)
        if known is not None and known.deleted_at_ms is not None:
            # Made by an earlier try, and removed since: it is not made again.
            return Member.of(known)
        if known is None and await self._rows.count_members(company_id) >= MEMBERS_MAX:
            raise TooManyMembers(limit=MEMBERS_MAX)
        account = await self._accounts.invite(
            account_id=operation_id, email=email, name=name, company_id=company_id, access=access
        )
        if known is None and await self._rows.count_members(company_id) > MEMBERS_MAX:
            # Invited by two at once: both may be one too many. Nobody has heard of the account, so nobody is told of its end.
            await self._rows.free_email(email_key(account.email), account.id)
            await self._rows.drop(account.id)
            raise TooManyMembers(limit=MEMBERS_MAX)
        await self._outbox.post(
            Kind.COMPANY_INVITATION,
            id_=operation_id,
            user_id=account.id,
            facts={"nonce": ResetTokens.new_nonce()},
            lifetime_ms=INVITATION_MS,
        )
        return Member.of(account)

    async def listed(
        self, company_id: str, *, limit: int, after: tuple[int, str] | None
    ) -> tuple[list[Member], tuple[int, str] | None]:
        """The owner, then the members, the earliest first, and the place of the next page. Raises `CompanyNotFound`."""
        first = [] if after is not None else [await self._owner(company_id)]
        found = first + await self._rows.members_of(company_id, limit=limit + 1 - len(first), after=after)
        shown = found[:limit]
        place = (shown[-1].created_at_ms, shown[-1].id) if len(found) > limit else None
        return [Member.of(account) for account in shown], place

    async def set_access(self, company_id: str, user_id: str, access: MemberAccess) -> Member:
        """The member, who may do this from the next request on. Raises `MemberNotFound`, `OwnerFixed`."""
        if user_id == company_id:
            raise OwnerFixed
        account = await self._rows.set_member_access(user_id, access, company_id=company_id)
        if account is None:
            raise MemberNotFound(user=user_id)
        return Member.of(account)

    async def remove(self, company_id: str, user_id: str) -> None:
        """The member is none any more, and their account is deleted. Repeated, it changes nothing.

        Raises:
            MemberNotFound: the company has, and had, no such member.
            OwnerFixed: it is the owner.
        """
        if user_id == company_id:
            raise OwnerFixed
        account = await self._rows.get(user_id)
        if account is None or account.company_id != company_id:
            raise MemberNotFound(user=user_id)
        try:
            await self._removal.remove_member(user_id)
        except AccountNotFound as exc:
            raise MemberNotFound(user=user_id) from exc

    async def ids(self, company_id: str) -> list[str]:
        """The accounts that may see the company: its owner and its members, without those that are shut; none of a shut company."""
        owner = await self._rows.get(company_id)
        if owner is None or not owner.is_owner or owner.is_disabled:
            return []
        members = await self._rows.members_of(company_id, limit=MEMBERS_MAX)
        return [owner.id, *(member.id for member in members if not member.is_disabled)]

    async def _owner(self, company_id: str) -> Account:
        owner = await self._rows.get(company_id)
        if owner is None or not owner.is_owner:
            raise CompanyNotFound(company=company_id)
        return owner
