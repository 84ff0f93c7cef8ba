"""Usages and what they cost: pure, no clock and no I/O."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

CV_PARSING: Final = "cv-parsing"
QUESTION_GENERATION: Final = "question-generation"
VIDEO_INTERVIEW: Final = "video-interview"

#: What the questions of a prompt and of an answer are taken to weigh where nobody has counted (document 001).
_CHARACTERS_PER_TOKEN: Final = 4
_PROMPT_TOKENS_PER_QUESTION: Final = 100
_COMPLETION_TOKENS_PER_QUESTION: Final = 50
_MS_PER_MINUTE: Final = 60_000
#: The unit by which a list counts the questions themselves, not the tokens that made them.
_QUESTION: Final = "question"


@dataclass(frozen=True, slots=True)
class Price:
    """`price_minor` for every `per` units of a type of usage, by one list of the price book, from `from_ms` on.

    `type` is the word in the URL (`cv-parsing`), `entry_type` the one in the ledger (`CV_PARSE`), `unit` what is counted (`token`).
    """

    list_name: str
    type: str
    entry_type: str
    unit: str
    price_minor: int
    per: int
    from_ms: int


def cost_of(quantity: int, price: Price) -> int:
    """Smallest units that `quantity` costs, rounded half up once."""
    return (2 * quantity * price.price_minor + price.per) // (2 * price.per)


def estimated_prompt_tokens(characters: int, requested_questions: int) -> int:
    """Tokens of a prompt that nobody counted: a quarter of its characters (half up), and 100 for each requested question."""
    half = _CHARACTERS_PER_TOKEN // 2
    return (characters + half) // _CHARACTERS_PER_TOKEN + _PROMPT_TOKENS_PER_QUESTION * requested_questions


def estimated_completion_tokens(questions: int) -> int:
    """Tokens of an answer that nobody counted: 50 for each question made."""
    return _COMPLETION_TOKENS_PER_QUESTION * questions


def billed_minutes(duration_ms: int) -> int:
    """Whole minutes of an interview: rounded half up, at least one."""
    return max(1, (duration_ms + _MS_PER_MINUTE // 2) // _MS_PER_MINUTE)


@dataclass(frozen=True, slots=True)
class Measured:
    """How much was used, in each unit that a list may count. `is_billable` False costs nothing."""

    amounts: Mapping[str, int]
    is_billable: bool = True

    def in_unit(self, unit: str) -> int:
        """The quantity in the list's unit; the first one where the caller counts in one unit only, whatever its name."""
        if not self.is_billable:
            return 0
        return self.amounts[unit] if unit in self.amounts else next(iter(self.amounts.values()))


class UsageStatus(StrEnum):
    """How far a usage has come. DRAFT → QUEUED → CHARGED | OWED; FREE is for good."""

    #: Recorded; charged when its job is published.
    DRAFT = "DRAFT"
    #: Recorded; the ledger has not been heard of it yet. It is charged once, later.
    QUEUED = "QUEUED"
    CHARGED = "CHARGED"
    #: The wallet was short: the next recharge pays it.
    OWED = "OWED"
    FREE = "FREE"


#: A state machine is a table: the statuses from which each one is reached.
REACHED_FROM: Final[Mapping[UsageStatus, frozenset[UsageStatus]]] = {
    UsageStatus.QUEUED: frozenset({UsageStatus.DRAFT}),
    UsageStatus.CHARGED: frozenset({UsageStatus.QUEUED}),
    UsageStatus.OWED: frozenset({UsageStatus.QUEUED}),
}


@dataclass(frozen=True, slots=True)
class Usage:
    """One usage as it is stored, in smallest units; instants in epoch milliseconds.

    `event_id` is the caller's own, once per company. `at_ms` is when it was used: the price is that instant's; `created_at_ms` when we
    were told. `cost_minor` is fixed with it, whatever prices do later. `charged_at_ms`, `balance_minor` (spendable right after) and
    `owed_upto` (its place in everything that was ever owed) are the ledger's, once it has spoken.
    """

    id: str
    company_id: str
    event_id: str | None
    job_id: str | None
    type: str
    entry_type: str
    unit: str
    quantity: int
    cost_minor: int
    list_name: str
    status: UsageStatus
    at_ms: int
    created_at_ms: int
    details: Mapping[str, Any] = field(default_factory=dict)
    charged_at_ms: int | None = None
    balance_minor: int | None = None
    owed_upto: int | None = None

    @property
    def kind(self) -> str:
        """The kind of its entry and transfer."""
        return kind_of(self.entry_type)

    @property
    def source(self) -> str:
        """Its permanent name in the ledger."""
        return f"usage:{self.id}"


_KIND: Final = "usage:"


def kind_of(entry_type: str) -> str:
    """The ledger's kind of a type of usage."""
    return f"{_KIND}{entry_type}"


def is_usage_kind(kind: str) -> bool:
    """Whether an entry of this kind is a usage."""
    return kind.startswith(_KIND)
