"""How many users there are and were. Counted from indexes: no account is read."""

from server.auth.model import Role
from server.storage.collection import Collection, Collections
from server.storage.repositories.users import USERS


class CollectionHeadcount:
    """`Headcount` over the accounts."""

    def __init__(self, users: Collection) -> None:
        self._users = users

    @classmethod
    async def open(cls, collections: Collections) -> "CollectionHeadcount":
        return cls(await collections.open(USERS))

    async def signups(self, from_ms: int, until_ms: int) -> int:
        """USER accounts made from then until then, the second instant not included; deleted ones, too."""
        return await self._users.count(
            {"role": Role.USER.value, "created_at_ms": {"gte": from_ms, "lt": until_ms}}
        )

    async def users_before(self, at_ms: int) -> int:
        """USER accounts that there were right before that instant."""
        made = await self._users.count({"role": Role.USER.value, "created_at_ms": {"lt": at_ms}})
        gone = await self._users.count({"role": Role.USER.value, "deleted_at_ms": {"lt": at_ms}})
        return made - gone
