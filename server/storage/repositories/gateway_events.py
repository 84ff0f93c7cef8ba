"""`Inbox` over one collection: the gateways' events, in our words."""

from dataclasses import asdict
from typing import Any, Final

from billing_engine.payments.model import (
    Attempt,
    AttemptStatus,
    DisputeStatus,
    GatewayDispute,
    GatewayEvent,
    GatewayRefund,
    MethodNews,
    RefundStatus,
    SavedMethod,
    SubscriptionHint,
    SubscriptionNews,
)
from billing_engine.payments.ports import InboxState, Letter
from server.storage.collection import Collection, Collections, CollectionSpec, Doc
from server.storage.errors import DuplicateId

GATEWAY_EVENTS: Final = CollectionSpec(
    name="gateway_events",
    text=("state", "gateway"),
    integer=("received_at_ms",),
    indexes=(("state", "received_at_ms"),),
)


class CollectionInbox:
    """One document an event; its `_id` is the gateway's name and its own id of the event, so that none is stored twice."""

    def __init__(self, collection: Collection) -> None:
        self._letters = collection

    @classmethod
    async def open(cls, collections: Collections) -> "CollectionInbox":
        return cls(await collections.open(GATEWAY_EVENTS))

    async def add(self, letter: Letter) -> bool:
        try:
            await self._letters.insert(
                {
                    "_id": letter.id,
                    "gateway": letter.gateway,
                    "state": letter.state.value,
                    "received_at_ms": letter.received_at_ms,
                    "event": asdict(letter.event),
                }
            )
        except DuplicateId:
            return False
        return True

    async def get(self, letter_id: str) -> Letter | None:
        doc = await self._letters.get(letter_id)
        return None if doc is None else _letter(doc)

    async def settle(self, letter_id: str, state: InboxState) -> None:
        where = {"state": InboxState.NEW.value}
        await self._letters.update(letter_id, where=where, set_={"state": state.value})

    async def waiting(self, *, received_before_ms: int, limit: int) -> list[Letter]:
        where = {"state": InboxState.NEW.value, "received_at_ms": {"lt": received_before_ms}}
        found = await self._letters.find(where, sort=(("received_at_ms", "asc"),), limit=limit)
        return [_letter(doc) for doc in found]

    async def drop_settled(self, *, received_before_ms: int, limit: int) -> int:
        dropped = 0
        for state in (InboxState.DONE, InboxState.IGNORED):
            where: Doc = {"state": state.value, "received_at_ms": {"lt": received_before_ms}}
            for doc in await self._letters.find(where, sort=(("received_at_ms", "asc"),), limit=limit):
                dropped += await self._letters.delete(doc["_id"])
        return dropped


def _letter(doc: Doc) -> Letter:
    return Letter(
        id=doc["_id"],
        gateway=doc["gateway"],
        event=_event(doc["event"]),
        received_at_ms=doc["received_at_ms"],
        state=InboxState(doc["state"]),
    )


def _event(doc: Doc) -> GatewayEvent:
    return GatewayEvent(
        id=doc["id"],
        kind=doc["kind"],
        at_ms=doc["at_ms"],
        attempt=_attempt(doc["attempt"]),
        refund=_with(GatewayRefund, RefundStatus, doc["refund"]),
        dispute=_with(GatewayDispute, DisputeStatus, doc["dispute"]),
        method=_method_news(doc["method"]),
        # Letters from before there were subscriptions do not have it.
        subscription=_subscription_news(doc.get("subscription")),
    )


def _attempt(doc: Doc | None) -> Attempt | None:
    if doc is None:
        return None
    method = doc["method"]
    return Attempt(
        **{
            **doc,
            "status": AttemptStatus(doc["status"]),
            "method": None if method is None else SavedMethod(**method),
        }
    )


def _method_news(doc: Doc | None) -> MethodNews | None:
    return None if doc is None else MethodNews(**{**doc, "method": SavedMethod(**doc["method"])})


def _subscription_news(doc: Doc | None) -> SubscriptionNews | None:
    return None if doc is None else SubscriptionNews(doc["subscription_id"], SubscriptionHint(doc["kind"]))


def _with(kind: type[Any], status: type[Any], doc: Doc | None) -> Any:
    return None if doc is None else kind(**{**doc, "status": status(doc["status"])})
