"""Subscriptions without money: whoever wishes one has paid, at once and every 30 days. The default without keys; refused in
production.

What was agreed is stored, so that it is the same after a restart and for every process; what follows from it is computed when it is
asked for. It sends no events: ask it.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final, Protocol

from billing_engine.clock import Clock
from billing_engine.payments.errors import GatewayRefused, GatewayUnavailable
from billing_engine.subscriptions.ports import (
    CheckoutPage,
    GatewayInvoice,
    GatewaySubscription,
    SubscriptionStatus,
    SubscriptionWish,
)
from server.gateways.simulated_cycles import Agreement, Change, Standing, Terms, standing

_PAGE: Final = "simsubpage_"
_SUBSCRIPTION: Final = "simsub_"
_INVOICE: Final = "siminvoice_"
_ATTEMPTS: Final = 20


class Agreements(Protocol):
    """Where it is kept what was agreed. All methods raise `Unavailable`."""

    async def add(self, agreement: Agreement) -> None:
        """Store it; one that is there stays as it is."""
        ...

    async def get(self, id_: str) -> Agreement | None: ...

    async def exchange(self, old: Agreement, new: Agreement) -> bool:
        """Store `new` if it is still as in `old`."""
        ...


class SimulatedSubscriptions:
    """`SubscriptionGateway` where wishing is paying. Ids are a word and the wish's reference."""

    name = "simulated"

    def __init__(self, agreements: Agreements, clock: Clock) -> None:
        self._agreements = agreements
        self._clock = clock

    async def checkout(self, wish: SubscriptionWish) -> CheckoutPage:
        await self._agreements.add(
            Agreement(
                id=f"{_SUBSCRIPTION}{wish.reference}",
                user_id=wish.user_id,
                created_at_ms=self._clock.now_ms(),
                terms=Terms(wish.tier, wish.amount_minor, wish.currency),
            )
        )
        return CheckoutPage(f"{_PAGE}{wish.reference}", url=None)

    async def subscription_of(self, checkout_id: str) -> str | None:
        id_ = _SUBSCRIPTION + checkout_id.removeprefix(_PAGE)
        if not checkout_id.startswith(_PAGE) or await self._agreements.get(id_) is None:
            raise GatewayRefused(reason="NO_SUCH_PAGE")
        return id_

    async def subscription(self, subscription_id: str) -> GatewaySubscription | None:
        """`tier` is what its next invoice will be for."""
        agreement = await self._agreements.get(subscription_id)
        if agreement is None:
            return None
        now = self._standing(agreement)
        return GatewaySubscription(
            id=agreement.id,
            user_id=agreement.user_id,
            tier=now.next_terms.tier,
            status=SubscriptionStatus.ENDED if now.is_ended else SubscriptionStatus.ACTIVE,
            period_start_ms=now.start_ms,
            period_end_ms=now.end_ms,
            cancels=agreement.cancelled_at_ms is not None,
            created_at_ms=agreement.created_at_ms,
        )

    async def invoices(self, subscription_id: str) -> Sequence[GatewayInvoice]:
        """One for every period that was begun, paid when it began."""
        agreement = await self._agreements.get(subscription_id)
        if agreement is None:
            return []
        reference = agreement.id.removeprefix(_SUBSCRIPTION)
        return [
            GatewayInvoice(
                id=f"{_INVOICE}{reference}_{number}",
                subscription_id=agreement.id,
                tier=sold.terms.tier,
                period_start_ms=sold.start_ms,
                period_end_ms=sold.end_ms,
                amount_minor=sold.terms.amount_minor,
                currency=sold.terms.currency,
                is_paid=True,
                at_ms=sold.start_ms,
            )
            for number, sold in enumerate(self._standing(agreement).sold)
        ]

    async def set_cancels(self, subscription_id: str, cancels: bool) -> None:
        at_ms = self._clock.now_ms() if cancels else None

        def decide(known: Agreement) -> Agreement:
            if cancels and known.cancelled_at_ms is not None:
                return known
            return replace(known, cancelled_at_ms=at_ms)

        await self._change(subscription_id, decide)

    async def change_tier(
        self,
        subscription_id: str,
        *,
        tier: str,
        amount_minor: int,
        currency: str,
        cycle_ends_ms: int | None,
        key: str,
    ) -> None:
        now_ms = self._clock.now_ms()
        change = Change(key, now_ms, Terms(tier, amount_minor, currency), cycle_ends_ms)

        def decide(known: Agreement) -> Agreement:
            if any(made.key == key for made in known.changes):
                return known
            if cycle_ends_ms is not None and cycle_ends_ms <= now_ms:
                raise GatewayRefused(reason="END_HAS_PASSED")
            return replace(known, changes=(*known.changes, change))

        await self._change(subscription_id, decide)

    # -- how it is kept ----------------------------------------------------------------------------------------------

    def _standing(self, agreement: Agreement) -> Standing:
        return standing(agreement, self._clock.now_ms())

    async def _change(self, subscription_id: str, decide: Callable[[Agreement], Agreement]) -> None:
        """Raises `GatewayRefused`: there is no such one, or it has ended."""
        for _ in range(_ATTEMPTS):
            known = await self._agreements.get(subscription_id)
            if known is None:
                raise GatewayRefused(reason="NO_SUCH_SUBSCRIPTION")
            wanted = decide(known)
            if wanted == known:
                return
            if self._standing(known).is_ended:
                raise GatewayRefused(reason="SUBSCRIPTION_ENDED")
            if await self._agreements.exchange(known, replace(wanted, revision=known.revision + 1)):
                return
        raise GatewayUnavailable(gateway=self.name, reason="changed by others all the time")
