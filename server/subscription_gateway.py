"""Through whom subscriptions are sold: Stripe where its keys are set, else a gateway without money; in production nobody."""

from collections.abc import Mapping, Sequence

from billing_engine.clock import Clock
from billing_engine.payments.errors import GatewayUnavailable
from billing_engine.payments.ports import Gateway
from billing_engine.subscriptions.ports import (
    CheckoutPage,
    GatewayInvoice,
    GatewaySubscription,
    SubscriptionGateway,
    SubscriptionWish,
)
from server.gateways.simulated_subscriptions import SimulatedSubscriptions
from server.settings import AppEnv, Settings
from server.storage.collection import Collections


class NoSubscriptions:
    """`SubscriptionGateway` where none is set up: everybody stays on the free tier. Every call raises `GatewayUnavailable`."""

    name = "stripe"

    async def checkout(self, wish: SubscriptionWish) -> CheckoutPage:
        raise _unavailable()

    async def subscription_of(self, checkout_id: str) -> str | None:
        raise _unavailable()

    async def subscription(self, subscription_id: str) -> GatewaySubscription | None:
        raise _unavailable()

    async def invoices(self, subscription_id: str) -> Sequence[GatewayInvoice]:
        raise _unavailable()

    async def set_cancels(self, subscription_id: str, cancels: bool) -> None:
        raise _unavailable()

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
        raise _unavailable()


def _unavailable() -> GatewayUnavailable:
    return GatewayUnavailable(reason="this gateway is not set up", gateway=NoSubscriptions.name)


async def subscription_gateway(
    settings: Settings, collections: Collections, *, gateways: Mapping[str, Gateway], clock: Clock
) -> SubscriptionGateway:
    """The one of this deployment."""
    if settings.has_stripe:
        # Imported where it is used: the package takes tenths of a second that most starts need not spend.
        from server.gateways.stripe import StripeGateway  # noqa: PLC0415
        from server.gateways.stripe_subscriptions import StripeSubscriptions  # noqa: PLC0415

        stripe = gateways["stripe"]
        if isinstance(stripe, StripeGateway):
            return StripeSubscriptions(
                stripe.connection,
                success_url=settings.checkout_success_url,
                cancel_url=settings.checkout_cancel_url,
            )
    if settings.app_env is AppEnv.PRODUCTION:
        return NoSubscriptions()
    return await SimulatedSubscriptions.open(collections, clock)
