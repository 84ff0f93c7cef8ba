"""Why something about credits is not done."""

from billing_engine.errors import Conflict, Invalid, NotEnough, NotFound, Refused


class InsufficientCredits(NotEnough):
    """Fewer credits than this takes; nothing was changed."""

    code = "INSUFFICIENT_CREDITS"
    detail = "There are not enough credits for this."


class ProjectNotFound(NotFound):
    """No such project, or not for this caller."""

    detail = "There is no such project."


class ProjectClosed(Conflict):
    """The project takes no applications any more; no credit was taken."""

    code = "PROJECT_CLOSED"
    detail = "This project takes no applications any more. No credit was taken."


class AlreadyApplied(Conflict):
    """The freelancer has an application for this project; this request took no credit of its own."""

    code = "ALREADY_APPLIED"
    detail = "You have applied for this project already. An application costs its credit once."


class ApplicationNotFound(NotFound):
    """No such application, or not this caller's."""

    detail = "There is no such application."


class RefundNotEligible(Conflict):
    """The application's credit is not given back, and the application stays as it is; `not_eligible` says why."""

    code = "NOT_ELIGIBLE"
    detail = "The credit of this application cannot be refunded."


class PackageNotFound(NotFound):
    """No such package."""

    code = "PACKAGE_NOT_FOUND"
    detail = "There is no such package of credits."


class PurchaseNotAllowed(Refused):
    """The account is not in good standing."""

    code = "PURCHASE_NOT_ALLOWED"
    detail = "This account may not buy credits."


class TooManyUnpaidOrders(Conflict):
    """There are `limit` orders that nobody has paid; one is paid first, or runs out by itself."""

    code = "TOO_MANY_UNPAID_ORDERS"
    detail = "There are too many unpaid orders. Pay one of them, or wait until they run out."


class PriceInvalid(Invalid):
    """No price that a credit may have; names `price_per_credit`."""


class AdjustmentInvalid(Invalid):
    """No number of credits that an admin may add or take; names `amount`."""


class NoCredits(NotFound):
    """The account exists; its role has no credits."""

    detail = "This user has no credits: only freelancers have."
