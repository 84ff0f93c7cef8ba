"""The OpenAPI document says what the route table does, no more and no less."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Annotated, Any

import orjson
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator
from pydantic import Field

from billing_engine.errors import Conflict
from billing_engine.money import INR, USD
from server.api_docs.openapi import openapi_document
from server.api_docs.problems import errors_of
from server.api_docs.samples import Samples
from server.auth.model import Role
from server.problems import status_of
from server.routes import ROUTES
from server.routing import PUBLIC, Call, Route, only
from server.wire import MoneyIn, MoneyOut, Page, PageQuery, WireModel
from tests.support.schemas import DocumentSchemas, found, references

DOCUMENT = openapi_document(ROUTES, version="1.2.3", asset=INR)
SCHEMAS = DocumentSchemas(DOCUMENT)
DOCUMENTED = [route for route in ROUTES if route.documented]


def operation(route: Route) -> Any:
    return DOCUMENT["paths"][route.path][route.method.lower()]


def response(route: Route, status: int) -> Any:
    answer = operation(route)["responses"][str(status)]
    return found(DOCUMENT, answer["$ref"]) if "$ref" in answer else answer


def operations() -> Iterator[tuple[str, Any]]:
    for path, methods in DOCUMENT["paths"].items():
        for method, described in methods.items():
            yield f"{method.upper()} {path}", described


def test_the_document_is_valid_openapi_3_1() -> None:
    OpenAPIV31SpecValidator(DOCUMENT).validate()
    assert DOCUMENT["openapi"].startswith("3.1")


def test_every_reference_points_to_something() -> None:
    for reference in set(references(DOCUMENT)):
        found(DOCUMENT, reference)


def test_the_document_has_the_routes_of_the_table_and_no_others() -> None:
    assert {name for name, _ in operations()} == {route.name for route in DOCUMENTED}
    assert len({described["operationId"] for _, described in operations()}) == len(DOCUMENTED)


def test_what_is_left_out_is_no_part_of_the_api() -> None:
    assert {route.path.split("/")[1] for route in ROUTES if not route.documented} <= {
        "docs",
        "metrics",
        "webhooks",
    }


def test_every_tag_is_explained() -> None:
    used = {tag for _, described in operations() for tag in described["tags"]}

    assert used == {tag["name"] for tag in DOCUMENT["tags"]}
    assert [tag["name"] for tag in DOCUMENT["tags"] if "description" not in tag] == []


@pytest.mark.parametrize("route", DOCUMENTED, ids=lambda route: route.name)
def test_a_route_is_described_as_the_table_has_it(route: Route) -> None:
    """Who is hurt if it fails: an app team whose generated client calls something else."""
    described = operation(route)
    parameters = [
        found(DOCUMENT, parameter["$ref"]) if "$ref" in parameter else parameter
        for parameter in described.get("parameters", [])
    ]

    named = {(parameter["in"], parameter["name"]) for parameter in parameters}
    asked = set() if route.query is None else {field.alias for field in route.query.model_fields.values()}
    assert {name for place, name in named if place == "path"} == set(re.findall(r"\{(\w+)\}", route.path))
    assert {name for place, name in named if place == "query"} == asked
    assert (("header", "Idempotency-Key") in named) is route.idempotent
    assert ("requestBody" in described) is (route.body is not None or route.raw_limit > 0)
    assert described["security"] == ([] if route.access.public else [{"bearer": []}])
    assert set(described.get("x-roles", [])) == set(route.access.roles)
    assert route.media_type in response(route, route.status)["content"]
    assert described["summary"] == route.summary


@pytest.mark.parametrize("route", DOCUMENTED, ids=lambda route: route.name)
def test_every_error_of_a_route_is_there_with_its_code_and_an_example(route: Route) -> None:
    expected: dict[int, set[str]] = {}
    for error in errors_of(route):
        expected.setdefault(status_of(error), set()).add(str(error.code))  # type: ignore[attr-defined]

    assert set(route.errors) <= set(errors_of(route))
    assert {int(status) for status in operation(route)["responses"]} == {route.status, *expected}
    for status, codes in expected.items():
        ((media_type, content),) = response(route, status)["content"].items()
        own = content["schema"]["allOf"][1]["properties"]
        assert media_type == "application/problem+json"
        assert (set(own["code"]["enum"]), own["status"]["const"]) == (codes, status)
        for code in codes:
            value = found(DOCUMENT, content["examples"][code]["$ref"])["value"]
            assert value["code"] == code
            assert SCHEMAS.problems(value, content["schema"]) == []


def test_what_every_route_of_a_kind_may_answer() -> None:
    by_name = {name: set(described["responses"]) for name, described in operations()}

    assert by_name["GET /healthz"] == {"200", "500"}
    assert by_name["POST /consult/start"] >= {
        "201", "400", "401", "402", "403", "404", "409", "413", "415", "422", "503",
    }  # fmt: skip
    assert {"400", "413", "415"}.isdisjoint(by_name["GET /consult"])
    assert "403" in by_name["GET /auth/me"], "everybody who is signed in may, but no API key"
    assert "403" not in by_name["POST /auth/refresh"]


@pytest.mark.parametrize("route", DOCUMENTED, ids=lambda route: route.name)
def test_the_examples_are_valid(route: Route) -> None:
    """An example is what app teams copy first."""
    described = operation(route)
    answer = response(route, route.status)["content"][route.media_type]
    assert SCHEMAS.problems(answer["example"], answer["schema"]) == []
    if route.body is not None:
        asked = described["requestBody"]["content"]["application/json"]
        assert SCHEMAS.problems(asked["example"], asked["schema"]) == []
        route.body.model_validate(asked["example"])
    for parameter in described.get("parameters", []):
        if "example" in parameter:
            assert SCHEMAS.problems(parameter["example"], parameter["schema"]) == [], parameter["name"]
    if route.query is not None:
        shown = {
            one["name"]: one["example"]
            for one in described["parameters"]
            if "example" in one and one["in"] == "query"
        }
        route.query.model_validate_strings(
            {name: str(value).lower() if value is True else str(value) for name, value in shown.items()}
        )


def test_every_field_has_a_sample_that_says_something() -> None:
    """If it fails: give the field a line in `server/api_docs/samples.py`."""
    samples = Samples(DOCUMENT["components"]["schemas"])
    for name in DOCUMENT["components"]["schemas"]:
        samples.of({"$ref": f"#/components/schemas/{name}"})

    # Problems have examples of their own, made from the errors themselves.
    assert {field for field in samples.missing if not field.startswith("Problem.")} == set()


def test_an_answer_always_has_all_its_fields() -> None:
    session = DOCUMENT["components"]["schemas"]["SessionOut"]

    assert set(session["required"]) == set(session["properties"])


def test_what_may_be_null_says_so() -> None:
    schemas = DOCUMENT["components"]["schemas"]

    assert schemas["SessionOut"]["properties"]["endedAt"]["anyOf"] == [
        {"format": "date-time", "type": "string"},
        {"type": "null"},
    ]
    assert {"type": "null"} in schemas["ActiveOut"]["anyOf"]
    query = operation(next(route for route in ROUTES if route.name == "GET /lawyers"))["parameters"]
    assert all({"type": "null"} not in parameter["schema"].get("anyOf", []) for parameter in query)


@pytest.mark.parametrize(("asset", "good", "bad"), [(INR, "12.34", "12.345"), (USD, "0.000001", "0.0000001")])
def test_money_has_the_decimals_of_its_asset(asset: Any, good: str, bad: str) -> None:
    document = openapi_document(ROUTES, version="1", asset=asset)
    amount = document["components"]["schemas"]["RechargeIn"]["properties"]["amount"]

    assert DocumentSchemas(document).problems(good, amount) == []
    assert DocumentSchemas(document).problems(bad, amount)
    assert DocumentSchemas(document).problems("-1", amount)


def test_an_id_in_an_answer_leads_to_what_can_be_done_with_it() -> None:
    start = next(route for route in ROUTES if route.name == "POST /consult/start")

    links = response(start, 201)["links"]

    assert {"postConsultSessionIdEnd", "getConsultSessionId", "getChatSessionId"} <= set(links)
    assert {link["operationId"] for link in links.values()} <= {one["operationId"] for _, one in operations()}


def test_the_document_is_of_a_sane_size() -> None:
    assert len(orjson.dumps(DOCUMENT)) < 500_000


def test_the_document_is_the_same_in_every_process() -> None:
    code = (
        "import orjson, sys; from billing_engine.money import INR; from server.routes import ROUTES\n"
        "from server.api_docs.openapi import openapi_document\n"
        "sys.stdout.buffer.write(orjson.dumps(openapi_document(ROUTES, version='1.2.3', asset=INR)))"
    )
    made = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }

    assert made == {orjson.dumps(DOCUMENT)}


# --- a table of its own: what the real one may not have today


class NewThing(WireModel):
    """A thing."""

    price: MoneyIn
    colour: Annotated[str, Field(max_length=5)] = "red"


class ThingOut(WireModel):
    thing_id: str
    price: MoneyOut


class Sold(Conflict):
    code = "SOLD"
    detail = "Somebody was faster."


async def _handler(_: Call[Any, Any]) -> ThingOut:
    return ThingOut(thing_id="1", price="1.00")


def test_a_new_route_is_documented_without_a_line_elsewhere() -> None:
    routes = (
        Route(
            method="POST", path="/things/{thing_id}", handler=_handler, summary="Buy", access=only(Role.USER),
            body=NewThing, response=ThingOut, status=201, errors=(Sold,), idempotent=True, tags=("things",),
        ),
        Route(
            method="GET", path="/things", handler=_handler, summary="All", access=PUBLIC, query=PageQuery,
            response=Page[ThingOut], tags=("things",),
        ),
    )  # fmt: skip

    document = openapi_document(routes, version="1", asset=INR)

    OpenAPIV31SpecValidator(document).validate()
    buy = document["paths"]["/things/{thing_id}"]["post"]
    assert buy["requestBody"]["required"]
    assert json.loads(json.dumps(buy["responses"]["409"]))["content"]["application/problem+json"]["schema"][
        "allOf"
    ][1]["properties"]["code"]["enum"] == ["IDEMPOTENCY_IN_PROGRESS", "SOLD"]
    assert document["tags"] == [{"name": "things"}]
