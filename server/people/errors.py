"""What can go wrong with lawyers and reviews, by the kinds that `problems.py` knows."""

from billing_engine.errors import Conflict, NotFound


class LawyerNotFound(NotFound):
    """No such lawyer, or not one that this caller may see: one answer for both."""

    code = "LAWYER_NOT_FOUND"
    detail = "There is no such lawyer."


class SessionNotFound(NotFound):
    """No such consultation, or the caller is not its user: one answer for both."""

    code = "SESSION_NOT_FOUND"
    detail = "There is no such session."


class SessionNotEnded(Conflict):
    """A consultation is reviewed after its end."""

    code = "SESSION_NOT_ENDED"
    detail = "The session has not ended yet."


class AlreadyReviewed(Conflict):
    """A consultation is reviewed once."""

    code = "ALREADY_REVIEWED"
    detail = "This session has been reviewed already."


class PapersChanged(Conflict):
    """The lawyer sent another name or number after the admin looked."""

    code = "LAWYER_PAPERS_CHANGED"
    detail = "The lawyer's bar council number is no longer the one that was looked at."
