"""Lawyers and reviews: their records, and the arithmetic of ratings. No clock and no I/O."""

import unicodedata
from dataclasses import dataclass
from datetime import datetime, tzinfo
from enum import StrEnum
from typing import Final

#: In whole major units. SPEC 4 names no bounds; zero would be a lawyer whom no empty wallet ever stops.
MAX_RATE_PER_MIN: Final = 100_000


@dataclass(frozen=True, slots=True)
class Verification:
    """An admin's decision on a lawyer; a rejection carries its reason."""

    by: str
    at_ms: int
    reason: str | None


@dataclass(frozen=True, slots=True)
class Rating:
    """The sum and number of a lawyer's reviews: integers, so that the mean is exact."""

    stars_sum: int = 0
    count: int = 0

    @property
    def centi(self) -> int | None:
        """The mean in hundredths, half up (4.125 → 413); None without reviews."""
        if self.count == 0:
            return None
        # floor(x + 1/2) in integers: 100·sum/count + 1/2 = (200·sum + count) / (2·count).
        return (200 * self.stars_sum + self.count) // (2 * self.count)


@dataclass(frozen=True, slots=True)
class LawyerProfile:
    """What is known of a lawyer. Instants in epoch milliseconds, the rate in the currency's smallest unit.

    Whether the lawyer is busy is not in here: the claims know, and a copy would lie after a crash.
    """

    id: str
    name: str
    rate_minor_per_min: int
    specializations: tuple[str, ...]
    languages: tuple[str, ...]
    bar_council_number: str
    bio: str
    created_at_ms: int
    is_verified: bool = False
    verification: Verification | None = None
    is_online: bool = False
    #: Since when: of the last time that the lawyer said so. 0 of old records.
    online_at_ms: int = 0
    #: Whether a start begins at once; else the lawyer is asked first.
    auto_accept: bool = True
    #: Whether people may wait while the lawyer is busy.
    waiting_list: bool = False
    #: The account is disabled or deleted: nobody finds the lawyer, and nobody starts with them.
    is_suspended: bool = False
    rating: Rating = Rating()
    #: Rises with each change of `rating`; the compare-and-set of the recount stands on it.
    rating_version: int = 0


@dataclass(frozen=True, slots=True)
class ProfileChange:
    """New values for some fields of a profile; None leaves a field as it is."""

    name: str | None = None
    rate_minor_per_min: int | None = None
    specializations: tuple[str, ...] | None = None
    languages: tuple[str, ...] | None = None
    bar_council_number: str | None = None
    bio: str | None = None
    auto_accept: bool | None = None
    waiting_list: bool | None = None

    def asks_new_verification(self, profile: LawyerProfile) -> bool:
        """Whether it changes what the admin looked at: the name or the bar council number."""
        return (self.name or profile.name, self.bar_council_number or profile.bar_council_number) != (
            profile.name,
            profile.bar_council_number,
        )


class LawyerSort(StrEnum):
    """`rating`: best first, unrated last. `rate`: cheapest first."""

    RATING = "rating"
    RATE = "rate"


@dataclass(frozen=True, slots=True)
class LawyerFilter:
    """What a search asks for; None asks for nothing. `min_rating_centi` compares the rating as it is
    printed.
    """

    online: bool | None = None
    free: bool | None = None
    specialization: str | None = None
    language: str | None = None
    max_rate_minor_per_min: int | None = None
    min_rating_centi: int | None = None


@dataclass(frozen=True, slots=True)
class LawyerCard:
    """A lawyer as a search shows one: the profile, and whether somebody is being served right now."""

    profile: LawyerProfile
    is_busy: bool


@dataclass(frozen=True, slots=True)
class Review:
    """One user's verdict on one consultation; its id is the session's, so there is one."""

    session_id: str
    lawyer_id: str
    user_id: str
    stars: int
    comment: str | None
    created_at_ms: int


@dataclass(frozen=True, slots=True)
class Place:
    """Where a page ended: the sort value of its last row and that row's id."""

    value: int
    id: str


def format_centi(centi: int) -> str:
    """`413` prints `4.13`."""
    return f"{centi // 100}.{centi % 100:02d}"


def search_key(label: str) -> str:
    """The form in which two spellings of a specialization or a language are the same: case, width and
    spacing do not count.
    """
    return " ".join(unicodedata.normalize("NFKC", label).casefold().split())


def distinct(labels: tuple[str, ...]) -> tuple[str, ...]:
    """`labels` without repeats, as `search_key` sees repeats; the first spelling stays."""
    seen: dict[str, str] = {}
    for label in labels:
        seen.setdefault(search_key(label), label)
    return tuple(seen.values())


def local_day(now_ms: int, zone: tzinfo) -> str:
    """The calendar day `YYYY-MM-DD` of an instant where the business is (SPEC 1, TIMEZONE)."""
    return datetime.fromtimestamp(now_ms // 1000, zone).strftime("%Y-%m-%d")
