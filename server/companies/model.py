"""Companies, their keys and their people (SPEC 9): no clock and no I/O.

A company is its owner's account: `company_id` is that account's id. What is stored beside it is how it is billed.
"""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from billing_engine.usage.ports import ListChoice
from server.auth.model import CompanyRight

#: Live API keys of a company. Revoked ones stay listed and do not count.
KEYS_MAX: Final = 20
#: Members of a company, the owner not counted.
MEMBERS_MAX: Final = 100
#: How exactly it is known when a key was last used.
USED_EVERY_MS: Final = 60_000


class PriceList(StrEnum):
    """The lists of the price book that ship (SPEC 9)."""

    TOKENS = "tokens"
    QUESTIONS = "questions"


class Scope(StrEnum):
    """What an API key may be for. Never managing: a program that leaks its key must not be able to make another one."""

    USAGE = CompanyRight.USAGE.value
    READ = CompanyRight.READ.value


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as it is stored: never itself, only its hash."""

    id: str
    company_id: str
    name: str
    scopes: tuple[Scope, ...]
    digest: str
    created_by: str
    created_at_ms: int
    last_used_at_ms: int | None = None
    revoked_at_ms: int | None = None

    @property
    def rights(self) -> frozenset[CompanyRight]:
        """What its bearer may do."""
        return frozenset(CompanyRight(scope.value) for scope in self.scopes)

    def is_used_news(self, now_ms: int) -> bool:
        """Whether its last known use is long enough ago for this one to be written down."""
        return self.last_used_at_ms is None or now_ms - self.last_used_at_ms >= USED_EVERY_MS


@dataclass(frozen=True, slots=True)
class CompanyRecord:
    """How a company is billed, and which of its keys live. `version` rises with each change; 0 is a record that is not stored yet.

    `lists` are the choices of a price list, oldest first, never empty. `live_keys` are ids of keys that were not revoked.
    """

    id: str
    time_zone: str
    lists: tuple[ListChoice, ...]
    created_at_ms: int
    live_keys: tuple[str, ...] = ()
    version: int = 0

    def priced_by(self, list_name: PriceList, *, now_ms: int) -> "CompanyRecord":
        """The record with this list from now on; itself if that is its list already. What was used before keeps its price."""
        last = self.lists[-1]
        if last.list_name == list_name.value:
            return self
        choice = ListChoice(list_name.value, max(now_ms, last.from_ms))
        return replace(self, lists=(*self.lists, choice))


@dataclass(frozen=True, slots=True)
class Company:
    """A company as its people see it. `price_list_since_ms` is when the list of now was chosen, or the company made."""

    id: str
    name: str
    record: CompanyRecord

    @property
    def price_list(self) -> str:
        """The list of now."""
        return self.record.lists[-1].list_name

    @property
    def price_list_since_ms(self) -> int:
        """Since when."""
        return max(self.record.lists[-1].from_ms, self.record.created_at_ms)
