"""Through whom subscriptions are sold: Stripe where its keys are set, else a gateway without money; in production nobody."""

from collections.abc import Mapping
from typing import NoReturn

from billing_engine.clock import Clock
from billing_engine.payments.errors import GatewayUnavailable
from billing_engine.payments.ports import Gateway
from billing_engine.subscriptions.ports import SubscriptionGateway
from server.gateways.simulated_subscriptions import SimulatedSubscriptions
from server.settings import AppEnv, Settings
from server.storage.collection import Collections


async def _refuse(*_asked: object, **_named: object) -> NoReturn:
    raise GatewayUnavailable(reason="this gateway is not set up", gateway=NoSubscriptions.name)


class NoSubscriptions:
    """`SubscriptionGateway` where none is set up: everybody stays on the free tier. Every call raises `GatewayUnavailable`."""

    name = "stripe"
    checkout = staticmethod(_refuse)
    subscription_of = staticmethod(_refuse)
    subscription = staticmethod(_refuse)
    invoices = staticmethod(_refuse)
    set_cancels = staticmethod(_refuse)
    change_tier = staticmethod(_refuse)


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
