"""What the letters say: plain text, no marketing, nothing that a reader must click but the one link they asked for."""

from collections.abc import Mapping
from typing import Any, Final

from server.auth.model import Account
from server.wire import rfc3339

_NOT_YOU: Final = "If this was not you, ask for a password reset at once and tell us."


def reset_letter(account: Account, *, token: str, link: str, minutes: int) -> tuple[str, str]:
    """Subject and text, with a link where the app has a page for it, else with the token itself."""
    way = (
        f"Open this link to choose a new one:\n\n{link}"
        if link
        else f"Enter this code in the app:\n\n{token}"
    )
    return (
        "Choose a new password",
        (
            f"Hello {account.name},\n\n"
            f"somebody, most likely you, asked for a new password for this account. {way}\n\n"
            f"It works once, and for {minutes} minutes. If you did not ask, do nothing: your password stays as it is.\n"
        ),
    )


def password_changed_letter(account: Account, *, at_ms: int) -> tuple[str, str]:
    """Subject and text."""
    return (
        "Your password was changed",
        (
            f"Hello {account.name},\n\n"
            f"the password of your account was changed at {rfc3339(at_ms)}. You were logged out on your other devices.\n\n"
            f"{_NOT_YOU}\n"
        ),
    )


def disabled_letter(account: Account, *, reason: str) -> tuple[str, str]:
    """Subject and text."""
    return (
        "Your account was disabled",
        (
            f"Hello {account.name},\n\n"
            f"your account was disabled. The reason: {reason}\n\n"
            "A consultation that was running has ended and was billed to that second. Money in your wallet stays yours.\n"
        ),
    )


def enabled_letter(account: Account) -> tuple[str, str]:
    """Subject and text."""
    return (
        "Your account is open again",
        f"Hello {account.name},\n\nyour account is open again. Log in as before.\n",
    )


def invitation_letter(account: Account, *, company: str, token: str, link: str, days: int) -> tuple[str, str]:
    """Subject and text, to a company's new member, who has no password yet."""
    way = (
        f"Open this link to choose a password:\n\n{link}"
        if link
        else f"Enter this code in the app, with a password of your choice:\n\n{token}"
    )
    return (
        f"You are invited to {company}",
        (
            f"Hello {account.name},\n\n"
            f"you can see what {company} uses and pays here. {way}\n\n"
            f"It works once, and for {days} days; after that, or if you lose it, say that you forgot your password. "
            "Then log in with this address.\n"
        ),
    )


def member_deleted_letter(name: str) -> tuple[str, str]:
    """Subject and text, to whoever was a company's member: they, its managers, or its end closed the account."""
    return (
        "Your account was deleted",
        (
            f"Hello {name},\n\n"
            "you are no longer a member of the company. Your account and your personal data were deleted.\n"
        ),
    )


def deleted_letter(name: str) -> tuple[str, str]:
    """Subject and text."""
    return (
        "Your account was deleted",
        (
            f"Hello {name},\n\n"
            "your account and your personal data were deleted, as you asked. The books keep the amounts of your consultations\n"
            "without your name, as the law wants it.\n"
        ),
    )


def low_balance_letter(account: Account, *, seconds: int) -> tuple[str, str]:
    """Subject and text."""
    return (
        "Your consultation is about to end",
        (
            f"Hello {account.name},\n\n"
            f"your wallet pays for about {seconds} more seconds of the consultation that is running. Recharge it to go on.\n"
        ),
    )


def payment_differences_letter(account: Account, facts: Mapping[str, Any]) -> tuple[str, str]:
    """Subject and text, for an admin: what the daily comparison with a gateway found."""
    return (
        f"Payments of {facts['day']} differ",
        (
            f"Hello {account.name},\n\n"
            f"our books and the list of the gateway {facts['gateway']} differ for {facts['day']}. Differences: {facts['count']}\n\n"
            f"{facts['lines']}\n\n"
            "What to do about each is in the report: GET /admin/payments/report, or tarazu payments-report.\n"
        ),
    )


def payout_letter(account: Account, facts: Mapping[str, Any]) -> tuple[str, str]:
    """Subject and text: paid, with the bank's reference, or failed, with the reason."""
    amount = f"{facts['amount']} {facts['currency']}"
    if "reference" in facts:
        said = f"your payout of {amount} was paid. The bank's reference: {facts['reference']}"
        return "Your payout was paid", f"Hello {account.name},\n\n{said}\n"
    said = f"your payout of {amount} could not be made. The reason: {facts['reason']}"
    kept = "The money is among your earnings again, and you can ask for it anew."
    return "Your payout could not be made", f"Hello {account.name},\n\n{said}\n\n{kept}\n"


def refunded_letter(account: Account, facts: Mapping[str, Any]) -> tuple[str, str]:
    """Subject and text."""
    return (
        "Money for a consultation was given back",
        (
            f"Hello {account.name},\n\n"
            f"{facts['amount']} {facts['currency']} for a consultation are in your wallet again. The reason: {facts['reason']}\n"
        ),
    )


def refund_rejected_letter(account: Account, *, reason: str) -> tuple[str, str]:
    """Subject and text."""
    return (
        "Your refund request was turned down",
        f"Hello {account.name},\n\nyour request for a refund was turned down. The reason: {reason}\n",
    )
