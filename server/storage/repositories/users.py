"""`AccountRows` over two collections: the accounts, and the claims on their addresses."""

from collections.abc import Sequence
from typing import Final

from billing_engine.errors import InvariantBroken
from server.auth.model import Account, Profession, Role, email_key
from server.storage.collection import Collection, Collections, CollectionSpec, Doc
from server.storage.errors import DuplicateId

USERS: Final = CollectionSpec(
    name="users",
    text=("role",),
    integer=("created_at_ms",),
    boolean=("is_disabled",),
    indexes=(("role", "created_at_ms"),),
)
#: `_id` is the address in one spelling, so two accounts cannot have it.
EMAIL_CLAIMS: Final = CollectionSpec(name="email_claims", text=("account_id",))


class CollectionAccounts:
    """Accounts as documents."""

    def __init__(self, users: Collection, claims: Collection) -> None:
        self._users = users
        self._claims = claims

    @classmethod
    async def open(cls, collections: Collections) -> "CollectionAccounts":
        return cls(await collections.open(USERS), await collections.open(EMAIL_CLAIMS))

    async def add(self, account: Account) -> None:
        try:
            await self._users.insert(_doc(account))
        except DuplicateId as exc:
            raise InvariantBroken(account=account.id, problem="a fresh id was used before") from exc

    async def drop(self, account_id: str) -> None:
        await self._users.delete(account_id)

    async def get(self, account_id: str) -> Account | None:
        doc = await self._users.get(account_id)
        return None if doc is None else _account(doc)

    async def get_many(self, account_ids: Sequence[str]) -> dict[str, Account]:
        return {id_: _account(doc) for id_, doc in (await self._users.get_many(account_ids)).items()}

    async def claim_email(self, key: str, account_id: str) -> bool:
        try:
            await self._claims.insert({"_id": key, "account_id": account_id})
        except DuplicateId:
            return False
        return True

    async def of_email(self, key: str) -> Account | None:
        claim = await self._claims.get(key)
        return None if claim is None else await self.get(claim["account_id"])

    async def has_admin(self) -> bool:
        for admin in await self._users.find({"role": Role.ADMIN.value}, limit=100):
            # An account without its address (a crash while it was made) is nobody's.
            claim = await self._claims.get(admin["email_key"])
            if claim is not None and claim["account_id"] == admin["_id"]:
                return True
        return False

    async def set_disabled(self, account_id: str, *, is_disabled: bool) -> Account | None:
        doc = await self._users.update(account_id, set_={"is_disabled": is_disabled})
        return None if doc is None else _account(doc)


def _doc(account: Account) -> Doc:
    return {
        "_id": account.id,
        "email": account.email,
        "email_key": email_key(account.email),
        "name": account.name,
        "role": account.role.value,
        "password_hash": account.password_hash,
        "created_at_ms": account.created_at_ms,
        "profession": account.profession.value if account.profession else None,
        "company_name": account.company_name,
        "is_disabled": account.is_disabled,
    }


def _account(doc: Doc) -> Account:
    return Account(
        id=doc["_id"],
        email=doc["email"],
        name=doc["name"],
        role=Role(doc["role"]),
        password_hash=doc["password_hash"],
        created_at_ms=doc["created_at_ms"],
        profession=Profession(doc["profession"]) if doc["profession"] else None,
        company_name=doc["company_name"],
        is_disabled=doc["is_disabled"],
    )
