"""What identity needs from storage. Every method raises `StoreUnavailable` when the store does not answer."""

from collections.abc import Sequence
from typing import Protocol

from server.auth.model import (
    Account,
    Disabling,
    Family,
    FollowUp,
    MemberAccess,
    PasswordChange,
    RefreshToken,
)


class AccountRows(Protocol):
    """Accounts, and the claims that make an address theirs alone."""

    async def add(self, account: Account) -> None:
        """Insert the account under its fresh id. It cannot log in before its address is claimed."""
        ...

    async def drop(self, account_id: str) -> None:
        """Delete an account whose address was refused."""
        ...

    async def get(self, account_id: str) -> Account | None: ...

    async def get_many(self, account_ids: Sequence[str]) -> dict[str, Account]: ...

    async def claim_email(self, key: str, account_id: str) -> bool:
        """Make the address this account's; False if it is another's."""
        ...

    async def of_email(self, key: str) -> Account | None:
        """The account that has claimed the address."""
        ...

    async def has_admin(self) -> bool: ...

    async def disable(self, account_id: str, disabling: Disabling, *, due: str) -> bool:
        """Shut the account, with `due` as its open follow-up; False if it is shut already, or is not there."""
        ...

    async def enable(self, account_id: str, *, due: str) -> bool:
        """Open a disabled account, with `due` as its open follow-up; False if it is open, deleted, or not there."""
        ...

    async def set_password(
        self, account_id: str, password_hash: str, change: PasswordChange, *, expect_version: int | None
    ) -> bool:
        """A new password, with an open follow-up, if nobody set another one since; ends an outstanding reset."""
        ...

    async def put_reset(self, account_id: str, *, reset_id: str, digest: str, until_ms: int) -> bool:
        """Make this the account's only reset; ids sort by age. True also if it is already and was not used. False if a newer one
        was asked for, or this one was used, or the account is shut.
        """
        ...

    async def has_reset(self, account_id: str, *, digest: str, now_ms: int) -> bool:
        """Whether `use_reset` would do it now: to be asked before a password is hashed for nothing."""
        ...

    async def use_reset(
        self, account_id: str, password_hash: str, change: PasswordChange, *, digest: str, now_ms: int
    ) -> bool:
        """The new password for the account's reset, in one conditional write: of many at once one gets True."""
        ...

    async def remember_address(self, account_id: str, mark: str, *, keep: int) -> None:
        """Add the mark to the account's known addresses, of which the latest `keep` stay."""
        ...

    async def has_other_admin(self, account_id: str) -> bool:
        """Whether somebody else is an admin whose account is open."""
        ...

    async def delete(self, account_id: str, *, expect_version: int | None, at_ms: int, due: str) -> bool:
        """Shut the account for good, with an open follow-up, if its password is still that one and it is not deleted yet."""
        ...

    async def free_email(self, key: str, account_id: str) -> None:
        """Let somebody else have the address, if it is this account's. Harmless when repeated."""
        ...

    async def erase(self, account_id: str) -> None:
        """Overwrite everything personal in a deleted account's row. Harmless when repeated."""
        ...

    async def members_of(
        self, company_id: str, *, limit: int, after: tuple[int, str] | None = None
    ) -> list[Account]:
        """The company's members whose accounts are not deleted, the earliest first; `after` is (created_at_ms, id)."""
        ...

    async def count_members(self, company_id: str) -> int:
        """How many they are."""
        ...

    async def set_member_access(
        self, account_id: str, access: MemberAccess, *, company_id: str
    ) -> Account | None:
        """The member, with this access from now on; None if it is no member of this company, or was deleted."""
        ...

    async def with_due(self, follow_up: FollowUp, *, limit: int) -> list[Account]:
        """Accounts with an open follow-up of this kind."""
        ...

    async def settle(self, account_id: str, follow_up: FollowUp, token: str | None) -> bool:
        """The follow-up is done everywhere; False if another change came meanwhile, whose follow-up is open."""
        ...


class TokenRows(Protocol):
    """Families and the refresh tokens that belong to them."""

    async def add_family(self, family: Family) -> None: ...

    async def get_family(self, family_id: str) -> Family | None: ...

    async def live_families(self, user_id: str) -> list[Family]:
        """All families of the user that have not ended."""
        ...

    async def end_family(self, family_id: str, *, at_ms: int) -> None:
        """End it; an ended one keeps its time."""
        ...

    async def ended_since(self, at_ms: int) -> list[Family]:
        """All families that ended then or later, the earliest first."""
        ...

    async def add_token(self, token: RefreshToken) -> None: ...

    async def get_token(self, digest: str) -> RefreshToken | None: ...

    async def use_token(self, digest: str, *, at_ms: int) -> bool:
        """Mark it used in one conditional write; False if it was used before."""
        ...

    async def drop_expired(self, *, before_ms: int, limit: int) -> int:
        """Delete refresh tokens that expired before then, and families that have none left; how many tokens there were."""
        ...
