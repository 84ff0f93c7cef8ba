"""`AccountRows` over two collections: the accounts, and the claims on their addresses."""

from collections.abc import Sequence
from typing import Any, Final

from billing_engine.errors import InvariantBroken
from server.auth.model import (
    Account,
    Disabling,
    FollowUp,
    MemberAccess,
    PasswordChange,
    Profession,
    Role,
    email_key,
)
from server.storage.collection import Collection, Collections, CollectionSpec, Doc
from server.storage.errors import DuplicateId
from server.storage.repositories.account_words import AccountWords

#: Where the token of an open follow-up stands.
DUE: Final = {
    FollowUp.PASSWORD: "password_due",
    FollowUp.STANDING: "standing_due",
    FollowUp.DELETION: "deletion_due",
}
USERS: Final = CollectionSpec(
    name="users",
    text=("role", "company_id", "reset_id", "reset_digest", *DUE.values()),
    integer=("created_at_ms", "deleted_at_ms", "password_version", "reset_until_ms"),
    boolean=("is_disabled",),
    indexes=(
        ("created_at_ms",),
        ("role", "created_at_ms"),
        ("role", "deleted_at_ms"),
        ("is_disabled", "created_at_ms"),
        ("company_id", "created_at_ms"),
        *((name,) for name in DUE.values()),
    ),
)
#: `_id` is the address in one spelling, so two accounts cannot have it.
EMAIL_CLAIMS: Final = CollectionSpec(name="email_claims", text=("account_id",))
#: What a deleted account is called wherever a name is shown.
DELETED_NAME: Final = "Deleted user"
_NO_RESET: Final[Doc] = {"reset_digest": None, "reset_until_ms": None}


class CollectionAccounts:
    """Accounts as documents."""

    def __init__(self, users: Collection, claims: Collection, words: AccountWords) -> None:
        self._users = users
        self._claims = claims
        self._words = words

    @classmethod
    async def open(cls, collections: Collections) -> "CollectionAccounts":
        users = await collections.open(USERS)
        words = await AccountWords.open(collections)
        await words.fill(users)
        return cls(users, await collections.open(EMAIL_CLAIMS), words)

    # --- opening an account, finding it

    async def add(self, account: Account) -> None:
        # Words of an account that is not there are skipped by whoever finds them; an account without words is not found.
        await self._words.put(account.id, email=account.email, name=account.name)
        try:
            await self._users.insert(_doc(account))
        except DuplicateId as exc:
            raise InvariantBroken(account=account.id, problem="a fresh id was used before") from exc

    async def drop(self, account_id: str) -> None:
        await self._forget_words(account_id)
        await self._users.delete(account_id)

    async def get(self, account_id: str) -> Account | None:
        doc = await self._users.get(account_id)
        return None if doc is None else account_of(doc)

    async def get_many(self, account_ids: Sequence[str]) -> dict[str, Account]:
        return {id_: account_of(doc) for id_, doc in (await self._users.get_many(account_ids)).items()}

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
        return bool(await self._admins())

    async def has_other_admin(self, account_id: str) -> bool:
        return any(admin["_id"] != account_id and not admin["is_disabled"] for admin in await self._admins())

    async def _admins(self) -> list[Doc]:
        """Admins whom somebody can log in as; an account without its address (a crash while it was made) is nobody's."""
        found = []
        for admin in await self._users.find({"role": Role.ADMIN.value, "deleted_at_ms": None}, limit=100):
            claim = await self._claims.get(admin["email_key"])
            if claim is not None and claim["account_id"] == admin["_id"]:
                found.append(admin)
        return found

    # --- standing

    async def disable(self, account_id: str, disabling: Disabling, *, due: str) -> bool:
        why = {"by": disabling.by, "at_ms": disabling.at_ms, "reason": disabling.reason}
        return await self._write(
            account_id,
            where={"is_disabled": False},
            set_={"is_disabled": True, "disabling": why, DUE[FollowUp.STANDING]: due},
        )

    async def enable(self, account_id: str, *, due: str) -> bool:
        return await self._write(
            account_id,
            where={"is_disabled": True, "deleted_at_ms": None},
            set_={"is_disabled": False, "disabling": None, DUE[FollowUp.STANDING]: due},
        )

    async def with_due(self, follow_up: FollowUp, *, limit: int) -> list[Account]:
        name = DUE[follow_up]
        return [
            account_of(doc)
            for doc in await self._users.find({name: {"gt": ""}}, sort=((name, "asc"),), limit=limit)
        ]

    async def settle(self, account_id: str, follow_up: FollowUp, token: str | None) -> bool:
        name = DUE[follow_up]
        return await self._write(account_id, where={name: token}, set_={name: None})

    # --- passwords

    async def set_password(
        self, account_id: str, password_hash: str, change: PasswordChange, *, expect_version: int | None
    ) -> bool:
        return await self._write(
            account_id,
            where={"password_version": expect_version, "is_disabled": False},
            set_=_new_password(password_hash, change),
            inc={"password_version": 1},
        )

    async def put_reset(self, account_id: str, *, reset_id: str, digest: str, until_ms: int) -> bool:
        reset = {"reset_id": reset_id, "reset_digest": digest, "reset_until_ms": until_ms}
        # The first, a newer one, or the same once more as long as it was not used.
        for earlier in ({"reset_id": None}, {"reset_id": {"lt": reset_id}}, {"reset_digest": digest}):
            if await self._write(account_id, where={"is_disabled": False, **earlier}, set_=reset):
                return True
        return False

    async def has_reset(self, account_id: str, *, digest: str, now_ms: int) -> bool:
        doc = await self._users.get(account_id)
        return (
            doc is not None
            and not doc["is_disabled"]
            and doc.get("reset_digest") == digest
            and (doc.get("reset_until_ms") or 0) > now_ms
        )

    async def use_reset(
        self, account_id: str, password_hash: str, change: PasswordChange, *, digest: str, now_ms: int
    ) -> bool:
        return await self._write(
            account_id,
            where={"reset_digest": digest, "reset_until_ms": {"gt": now_ms}, "is_disabled": False},
            set_=_new_password(password_hash, change),
            inc={"password_version": 1},
        )

    async def remember_address(self, account_id: str, mark: str, *, keep: int) -> None:
        doc = await self._users.get(account_id)
        if doc is not None:
            others = [known for known in doc.get("known_addresses") or () if known != mark]
            # Two log-ins at once may lose one mark: it is learnt again at the next log-in from there.
            await self._write(account_id, where={}, set_={"known_addresses": [*others, mark][-keep:]})

    # --- a company's members

    async def members_of(
        self, company_id: str, *, limit: int, after: tuple[int, str] | None = None
    ) -> list[Account]:
        where = {"company_id": company_id, "deleted_at_ms": None}
        docs = await self._users.find(where, sort=(("created_at_ms", "asc"),), limit=limit, after=after)
        return [account_of(doc) for doc in docs]

    async def count_members(self, company_id: str) -> int:
        return await self._users.count({"company_id": company_id, "deleted_at_ms": None})

    async def set_member_access(
        self, account_id: str, access: MemberAccess, *, company_id: str
    ) -> Account | None:
        doc = await self._users.update(
            account_id,
            where={"company_id": company_id, "deleted_at_ms": None},
            set_={"company_access": access.value},
        )
        return None if doc is None else account_of(doc)

    # --- the end of an account

    async def delete(self, account_id: str, *, expect_version: int | None, at_ms: int, due: str) -> bool:
        return await self._write(
            account_id,
            where={"password_version": expect_version, "deleted_at_ms": None},
            set_={"is_disabled": True, "deleted_at_ms": at_ms, DUE[FollowUp.DELETION]: due, **_NO_RESET},
        )

    async def free_email(self, key: str, account_id: str) -> None:
        await self._claims.delete(key, where={"account_id": account_id})

    async def erase(self, account_id: str) -> None:
        # First, as long as the row says which they are.
        await self._forget_words(account_id)
        await self._write(
            account_id,
            where={"deleted_at_ms": {"gt": 0}},
            set_={
                "email": "",
                "email_key": "",
                "name": DELETED_NAME,
                "password_hash": "",
                "profession": None,
                "company_name": None,
                "disabling": None,
                "known_addresses": [],
                **_NO_RESET,
            },
        )

    async def _forget_words(self, account_id: str) -> None:
        doc = await self._users.get(account_id)
        if doc is not None:
            await self._words.drop(account_id, email=doc["email"], name=doc["name"])

    async def _write(
        self, account_id: str, *, where: Doc, set_: Doc, inc: dict[str, int] | None = None
    ) -> bool:
        return await self._users.update(account_id, where=where, set_=set_, inc=inc) is not None


def _new_password(password_hash: str, change: PasswordChange) -> Doc:
    return {
        "password_hash": password_hash,
        "password_change": {"id": change.id, "at_ms": change.at_ms, "keep_family": change.keep_family},
        DUE[FollowUp.PASSWORD]: change.id,
        **_NO_RESET,
    }


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
        "company_id": account.company_id,
        "company_access": account.company_access.value if account.company_access else None,
        "is_disabled": account.is_disabled,
        "known_addresses": list(account.known_addresses),
    }


def account_of(doc: Doc) -> Account:
    return Account(
        id=doc["_id"],
        email=doc["email"],
        name=doc["name"],
        role=Role(doc["role"]),
        password_hash=doc["password_hash"],
        created_at_ms=doc["created_at_ms"],
        profession=Profession(doc["profession"]) if doc["profession"] else None,
        company_name=doc["company_name"],
        company_id=doc.get("company_id"),
        company_access=MemberAccess(access) if (access := doc.get("company_access")) else None,
        is_disabled=doc["is_disabled"],
        disabling=_made(Disabling, doc.get("disabling")),
        deleted_at_ms=doc.get("deleted_at_ms"),
        password_version=doc.get("password_version"),
        password_change=_made(PasswordChange, doc.get("password_change")),
        known_addresses=tuple(doc.get("known_addresses") or ()),
        due={follow_up: doc[name] for follow_up, name in DUE.items() if doc.get(name)},
    )


def _made(kind: Any, facts: Doc | None) -> Any:
    return None if facts is None else kind(**facts)
