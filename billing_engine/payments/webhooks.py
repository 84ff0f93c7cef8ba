"""What gateways send: stored before it is answered, worked off after, once and in any order."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from billing_engine.clock import Clock
from billing_engine.errors import BillingError, Unavailable
from billing_engine.payments.model import (
    Attempt,
    GatewayDispute,
    GatewayEvent,
    GatewayRefund,
    MethodNews,
    SubscriptionNews,
)
from billing_engine.payments.ports import Inbox, InboxState, Letter
from billing_engine.payments.service import PaymentService
from billing_engine.stopping import stop_tasks

log = logging.getLogger(__name__)

#: What is this old and not worked off was left behind by a process that is gone.
_LEFT_BEHIND_MS: Final = 5_000
_PER_ROUND: Final = 100

#: Takes note of news of one kind; whether it concerns something of ours.
TakeRefund = Callable[[str, GatewayRefund], Awaitable[bool]]
#: The last is when the gateway said so: of two final words the later one counts.
TakeDispute = Callable[[str, GatewayDispute, int], Awaitable[bool]]
TakeMethod = Callable[[str, MethodNews], Awaitable[bool]]
TakeSubscription = Callable[[str, SubscriptionNews], Awaitable[bool]]


async def _not_ours(_gateway: str, _news: object, _at_ms: int = 0) -> bool:
    return False


class Webhooks:
    """The inbox of all gateways of this deployment."""

    def __init__(
        self,
        *,
        payments: PaymentService,
        inbox: Inbox,
        clock: Clock,
        on_refund: TakeRefund = _not_ours,
        on_dispute: TakeDispute = _not_ours,
        on_method: TakeMethod = _not_ours,
        on_subscription: TakeSubscription = _not_ours,
    ) -> None:
        self._payments = payments
        self._inbox = inbox
        self._clock = clock
        self._on_refund = on_refund
        self._on_dispute = on_dispute
        self._on_method = on_method
        self._on_subscription = on_subscription
        self._working: set[asyncio.Task[None]] = set()

    async def take(self, gateway: str, *, body: bytes, headers: Mapping[str, str]) -> None:
        """Check the signature, store the event and begin to work it off. Who returns from here may answer 2xx.

        Raises:
            WebhookInvalid: not signed by the gateway.
            Unavailable: it is not stored; the gateway sends it again.
        """
        event = self._payments.gateway(gateway).read_webhook(body, headers)
        letter = Letter(f"{gateway}:{event.id}", gateway, event, received_at_ms=self._clock.now_ms())
        if not await self._inbox.add(letter):
            known = await self._inbox.get(letter.id)
            if known is None or known.state is not InboxState.NEW:
                return
            letter = known
        task = asyncio.create_task(self._guarded(letter), name="webhook")
        self._working.add(task)
        task.add_done_callback(self._working.discard)

    async def work_off(self) -> int:
        """Work off what processes that are gone have left; how many letters there were."""
        before_ms = self._clock.now_ms() - _LEFT_BEHIND_MS
        letters = await self._inbox.waiting(received_before_ms=before_ms, limit=_PER_ROUND)
        for letter in letters:
            await self._guarded(letter)
        return len(letters)

    async def drop_settled(self, *, older_than_ms: int) -> int:
        """Delete what was worked off that long ago: its outcome is in the payments. How many there were."""
        before_ms = self._clock.now_ms() - older_than_ms
        return await self._inbox.drop_settled(received_before_ms=before_ms, limit=_PER_ROUND)

    async def stop(self) -> None:
        """Stop; what is not worked off waits in the store."""
        await stop_tasks(list(self._working))

    async def _guarded(self, letter: Letter) -> None:
        try:
            await self._work(letter)
        except Unavailable as exc:
            log.warning("a gateway's event waits: %r", exc, extra={"event_id": letter.id})
        except BillingError as exc:
            # Nothing a repeat would change: a person is to look at it, and it stays in the queue until then.
            log.error("a gateway's event cannot be worked off: %r", exc, extra={"event_id": letter.id})  # noqa: TRY400
        except Exception:
            log.exception("a gateway's event stumbled", extra={"event_id": letter.id})

    async def _work(self, letter: Letter) -> None:
        is_ours = await self._tell(letter.gateway, letter.event)
        await self._inbox.settle(letter.id, InboxState.DONE if is_ours else InboxState.IGNORED)

    async def _tell(self, gateway: str, event: GatewayEvent) -> bool:
        if event.refund is not None:
            return await self._on_refund(gateway, event.refund)
        if event.dispute is not None:
            return await self._on_dispute(gateway, event.dispute, event.at_ms)
        if event.method is not None:
            return await self._on_method(gateway, event.method)
        if event.subscription is not None:
            return await self._on_subscription(gateway, event.subscription)
        if event.attempt is not None:
            return await self._learn(gateway, event.attempt)
        return False

    async def _learn(self, gateway: str, attempt: Attempt) -> bool:
        payment = await self._payments.find(gateway, attempt)
        if payment is None:
            return False
        await self._payments.learn(payment, attempt)
        return True
