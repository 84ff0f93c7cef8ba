"""Lawyers, reviews and earnings as they cross the wire, and the bounds of what may be written (SPEC 4, 7)."""

import re
import unicodedata
from typing import Annotated, Any, Final

from pydantic import AfterValidator, Field, PlainValidator, StringConstraints, WithJsonSchema

from billing_engine.money import Asset, format_minor, parse_minor
from server.errors import ValidationFailed
from server.people.model import (
    MAX_RATE_PER_MIN,
    LawyerCard,
    LawyerProfile,
    LawyerSort,
    Review,
    format_centi,
)
from server.people.ports import EarningRow, EarningsSummary
from server.people.service import Applicant
from server.wire import (
    Email,
    FromValue,
    Id,
    Instant,
    MoneyIn,
    MoneyOut,
    Name,
    NewPassword,
    PageQuery,
    WireModel,
    described,
)

#: One character of `prose`, as JSON Schema has it.
_PROSE: Final = r"[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]"

#: Prose with something to be seen.
PROSE_PATTERN: Final = rf"^{_PROSE}*[^\s\x00-\x1f\x7f-\x9f]{_PROSE}*$"


def prose(text: str) -> str:
    """The text, if it is prose. Raises ValueError."""
    # Lines and tabs belong to prose; other control characters and lone surrogates are no text.
    if any(unicodedata.category(char) in {"Cc", "Cs"} and char not in "\n\r\t" for char in text):
        raise ValueError("must not contain control characters other than line breaks and tabs")
    return text


#: Several lines, trimmed, possibly empty.
Prose = Annotated[
    str,
    StringConstraints(strip_whitespace=True, max_length=2_000),
    AfterValidator(prose),
    described(pattern=rf"^{_PROSE}*$"),
]
#: Why, to a lawyer. No `Name` with another maximal length: of two, the shorter one counts.
Reason = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=500),
    AfterValidator(prose),
    described(pattern=PROSE_PATTERN),
]
#: One specialization or language.
Label = Annotated[Name, Field(max_length=60)]
Labels = Annotated[list[Label], Field(max_length=20)]
BarCouncilNumber = Annotated[Name, Field(max_length=50)]

_RATING: Final = re.compile(r"[0-4](\.\d{1,2})?|5(\.0{1,2})?", re.ASCII)


def _rating_centi(value: Any) -> int:
    text = "" if isinstance(value, bool) else str(value)
    if not _RATING.fullmatch(text):
        raise ValueError("must be a number from 0 to 5 with at most two decimals, such as 4.5")
    whole, _, fraction = text.partition(".")
    return int(whole) * 100 + int(fraction.ljust(2, "0"))


#: `4.5` → 450, exactly.
RatingIn = Annotated[
    int,
    PlainValidator(_rating_centi),
    WithJsonSchema(
        {"type": "string", "pattern": r"^([0-4](\.\d{1,2})?|5(\.0{1,2})?)$", "examples": ["4.50"]}
    ),
]


class RegisterLawyerBody(WireModel):
    """What a lawyer says at the door: an account like everybody's, and a profile for an admin to verify."""

    email: Email
    password: NewPassword
    name: Name
    rate_per_minute: MoneyIn
    bar_council_number: BarCouncilNumber
    specializations: Labels = Field(default_factory=list)
    languages: Labels = Field(default_factory=list)
    bio: Prose = ""


class ProfileBody(WireModel):
    """New values for some fields; a field that is missing or null stays as it is."""

    name: Name | None = None
    rate_per_minute: MoneyIn | None = None
    specializations: Labels | None = None
    languages: Labels | None = None
    bar_council_number: BarCouncilNumber | None = None
    bio: Prose | None = None
    auto_accept: bool | None = None
    waiting_list: bool | None = None


class VerifyBody(WireModel):
    """A verdict; an empty body verifies. A rejection needs its reason. `barCouncilNumber`, where given,
    must still be the lawyer's.
    """

    is_verified: bool = True
    reason: Reason | None = None
    bar_council_number: BarCouncilNumber | None = None


class AvailabilityBody(WireModel):
    """Whether the lawyer takes consultations."""

    is_online: bool


class LawyersQuery(PageQuery):
    """What to look for. `free` means: in no consultation right now."""

    online: bool | None = None
    free: bool | None = None
    specialization: Label | None = None
    language: Label | None = None
    max_rate: MoneyIn | None = None
    min_rating: RatingIn | None = None
    sort: Annotated[LawyerSort, FromValue] = LawyerSort.RATING


class QueueQuery(PageQuery):
    """Which lawyers: `verified` or not, with a verdict (`decided`) or waiting for their first one."""

    verified: bool | None = None
    decided: bool | None = None


class ReviewBody(WireModel):
    """One to five stars for an ended consultation."""

    session_id: Id
    rating: Annotated[int, Field(ge=1, le=5)]
    comment: Prose | None = None


class VerdictView(WireModel):
    """The admin's last decision; `by` is for admins only."""

    at: Instant
    reason: str | None
    by: str | None


class LawyerView(WireModel):
    """A lawyer. Without `autoAccept` a start rings and waits for an answer; with `waitingList` one may wait while the lawyer is busy.
    `barCouncilNumber` and `verification` are null but for the lawyer and for admins.
    """

    id: str
    name: str
    rate_per_minute: MoneyOut
    currency: str
    rating: Annotated[str, Field(pattern=r"^\d\.\d\d$", examples=["4.50"])] | None
    review_count: int
    is_verified: bool
    is_online: bool
    is_busy: bool
    auto_accept: bool
    waiting_list: bool
    specializations: list[str]
    languages: list[str]
    bio: str
    created_at: Instant
    bar_council_number: str | None
    verification: VerdictView | None

    @classmethod
    def public(cls, card: LawyerCard, asset: Asset) -> "LawyerView":
        return cls(**_facts(card, asset), bar_council_number=None, verification=None)

    @classmethod
    def own(cls, card: LawyerCard, asset: Asset) -> "LawyerView":
        return cls(**_facts(card, asset), **_papers(card.profile, with_admin=False))

    @classmethod
    def for_admin(cls, card: LawyerCard, asset: Asset) -> "LawyerView":
        return cls(**_facts(card, asset), **_papers(card.profile, with_admin=True))


class ApplicantView(LawyerView):
    """A lawyer in the admin's queue."""

    email: str

    @classmethod
    def of(cls, applicant: Applicant, asset: Asset) -> "ApplicantView":
        card = applicant.card
        return cls(**_facts(card, asset), **_papers(card.profile, with_admin=True), email=applicant.email)


class ReviewView(WireModel):
    """One user's verdict on one consultation. The user is not named."""

    id: str
    session_id: str
    lawyer_id: str
    rating: int
    comment: str | None
    created_at: Instant

    @classmethod
    def of(cls, review: Review) -> "ReviewView":
        return cls(
            id=review.session_id,
            session_id=review.session_id,
            lawyer_id=review.lawyer_id,
            rating=review.stars,
            comment=review.comment,
            created_at=review.created_at_ms,
        )


class EarningsSummaryView(WireModel):
    """Net of commission and refunds. A payout lowers `available` only. `receivable` is what refunds took beyond what there was:
    later earnings repay it.
    """

    total_earnings: MoneyOut
    today_earnings: MoneyOut
    month_earnings: MoneyOut
    available: MoneyOut
    receivable: MoneyOut
    total_sessions: int
    currency: str

    @classmethod
    def of(cls, summary: EarningsSummary, asset: Asset) -> "EarningsSummaryView":
        return cls(
            total_earnings=format_minor(summary.total_minor, asset),
            today_earnings=format_minor(summary.today_minor, asset),
            month_earnings=format_minor(summary.month_minor, asset),
            available=format_minor(summary.available_minor, asset),
            receivable=format_minor(summary.receivable_minor, asset),
            total_sessions=summary.sessions,
            currency=asset.code,
        )


class EarningView(WireModel):
    """What one consultation earned: gross less commission is net. `refunded` is what of that net was given back since."""

    session_id: str
    gross: MoneyOut
    commission: MoneyOut
    net: MoneyOut
    refunded: MoneyOut
    currency: str
    created_at: Instant

    @classmethod
    def of(cls, row: EarningRow, asset: Asset) -> "EarningView":
        return cls(
            session_id=row.session_id,
            gross=format_minor(row.gross_minor, asset),
            commission=format_minor(row.commission_minor, asset),
            net=format_minor(row.net_minor, asset),
            refunded=format_minor(row.refunded_minor, asset),
            currency=asset.code,
            created_at=row.at_ms,
        )


def rate_minor(value: object, asset: Asset, *, field: str) -> int:
    """A rate per minute in smallest units.

    Raises:
        MoneyInvalid: it is no amount, or has too many decimals.
        ValidationFailed: it is not positive, or above the highest rate. Both name `field`.
    """
    minor = parse_minor(value, asset, field=field)
    if minor <= 0:
        raise ValidationFailed([(field, "must be more than zero")])
    if minor > MAX_RATE_PER_MIN * asset.scale:
        raise ValidationFailed([(field, f"must be at most {MAX_RATE_PER_MIN} per minute")])
    return minor


def _facts(card: LawyerCard, asset: Asset) -> dict[str, Any]:
    profile = card.profile
    centi = profile.rating.centi
    return {
        "id": profile.id,
        "name": profile.name,
        "rate_per_minute": format_minor(profile.rate_minor_per_min, asset),
        "currency": asset.code,
        "rating": None if centi is None else format_centi(centi),
        "review_count": profile.rating.count,
        "is_verified": profile.is_verified,
        "is_online": profile.is_online,
        "is_busy": card.is_busy,
        "auto_accept": profile.auto_accept,
        "waiting_list": profile.waiting_list,
        "specializations": list(profile.specializations),
        "languages": list(profile.languages),
        "bio": profile.bio,
        "created_at": profile.created_at_ms,
    }


def _papers(profile: LawyerProfile, *, with_admin: bool) -> dict[str, Any]:
    verdict = profile.verification
    return {
        "bar_council_number": profile.bar_council_number,
        "verification": None
        if verdict is None
        else VerdictView(at=verdict.at_ms, reason=verdict.reason, by=verdict.by if with_admin else None),
    }
