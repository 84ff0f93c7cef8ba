"""What can go wrong with lawyers and reviews, by the kinds that `problems.py` knows."""

from billing_engine.consultations.errors import LawyerNotFound, SessionNotEnded, SessionNotFound
from billing_engine.errors import Conflict

# A lawyer or a session that is not there, or not over, is the same to whoever asks for it, here or elsewhere.
__all__ = ["AlreadyReviewed", "LawyerNotFound", "PapersChanged", "SessionNotEnded", "SessionNotFound"]


class AlreadyReviewed(Conflict):
    """A consultation is reviewed once."""

    code = "ALREADY_REVIEWED"
    detail = "This session has been reviewed already."


class PapersChanged(Conflict):
    """The lawyer sent another bar council number after the admin looked."""

    code = "LAWYER_PAPERS_CHANGED"
    detail = "The lawyer's bar council number is no longer the one that was looked at."
