"""Why a consultation cannot start, and why a write of it was refused."""

from billing_engine.errors import Conflict, Invalid, NotEnough, NotFound


class SessionNotFound(NotFound):
    """No such session, or the caller is no party to it: one answer for both."""

    detail = "There is no such session."


class SessionNotEnded(Conflict):
    """What is asked for comes after the end."""

    code = "SESSION_NOT_ENDED"
    detail = "The session has not ended yet."


class LawyerNotFound(NotFound):
    """No such lawyer."""

    detail = "There is no such lawyer."


class InsufficientBalance(NotEnough):
    """The wallet does not hold the minimum for this lawyer."""

    code = "INSUFFICIENT_BALANCE"
    detail = "The wallet balance is too low to start with this lawyer."


class LawyerNotVerified(Conflict):
    code = "LAWYER_NOT_VERIFIED"
    detail = "The lawyer is not verified."


class LawyerOffline(Conflict):
    code = "LAWYER_OFFLINE"
    detail = "The lawyer is offline."


class UserBusy(Conflict):
    code = "USER_BUSY"
    detail = "You are already in a consultation."


class LawyerBusy(Conflict):
    code = "LAWYER_BUSY"
    detail = "The lawyer is in another consultation."


class StartAborted(Conflict):
    """The start took too long and was given back by recovery; a new start may be made."""

    code = "START_ABORTED"
    detail = "The consultation could not be started and nothing was charged. Start again."


class RequestClosed(Conflict):
    """The request was answered, cancelled or missed before: what is asked for comes too late."""

    code = "REQUEST_CLOSED"
    detail = "The request is not open any more."


class AnsweredElsewhere(Conflict):
    """Another device of the lawyer has accepted the request."""

    code = "ANSWERED_ELSEWHERE"
    detail = "Another device has accepted this request."


class WaitingListClosed(Conflict):
    """The lawyer takes no waiting list, or is not there to have one."""

    code = "WAITING_LIST_CLOSED"
    detail = "The lawyer has no waiting list now."


class WaitingListFull(Conflict):
    """As many are waiting as may wait."""

    code = "WAITING_LIST_FULL"
    detail = "Too many people are waiting for this lawyer already."


class LawyerFree(Conflict):
    """Nobody need wait: a consultation can be started now."""

    code = "LAWYER_FREE"
    detail = "The lawyer is free. Start a consultation instead of waiting."


class NotWaiting(NotFound):
    """The caller does not wait for this lawyer."""

    detail = "You are not waiting for this lawyer."


class MaxAmountTooSmall(Invalid):
    """`maxAmount` does not pay the minimum time."""


class StillFunded(Conflict):
    """The close for an empty wallet met money that arrived in the same instant: the session goes on."""

    code = "STILL_FUNDED"


class Unattended(Conflict):
    """The session was without service for longer than `ABANDON_SECONDS`: it is not extended but closed."""

    code = "UNATTENDED"
