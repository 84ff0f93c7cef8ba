"""What can go wrong with a call."""

from chat.errors import Conflict, IdempotencyMismatch, NotFound


class CallNotFound(NotFound):
    """The session is the caller's own, the call is not its current one."""

    code = "CALL_NOT_FOUND"
    detail = "There is no such call in this session."


class CallRunning(Conflict):
    """A session has one call at a time, and this device is not in it."""

    code = "CALL_RUNNING"
    detail = "Another device is in a call in this session, or rings."


class CallNotAnswered(Conflict):
    """There is nobody yet whom this could be told."""

    code = "CALL_NOT_ANSWERED"
    detail = "Nobody has answered the call yet."


class CallOver(Conflict):
    """The call has ended; hanging up again is no error, everything else is."""

    code = "CALL_OVER"
    detail = "The call is over."


class AnsweredElsewhere(Conflict):
    """Another device of the same person was first."""

    code = "ANSWERED_ELSEWHERE"
    detail = "Another device has answered the call."


class OwnCall(Conflict):
    """Whoever rings can hang up, but neither accept nor reject."""

    code = "OWN_CALL"
    detail = "This is your own call: only the other side can accept or reject it."


class NotBound(Conflict):
    """The socket is not that of a device in the call: a third one, or one that has connected again since."""

    code = "NOT_BOUND"
    detail = "This socket is not in the call: join the session again with your partyId."


class SignalReused(IdempotencyMismatch):
    """The device used this `n` before, for something else. The first signal stands."""

    detail = "This n was used before for another signal."


class TooManySignals(Conflict):
    """A device has told more in one call than any call needs."""

    code = "TOO_MANY_SIGNALS"
    detail = "There were too many signals in this call: hang up and call again."
