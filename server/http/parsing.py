"""From an aiohttp request to a validated body, query and path."""

from collections.abc import Mapping
from typing import Any, Final

from aiohttp import web
from multidict import MultiMapping
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from server.errors import MalformedJson, PathNotFound, UnsupportedMediaType, ValidationFailed
from server.http.json_body import check_texts, parse_json
from server.routing import RawBody
from server.wire import FIELD_ERROR

#: Longer than any body of this API (a message is at most 8,000 characters).
MAX_BODY_BYTES: Final = 64 * 1024
_MAX_PATH_PARAMETER: Final = 128


class ClientGone(Exception):
    """The client hung up before its request was whole."""


async def read_body(request: web.Request, model: type[BaseModel], *, limit: int = 0) -> BaseModel:
    """The validated body; an empty one counts as `{}`. With `limit` (bytes) it may be longer than others.

    Raises:
        ClientGone, UnsupportedMediaType, MalformedJson, ValidationFailed; `web.HTTPRequestEntityTooLarge` from aiohttp.
    """
    raw = await _read(request.clone(client_max_size=limit) if limit else request)
    if not raw:
        return validate(model, {}, whole="body")
    charset = (request.charset or "utf-8").lower()
    if request.content_type != "application/json" or charset not in {"utf-8", "utf8"}:
        raise UnsupportedMediaType(content_type=request.content_type)
    value = parse_json(raw)
    if not isinstance(value, dict):
        raise ValidationFailed([("body", "must be a JSON object")])
    return validate(model, value, whole="body")


async def read_raw(request: web.Request, limit: int) -> RawBody:
    """The body as it came, of at most `limit` bytes.

    Raises:
        ClientGone, MalformedJson; `web.HTTPRequestEntityTooLarge` from aiohttp.
    """
    raw = await _read(request.clone(client_max_size=limit))
    headers = {name.lower(): value for name, value in request.headers.items()}
    return RawBody(raw, headers, dict(request.query))


async def _read(request: web.BaseRequest) -> bytes:
    try:
        return await request.read()
    except ConnectionError as exc:
        raise ClientGone from exc
    except web.RequestPayloadError as exc:
        if request.transport is None or request.transport.is_closing():
            raise ClientGone from exc
        # The client is still there: what it sent is not compressed, or not cut into chunks, as its headers say.
        raise MalformedJson(reason="the body is not encoded as its headers say") from exc


def read_query(query: MultiMapping[str], model: type[BaseModel]) -> BaseModel:
    """The validated query string: every value is a text that the field's type reads."""
    given: dict[str, str] = {}
    for name, text in query.items():
        if name in given:
            raise ValidationFailed([(name, "is given more than once")])
        given[name] = text
    check_texts(given)
    try:
        return model.model_validate_strings(given)
    except ValidationError as exc:
        raise ValidationFailed(problems_in(exc, whole="query")) from exc


def read_path(match_info: Mapping[str, str]) -> dict[str, str]:
    """The path's parameters. One that cannot be anybody's id is a path that does not exist."""
    for text in match_info.values():
        if len(text) > _MAX_PATH_PARAMETER or not text.isprintable():
            raise PathNotFound
    return dict(match_info)


def validate(model: type[BaseModel], value: Mapping[str, Any], *, whole: str) -> BaseModel:
    """`value` as `model`. Raises `ValidationFailed` naming every bad field, or `whole` for a rule over several."""
    try:
        return model.model_validate(value)
    except ValidationError as exc:
        raise ValidationFailed(problems_in(exc, whole=whole)) from exc
    except RecursionError as exc:
        raise MalformedJson(reason="nested too deep") from exc


def problems_in(error: ValidationError, *, whole: str) -> list[tuple[str, str]]:
    """(field as the client wrote it, what is wrong with it) for each error."""
    return [
        (".".join(_steps(item)) or whole, _plain(_message(item)))
        for item in error.errors(include_url=False, include_input=False)
    ]


_TAG_ERRORS: Final = ("union_tag_not_found", "union_tag_invalid")


def _steps(item: ErrorDetails) -> list[str]:
    """The way to the field. No name on the wire has a hyphen: such a step is the kind by which the items of a list are told apart."""
    steps = [str(step) for step in item["loc"] if not (isinstance(step, str) and "-" in step)]
    if item["type"] == FIELD_ERROR:
        return [*steps, str(item["ctx"]["field"])]
    return [*steps, item["ctx"]["discriminator"].strip("'")] if item["type"] in _TAG_ERRORS else steps


def _message(item: ErrorDetails) -> str:
    if item["type"] not in _TAG_ERRORS:
        return item["msg"]
    expected = item["ctx"].get("expected_tags")
    return "Field required" if expected is None else f"must be one of {expected}"


def _plain(message: str) -> str:
    if message == "Field required":
        return "is required"
    message = message.removeprefix("Value error, ").removeprefix("Input ")
    return message[:1].lower() + message[1:]
