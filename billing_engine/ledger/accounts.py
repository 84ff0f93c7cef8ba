"""Names of accounts. The family before the colon says what kind it is."""

from typing import Final

#: Commission on consultations. A system account: its balance is the sum of its rows.
REVENUE_CONSULTATIONS: Final = "revenue:consultations"
#: What payers took back at their banks, or were sent back past us, and their wallets no longer had. A system account; its balance is
#: negative: the platform's loss.
REVENUE_CHARGEBACKS: Final = "revenue:chargebacks"
#: What application credits were sold for. A system account.
REVENUE_CREDITS: Final = "revenue:credits"
#: What companies' usage was sold for. A system account.
REVENUE_USAGE: Final = "revenue:usage"
#: Application credits that are with people: a system account, negative by as many.
ISSUED_CREDITS: Final = "issued:credits"
#: What subscriptions were sold for. A system account.
REVENUE_SUBSCRIPTIONS: Final = "revenue:subscriptions"
#: AI credits that are with people: a system account, negative by as many.
ISSUED_AI_CREDITS: Final = "issued:ai_credits"
#: What lawyers were paid out. A system account.
PAYOUTS: Final = "gateway:payouts"


def wallet_of(user_id: str) -> str:
    """The user's prepaid wallet: guarded, never below zero."""
    return f"wallet:{user_id}"


def earnings_of(lawyer_id: str) -> str:
    """What a lawyer has earned and not been paid out. A reversal may take it below zero."""
    return f"earnings:{lawyer_id}"


def application_credits_of(user_id: str) -> str:
    """A freelancer's application credits: guarded, never below zero."""
    return f"credits:{user_id}"


def credit_sales_of(user_id: str) -> str:
    """Where the money of a freelancer's purchases of credits is booked. It passes through: the balance is always nothing."""
    return f"sales:{user_id}"


def gateway_of(name: str) -> str:
    """Money that came in through a payment gateway (a system account; its balance is negative)."""
    return f"gateway:{name}"


def company_wallet_of(company_id: str) -> str:
    """A company's prepaid wallet: guarded, never below zero."""
    return f"company:{company_id}"


def receivable_of(company_id: str) -> str:
    """What a company has used and not paid yet. A system account; its balance is negative: the debt."""
    return f"receivable:{company_id}"


def ai_credits_of(user_id: str) -> str:
    """A subscriber's AI credits: guarded, never below zero."""
    return f"ai:{user_id}"


def plan_sales_of(user_id: str) -> str:
    """Where the money of a subscription is booked. It passes through: the balance is always nothing."""
    return f"plan:{user_id}"
