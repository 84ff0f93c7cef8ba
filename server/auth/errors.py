"""What can go wrong with identities."""

from billing_engine.errors import Conflict, Refused, Unavailable
from server.errors import Unauthenticated


class EmailTaken(Conflict):
    """An account has this address already."""

    code = "EMAIL_TAKEN"
    detail = "There is an account with this email address already."


class WrongCredentials(Unauthenticated):
    """No such address, or not its password: one answer for both."""

    code = "INVALID_CREDENTIALS"
    detail = "The email address or the password is wrong."


class RefreshRefused(Unauthenticated):
    """The refresh token is unknown, expired, ended, or was used before: one answer for all."""

    code = "INVALID_REFRESH_TOKEN"
    detail = "The refresh token is not valid any more. Log in again."


class AccountDisabled(Refused):
    """The password was right; an admin has closed the account."""

    code = "ACCOUNT_DISABLED"
    detail = "This account is disabled."


class PasswordsBusy(Unavailable):
    """More passwords wait to be checked than can be in a reasonable time; nothing was done."""

    code = "BUSY"
    detail = "Too many log-ins at once. Try again in a moment."
