"""Letters to subscribers."""

from server.notifications.outbox import Outbox


class PlanLetters:
    """`PlanNews`."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox

    async def began(self, id_: str, user_id: str, *, tier: str, ends_at_ms: int) -> None: ...

    async def payment_failed(self, id_: str, user_id: str, *, tier: str, grace_ends_ms: int) -> None: ...

    async def ended(self, id_: str, user_id: str, *, tier: str) -> None: ...

    async def upgraded(self, id_: str, user_id: str, *, tier: str) -> None: ...
