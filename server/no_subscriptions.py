"""Where no subscriptions are sold: in production without a gateway's keys."""

from typing import NoReturn

from billing_engine.payments.errors import GatewayUnavailable


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
