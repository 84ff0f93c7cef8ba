"""What billing tells over the socket: the bill of a session to its parties, and news of a wallet to the members of its company."""

from typing import Final

from pydantic import ConfigDict

from chat.event_types import Instant, Money, ServerEvent, View


class BillView(View):
    """The bill at one instant, as billing tells it. `walletBalance` is null for the lawyer, `remainingSeconds` is null for the
    lawyer above 120. While `status` is PAUSED, `reason` says who is lost. A `lastSeq` above the last message that you have: join again
    with `afterSeq`. It is null in an event while the store does not answer; the next tick has it.
    """

    session_id: str
    elapsed_seconds: int
    total_amount: Money
    wallet_balance: Money | None
    currency: str
    rate_per_minute: Money
    remaining_seconds: int | None
    paid_until: Instant | None
    status: str
    reason: str | None
    last_seq: int | None


class LowBalanceView(BillView):
    """The bill when the money lasts for less than `thresholdSeconds`."""

    threshold_seconds: int


class PausedView(BillView):
    """The bill of a session that is served no more for now. `reason` says who is lost: `USER_LOST` or `LAWYER_LOST`; `endsAt` is the
    instant at which it ends if they do not come back. The bill stopped at their last sign of life.
    """

    ends_at: Instant


class CompanyView(View):
    """News of a company's wallet. `eventId` is the same when it comes again, and the `webhook-id` of the company's webhook. Facts may
    be added.
    """

    # What is told of a usage is its product's business.
    model_config = ConfigDict(extra="allow")

    company_id: str
    event_id: str
    at: Instant
    currency: str | None = None
    wallet_balance: Money | None = None


class CompanyLowBalanceView(CompanyView):
    threshold: Money | None = None
    usage_id: str | None = None


class CompanyOwedView(CompanyView):
    owed: Money | None = None
    usage_id: str | None = None


class CompanyRechargedView(CompanyView):
    amount: Money | None = None
    invoice_id: str | None = None
    automatic: bool | None = None


class CompanyRechargeFailedView(CompanyView):
    amount: Money | None = None
    invoice_id: str | None = None
    reason: str | None = None


class CompanyUpdatedView(View):
    """Balance or usage is another than before."""

    company_id: str


BILLING_EVENTS: Final = (
    ServerEvent("session:started", BillView, "user", "The session is ACTIVE and billed from now."),
    ServerEvent(
        "session:tick", BillView, "user", "The running bill, with the chat's `lastSeq`.", ephemeral=True
    ),
    ServerEvent(
        "session:low_balance", LowBalanceView, "user", "The money lasts for less than the threshold."
    ),
    ServerEvent("session:recharged", BillView, "user", "The money lasts longer than before."),
    ServerEvent(
        "session:paused",
        PausedView,
        "user",
        "Somebody who had joined is lost: nothing is billed since then, and nothing can be sent.",
    ),
    ServerEvent(
        "session:resumed", BillView, "user", "They are back: the session is ACTIVE and billed from now."
    ),
    ServerEvent("session:ended", BillView, "user", "The final bill."),
    ServerEvent(
        "billing:low_balance",
        CompanyLowBalanceView,
        "company",
        "The company's balance has fallen below a threshold of its own.",
    ),
    ServerEvent(
        "billing:owed",
        CompanyOwedView,
        "company",
        "The company's wallet could not pay for a usage: it is owed, and collected by the next recharge.",
    ),
    ServerEvent("billing:recharged", CompanyRechargedView, "company", "The company's wallet was recharged."),
    ServerEvent(
        "billing:recharge_failed",
        CompanyRechargeFailedView,
        "company",
        "A recharge failed; nothing was credited.",
    ),
    ServerEvent(
        "billing:auto_recharge_stopped",
        CompanyRechargeFailedView,
        "company",
        "Auto-recharge was stopped after declined payments; somebody has to switch it on again.",
    ),
    ServerEvent(
        "billing:updated",
        CompanyUpdatedView,
        "company",
        "Balance or usage is another than before: look again. At most once a second, and the last change is always told.",
    ),
)
