"""What identity needs from storage. Every method raises `StoreUnavailable` when the store does not answer."""

from collections.abc import Sequence
from typing import Protocol

from server.auth.model import Account, Family, RefreshToken


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

    async def set_disabled(self, account_id: str, *, is_disabled: bool) -> Account | None:
        """The account as it is now, None if there is none."""
        ...


class TokenRows(Protocol):
    """Families and the refresh tokens that belong to them."""

    async def add_family(self, family: Family) -> None: ...

    async def get_family(self, family_id: str) -> Family | None: ...

    async def live_families(self, user_id: str) -> list[str]:
        """The ids of all families of the user that have not ended."""
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
        """Delete refresh tokens that expired before then; how many there were."""
        ...
