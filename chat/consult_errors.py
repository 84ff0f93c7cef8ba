"""What events about requests and waiting lists may be refused with: the codes of billing, in the words of the socket."""

from chat.errors import Conflict, Refused


class InsufficientBalance(Refused):
    """The wallet does not hold what a consultation with this lawyer needs."""

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
    """The start took too long and was given back."""

    code = "START_ABORTED"
    detail = "The consultation could not be started and nothing was charged. Start again."


class RequestClosed(Conflict):
    """It was answered, cancelled or missed before."""

    code = "REQUEST_CLOSED"
    detail = "The request is not open any more."


class AnsweredElsewhere(Conflict):
    """Another device of the lawyer was faster."""

    code = "ANSWERED_ELSEWHERE"
    detail = "Another device has accepted this request."


class WaitingListClosed(Conflict):
    code = "WAITING_LIST_CLOSED"
    detail = "The lawyer has no waiting list now."


class WaitingListFull(Conflict):
    code = "WAITING_LIST_FULL"
    detail = "Too many people are waiting for this lawyer already."


class LawyerFree(Conflict):
    code = "LAWYER_FREE"
    detail = "The lawyer is free. Start a consultation instead of waiting."


STARTING = (InsufficientBalance, LawyerNotVerified, LawyerOffline, UserBusy, LawyerBusy, StartAborted)
ANSWERING = (RequestClosed, AnsweredElsewhere)
WAITING = (LawyerNotVerified, LawyerOffline, UserBusy, WaitingListClosed, WaitingListFull, LawyerFree)
#: By code, for whoever translates.
BY_CODE = {error.code: error for error in (*STARTING, *ANSWERING, *WAITING)}
