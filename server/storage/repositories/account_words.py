"""The words that accounts are found by.

A word of an account is a small document whose id is `word account`: every account that has a word beginning with some letters
is then one range of ids, in any engine. Words may be left over (a crash between two writes), so whoever finds one compares it
with the account as it is.
"""

import asyncio
import unicodedata
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

from server.storage.collection import Collection, Collections, CollectionSpec
from server.storage.errors import DuplicateId

WORDS: Final = CollectionSpec(name="account_words", text=("account_id",))
#: Sorts before every word: its account-less document says that the accounts from before there were words have theirs.
_FILLED: Final = " filled"
#: A word is kept to this length: a cursor has to carry it.
WORD_LENGTH: Final = 60
#: Sorts after everything that begins with the same letters.
_END: Final = "\U0010ffff"
_PAGE: Final = 1_000


def words_in(text: str) -> list[str]:
    """The words of a text, without case, width, accents' spelling, or the joiners that only say how letters look."""
    plain = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return "".join(char for char in plain if unicodedata.category(char) != "Cf").split()


def words_of(email: str, name: str) -> frozenset[str]:
    """What an account is found by."""
    return frozenset((*words_in(email), *words_in(name)))


def kept(words: Iterable[str]) -> frozenset[str]:
    """The words as they are stored: cut to `WORD_LENGTH`."""
    return frozenset(word[:WORD_LENGTH] for word in words)


class AccountWords:
    """The words of all accounts."""

    def __init__(self, words: Collection) -> None:
        self._words = words

    @classmethod
    async def open(cls, collections: Collections) -> "AccountWords":
        return cls(await collections.open(WORDS))

    async def put(self, account_id: str, *, email: str, name: str) -> None:
        """Make the account findable. Harmless when repeated."""
        await asyncio.gather(*(self._put(account_id, word) for word in kept(words_of(email, name))))

    async def drop(self, account_id: str, *, email: str, name: str) -> None:
        """Forget the words of this address and name. Harmless when repeated."""
        words = kept(words_of(email, name))
        await asyncio.gather(*(self._words.delete(f"{word} {account_id}") for word in words))

    async def fill(self, users: Collection) -> None:
        """Once for a database: give the accounts from before there were words theirs. Begun anew if it was cut short."""
        if await self._words.get(_FILLED) is not None:
            return
        after: tuple[str] | None = None
        while True:
            page = await users.find({}, limit=_PAGE, after=after)
            for doc in page:
                await self.put(doc["_id"], email=doc["email"], name=doc["name"])
            if len(page) < _PAGE:
                break
            after = (page[-1]["_id"],)
        await self._words.upsert({"_id": _FILLED, "account_id": None})

    async def beginning_with(
        self, letters: str, *, limit: int, after: tuple[str, str] | None
    ) -> list[tuple[str, str]]:
        """(word, account) in this order, from the pair `after` on."""
        page = await self._words.find(
            {"_id": {"gte": letters, "lt": letters + _END}},
            limit=limit,
            after=None if after is None else (" ".join(after),),
        )
        return [(word, account_id) for word, _, account_id in (doc["_id"].rpartition(" ") for doc in page)]

    async def _put(self, account_id: str, word: str) -> None:
        with suppress(DuplicateId):
            await self._words.insert({"_id": f"{word} {account_id}", "account_id": account_id})
