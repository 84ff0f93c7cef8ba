"""The admins' side of metered usage: giving a usage's cost back (SPEC 9, 11)."""

from typing import Any, Final, Self

from billing_engine.money import Asset, format_minor
from billing_engine.usage.errors import NotCharged, UsageNotFound
from billing_engine.usage.usage_refunds import RefundedUsage, UsageRefunds
from server.auth.model import Role
from server.people.wire import Reason
from server.routing import Audited, Call, Route, only
from server.usage_wire import UsageDetailOut
from server.wire import Instant, MoneyOut, WireModel


class UsageRefundIn(WireModel):
    """Why the usage's cost is given back. All of it is; there is no part."""

    reason: Reason


class UsageRefundOut(WireModel):
    """A usage whose cost was given back. `walletBalance` and `owed` are the company's right after it: what is owed was paid from it
    first. `reason` and `refundedBy` are those of the first time.
    """

    company_id: str
    usage: UsageDetailOut
    refunded_amount: MoneyOut
    currency: str
    wallet_balance: MoneyOut
    owed: MoneyOut
    reason: str
    refunded_by: str
    refunded_at: Instant

    @classmethod
    def of(cls, refunded: RefundedUsage, asset: Asset) -> Self:
        return cls(
            company_id=refunded.usage.company_id,
            # As it was charged: which debts are paid meanwhile is another question.
            usage=UsageDetailOut.seen(refunded.usage, asset, collected_minor=0),
            refunded_amount=format_minor(refunded.amount_minor, asset),
            currency=asset.code,
            wallet_balance=format_minor(refunded.balance_minor, asset),
            owed=format_minor(refunded.owed_minor, asset),
            reason=refunded.reason,
            refunded_by=refunded.by,
            refunded_at=refunded.at_ms,
        )


def _refunds(call: Call[Any, Any]) -> UsageRefunds:
    refunds: UsageRefunds = call.services.usage.refunds
    return refunds


async def refund(call: Call[UsageRefundIn, None]) -> UsageRefundOut:
    refunded = await _refunds(call).refund(
        call.path["usage_id"], reason=call.body.reason, by=call.caller.user_id
    )
    return UsageRefundOut.of(refunded, call.services.usage.asset)


async def standing(call: Call[Any, None]) -> dict[str, Any]:
    """What a refund changes, for the audit log. Raises `UsageNotFound`."""
    usage = await _refunds(call).usage(call.path["usage_id"])
    asset: Asset = call.services.usage.asset
    return {
        "companyId": usage.company_id,
        "status": usage.status.value,
        "cost": format_minor(usage.cost_minor, asset),
        "refundedAmount": format_minor(await _refunds(call).refunded_minor(usage), asset),
    }


ROUTES: Final = (
    Route(
        method="POST",
        path="/admin/usage/{usage_id}/refund",
        handler=refund,
        summary="Give a usage's cost back to the company's wallet, whole and once; repeated, the same answer",
        access=only(Role.ADMIN),
        body=UsageRefundIn,
        response=UsageRefundOut,
        status=201,
        errors=(UsageNotFound, NotCharged),
        idempotent=True,
        audit=Audited("usage.refund", "usage_id", standing),
        tags=("usage",),
    ),
)
