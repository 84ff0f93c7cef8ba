"""One row of the route table as an OpenAPI operation."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from server.api_docs import problems
from server.api_docs.samples import Samples
from server.api_docs.schemas import Schemas, without_null
from server.auth.model import CompanyRight, Role
from server.routing import Access, Route

Json = dict[str, Any]

#: The name of the security scheme.
BEARER: Final = "bearer"
_PARAMETER: Final = re.compile(r"\{(\w+)\}")
#: Where a path's parameter comes from, for its description.
_PARAMETERS: Final[Mapping[str, str]] = {
    "session_id": "The consultation's `sessionId`.",
    "lawyer_id": "The lawyer's `id`.",
    "user_id": "The user's `id`.",
    "project_id": "The project's `id`.",
    "app_id": "The application's `id`.",
    "company_id": "The company's `companyId`.",
    "key_id": "The API key's `keyId`.",
    "usage_id": "The usage's `usageId`.",
    "job_id": "Your own name of the job.",
    "type": "A type of usage in the price book (`GET /api/prices`).",
    "invoice_id": "The recharge's `invoiceId`.",
    "payment_method_id": "The saved means of payment's `paymentMethodId`.",
    "provider": "`openai`, `anthropic`, `google`, `huggingface` or `aws`.",
}
_SAMPLE_OF_PARAMETER: Final[Mapping[str, str]] = {
    "session_id": "sessionId",
    "lawyer_id": "lawyerId",
    "user_id": "userId",
    "project_id": "project_id",
    "app_id": "application_id",
    "company_id": "companyId",
    "key_id": "ApiKeyOut.keyId",
    "usage_id": "usageId",
    "job_id": "jobId",
    "type": "OtherUsageIn.type",
    "invoice_id": "invoiceId",
    "payment_method_id": "PaymentMethodOut.paymentMethodId",
    "provider": "CallOut.provider",
}
#: Who of a company may call.
_RIGHTS: Final[Mapping[CompanyRight, str]] = {
    CompanyRight.USAGE: "Of a company: its owner, its managers, and API keys with the scope `usage`.",
    CompanyRight.READ: "Of a company: its owner, its members, and API keys with the scope `read`.",
    CompanyRight.MANAGE: "Of a company: its owner and its managers; no API key.",
}
IDEMPOTENCY_KEY: Final[Json] = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "Makes repeating safe: the same key with the same request gets the first answer again, and money moves once. "
    "Kept for ever, for this caller and route. A refused request (4xx) frees its key.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": r"^[\x21-\x7e]+$"},
    "example": "4f9c2a36-6a0e-4d9b-9c60-2f1f6f0c7f11",
}


def operation_id(route: Route) -> str:
    """`POST /consult/{session_id}/end` → `postConsultSessionIdEnd`."""
    words = re.findall(r"[A-Za-z0-9]+", route.path)
    return route.method.lower() + "".join(word[:1].upper() + word[1:] for word in words)


def operation(route: Route, schemas: Schemas, samples: Samples, links: Json) -> Json:
    """The operation object of the row."""
    described: Json = {
        "operationId": operation_id(route),
        "summary": route.summary,
        "description": _description(route),
        "tags": list(route.tags),
    }
    if parameters := [*_path(route), *_query(route, schemas, samples), *_headers(route)]:
        described["parameters"] = parameters
    if route.body is not None or route.raw_limit:
        described["requestBody"] = _body(route, schemas, samples)
    described["responses"] = _responses(route, schemas, samples, links)
    described["security"] = [] if route.access.public else [{BEARER: []}]
    if not route.access.public:
        described["x-roles"] = _roles(route.access)
    if route.access.right is not None:
        described["x-company-right"] = route.access.right.value
    return described


def _roles(access: Access) -> list[str]:
    return [role.value for role in Role if role in access.roles]


def _description(route: Route) -> str:
    if route.access.public:
        who = "Anyone may call it, without a token."
    elif route.access.roles == frozenset(Role):
        who = "Anyone who is signed in may call it."
    else:
        who = f"Roles: {', '.join(_roles(route.access))}."
    if route.access.right is not None:
        who += f" {_RIGHTS[route.access.right]}"
    if route.idempotent:
        who += " Takes an `Idempotency-Key`."
    if route.rate is not None:
        counted = " and for one account" if route.rate.account is not None else ""
        who += f" Limited from one address{counted}: 429 says when to come again."
    return who


def _path(route: Route) -> Iterable[Json]:
    for name in _PARAMETER.findall(route.path):
        yield {
            "name": name,
            "in": "path",
            "required": True,
            "description": _PARAMETERS.get(name, "The object's id."),
            "schema": {"type": "string", "minLength": 1, "maxLength": 128},
            "example": Samples({}).of({"type": "string"}, field=_SAMPLE_OF_PARAMETER.get(name, "id")),
        }


def _query(route: Route, schemas: Schemas, samples: Samples) -> Iterable[Json]:
    if route.query is None:
        return
    properties, required = schemas.properties(route.query, "validation")
    for name, schema in properties.items():
        shown = without_null(schema)
        parameter: Json = {"name": name, "in": "query", "required": name in required}
        if description := shown.pop("description", None):
            parameter["description"] = description
        parameter["schema"] = shown
        parameter["example"] = samples.of(schema, model=route.query.__name__, field=name)
        if name != "cursor" and parameter["example"] is not None:
            yield parameter
        else:
            yield {key: value for key, value in parameter.items() if key != "example"}


def _headers(route: Route) -> Iterable[Json]:
    if route.idempotent:
        yield {"$ref": "#/components/parameters/IdempotencyKey"}


def _body(route: Route, schemas: Schemas, samples: Samples) -> Json:
    if route.raw_limit:
        # Whoever it is passed on to says what is in it.
        example = Samples({}).of({"type": "object"}, model=route.response.__name__, field="asked")
        content = {"schema": {"type": "object"}, "example": example}
        return {"required": True, "content": {"application/json": content}}
    if route.body is None:
        return {}
    ref = schemas.ref(route.body, "validation")
    _, required = schemas.properties(route.body, "validation")
    return {
        # An empty body counts as `{}`.
        "required": bool(required),
        "content": {"application/json": {"schema": ref, "example": samples.of(ref)}},
    }


def _shown(route: Route, ref: Json, samples: Samples) -> Json:
    if route.media_type.startswith("text/html"):
        return {"schema": {"type": "string"}, "example": "<!doctype html>"}
    return {"schema": ref, "example": samples.of(ref)}


def _responses(route: Route, schemas: Schemas, samples: Samples, links: Json) -> Json:
    ref = schemas.ref(route.response, "serialization")
    headers = {"X-Request-Id": {"$ref": "#/components/headers/RequestId"}}
    if route.idempotent:
        headers["Idempotency-Replayed"] = {"$ref": "#/components/headers/IdempotencyReplayed"}
    done: Json = {
        "description": schemas.resolve(ref).get("description", route.summary),
        "headers": headers,
        "content": {
            route.media_type: _shown(route, ref, samples),
            **{media_type: {"schema": {"type": "string"}} for media_type in route.also},
        },
    }
    if links:
        done["links"] = links
    failed = problems.by_status(problems.errors_of(route))
    return {
        str(route.status): done,
        **{str(status): problems.response(status, errors) for status, errors in failed.items()},
    }
