"""The route table and what crosses the wire: pure rules, no server."""

import contextlib
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing_engine.errors import InvariantBroken
from server.auth.model import Role, email_key, email_problem
from server.errors import MalformedJson, ValidationFailed
from server.http.json_body import parse_json
from server.ids import new_id
from server.routes import ROUTES
from server.routing import PUBLIC, Call
from server.wire import decode_cursor, encode_cursor, rfc3339, time_place


def test_no_two_routes_are_one():
    """aiohttp takes the first; the second would be dead code that looks alive."""
    names = [route.name for route in ROUTES]
    assert len(names) == len(set(names))


def test_a_fixed_word_stands_before_a_parameter_of_its_place():
    """`GET /consult/active` behind `/consult/{id}` would look for a session called active."""
    for index, route in enumerate(ROUTES):
        for earlier in ROUTES[:index]:
            if earlier.method == route.method and _covers(earlier.path, route.path):
                pytest.fail(f"{earlier.name} hides {route.name}")


def _covers(pattern: str, path: str) -> bool:
    one, two = pattern.split("/"), path.split("/")
    return len(one) == len(two) and all(
        left == right or left.startswith("{") for left, right in zip(one, two, strict=True)
    )


def test_every_route_says_what_a_reader_needs():
    for route in ROUTES:
        assert route.summary, route.name
        assert route.tags, route.name
        assert route.path.startswith("/"), route.name
        assert route.access.public or route.access.roles, route.name
        if route.method == "GET":
            assert route.body is None, route.name
            assert not route.idempotent, route.name


def test_public_routes_are_the_known_few():
    """A route that becomes public by mistake shows somebody's wallet to the world."""
    assert {route.name for route in ROUTES if route.access == PUBLIC} == {
        "GET /healthz",
        "GET /readyz",
        "GET /metrics",
        "GET /openapi.json",
        "GET /asyncapi.json",
        "GET /docs",
        "GET /docs/{page}",
        "GET /docs/assets/{name}",
        "POST /auth/register",
        "POST /auth/login",
        "POST /auth/refresh",
        "POST /auth/forgot",
        "POST /auth/reset",
        "POST /lawyer/register",
        # The gateway's signature over the body admits an event.
        "POST /webhooks/razorpay",
        "POST /webhooks/stripe",
    }


def test_every_route_that_moves_money_takes_a_key():
    moving = {"POST /wallet/recharge", "POST /consult/start", "POST /consult/{session_id}/end"}
    assert moving <= {route.name for route in ROUTES if route.idempotent}


def test_a_public_call_has_no_caller():
    call = Call(
        body=None,
        query=None,
        path={},
        principal=None,
        operation_id="o",
        services=None,
        request_id="r",
        remote="",
    )
    with pytest.raises(InvariantBroken):
        _ = call.caller


def test_ids_sort_by_creation():
    ids = [new_id() for _ in range(10_000)]
    assert ids == sorted(set(ids))


def test_numbers_are_read_exactly():
    """0.1 + 0.2: a float here and a wallet is a paisa off."""
    value = parse_json(b'{"a": 0.1, "b": 100, "c": 1.10, "d": 12345678901234567890.12, "e": 1e2}')
    assert value == {
        "a": Decimal("0.1"),
        "b": 100,
        "c": Decimal("1.10"),
        "d": Decimal("12345678901234567890.12"),
        "e": Decimal("1e2"),
    }
    assert not any(isinstance(number, float) for number in value.values())


@pytest.mark.parametrize(
    ("text", "whole"), [("2.0", 2), ("5e0", 5), ("-0.0", 0), ("1.20e1", 12), ("1e39", 10**39)]
)
def test_a_number_without_a_fraction_is_an_integer_however_it_is_written(text, whole):
    """Some languages write every number with a point; JSON Schema, and so our document, calls 2.0 an integer."""
    value = parse_json(text.encode())
    assert (type(value), value) == (int, whole)


@given(st.binary(max_size=200))
def test_any_bytes_are_json_or_a_problem(raw):
    with contextlib.suppress(MalformedJson, ValidationFailed):
        parse_json(raw)


@given(st.integers(-(2**62), 2**62), st.text(max_size=64).filter(lambda text: text.isprintable()))
def test_a_cursor_comes_back_as_it_went(at_ms, id_):
    assert decode_cursor(encode_cursor(at_ms, id_), int, str) == (at_ms, id_)
    assert time_place(encode_cursor(at_ms, id_)) == (at_ms, id_)


@given(st.text(max_size=60))
def test_any_other_cursor_is_a_named_problem(text):
    with pytest.raises(ValidationFailed) as caught:
        decode_cursor(text, int, str)
    assert caught.value.facts["errors"][0][0] == "cursor"


def test_no_cursor_is_the_beginning():
    assert time_place(None) is None


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (1_767_225_600_007, "2026-01-01T00:00:00.007Z"),
        (999, "1970-01-01T00:00:00.999Z"),
    ],
)
def test_instants_are_rfc_3339_with_milliseconds(ms, text):
    assert rfc3339(ms) == text


@pytest.mark.parametrize(
    "email",
    [
        "a@example.com",
        "a.b+c@sub.example.co.in",
        "\u00fc@example.com",
        "x@localhost.test",
        "o'neil@example.com",
    ],
)
def test_addresses_that_people_have(email):
    assert email_problem(email) is None


@pytest.mark.parametrize(
    "email",
    [
        "",
        "a",
        "@example.com",
        "a@",
        "a@example",
        "a@@example.com",
        "a@-example.com",
        "a@example..com",
        ".a@example.com",
        "a..b@example.com",
        "a@example.com\n",
        "a b@example.com",
        "a@exam ple.com",
        '"a"@example.com',
        "<a@example.com>",
        "a@example.com,b@example.com",
        "x" * 65 + "@example.com",
        "a\u202e@example.com",
        "a@" + "x" * 64 + ".com",
    ],
)
def test_what_is_no_address(email):
    """An address with a newline is a header in the next mail that is sent."""
    assert email_problem(email) is not None


@given(st.emails())
def test_one_key_for_all_cases(email):
    assert email_key(email.upper()) == email_key(email.lower()) == email_key(f" {email} ")


def test_roles_are_the_documents():
    assert set(Role) == {"USER", "LAWYER", "FREELANCER", "COMPANY", "ADMIN"}
