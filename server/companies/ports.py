"""What companies need from storage. All methods raise `StoreUnavailable`."""

from collections.abc import Sequence
from typing import Protocol

from server.companies.model import ApiKey, CompanyRecord


class CompanyRows(Protocol):
    """How companies are billed, and which keys of theirs live: one document each, decided on by its version."""

    async def get(self, company_id: str) -> CompanyRecord | None: ...

    async def put(self, record: CompanyRecord) -> bool:
        """Store it as version `record.version + 1`, if `record.version` is the stored one (0: none is); whether it was."""
        ...


class ApiKeyRows(Protocol):
    """Keys. None is ever deleted but those that nobody was given."""

    async def add(self, key: ApiKey) -> None:
        """Insert it under its fresh id."""
        ...

    async def drop(self, key_id: str) -> None:
        """Delete a key that was refused before anybody got it."""
        ...

    async def get(self, key_id: str) -> ApiKey | None: ...

    async def get_many(self, key_ids: Sequence[str]) -> dict[str, ApiKey]: ...

    async def revoke(self, key_id: str, *, at_ms: int) -> ApiKey | None:
        """The key, which does not work any more; a revoked one keeps its time. None if there is no such key."""
        ...

    async def used(self, key_id: str, *, at_ms: int) -> None:
        """Remember the use, unless a later one is known."""
        ...

    async def newest(self, company_id: str, *, limit: int, before: tuple[int, str] | None) -> list[ApiKey]:
        """The company's keys, newest first; `before` is (created_at_ms, id) of the last one shown."""
        ...
