"""What crosses the wire: the base of request and response models, and the types they share (SPEC 1).

Input is validated strictly ("5" is no integer, true is no 1), names are camelCase on the wire and either spelling is read.
"""

import base64
import binascii
import unicodedata
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Annotated, Any, Final, Generic, TypeVar

import orjson
from pydantic import (
    AfterValidator,
    AliasChoices,
    AliasGenerator,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    Strict,
    StringConstraints,
    WithJsonSchema,
)
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

from chat.wire import instant
from server.auth.model import email_problem, password_problem
from server.errors import ValidationFailed


class WireModel(BaseModel):
    """A request body, a query string or a response. Fields it does not know are left alone."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        serialize_by_alias=True,
        # An answer always has all its fields; only a request may leave some out.
        json_schema_serialization_defaults_required=True,
        strict=True,
        frozen=True,
        extra="ignore",
    )


class SnakeModel(WireModel):
    """The same for the credits product, whose names are snake_case on the wire (SPEC 1); camelCase is read, too."""

    model_config = ConfigDict(
        alias_generator=AliasGenerator(
            alias=lambda name: name,
            validation_alias=lambda name: AliasChoices(name, to_camel(name)),
            serialization_alias=lambda name: name,
        )
    )


class Empty(WireModel):
    """A body or a query without fields."""


# --- Text


def _plain(text: str) -> str:
    if any(unicodedata.category(char) in {"Cc", "Cs"} for char in text):
        raise ValueError("must not contain control characters")
    return text


def _email(text: str) -> str:
    if (problem := email_problem(text)) is not None:
        raise ValueError(problem)
    return text


def _new_password(text: str) -> str:
    if (problem := password_problem(text)) is not None:
        raise ValueError(problem)
    return text


def described(**keywords: Any) -> Any:
    """What the JSON Schema of a type says beyond what its constraints do."""
    return Field(json_schema_extra=keywords)


#: `_plain`, and something to be seen, as JSON Schema has it.
ONE_LINE: Final = r"^[^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*$"

#: One line: trimmed, not empty, no control characters.
Name = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=120),
    AfterValidator(_plain),
    described(pattern=ONE_LINE),
]
#: An address as the person writes it; two that differ in case only are one account (`server.auth.model.email_key`).
Email = Annotated[
    str,
    StringConstraints(strip_whitespace=True, max_length=254),
    AfterValidator(_email),
    described(format="email"),
]
#: A password being set. One being tried is a plain string: whatever does not fit is simply wrong.
NewPassword = Annotated[
    str,
    StringConstraints(min_length=8, max_length=72),
    AfterValidator(_new_password),
    described(format="password", description="8 to 72 bytes of UTF-8."),
]
#: A reference to something of ours. Whether it exists is found out later.
Id = Annotated[
    str,
    StringConstraints(min_length=1, max_length=128),
    AfterValidator(_plain),
    described(pattern=r"^[^\x00-\x1f\x7f-\x9f]+$"),
]
#: Put it on an enum field of a request: strict mode would want the member, and the wire has its value.
FromValue: Final = Strict(strict=False)


def one_of(values: Iterable[str]) -> WithJsonSchema:
    """For a text in an answer that is always one of `values`, in their order."""
    return WithJsonSchema({"type": "string", "enum": [str(value) for value in values]}, mode="serialization")


# --- Money


def _decimal(value: Any) -> str | int | Decimal:
    if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
        raise ValueError("must be a decimal string or a number, such as 500.00")  # noqa: TRY004 (pydantic wants ValueError)
    if isinstance(value, str) and len(value) > 40:
        raise ValueError("is too long for an amount")
    return value


#: Money as the client wrote it, exactly; the handler passes it to `billing_engine.money.parse_minor` with its asset.
MoneyIn = Annotated[
    Any,
    PlainValidator(_decimal),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "format": "decimal", "pattern": r"^\d{1,16}(\.\d{1,12})?$"},
                {"type": "number", "minimum": 0},
            ],
            "examples": ["500.00"],
        }
    ),
]


def money_schema(decimals: int, example: str) -> WithJsonSchema:
    """Of an amount whose currency is not the consultations': with its own number of decimals."""
    pattern = rf"^\d{{1,{15 - decimals}}}(\.\d{{1,{decimals}}})?$"
    return WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "format": "decimal", "pattern": pattern},
                {"type": "number", "minimum": 0},
            ],
            "examples": [example],
        }
    )


#: What is paid by a company: no gateway takes a part of a cent.
CentsIn = Annotated[Any, PlainValidator(_decimal), money_schema(2, "100.00")]
#: What a company's balance, or a price, may be: dollars have six decimals here.
CompanyMoneyIn = Annotated[Any, PlainValidator(_decimal), money_schema(6, "20.00")]
#: Money in major units as `billing_engine.money.format_minor` prints it.
MoneyOut = Annotated[
    str,
    WithJsonSchema(
        {"type": "string", "format": "decimal", "pattern": r"^-?\d+\.\d{2,}$", "examples": ["500.00"]}
    ),
]


def field_error(field: str, problem: str) -> PydanticCustomError:
    """What a rule over several fields raises: it names one of them, as the client writes it."""
    return PydanticCustomError(FIELD_ERROR, "{problem}", {"field": field, "problem": problem})


#: The kind of such an error: its context has the field.
FIELD_ERROR: Final = "field"


# --- Time


#: An instant as SPEC 1 writes it, the same on sockets and over HTTP.
rfc3339: Final = instant


#: Epoch milliseconds inside, RFC 3339 on the wire; for responses.
Instant = Annotated[
    int,
    PlainSerializer(rfc3339, return_type=str),
    WithJsonSchema({"type": "string", "format": "date-time"}, mode="serialization"),
]


# --- Lists

ItemT = TypeVar("ItemT")


class Page(WireModel, Generic[ItemT]):
    """One page of a list; `nextCursor` is null on the last."""

    items: list[ItemT]
    next_cursor: str | None = None


class SnakePage(SnakeModel, Generic[ItemT]):
    """One page of a list; `next_cursor` is null on the last."""

    items: list[ItemT]
    next_cursor: str | None = None


class NumberedPage(SnakeModel, Generic[ItemT]):
    """Page number `page` of a list that has `total` rows."""

    items: list[ItemT]
    page: int
    limit: int
    total: int


class PageQuery(WireModel):
    """How much of a list, and from where on."""

    limit: Annotated[int, Field(ge=1, le=100)] = 20
    cursor: (
        Annotated[str, StringConstraints(min_length=1, max_length=512), described(format="cursor")] | None
    ) = None


def encode_cursor(*parts: int | str) -> str:
    """An opaque place in a list, usually (time, id) of the last row shown."""
    return base64.urlsafe_b64encode(orjson.dumps(parts)).rstrip(b"=").decode()


def decode_cursor(cursor: str, *shape: type[int] | type[str]) -> tuple[Any, ...]:
    """The parts of a cursor that `encode_cursor` made, of these types.

    Raises:
        ValidationFailed: it is none of ours; names `cursor`.
    """
    try:
        parts = orjson.loads(
            base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        )
    except (binascii.Error, ValueError) as exc:
        raise ValidationFailed([("cursor", "is not a cursor of this list")]) from exc
    if not isinstance(parts, list) or not _fits(parts, shape):
        raise ValidationFailed([("cursor", "is not a cursor of this list")])
    return tuple(parts)


def time_place(cursor: str | None) -> tuple[int, str] | None:
    """The (time in milliseconds, id) of a cursor over rows by time; None without a cursor. Raises `ValidationFailed`."""
    if cursor is None:
        return None
    at_ms, id_ = decode_cursor(cursor, int, str)
    return int(at_ms), str(id_)


def _fits(parts: list[Any], shape: Sequence[type]) -> bool:
    if [type(part) for part in parts] != list(shape):
        return False
    return all(len(part) <= 256 if isinstance(part, str) else abs(part) < 2**63 for part in parts)
