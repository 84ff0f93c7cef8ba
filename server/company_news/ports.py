"""What a company's news need from the outside."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

from server.company_news.model import Answer, Delivery, Webhook

#: The people of a company, by its id: whose sockets hear its news. Raises `Unavailable`.
MemberIds = Callable[[str], Awaitable[list[str]]]


class Poster(Protocol):
    """Posts to foreign URLs."""

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """What the endpoint said. Never raises for what a foreign server does."""
        ...


class WebhookRows(Protocol):
    """The companies' webhooks, one each. All methods raise `StoreUnavailable`."""

    async def get(self, company_id: str) -> Webhook | None: ...

    async def get_many(self, company_ids: Sequence[str]) -> dict[str, Webhook]:
        """Those that there are, by company."""
        ...

    async def put(self, webhook: Webhook) -> None:
        """Set it, whatever was there before."""
        ...

    async def exchange(self, old: Webhook, new: Webhook) -> bool:
        """Put `new` in the place of `old`; False if that is not what is there."""
        ...

    async def remove(self, company_id: str) -> None:
        """Harmless where there is none."""
        ...


class DeliveryRows(Protocol):
    """What is on its way. All methods raise `StoreUnavailable`."""

    async def add(self, delivery: Delivery) -> None:
        """Insert; harmless if the id is there already."""
        ...

    async def due(self, now_ms: int, *, limit: int, after: tuple[int, str] | None) -> list[Delivery]:
        """Pending ones whose time has come, the longest waiting first; `after` is (next_at_ms, id) of the last one seen."""
        ...

    async def next_after_ms(self, now_ms: int) -> int | None:
        """When the first one is due that is not due at `now_ms`."""
        ...

    async def begin(self, delivery: Delivery, *, now_ms: int, until_ms: int) -> Delivery | None:
        """Begin an attempt that nobody else begins before `until_ms`; None if somebody else did."""
        ...

    async def end(self, delivery: Delivery) -> None:
        """Store how the attempt that `delivery` is has ended. One that was overtaken writes nothing."""
        ...

    async def list_for(
        self, company_id: str, *, limit: int, before: tuple[int, str] | None
    ) -> list[Delivery]:
        """The company's, newest first; `before` is (created_at_ms, id) of the last one seen."""
        ...

    async def last_tried(self, company_id: str) -> Delivery | None:
        """The one whose attempt began last."""
        ...

    async def drop_settled(self, *, before_ms: int, limit: int) -> int:
        """Delete rows that are done or dead and were made before then; how many there were."""
        ...
