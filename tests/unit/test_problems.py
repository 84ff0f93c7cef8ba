"""The table of problems: what a client is told, and what it is never told."""

import importlib
import pkgutil
from decimal import Decimal

import orjson
import pytest

import billing_engine
import billing_engine.errors as billing
import chat
import chat.errors as chat_errors
import server
from billing_engine.money import USD, MoneyInvalid
from server.errors import MethodNotAllowed, RateLimited, Unauthenticated, ValidationFailed
from server.problems import problem_of, status_of


def _everything() -> list[type[BaseException]]:
    for package in (billing_engine, chat, server):
        for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    found: list[type[BaseException]] = []
    kinds: list[type[BaseException]] = [billing.BillingError, chat_errors.ChatError]
    while kinds:
        kind = kinds.pop()
        found.append(kind)
        kinds.extend(kind.__subclasses__())
    return sorted(set(found), key=lambda cls: (cls.__module__, cls.__qualname__))


def test_no_expected_failure_looks_like_a_crash():
    """A client that gets a 500 for a busy lawyer files a bug; one that gets 500 for a full disk does not retry."""
    roots = {billing.BillingError, chat_errors.ChatError}
    broken = {
        cls for cls in _everything() if status_of(cls) >= 500 and status_of(cls) not in {502, 503}
    } - roots

    assert {cls for cls in broken if not issubclass(cls, billing.InvariantBroken)} == set()
    assert status_of(billing.InvariantBroken) == 500


def test_every_expected_failure_can_be_sent():
    """A code that is not upper case, or no sentence beside it, is a broken promise of SPEC 1."""
    for cls in _everything():
        code, detail = cls.code, cls.detail  # type: ignore[attr-defined]
        assert code.replace("_", "").isalnum(), cls
        assert code == code.upper(), cls
        assert detail.endswith("."), cls
        assert orjson.loads(problem_of(cls.__new__(cls), request_id="r").encode())["requestId"] == "r"


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (billing.NotFound, 404),
        (billing.Conflict, 409),
        (billing.Refused, 403),
        (billing.Invalid, 422),
        (billing.NotEnough, 402),
        (billing.Unavailable, 503),
        (chat_errors.NotFound, 404),
        (chat_errors.RateLimited, 429),
        (chat_errors.Unauthenticated, 401),
        (ZeroDivisionError, 500),
    ],
)
def test_kinds_have_their_status(kind, status):
    assert status_of(kind) == status
    assert status_of(type("Special", (kind,), {})) == status


def test_a_problem_says_what_when_and_where():
    problem = problem_of(billing.NotFound(), request_id="req-1", path="/lawyer/7")

    assert problem.status == 404
    assert problem.body == {
        "type": "urn:tarazu:problem:not-found",
        "title": "Not found",
        "status": 404,
        "code": "NOT_FOUND",
        "detail": "There is no such object.",
        "instance": "/lawyer/7",
        "requestId": "req-1",
    }


def test_an_unexpected_error_tells_nothing_of_the_inside():
    """Someone probing the server learns table names and paths from a leaked message."""
    for error in (ValueError("/secret/path"), billing.InvariantBroken(account="wallet:7", required_minor=5)):
        text = problem_of(error, request_id="req-2").encode().decode()
        assert "secret" not in text
        assert "wallet" not in text
        assert "required" not in text
        assert '"code":"INTERNAL"' in text
        assert "req-2" in text


def test_amounts_are_printed_and_inner_facts_are_not():
    error = billing.NotEnough(required_minor=5000, available_minor=1, account="wallet:7")
    body = problem_of(error, request_id="r").body
    assert (body["required"], body["available"]) == ("50.00", "0.01")
    assert "account" not in body
    dollars = billing.NotEnough(required_minor=12_500_000, asset=USD)
    assert problem_of(dollars, request_id="r").body["required"] == "12.50"


def test_fields_are_named():
    body = problem_of(
        ValidationFailed([("amount", "is too large"), ("items.0.name", "is missing")]), request_id="r"
    ).body
    assert body["errors"] == [
        {"field": "amount", "problem": "is too large"},
        {"field": "items.0.name", "problem": "is missing"},
    ]
    assert "amount is too large" in body["detail"]
    money = problem_of(MoneyInvalid(field="amount", problem="has more than 2 decimals"), request_id="r").body
    assert money["errors"] == [{"field": "amount", "problem": "has more than 2 decimals"}]


def test_headers_that_the_status_asks_for():
    assert (
        problem_of(Unauthenticated(), request_id="r").headers["WWW-Authenticate"] == 'Bearer realm="tarazu"'
    )
    assert (
        "invalid_token"
        in problem_of(Unauthenticated(presented=True), request_id="r").headers["WWW-Authenticate"]
    )
    assert problem_of(MethodNotAllowed(allow=["POST", "GET"]), request_id="r").headers["Allow"] == "GET, POST"
    assert problem_of(RateLimited(retry_after_s=Decimal("2.1")), request_id="r").headers["Retry-After"] == "3"
    assert problem_of(billing.Unavailable(), request_id="r").headers["Retry-After"] == "1"
