"""A company's webhook (SPEC 9): where its back end hears of low balances, recharges and what is owed (docs/company-webhooks.md).

No route here is `idempotent`: an answer that is kept would be a secret that is kept.
"""

from typing import Annotated, Any, Final, Self

from pydantic import StringConstraints

from billing_engine.usage.ports import EventKind
from server.auth.model import CompanyRight
from server.company_news.errors import WebhookNotSet, WebhookUrlRefused
from server.company_news.model import Delivery, DeliveryState, Failure, Webhook
from server.company_news.service import CompanyWebhooks
from server.rate_limits.service import Limited, RateLimit
from server.routes.company_calls import company_of
from server.routing import Call, Route, company
from server.wire import Instant, Page, PageQuery, WireModel, described, encode_cursor, one_of, time_place


class WebhookIn(WireModel):
    """Where to: an https URL of the public internet, without user, password or fragment."""

    url: Annotated[str, StringConstraints(min_length=1, max_length=2_000), described(format="uri")]


class DeliveryOut(WireModel):
    """An event on its way to the webhook. `id` is the event's, the `webhook-id` of the request.

    `lastStatus` is what the endpoint answered last, `failure` why there was no answer; `nextAttemptAt` is null once it is over.
    """

    id: str
    type: Annotated[str, one_of(EventKind)]
    status: Annotated[str, one_of(DeliveryState)]
    attempts: int
    last_status: int | None
    failure: Annotated[str, one_of(Failure)] | None
    created_at: Instant
    last_attempt_at: Instant | None
    next_attempt_at: Instant | None

    @classmethod
    def of(cls, delivery: Delivery) -> Self:
        is_pending = delivery.state is DeliveryState.PENDING
        return cls(
            id=delivery.event_id,
            type=delivery.type,
            status=delivery.state.value,
            attempts=delivery.attempts,
            last_status=delivery.last_status,
            failure=None if delivery.failure is None else delivery.failure.value,
            created_at=delivery.created_at_ms,
            last_attempt_at=delivery.last_attempt_at_ms,
            next_attempt_at=delivery.next_at_ms if is_pending else None,
        )


class WebhookOut(WireModel):
    """The webhook; all null where none is set. `disabledAt`: the endpoint answered 410 (gone); setting it again opens it again."""

    url: str | None
    created_at: Instant | None
    disabled_at: Instant | None
    last_delivery: DeliveryOut | None

    @classmethod
    def of(cls, webhook: Webhook | None, last: Delivery | None) -> Self:
        return cls(
            url=None if webhook is None else webhook.url,
            created_at=None if webhook is None else webhook.created_at_ms,
            disabled_at=None if webhook is None else webhook.disabled_at_ms,
            last_delivery=None if last is None else DeliveryOut.of(last),
        )


class WebhookSecretOut(WireModel):
    """The webhook with its secret, which is shown here and never again."""

    url: str
    created_at: Instant
    secret: str

    @classmethod
    def of(cls, webhook: Webhook) -> Self:
        return cls(url=webhook.url, created_at=webhook.created_at_ms, secret=webhook.secret)


class WebhookTestOut(WireModel):
    """What the endpoint said to a test event: its `status`, or why there was none. `delivered`: it answered 2xx."""

    delivered: bool
    status: int | None
    failure: Annotated[str, one_of(Failure)] | None


def _webhooks(call: Call[Any, Any]) -> CompanyWebhooks:
    webhooks: CompanyWebhooks = call.services.company_news.webhooks
    return webhooks


async def see(call: Call[None, None]) -> WebhookOut:
    company_id = company_of(call)
    webhook = await _webhooks(call).webhook(company_id)
    last = None if webhook is None else await _webhooks(call).last_delivery(company_id)
    return WebhookOut.of(webhook, last)


async def put(call: Call[WebhookIn, None]) -> WebhookSecretOut:
    try:
        webhook = await _webhooks(call).set_webhook(company_of(call), call.body.url)
    except WebhookUrlRefused as refused:
        # As it is spelt here.
        raise WebhookUrlRefused(**refused.facts | {"field": "url"}) from refused
    if webhook is None:
        raise WebhookNotSet
    return WebhookSecretOut.of(webhook)


async def remove(call: Call[None, None]) -> WebhookOut:
    await _webhooks(call).set_webhook(company_of(call), None)
    return WebhookOut.of(None, None)


async def rotate(call: Call[None, None]) -> WebhookSecretOut:
    return WebhookSecretOut.of(await _webhooks(call).rotate_secret(company_of(call)))


async def test(call: Call[None, None]) -> WebhookTestOut:
    answer = await _webhooks(call).test(company_of(call))
    return WebhookTestOut(
        delivered=answer.is_success,
        status=answer.status,
        failure=None if answer.failure is None else answer.failure.value,
    )


async def deliveries(call: Call[None, PageQuery]) -> Page[DeliveryOut]:
    limit = call.query.limit
    found = await _webhooks(call).deliveries(
        company_of(call), limit=limit + 1, before=time_place(call.query.cursor)
    )
    shown = found[:limit]
    more = len(found) > limit
    return Page[DeliveryOut](
        items=[DeliveryOut.of(delivery) for delivery in shown],
        next_cursor=encode_cursor(shown[-1].created_at_ms, shown[-1].id) if more else None,
    )


_COMPANY: Final = company(CompanyRight.MANAGE)
_TAGS: Final = ("company",)
_RATE: Final = RateLimit(Limited.WEBHOOK, account=company_of)
ROUTES: Final = (
    Route(
        method="GET",
        path="/api/company/webhook",
        handler=see,
        summary="The company's webhook, and what became of the last delivery",
        access=_COMPANY,
        response=WebhookOut,
        tags=_TAGS,
    ),
    Route(
        method="PUT",
        path="/api/company/webhook",
        handler=put,
        summary="Set the webhook, with a new secret, which is shown this once",
        access=_COMPANY,
        body=WebhookIn,
        response=WebhookSecretOut,
        errors=(WebhookUrlRefused,),
        rate=_RATE,
        tags=_TAGS,
    ),
    Route(
        method="DELETE",
        path="/api/company/webhook",
        handler=remove,
        summary="Take the webhook away; what was on its way is given up. Repeated, the same answer",
        access=_COMPANY,
        response=WebhookOut,
        tags=_TAGS,
    ),
    Route(
        method="POST",
        path="/api/company/webhook/rotate-secret",
        handler=rotate,
        summary="A new secret, shown this once; for a day the old one signs, too",
        access=_COMPANY,
        response=WebhookSecretOut,
        errors=(WebhookNotSet,),
        rate=_RATE,
        tags=_TAGS,
    ),
    Route(
        method="POST",
        path="/api/company/webhook/test",
        handler=test,
        summary="Send a test event now, once, and hear what the endpoint said",
        access=_COMPANY,
        response=WebhookTestOut,
        errors=(WebhookNotSet,),
        rate=_RATE,
        tags=_TAGS,
    ),
    Route(
        method="GET",
        path="/api/company/webhook/deliveries",
        handler=deliveries,
        summary="What was sent to the webhook and what is to be sent, newest first",
        access=_COMPANY,
        query=PageQuery,
        response=Page[DeliveryOut],
        tags=_TAGS,
    ),
)
