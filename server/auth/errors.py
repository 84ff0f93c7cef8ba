"""What can go wrong with identities."""

from billing_engine.errors import Conflict, Invalid, NotFound, Refused, Unavailable
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


class WrongPassword(Refused):
    """The caller is signed in, and the password that should prove it once more is wrong."""

    code = "WRONG_PASSWORD"
    detail = "The current password is wrong."


class ResetRefused(Invalid):
    """The token is unknown, expired, was used, or a newer one was asked for: one answer for all."""

    code = "INVALID_RESET_TOKEN"
    detail = "The link is not valid any more. Ask for a new one."


class AccountNotFound(NotFound):
    """No such account, or it was deleted."""

    detail = "There is no such account."


class OwnAccount(Conflict):
    """An admin may not shut the account that they act with: somebody must be left to open it again."""

    code = "OWN_ACCOUNT"
    detail = "You cannot disable your own account."


class LastAdmin(Conflict):
    """Nobody would be left to run the server."""

    code = "LAST_ADMIN"
    detail = "This is the last admin's account. Make another admin first."


class InSession(Conflict):
    """A consultation is running; it is ended first."""

    code = "IN_SESSION"
    detail = "A consultation is running. End it first."


class MoneyLeft(Conflict):
    """The account has money, and its owner did not say that they give it up."""

    code = "BALANCE_NOT_EMPTY"
    detail = "There is money in the account. Use it or have it paid out first, or send `forfeit: true` to give it up."


class DebtLeft(Conflict):
    """The company has used more than it has paid."""

    code = "DEBT_NOT_PAID"
    detail = "The company has used more than it has paid. Recharge its wallet first."


class CompanyUnsettled(Conflict):
    """A usage of the company is not charged yet, or a recharge is under way: nobody knows yet what is left."""

    code = "COMPANY_UNSETTLED"
    detail = "A usage or a recharge of the company is not settled yet. Try again in a minute."


class CreditsLeft(MoneyLeft):
    """The account has application credits, and its owner did not say that they give them up."""

    detail = "There are application credits in the account. Use them first, or send `forfeit: true` to give them up."
