"""What can go wrong with lawyers and reviews, by the kinds that `problems.py` knows."""

from billing_engine.consultations.errors import LawyerNotFound, SessionNotFound
from billing_engine.errors import Conflict

# A lawyer or a session that is not there is the same to whoever asks for it, here or to start a consultation.
__all__ = ["AlreadyReviewed", "LawyerNotFound", "PapersChanged", "SessionNotEnded", "SessionNotFound"]


class SessionNotEnded(Conflict):
    """A consultation is reviewed after its end."""

    code = "SESSION_NOT_ENDED"
    detail = "The session has not ended yet."


class AlreadyReviewed(Conflict):
    """A consultation is reviewed once."""

    code = "ALREADY_REVIEWED"
    detail = "This session has been reviewed already."


class PapersChanged(Conflict):
    """The lawyer sent another bar council number after the admin looked."""

    code = "LAWYER_PAPERS_CHANGED"
    detail = "The lawyer's bar council number is no longer the one that was looked at."
