"""What lawyers and reviews need from the outside, in their own words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from billing_engine.consultations.model import Session
from billing_engine.refunds.model import RefundBook
from server.people.model import (
    LawyerFilter,
    LawyerProfile,
    LawyerSort,
    Place,
    ProfileChange,
    Rating,
    Review,
    Verification,
)


class LawyerProfiles(Protocol):
    """The stored profiles. Every write changes only the fields it names, so a rating and a verdict never
    undo each other.
    """

    async def add(self, profile: LawyerProfile) -> None:
        """Store a new profile under its id, which is fresh."""
        ...

    async def drop(self, lawyer_id: str) -> None:
        """Remove a profile whose account was refused; harmless when it is gone."""
        ...

    async def get(self, lawyer_id: str) -> LawyerProfile | None: ...

    async def set_verification(
        self,
        lawyer_id: str,
        *,
        is_verified: bool,
        verification: Verification | None,
        expect_number: str | None = None,
    ) -> LawyerProfile | None:
        """The profile with the verdict; None if there is no such lawyer, or the bar council number is not
        the expected one.
        """
        ...

    async def set_online(self, lawyer_id: str, *, is_online: bool, at_ms: int) -> LawyerProfile | None:
        """The profile as it is now, None if there is no such lawyer."""
        ...

    async def set_away(self, lawyer_id: str, *, online_at_ms: int) -> bool:
        """Offline, if the lawyer has not said to be online since `online_at_ms`; whether this did it."""
        ...

    async def set_suspended(self, lawyer_id: str, *, is_suspended: bool) -> None:
        """Hide the lawyer or show them again, offline either way. Harmless without such a lawyer, and when repeated."""
        ...

    async def erase(self, lawyer_id: str, *, name: str) -> None:
        """Suspend for good and overwrite what is personal, the name by `name`. Rating, rate and id stay: old sessions and reviews
        point at them. Harmless when repeated.
        """
        ...

    async def change(
        self, lawyer_id: str, change: ProfileChange, *, drop_verification: bool, expect: LawyerProfile
    ) -> LawyerProfile | None:
        """Write the fields that `change` names. None if the name or bar council number is no longer
        `expect`'s (or the lawyer is gone): whether a new verification is due was decided on those, so the
        caller reads again.
        """
        ...

    async def set_rating(self, lawyer_id: str, rating: Rating, *, expect_version: int) -> bool:
        """Compare-and-set on `rating_version`, which rises by one; whether it was written."""
        ...

    async def search(
        self, wanted: LawyerFilter, *, sort: LawyerSort, limit: int, after: Place | None
    ) -> list[LawyerProfile]:
        """Verified lawyers that match, in order. `wanted.free` is not looked at: profiles do not know
        it.
        """
        ...

    async def queue(
        self, *, is_verified: bool | None, is_decided: bool | None, limit: int, after: Place | None
    ) -> list[LawyerProfile]:
        """Profiles by age, the oldest first, whatever their verification unless one is asked for."""
        ...


class Reviews(Protocol):
    """The stored reviews. One is *counted* once the lawyer's stored rating contains it; until then it is
    work to redo.
    """

    async def add(self, review: Review) -> bool:
        """Insert, not counted yet; False if the session has its review already (nothing is changed
        then).
        """
        ...

    async def list_of(self, lawyer_id: str, *, limit: int, after: Place | None) -> list[Review]:
        """A lawyer's reviews, newest first."""
        ...

    async def total_of(self, lawyer_id: str) -> Rating:
        """The sum and number of all stored reviews of the lawyer, counted or not."""
        ...

    async def uncounted(self, lawyer_id: str | None, *, limit: int) -> list[Review]:
        """Reviews that the stored ratings may lack, of one lawyer or of all."""
        ...

    async def mark_counted(self, session_id: str) -> None:
        """Say that the stored rating contains the review; repeating it is harmless."""
        ...


class Accounts(Protocol):
    """Who may log in. A lawyer exists from the moment the account does."""

    async def create_lawyer(self, *, lawyer_id: str, email: str, password: str, name: str) -> None:
        """Open the account with the role LAWYER under this id.

        Raises:
            BillingError: the address is taken, the password is too long, …: there is no account then.
        """
        ...

    async def emails(self, ids: Sequence[str]) -> dict[str, str]:
        """The address by id, for those ids that have an account."""
        ...


class SessionBook(Protocol):
    """The consultations, as far as a review must know them. `billing_engine`'s `Sessions` is one."""

    async def get(self, session_id: str) -> Session | None: ...


class BusyPeople(Protocol):
    """Who is being served. `billing_engine`'s `Claims` is one."""

    async def held(self, persons: list[str]) -> dict[str, str]:
        """The session by person (`lawyer:ID`), for those in one."""
        ...


@dataclass(frozen=True, slots=True)
class EarningsSummary:
    """A lawyer's earnings, net of commission and refunds. Payouts lower `available_minor` only. `receivable_minor` is what later
    earnings repay: a refund took more than there was.
    """

    total_minor: int
    today_minor: int
    month_minor: int
    available_minor: int
    sessions: int
    receivable_minor: int = 0


@dataclass(frozen=True, slots=True)
class EarningRow:
    """What one consultation earned, and what of that was given back since; `key` is the ledger's, and breaks ties of `at_ms` in
    paging.
    """

    session_id: str
    gross_minor: int
    commission_minor: int
    net_minor: int
    at_ms: int
    key: str
    refunded_minor: int = 0


class Refunded(Protocol):
    """What was given back of consultations."""

    async def books(self, session_ids: Sequence[str]) -> Mapping[str, RefundBook]:
        """By session; those without any refund are absent."""
        ...


class Earnings(Protocol):
    """What the ledger says a lawyer earned."""

    async def summary(self, lawyer_id: str, *, day: str, month: str) -> EarningsSummary:
        """Totals, with `day` ('YYYY-MM-DD') and `month` ('YYYY-MM') in the business's time zone. Zeros for
        a lawyer without earnings.

        Raises:
            Unavailable: the books did not answer; nothing is taken for zero.
        """
        ...

    async def rows(self, lawyer_id: str, *, limit: int, before: tuple[int, str] | None) -> list[EarningRow]:
        """One row a consultation, newest first; `before` is (at_ms, key) of the last row of the previous
        page.
        """
        ...
