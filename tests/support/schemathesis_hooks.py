"""What schemathesis must know of this API beyond its document: how to sign in, and which rules JSON Schema cannot say.

Loaded through `SCHEMATHESIS_HOOKS`. `FUZZ_PEOPLE` has the log-ins by role, `FUZZ_ROLE` the role to be (empty: one that may call).
"""

import json
import os
import random
import re
from typing import Any, Final
from uuid import uuid4

import requests
import schemathesis
from hypothesis import strategies as st
from schemathesis.openapi import format as string_format

_PEOPLE: Final[dict[str, dict[str, Any]]] = json.loads(os.environ["FUZZ_PEOPLE"])
_ROLE: Final = os.environ["FUZZ_ROLE"]
_URL: Final = os.environ["FUZZ_URL"]
_PATIENCE_S: Final = 30.0

#: What a field may be refused for that its schema cannot speak of. Whatever else the schema allows, the server must take.
_BEYOND_SCHEMA: Final = re.compile(
    r"is not a cursor of this list|is one of a list sorted by"
    r"|has more than \d+ decimals|is too large|must be a plain decimal number|must be from [\d.]+ to [\d.]+|must be at least [\d.]+|must not be 0"
    r"|must not be after|does not pay the minimum time|must be more than zero|must be at most \d+ per minute"
    r"|must be 8 to 72 bytes long|must be an email address"
    r"|is no time zone such as"
    r"|is (required|only) for the role|is required when"
    # What companies report.
    r"|is required: an interview|is required, or else startedAt|cannot be given beside startedAt|must follow startedAt"
    r"|must lie within the last 35 days|a draft belongs to a job"
    # Where companies' webhooks may lead.
    r"|must be a URL without spaces|is not a URL|must begin with https|must name a host|must not carry a user name|must not have a fragment"
    r"|must not be a private, loopback"
    # Nothing stores these, known field or not.
    r"|must not contain NUL or unpaired surrogates"
)
#: Refusals that are about the state of things and not about the data.
_STATE: Final = frozenset(
    {
        "INSUFFICIENT_BALANCE",
        "IDEMPOTENCY_KEY_REUSED",
        "INVALID_RESET_TOKEN",
        "MODEL_WITHOUT_PRICE",
        "PRICE_LIST_UNKNOWN",
        "SIGNATURE_INVALID",
        "TIER_UNKNOWN",
        "USAGE_PRICE_INVALID",
        "USAGE_TYPE_UNKNOWN",
    }
)
#: A number that no field has: 40 places before or after the point.
_SENSELESS_NUMBER: Final = re.compile(rb"e[+-]?(?:3[5-9]|[4-9]\d|\d{3})|\d{35}", re.IGNORECASE)

string_format("email", st.from_regex(r"[a-z]{3,12}[0-9]{4}@example\.com", fullmatch=True))
string_format("password", st.from_regex(r"[!-~]{8,40}", fullmatch=True))
string_format("decimal", st.decimals("1", "9000", places=2).map(str))
string_format("cursor", st.just("WzEsIjAiXQ"))


@schemathesis.auth(refresh_interval=None)
class LogIns:
    """A token of the role that may call. What may end a log-in or an account gets one that nobody else uses."""

    def __init__(self) -> None:
        self._tokens: dict[str, str] = {}
        self._random = random.Random(0)

    def get(self, _case: Any, ctx: Any) -> str:
        allowed = [role for role in ctx.operation.definition.raw.get("x-roles", []) if role in _PEOPLE]
        role = _ROLE or self._random.choice(allowed or [*_PEOPLE])
        if ctx.operation.path.startswith("/auth/") and ctx.operation.method != "get":
            return _sign_in(role)
        if not self._works(role):
            self._tokens[role] = _sign_in(role)
        return self._tokens[role]

    def set(self, case: Any, data: str, _ctx: Any) -> None:
        case.headers["Authorization"] = f"Bearer {data}"

    def _works(self, role: str) -> bool:
        if role not in self._tokens:
            return False
        headers = {"Authorization": f"Bearer {self._tokens[role]}"}
        return requests.get(f"{_URL}/auth/me", headers=headers, timeout=_PATIENCE_S).ok


def _sign_in(role: str) -> str:
    known = _PEOPLE[role]
    log_in = {"email": known["email"], "password": known["password"]}
    answer = requests.post(f"{_URL}/auth/login", json=log_in, timeout=_PATIENCE_S)
    if answer.status_code == 403:
        # An admin of this run has disabled the account: somebody new takes the part.
        known["email"] = f"{uuid4()}@example.com"
        path = "/lawyer/register" if role == "LAWYER" else "/auth/register"
        answer = requests.post(f"{_URL}{path}", json=known, timeout=_PATIENCE_S)
    answer.raise_for_status()
    return str(answer.json()["accessToken"])


@schemathesis.hook
def filter_failure(_context: Any, failure: Any, case: Any, response: Any) -> bool:
    """Keep it, unless the server refused for a rule that no schema can say."""
    if type(failure).__name__ == "AllowHeaderMismatch":
        return not _is_another_templates(case, response)
    if type(failure).__name__ != "RejectedPositiveData":
        return True
    if len(_templates_of(case, response)) > 1:
        # `POST /api/usage/{type}` with a type that has a route of its own, and a body of its own.
        return False
    problem = response.json()
    if problem["code"] == "MALFORMED_JSON":
        return not _SENSELESS_NUMBER.search(response.request.body or b"")
    if problem["code"] in _STATE:
        return False
    return not all(
        _BEYOND_SCHEMA.search(error["problem"]) for error in problem.get("errors", [{"problem": ""}])
    )


def _is_another_templates(case: Any, response: Any) -> bool:
    """`GET /lawyer/availability` is `GET /lawyer/{lawyer_id}` of nobody: a fixed word's path takes that template's methods too."""
    matching = _templates_of(case, response)
    taken = {method.upper() for methods in matching for method in methods}
    return len(matching) > 1 and set(response.headers["allow"][0].split(", ")) <= taken | {"HEAD"}


def _templates_of(case: Any, response: Any) -> list[Any]:
    """The methods of each path of the document that the request's path fits."""
    path = response.request.path_url.partition("?")[0]
    return [
        methods
        for template, methods in case.operation.schema.raw_schema["paths"].items()
        if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), path)
    ]
