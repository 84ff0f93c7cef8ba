"""The gateways that the settings name, opened and closed."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from billing_engine.clock import Clock
from billing_engine.payments.ports import Gateway
from billing_engine.subscriptions.ports import SubscriptionGateway
from server.gateways.simulated import SimulatedGateway
from server.gateways.simulated_subscriptions import SimulatedSubscriptions
from server.settings import AppEnv, Settings
from server.storage.collection import Collections
from server.storage.repositories.simulated_subscriptions import CollectionAgreements


@asynccontextmanager
async def open_gateways(settings: Settings) -> AsyncIterator[Mapping[str, Gateway]]:
    """By name. The simulated one is there where it is chosen; the others where their keys are set, chosen or not."""
    # Imported where they are used: each takes tenths of a second that most starts need not spend.
    gateways: dict[str, Gateway] = {}
    closing = []
    if SimulatedGateway.name in (settings.payment_gateway, settings.company_gateway_name):
        gateways[SimulatedGateway.name] = SimulatedGateway()
    if settings.has_razorpay:
        from server.gateways.razorpay import RazorpayGateway  # noqa: PLC0415

        razorpay = RazorpayGateway(
            settings.razorpay_key_id,
            settings.razorpay_key_secret.get_secret_value(),
            settings.razorpay_webhook_secret.get_secret_value(),
            base_url=settings.razorpay_url,
            timeout_s=settings.gateway_timeout_seconds,
        )
        gateways[razorpay.name] = razorpay
        closing.append(razorpay.close)
    if settings.has_stripe:
        from server.gateways.stripe import StripeGateway  # noqa: PLC0415

        stripe = StripeGateway(
            settings.stripe_secret_key.get_secret_value(),
            settings.stripe_webhook_secret.get_secret_value(),
            success_url=settings.checkout_success_url,
            cancel_url=settings.checkout_cancel_url,
            base_url=settings.stripe_url,
            timeout_s=settings.gateway_timeout_seconds,
        )
        gateways[stripe.name] = stripe
        closing.append(stripe.close)
    try:
        yield gateways
    finally:
        for close in closing:
            await close()


async def open_subscriptions(
    settings: Settings, gateways: Mapping[str, Gateway], collections: Collections, clock: Clock
) -> SubscriptionGateway | None:
    """Through whom subscriptions are sold: Stripe where its keys are set, else the simulated one. None: in production without keys,
    where nothing is sold. It lives as long as the `gateways` do.
    """
    if settings.has_stripe:
        from server.gateways.stripe import StripeGateway  # noqa: PLC0415
        from server.gateways.stripe_subscriptions import StripeSubscriptions  # noqa: PLC0415

        stripe = gateways[StripeGateway.name]
        if isinstance(stripe, StripeGateway):
            return StripeSubscriptions(
                stripe.connection,
                success_url=settings.checkout_success_url,
                cancel_url=settings.checkout_cancel_url,
            )
    if settings.app_env is AppEnv.PRODUCTION:
        return None
    return SimulatedSubscriptions(await CollectionAgreements.open(collections), clock)
