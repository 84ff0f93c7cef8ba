"""`Directory` of the admin room: accounts by newness, by the beginning of their address, by words of their name."""

from typing import Final

from server.admin.model import UserFilter, UserPage
from server.auth.model import Account
from server.storage.collection import Collection, Collections, Doc
from server.storage.repositories.account_words import WORD_LENGTH, AccountWords, kept, words_in, words_of
from server.storage.repositories.users import USERS, account_of

_BATCH: Final = 200
_ROUNDS: Final = 10


class CollectionDirectory:
    """The accounts as admins look for them."""

    def __init__(self, users: Collection, words: AccountWords) -> None:
        self._users = users
        self._words = words

    @classmethod
    async def open(cls, collections: Collections) -> "CollectionDirectory":
        return cls(await collections.open(USERS), await AccountWords.open(collections))

    async def get(self, account_id: str) -> Account | None:
        doc = await self._users.get(account_id)
        return None if doc is None else account_of(doc)

    async def newest(self, wanted: UserFilter, *, limit: int, after: tuple[int, str] | None) -> UserPage:
        where: Doc = {}
        if wanted.role is not None:
            where["role"] = wanted.role.value
        if wanted.is_disabled is not None:
            where["is_disabled"] = wanted.is_disabled
        docs = await self._users.find(where, sort=(("created_at_ms", "desc"),), limit=limit + 1, after=after)
        accounts = [account_of(doc) for doc in docs[:limit]]
        has_more = len(docs) > limit
        return UserPage(accounts, (accounts[-1].created_at_ms, accounts[-1].id) if has_more else None)

    async def search(self, wanted: UserFilter, *, limit: int, after: tuple[str, str] | None) -> UserPage:
        asked = words_in(wanted.query or "")
        if not asked:
            return UserPage([], None)
        # The longest is the rarest, usually.
        letters = max(asked, key=len)[:WORD_LENGTH]
        found: list[Account] = []
        for round_ in range(_ROUNDS):
            # Most people have two words of one beginning at most; only a picky search makes us look at more.
            size = _BATCH if round_ else 2 * limit + 1
            batch = await self._words.beginning_with(letters, limit=size, after=after)
            docs = await self._users.get_many([account_id for _, account_id in batch])
            for seen, (word, account_id) in enumerate(batch, start=1):
                after = (word, account_id)
                account = account_of(docs[account_id]) if account_id in docs else None
                if account is not None and _is_wanted(account, wanted, asked, letters=letters, word=word):
                    found.append(account)
                if len(found) == limit:
                    is_last = seen == len(batch) < size
                    return UserPage(found, None if is_last else after)
            if len(batch) < size:
                return UserPage(found, None)
        return UserPage(found, after)


def _is_wanted(account: Account, wanted: UserFilter, asked: list[str], *, letters: str, word: str) -> bool:
    words = words_of(account.email, account.name)
    fits = (
        wanted.role in (None, account.role)
        and wanted.is_disabled in (None, account.is_disabled)
        and all(any(own.startswith(one) for own in words) for one in asked)
    )
    # Under the first of its words that begin so, and under no other: each account comes once.
    return fits and word == min(own for own in kept(words) if own.startswith(letters))
