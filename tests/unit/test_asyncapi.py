"""The AsyncAPI document says what the event table does."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator

from chat.events import CLIENT_EVENTS, SERVER_EVENTS
from server.api_docs.asyncapi import asyncapi_document
from server.api_docs.samples import Samples
from tests.support.schemas import DocumentSchemas, found, references

DOCUMENT = asyncapi_document(version="1.2.3")
SCHEMAS = DocumentSchemas(DOCUMENT)
MESSAGES = DOCUMENT["components"]["messages"]
OFFICIAL = Draft7Validator(
    json.loads((Path(__file__).parents[1] / "support/asyncapi/3.0.0.json").read_text("utf-8"))
)


def test_the_document_is_valid_asyncapi_3() -> None:
    assert [error.message for error in OFFICIAL.iter_errors(DOCUMENT)] == []


@pytest.mark.parametrize("broken", ["no operation's action", "no title", "unknown field"])
def test_the_official_schema_would_find_a_broken_document(broken: str) -> None:
    document: Any = copy.deepcopy(DOCUMENT)
    if broken == "no operation's action":
        del document["operations"]["client.join_session"]["action"]
    elif broken == "no title":
        del document["info"]["title"]
    else:
        document["channels"]["socket"]["colour"] = "red"

    assert list(OFFICIAL.iter_errors(document))


def test_every_reference_points_to_something() -> None:
    for reference in set(references(DOCUMENT)):
        found(DOCUMENT, reference)


def test_the_document_has_the_events_of_the_table_and_no_others() -> None:
    by_action: dict[str, set[str]] = {"receive": set(), "send": set()}
    for operation in DOCUMENT["operations"].values():
        (message,) = operation["messages"]
        by_action[operation["action"]].add(found(DOCUMENT, found(DOCUMENT, message["$ref"])["$ref"])["name"])

    assert by_action == {"receive": set(CLIENT_EVENTS), "send": set(SERVER_EVENTS)}


@pytest.mark.parametrize("name", CLIENT_EVENTS)
def test_an_event_is_answered_by_its_acknowledgement_or_by_one_of_its_errors(name: str) -> None:
    event = CLIENT_EVENTS[name]
    reply = DOCUMENT["operations"][f"client.{name}"]["reply"]["messages"]
    done, refused = MESSAGES[f"client.{name}.ack"]["payload"]["oneOf"]
    codes = refused["allOf"][1]["properties"]["error"]["properties"]["code"]["enum"]

    assert reply == [{"$ref": f"#/channels/socket/messages/client.{name}.ack"}]
    assert done == {"$ref": f"#/components/schemas/{event.ack.__name__}"}
    assert {error.code for error in event.errors} <= set(codes)
    assert {"VALIDATION_FAILED", "NOT_FOUND", "RATE_LIMITED", "STORAGE_UNAVAILABLE", "INTERNAL"} <= set(codes)
    needs_a_session = {"send_message", "typing", "rtc:invite", "rtc:accept", "rtc:signal", "rtc:ice_config"}
    assert ("SESSION_NOT_ACTIVE" in codes) is (name in needs_a_session), (
        "receipts and reading go on after the end, and hanging up is always possible"
    )
    assert ("SESSION_PAUSED" in codes) is (name in ("send_message", "typing"))


@pytest.mark.parametrize("name", MESSAGES)
def test_the_examples_are_valid(name: str) -> None:
    message = MESSAGES[name]

    assert message["examples"]
    for example in message["examples"]:
        assert SCHEMAS.problems(example["payload"], message["payload"]) == []


@pytest.mark.parametrize("name", CLIENT_EVENTS)
def test_the_example_of_an_event_is_what_the_server_takes(name: str) -> None:
    example = MESSAGES[f"client.{name}"]["examples"][0]["payload"]

    CLIENT_EVENTS[name].payload.model_validate(example)


def test_every_field_has_a_sample_that_says_something() -> None:
    """If it fails: give the field a line in `server/api_docs/samples.py`."""
    samples = Samples(DOCUMENT["components"]["schemas"])
    for event in (*CLIENT_EVENTS.values(), *SERVER_EVENTS.values()):
        samples.of({"$ref": f"#/components/schemas/{event.payload.__name__}"})
    for event in CLIENT_EVENTS.values():
        samples.of({"$ref": f"#/components/schemas/{event.ack.__name__}"})

    assert samples.missing == set()


def test_the_words_of_billing_are_listed() -> None:
    bill = DOCUMENT["components"]["schemas"]["BillView"]["properties"]

    assert bill["status"]["enum"] == [
        "REQUESTED", "ACTIVE", "PAUSED", "ENDED", "FORCE_ENDED", "DECLINED", "MISSED", "CANCELLED",
    ]  # fmt: skip
    assert "WALLET_EMPTY" in bill["reason"]["anyOf"][0]["enum"]
    assert {"type": "null"} in bill["walletBalance"]["anyOf"]
