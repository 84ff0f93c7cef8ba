"""The OpenAPI 3.1 document of the route table (SPEC 1)."""

import json
from collections import Counter
from collections.abc import Iterable
from typing import Any, Final

from billing_engine.money import Asset
from server.api_docs import problems
from server.api_docs.operations import BEARER, IDEMPOTENCY_KEY, operation, operation_id
from server.api_docs.samples import Samples
from server.api_docs.schemas import Schemas
from server.problems import status_of
from server.routing import Route

Json = dict[str, Any]

_INTRODUCTION: Final = """\
Users talk to verified lawyers; every second is paid from a prepaid wallet exactly as it is served; the session ends to the second
when the money does.

* **Money** is a decimal string in the major unit (`"500.00"`) with its `currency` beside it. Input may be a number too, read exactly.
* **Times** are RFC 3339 in UTC. **Ids** are opaque strings that sort by creation.
* **Sign in** with `POST /auth/register` or `POST /auth/login`, then send `Authorization: Bearer <accessToken>`. The access token lasts
  15 minutes; `POST /auth/refresh` gives the next pair, and each refresh token works once.
* **Failures** are `application/problem+json` with a stable `code`. Somebody else's object is a 404, as if it did not exist.
* **Repeats**: a POST that moves money takes an `Idempotency-Key`.
* **Lists** answer `{items, nextCursor}`; send `nextCursor` back as `cursor`, null is the end.
* **Credits and projects** are spelt in snake_case, as the product's document and Razorpay do; `camelCase` is read there, too.
* **Live events** (chat, ticks, the end) come over Socket.IO: see [the events](docs/events), and `/asyncapi.json` for programs.
"""
#: In the order of a first session.
_TAGS: Final = {
    "identity": "Accounts, log-ins and tokens.",
    "wallet": "The user's prepaid money.",
    "payments": "What was to be paid through a gateway, and what became of it.",
    "lawyers": "Register, be verified, be found.",
    "consultations": "Start, watch and end a paid session.",
    "requests": "Before a session: ask a lawyer who wants to be asked, wait for one who is busy.",
    "refunds": "A consultation's price given back, and asked back.",
    "chat": "The messages of a session. Live ones come over Socket.IO.",
    "calls": "Audio and video between the two of a session. Signalling goes over Socket.IO.",
    "reviews": "One to five stars after the end.",
    "earnings": "What a lawyer has earned.",
    "payouts": "Earnings that are paid out.",
    "credits": "Application credits: bought, counted, adjusted and priced. Names are snake_case here.",
    "projects": "Companies look for freelancers, who apply for a credit each. Names are snake_case here, too.",
    "subscriptions": "Tiers, AI credits and what they were used for.",
    "ai": "Providers of AI, called through us and paid from credits.",
    "usage": "What companies' back ends report, and what it cost.",
    "billing": "A company's billing page: wallet, usage, ledger, invoices, recharges.",
    "usage prices": "What metered usage of companies costs, and how that changes.",
    "company": "A company hears of its wallet.",
    "companies": "A company's people, its API keys, and how it is billed.",
    "admin": "The admin's side.",
    "operations": "For whoever runs the server.",
}
#: A field of an answer → the path parameter that it fills.
_LINKED: Final = {"sessionId": "session_id"}


def openapi_document(routes: Iterable[Route], *, version: str, asset: Asset) -> Json:
    """The document. The same routes give the same document, byte for byte."""
    rows = [route for route in routes if route.documented]
    schemas = Schemas(_models(rows))
    schemas.components["Problem"] = problems.PROBLEM
    _bound_money(schemas.components, asset)
    samples = Samples(schemas.components)
    paths: Json = {}
    for route in rows:
        links = _links(route, rows, schemas)
        paths.setdefault(route.path, {})[route.method.lower()] = operation(route, schemas, samples, links)
    shared = _share_responses(paths)
    used = {tag for route in rows for tag in route.tags}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Tarazu",
            "version": version,
            "summary": "A real-time consultation billing server",
            "description": _INTRODUCTION,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "tags": [
            *({"name": tag, "description": text} for tag, text in _TAGS.items() if tag in used),
            *({"name": tag} for tag in sorted(used - set(_TAGS))),
        ],
        "paths": paths,
        "components": {
            "schemas": schemas.components,
            "responses": shared,
            "parameters": {"IdempotencyKey": IDEMPOTENCY_KEY},
            "headers": problems.HEADERS,
            "examples": _problem_examples(rows),
            "securitySchemes": {
                BEARER: {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": "The `accessToken` of `POST /auth/login`, or, where an operation says so, a company's API key "
                    "(`POST /api/company/api-keys`).",
                }
            },
        },
    }


def _models(rows: list[Route]) -> Any:
    for route in rows:
        yield route.response, "serialization"
        for model in (route.body, route.query):
            if model is not None:
                yield model, "validation"


def _bound_money(part: Any, asset: Asset) -> None:
    """Say how many decimals an amount may have: the models serve every asset, this server has one for consultations."""
    if isinstance(part, list):
        for item in part:
            _bound_money(item, asset)
    elif isinstance(part, dict):
        if part.get("format") == "decimal" and "{1,12}" in part.get("pattern", ""):
            part["pattern"] = rf"^\d{{1,{15 - asset.decimals}}}(\.\d{{1,{asset.decimals}}})?$"
        for item in part.values():
            _bound_money(item, asset)


def _links(route: Route, rows: list[Route], schemas: Schemas) -> Json:
    """What can be called next with an id from this answer."""
    answered, _ = schemas.properties(route.response, "serialization")
    return {
        operation_id(other): {
            "operationId": operation_id(other),
            "parameters": {parameter: f"$response.body#/{field}"},
        }
        for field, parameter in _LINKED.items()
        if field in answered and route.method == "POST"
        for other in rows
        if other is not route and f"{{{parameter}}}" in other.path
    }


def _share_responses(paths: Json) -> Json:
    """Move the failures that several operations share into components."""
    places = [
        (operations[method]["responses"], status)
        for operations in paths.values()
        for method in operations
        for status in operations[method]["responses"]
        if int(status) >= 400
    ]
    texts = {id(place): json.dumps(place[0][place[1]], sort_keys=True) for place in places}
    often = Counter(texts.values())
    shared: dict[str, Json] = {}
    names: dict[str, str] = {}
    for place in places:
        responses, status = place
        text = texts[id(place)]
        if often[text] == 1:
            continue
        if text not in names:
            codes = list(next(iter(responses[status]["content"].values()))["examples"])
            base = "-".join((status, *codes[:2]))
            alike = sum(name.startswith(base) for name in shared)
            names[text] = f"{base}-{alike + 1}" if alike else base
            shared[names[text]] = responses[status]
        responses[status] = {"$ref": f"#/components/responses/{names[text]}"}
    return shared


def _problem_examples(rows: list[Route]) -> Json:
    errors = {error for route in rows for error in problems.errors_of(route)}
    examples: Json = {}
    # Several classes may share a code and a status; the first by name speaks for it.
    for error in sorted(errors, key=lambda one: (len(one.__mro__), one.__module__, one.__name__)):
        name = problems.example_name(str(getattr(error, "code", "INTERNAL")), status_of(error))
        if name not in examples:
            examples[name] = problems.example(error)
    return dict(sorted(examples.items()))
