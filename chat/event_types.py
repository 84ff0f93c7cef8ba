"""What every event of the socket is described with: payloads, views, acknowledgements, and the two kinds of rows in the tables."""

import re
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Final, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    StringConstraints,
    ValidationError,
)
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

from chat.buckets import Kind
from chat.errors import (
    ChatError,
    Draining,
    Invalid,
    NotFound,
    RateLimited,
    Unavailable,
)

_PRINTABLE_ASCII: Final = re.compile(r"[\x20-\x7e]+")


def printable_ascii(text: str) -> str:
    if not _PRINTABLE_ASCII.fullmatch(text):
        raise PydanticCustomError("printable_ascii", "only printable ASCII characters are allowed")
    return text


SessionId = Annotated[str, StringConstraints(min_length=1, max_length=128), AfterValidator(printable_ascii)]


class Payload(BaseModel):
    """What a client sends. Types are strict ("5" and true are no integers), unknown fields are ignored."""

    model_config = ConfigDict(
        strict=True, extra="ignore", frozen=True, alias_generator=to_camel, populate_by_name=True
    )


class SessionPayload(Payload):
    """What concerns one session."""

    session_id: SessionId


class View(BaseModel):
    """What the server sends; these models document and test the wire, they do not build it."""

    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, alias_generator=to_camel, populate_by_name=True
    )


Instant = Annotated[str, StringConstraints(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")]
Money = Annotated[str, StringConstraints(pattern=r"^-?\d+\.\d{2,}$")]


class Ack(View):
    ok: Literal[True]


class FieldProblem(View):
    field: str
    message: str


class Problem(View):
    code: str
    message: str
    retryable: bool
    #: With `RATE_LIMITED`: what comes sooner is refused too.
    retry_after_ms: int | None = None
    fields: list[FieldProblem] | None = None
    error_id: str | None = None


class Failure(View):
    """The acknowledgement of an event that was not carried out."""

    ok: Literal[False]
    error: Problem


class Turn(Enum):
    """How an event stands to its neighbours on the same connection."""

    #: Starts in order, is acknowledged when its commit lands: awaiting each would cap a connection at a
    #: message a commit.
    PIPELINED = "pipelined"
    #: Waits until what came before is done, and holds up what comes after.
    ALONE = "alone"


@dataclass(frozen=True, slots=True)
class ClientEvent:
    """An event that clients send. `errors` are those beyond `EVERY_EVENT`."""

    name: str
    payload: type[Payload]
    ack: type[Ack]
    turn: Turn
    doc: str
    errors: tuple[type[ChatError], ...] = ()
    #: What its pace is counted with (`chat/buckets.py`).
    kind: Kind = Kind.OTHER


#: What any event may be refused with.
EVERY_EVENT: Final[tuple[type[ChatError], ...]] = (Invalid, NotFound, RateLimited, Draining, Unavailable)


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """An event that the server sends, to a session's room or to a person. An ephemeral one may be dropped
    where a client lags.
    """

    name: str
    payload: type[View]
    target: Literal["session", "user", "person", "socket", "device", "company"]
    doc: str
    ephemeral: bool = False


P = TypeVar("P", bound=Payload)


def parse(schema: type[P], payload: object) -> P:
    """The payload as its model. Raises `Invalid` naming each field that is not as it should be."""
    if not isinstance(payload, dict):
        raise Invalid(fields=[("payload", "the payload must be an object")])
    try:
        return schema.model_validate(payload)
    except ValidationError as exc:
        raise Invalid(fields=_fields_of(exc)) from exc


def _fields_of(error: ValidationError) -> list[tuple[str, str]]:
    # Never the input itself: it may be long, secret, or not even encodable.
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    # A missing field is reported under its Python name, a wrong one under the name it came with: clients see
    # one.
    return [
        (
            ".".join(to_camel(part) if isinstance(part, str) else str(part) for part in problem["loc"]),
            problem["msg"],
        )
        for problem in problems
    ]
