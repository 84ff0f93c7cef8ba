"""The AsyncAPI 3.0 document of the event table (SPEC 6)."""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any, Final

from billing_engine.consultations.model import PUBLIC, EndReason, LostReason, Status
from chat.errors import ChatError, RateLimited
from chat.event_types import EVERY_EVENT, ClientEvent, Failure, ServerEvent
from chat.events import CLIENT_EVENTS, SERVER_EVENTS
from server.api_docs.samples import Samples
from server.api_docs.schemas import Schemas
from server.storage.errors import StoreBusy

Json = dict[str, Any]

#: What a handler that nobody expected to fail answers with (`chat.wire.internal`).
INTERNAL: Final = "INTERNAL"
#: Who hears an event, in words.
TARGETS: Final[Mapping[str, str]] = {
    "session": "to every socket that has joined the session",
    "user": "to both parties, on every device they are connected with, joined or not",
    "person": "to this person, on every device they are connected with",
    "socket": "to this socket",
    "device": "to the one device of a party that is in the call",
    "company": "to every member of the company, on every device they are connected with",
}
#: Words that billing chooses and chat only passes on.
_WORDS: Final[Mapping[tuple[str, str], Iterable[StrEnum]]] = {
    **{
        (view, "status"): [status for status in Status if status in PUBLIC]
        for view in ("BillView", "LowBalanceView", "PausedView")
    },
    **{(view, "reason"): [*EndReason, *LostReason] for view in ("BillView", "LowBalanceView", "PausedView")},
}
_INTRODUCTION: Final = """\
Connect with any Socket.IO client, version 4 of the protocol, **WebSocket transport only** (`transports: ["websocket"]`), and
`auth: {token: <accessToken>}`. A missing or bad token is refused: `connect_error` carries `data: {code, message, retryable}`.
The connection outlives its access token; logging out and disabling the account close it.

Every event is acknowledged exactly once, with `{ok: true, ...}` or `{ok: false, error: {code, message, retryable}}`.
`VALIDATION_FAILED` names the `fields`; an event that is in no table gets `UNKNOWN_EVENT`. What is `retryable` may be sent again,
after `RATE_LIMITED` not before `retryAfterMs`.

`server:bye` says why the server is about to close the connection; with `reconnect: true` come back after `retryAfterMs`.

After a lost connection: connect, then `join_session` with `afterSeq` (the last `seq` you have) and `pendingIds` (the
`clientMsgId`s that were never acknowledged). Ask again while `hasMore`. Every `session:tick` carries `lastSeq`, so that you
notice a missed message within ten seconds.

Who had joined and is lost pauses the session, unbilled from the last sign of life: `session:paused`, and sending is refused with the
retryable `SESSION_PAUSED`. Send again after `session:resumed`.
"""


def asyncapi_document(*, version: str) -> Json:
    """The document, from the server's point of view: it receives the events of clients and replies, and sends its own."""
    schemas = Schemas(
        [
            *((event.payload, "validation") for event in CLIENT_EVENTS.values()),
            *((event.ack, "serialization") for event in CLIENT_EVENTS.values()),
            *((event.payload, "serialization") for event in SERVER_EVENTS.values()),
            (Failure, "serialization"),
        ]
    )
    _name_words(schemas.components)
    samples = Samples(schemas.components)
    messages: Json = {}
    operations: Json = {}
    for event in CLIENT_EVENTS.values():
        messages[f"client.{event.name}"] = _request(event, schemas, samples)
        messages[f"client.{event.name}.ack"] = _ack(event, schemas, samples)
        operations[f"client.{event.name}"] = {
            "action": "receive",
            "channel": {"$ref": "#/channels/socket"},
            "summary": event.doc,
            "messages": [_in_channel(f"client.{event.name}")],
            "reply": {
                "channel": {"$ref": "#/channels/socket"},
                "messages": [_in_channel(f"client.{event.name}.ack")],
            },
        }
    for told in SERVER_EVENTS.values():
        name = f"server.{told.name.replace(':', '.')}"
        messages[name] = _told(told, schemas, samples)
        operations[name] = {
            "action": "send",
            "channel": {"$ref": "#/channels/socket"},
            "summary": told.doc,
            "description": f"Sent {TARGETS[told.target]}.",
            "messages": [_in_channel(name)],
        }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Tarazu events",
            "version": version,
            "description": _INTRODUCTION,
            "license": {"name": "MIT"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "socket": {
                "host": "{host}",
                "pathname": "/socket.io/",
                "protocol": "ws",
                "description": "Socket.IO (Engine.IO 4) over WebSocket.",
                "variables": {"host": {"default": "127.0.0.1:8000", "description": "Where the server runs."}},
                "security": [{"$ref": "#/components/securitySchemes/token"}],
            }
        },
        "channels": {
            "socket": {
                "address": "/",
                "title": "The default namespace",
                "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
            }
        },
        "operations": operations,
        "components": {
            "messages": messages,
            "schemas": schemas.components,
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": "The `accessToken` of `POST /auth/login`, as `token` in the Socket.IO `auth` object.",
                }
            },
        },
    }


def codes_of(event: ClientEvent) -> list[str]:
    """Every code that the event may be refused with."""
    errors: list[type[ChatError]] = [*EVERY_EVENT, StoreBusy, *event.errors]
    return sorted({*(error.code for error in errors), INTERNAL})


def failure_example(error: type[ChatError]) -> Json:
    """The acknowledgement that a client gets."""
    body: Json = {"code": error.code, "message": error.detail, "retryable": error.retryable}
    if issubclass(error, RateLimited):
        body["retryAfterMs"] = 1_250
    return {"ok": False, "error": body}


def _request(event: ClientEvent, schemas: Schemas, samples: Samples) -> Json:
    payload = schemas.ref(event.payload, "validation")
    return {
        "name": event.name,
        "title": event.name,
        "summary": event.doc,
        "payload": payload,
        "examples": [{"name": event.name, "payload": _request_example(event, samples.of(payload))}],
    }


def _request_example(event: ClientEvent, sample: Json) -> Json:
    # Either one, not both (`MessageDelivered.one_of_both`).
    return {
        key: value for key, value in sample.items() if (event.name, key) != ("message_delivered", "messageId")
    }


def _ack(event: ClientEvent, schemas: Schemas, samples: Samples) -> Json:
    done = schemas.ref(event.ack, "serialization")
    error = {"properties": {"error": {"properties": {"code": {"enum": codes_of(event)}}}}}
    refused = (event.errors or EVERY_EVENT)[0]
    return {
        "name": event.name,
        "title": f"{event.name}: acknowledgement",
        "payload": {"oneOf": [done, {"allOf": [schemas.ref(Failure, "serialization"), error]}]},
        "examples": [
            {"name": "done", "payload": samples.of(done)},
            {"name": "refused", "summary": refused.detail, "payload": failure_example(refused)},
        ],
    }


def _told(event: ServerEvent, schemas: Schemas, samples: Samples) -> Json:
    payload = schemas.ref(event.payload, "serialization")
    lossy = " May be dropped where a client lags." if event.ephemeral else ""
    return {
        "name": event.name,
        "title": event.name,
        "summary": event.doc,
        "description": f"Sent {TARGETS[event.target]}.{lossy}",
        "payload": payload,
        "examples": [{"name": event.name, "payload": _told_example(event, samples.of(payload))}],
    }


def _told_example(event: ServerEvent, sample: Json) -> Json:
    if event.name == "session:ended":
        over = {"status": "FORCE_ENDED", "reason": "WALLET_EMPTY", "remainingSeconds": 0, "paidUntil": None}
        return sample | over | {"walletBalance": "0.00"}
    if event.name == "session:resumed":
        return sample | {"reason": "LAWYER_LOST"}
    if event.name == "session:low_balance":
        return sample | {"remainingSeconds": 120, "walletBalance": "30.00"}
    return sample


def _in_channel(name: str) -> Json:
    return {"$ref": f"#/channels/socket/messages/{name}"}


def _name_words(components: Mapping[str, Any]) -> None:
    for (model, field), words in _WORDS.items():
        listed = [word.value for word in words]
        part = components[model]["properties"][field]
        for option in part.get("anyOf", [part]):
            if option.get("type") == "string":
                option["enum"] = listed
