"""What a company's back end reports, as it crosses the wire, and what is answered (SPEC 9)."""

from decimal import ROUND_HALF_UP, Decimal
from typing import Annotated, Any, Final, Literal

from pydantic import ConfigDict, Field, PlainValidator, StringConstraints, WithJsonSchema, model_validator

from billing_engine.money import Asset, format_minor
from billing_engine.usage.model import (
    CV_PARSING,
    QUESTION_GENERATION,
    VIDEO_INTERVIEW,
    Measured,
    Usage,
    UsageStatus,
    billed_minutes,
    estimated_completion_tokens,
    estimated_prompt_tokens,
)
from billing_engine.usage.service import MAX_QUANTITY, Recorded, Report
from server.admin.wire import InstantIn
from server.billing_wire import shown_details
from server.wire import Id, Instant, MoneyOut, WireModel, field_error, one_of

#: Nobody's interview is longer: a start and an end of two interviews.
_LONGEST_MINUTES: Final = 24 * 60
_MS_PER_MINUTE: Final = 60_000
#: Longer than a job's description is in anybody's system.
_LONGEST_DESCRIPTION: Final = 100_000

Count = Annotated[int, Field(ge=0, le=1_000_000)]
Tokens = Annotated[int, Field(ge=0, le=1_000_000_000)]
Label = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=64)]


def _number(value: Any) -> Decimal:
    """A number as it was written: no float has touched it."""
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise ValueError("must be a number")  # noqa: TRY004 (pydantic wants ValueError)
    return Decimal(value)


def _percentage(value: Any) -> Decimal:
    number = _number(value)
    if not 0 <= number <= 100:
        raise ValueError("must be from 0 to 100")
    return number


def _minutes(value: Any) -> Decimal:
    number = _number(value)
    if not 0 <= number <= _LONGEST_MINUTES:
        raise ValueError(f"must be from 0 to {_LONGEST_MINUTES}")
    return number


Percentage = Annotated[
    Decimal, PlainValidator(_percentage), WithJsonSchema({"type": "number", "minimum": 0, "maximum": 100})
]
Minutes = Annotated[
    Decimal,
    PlainValidator(_minutes),
    WithJsonSchema({"type": "number", "minimum": 0, "maximum": _LONGEST_MINUTES}),
]


class _Event(WireModel):
    """What every usage may say. `eventId` is the caller's own: the same one again answers the first result and charges nothing.
    `occurredAt` is when it was used (default now, at most 35 days ago): the price of that moment is paid.
    """

    event_id: Id | None = None
    job_id: Id | None = None
    occurred_at: InstantIn | None = None

    def report(self, type_: str, measured: Measured, *, is_draft: bool = False, **details: Any) -> Report:
        return Report(
            type=type_,
            measured=measured,
            event_id=self.event_id,
            job_id=self.job_id,
            at_ms=self.occurred_at,
            is_draft=is_draft,
            details=details,
        )


class CvParsingIn(_Event):
    """A CV was parsed. One that could not be parsed costs nothing."""

    candidate_id: Id | None = None
    file_size_kb: Annotated[int, Field(ge=0, le=10_000_000)] | None = None
    parse_successful: bool = True
    success_rate: Percentage | None = None

    def as_report(self) -> Report:
        rate = None if self.success_rate is None else format(self.success_rate.normalize(), "f")
        return self.report(
            CV_PARSING,
            Measured({"cv": 1}, is_billable=self.parse_successful),
            candidateId=self.candidate_id,
            fileSizeKb=self.file_size_kb,
            parseSuccessful=self.parse_successful,
            successRate=rate,
        )


class QuestionGenerationIn(_Event):
    """Questions were made. Tokens that nobody counted are estimated: for the prompt a quarter of `jobDescription`'s characters and 100
    for each question asked for, for the answer 50 for each question made. The description itself is not kept. A `draft` costs nothing
    until its job is published.
    """

    question_count: Count
    requested_question_count: Count | None = None
    prompt_tokens: Tokens | None = None
    completion_tokens: Tokens | None = None
    job_description: Annotated[str, StringConstraints(max_length=_LONGEST_DESCRIPTION)] = ""
    model_used: Label | None = None
    draft: bool = False

    def as_report(self) -> Report:
        asked = (
            self.question_count if self.requested_question_count is None else self.requested_question_count
        )
        prompt, completion = self.prompt_tokens, self.completion_tokens
        if prompt is None:
            prompt = estimated_prompt_tokens(len(self.job_description), asked)
        if completion is None:
            completion = estimated_completion_tokens(self.question_count)
        return self.report(
            QUESTION_GENERATION,
            Measured({"token": prompt + completion, "question": self.question_count}),
            is_draft=self.draft,
            questionCount=self.question_count,
            requestedQuestionCount=self.requested_question_count,
            promptTokens=prompt,
            completionTokens=completion,
            tokensEstimated=self.prompt_tokens is None or self.completion_tokens is None,
            modelUsed=self.model_used,
        )


class VideoInterviewIn(_Event):
    """An interview was held: `durationMinutes`, or `startedAt` and `endedAt`. Rounded to whole minutes, half up, at least one."""

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [{"required": ["durationMinutes"]}, {"required": ["startedAt", "endedAt"]}]
        }
    )

    interview_id: Id
    started_at: InstantIn | None = None
    ended_at: InstantIn | None = None
    duration_minutes: Minutes | None = None
    completed_questions: Count | None = None
    total_questions: Count | None = None
    video_quality: Label | None = None

    @model_validator(mode="after")
    def _one_duration(self) -> "VideoInterviewIn":
        if (self.started_at is None) is not (self.ended_at is None):
            missing = "startedAt" if self.started_at is None else "endedAt"
            raise field_error(missing, "is required: an interview has a start and an end, or durationMinutes")
        if self.started_at is None or self.ended_at is None:
            if self.duration_minutes is None:
                raise field_error("durationMinutes", "is required, or else startedAt and endedAt")
            return self
        if self.duration_minutes is not None:
            raise field_error("durationMinutes", "cannot be given beside startedAt and endedAt")
        if not 0 <= self.ended_at - self.started_at <= _LONGEST_MINUTES * _MS_PER_MINUTE:
            raise field_error("endedAt", f"must follow startedAt, by at most {_LONGEST_MINUTES} minutes")
        return self

    def as_report(self) -> Report:
        if self.duration_minutes is not None:
            minutes = max(1, int(self.duration_minutes.to_integral_value(ROUND_HALF_UP)))
        else:
            minutes = billed_minutes((self.ended_at or 0) - (self.started_at or 0))
        return self.report(
            VIDEO_INTERVIEW,
            Measured({"minute": minutes}),
            interviewId=self.interview_id,
            completedQuestions=self.completed_questions,
            totalQuestions=self.total_questions,
            videoQuality=self.video_quality,
        )


class OtherUsageIn(_Event):
    """Anything else that the price book has: how much of it, in its unit."""

    quantity: Annotated[int, Field(ge=0, le=MAX_QUANTITY)]
    reference: Id | None = None

    def as_report(self, type_: str) -> Report:
        return self.report(type_, Measured({"": self.quantity}), reference=self.reference)


class CvParsingEvent(CvParsingIn):
    """The same within a batch."""

    type: Literal["cv-parsing"]
    event_id: Id


class QuestionGenerationEvent(QuestionGenerationIn):
    """The same within a batch."""

    type: Literal["question-generation"]
    event_id: Id


class VideoInterviewEvent(VideoInterviewIn):
    """The same within a batch."""

    type: Literal["video-interview"]
    event_id: Id


BATCH_LIMIT: Final = 500
Event = Annotated[CvParsingEvent | QuestionGenerationEvent | VideoInterviewEvent, Field(discriminator="type")]


class BatchIn(WireModel):
    """Up to 500 usages, charged in this order. Each has its `eventId`, so that a batch whose answer was lost may be sent again. Where
    one is not valid nothing of the batch is recorded, and the error names it: `events.3.questionCount`.
    """

    events: Annotated[list[Event], Field(min_length=1, max_length=BATCH_LIMIT)]


class UsageOut(WireModel):
    """What became of a usage. QUEUED: it is recorded and will be charged once, shortly. OWED: the wallet was short; the next recharge
    pays it. `type` is as in the URL, `entryType` as in the ledger. `walletBalance` is the balance right after it; null while
    nothing was taken. `duplicate`: the event was known.
    """

    usage_id: str
    event_id: str | None
    job_id: str | None
    type: str
    entry_type: str
    quantity: int
    unit: str
    cost: MoneyOut
    currency: str
    status: Annotated[str, one_of(UsageStatus)]
    wallet_balance: MoneyOut | None
    occurred_at: Instant
    created_at: Instant
    charged_at: Instant | None
    duplicate: bool

    @classmethod
    def of(cls, recorded: Recorded, asset: Asset) -> "UsageOut":
        return cls(**_shown(recorded.usage, asset), duplicate=recorded.is_repeat)


def _shown(usage: Usage, asset: Asset) -> dict[str, Any]:
    balance = usage.balance_minor
    return {
        "usage_id": usage.id,
        "event_id": usage.event_id,
        "job_id": usage.job_id,
        "type": usage.type,
        "entry_type": usage.entry_type,
        "quantity": usage.quantity,
        "unit": usage.unit,
        "cost": format_minor(usage.cost_minor, asset),
        "currency": asset.code,
        "status": usage.status.value,
        "wallet_balance": None if balance is None else format_minor(balance, asset),
        "occurred_at": usage.at_ms,
        "created_at": usage.created_at_ms,
        "charged_at": usage.charged_at_ms,
    }


class BatchOut(WireModel):
    """One result for each event, in the order of the events."""

    items: list[UsageOut]


class UsageDetailOut(UsageOut):
    """With what was said of it. `status` is the one of now: what was owed is CHARGED once a recharge has paid it."""

    details: dict[str, Any]

    @classmethod
    def seen(cls, usage: Usage, asset: Asset, *, collected_minor: int) -> "UsageDetailOut":
        shown = _shown(usage, asset)
        if usage.owed_upto is not None and usage.owed_upto <= collected_minor:
            shown["status"] = UsageStatus.CHARGED.value
        return cls(**shown, duplicate=False, details=shown_details(usage.details, asset))


class PublishedOut(WireModel):
    """A published job and the drafts that this call has charged; their sum."""

    job_id: str
    published_at: Instant
    cost: MoneyOut
    currency: str
    items: list[UsageOut]
