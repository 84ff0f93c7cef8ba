"""The types of the wire. Made by `python -m clients.generate` from the server's AsyncAPI document. Do not edit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NotRequired, TypeAlias, TypedDict, overload


class Accept(TypedDict):
    sessionId: str
    callId: str
    partyId: str


class Ack(TypedDict):
    ok: Literal[True]


class AuthAck(TypedDict):
    """Until when the token is good. The connection outlives that too; it ends with its log-in."""

    ok: Literal[True]
    expiresAt: str


class AuthRefresh(TypedDict):
    """A fresh access token of the same person."""

    token: str


class AwayView(TypedDict):
    """The lawyer was taken offline: too many requests were not answered in a row."""

    lawyerId: str
    reason: Literal["MISSED_RINGS"]


class BillView(TypedDict):
    """The bill at one instant, as billing tells it. `walletBalance` is null for the lawyer,
    `remainingSeconds` is null for the lawyer above 120. While `status` is PAUSED, `reason` says who is
    lost. A `lastSeq` above the last message that you have: join again with `afterSeq`. It is null in an
    event while the store does not answer; the next tick has it.
    """

    sessionId: str
    elapsedSeconds: int
    totalAmount: str
    walletBalance: str | None
    currency: str
    ratePerMinute: str
    remainingSeconds: int | None
    paidUntil: str | None
    status: Literal["REQUESTED", "ACTIVE", "PAUSED", "ENDED", "FORCE_ENDED", "DECLINED", "MISSED", "CANCELLED"]
    reason: Literal["USER_ENDED", "LAWYER_ENDED", "ADMIN_ENDED", "WALLET_EMPTY", "MAX_AMOUNT", "PEER_GONE", "ABANDONED", "ACCOUNT_DISABLED", "LAWYER_DECLINED", "NO_ANSWER", "LAWYER_NOT_JOINED", "USER_CANCELLED", "USER_NOT_JOINED", "INSUFFICIENT_BALANCE", "USER_LOST", "LAWYER_LOST"] | None
    lastSeq: int | None


class ByeView(TypedDict):
    """Said before the server closes a connection. Codes below 3500: connect again, after `retryAfterMs`."""

    code: int
    reason: str
    reconnect: bool
    retryAfterMs: NotRequired[int | None]


class CallAck(TypedDict):
    ok: Literal[True]
    call: CallView


class CallEndedView(TypedDict):
    """The call is over, for this device: close its peer connection. May come twice."""

    sessionId: str
    callId: str
    reason: Literal["REJECTED", "CANCELLED", "MISSED", "HUNG_UP", "SESSION_ENDED", "ANSWERED_ELSEWHERE"]
    at: str


class CallPayload(TypedDict):
    sessionId: str
    callId: str


class CallView(TypedDict):
    """A call. The caller makes the offers, the callee is the polite one. `lifetimeMs`: for how long it
    still rings, whatever the client's clock says; null when it does not. `glare`: both had called, and
    are connected without anybody's answer.
    """

    sessionId: str
    callId: str
    state: Literal["RINGING", "CONNECTED", "ENDED"]
    media: Literal["audio", "video"]
    callerId: str
    callerPartyId: str
    calleeId: str
    calleePartyId: str | None
    glare: bool
    invitedAt: str
    expiresAt: str
    answeredAt: str | None
    lifetimeMs: int | None


class Candidate(TypedDict):
    """An `RTCIceCandidateInit`. `candidate: ""` ends the list."""

    candidate: str
    sdpMid: NotRequired[str | None]
    sdpMLineIndex: NotRequired[int | None]
    usernameFragment: NotRequired[str | None]


class CandidateView(TypedDict):
    candidate: str
    sdpMid: str | None
    sdpMLineIndex: int | None
    usernameFragment: str | None


class CompanyLowBalanceView(TypedDict):
    companyId: str
    eventId: str
    at: str
    currency: NotRequired[str | None]
    walletBalance: NotRequired[str | None]
    threshold: NotRequired[str | None]
    usageId: NotRequired[str | None]


class CompanyOwedView(TypedDict):
    companyId: str
    eventId: str
    at: str
    currency: NotRequired[str | None]
    walletBalance: NotRequired[str | None]
    owed: NotRequired[str | None]
    usageId: NotRequired[str | None]


class CompanyRechargeFailedView(TypedDict):
    companyId: str
    eventId: str
    at: str
    currency: NotRequired[str | None]
    walletBalance: NotRequired[str | None]
    amount: NotRequired[str | None]
    invoiceId: NotRequired[str | None]
    reason: NotRequired[str | None]


class CompanyRechargedView(TypedDict):
    companyId: str
    eventId: str
    at: str
    currency: NotRequired[str | None]
    walletBalance: NotRequired[str | None]
    amount: NotRequired[str | None]
    invoiceId: NotRequired[str | None]
    automatic: NotRequired[bool | None]


class CompanyUpdatedView(TypedDict):
    """Balance or usage is another than before."""

    companyId: str


class DeliveredAck(TypedDict):
    ok: Literal[True]
    deliveredSeq: int
    seenSeq: int


class Failure(TypedDict):
    """The acknowledgement of an event that was not carried out."""

    ok: Literal[False]
    error: Problem


class FieldProblem(TypedDict):
    field: str
    message: str


class IceAck(TypedDict):
    """What an `RTCPeerConnection` is made with. Ask again before each restart and before `expiresAt`."""

    ok: Literal[True]
    iceServers: list[IceServerView]
    iceTransportPolicy: Literal["all", "relay"]
    ttlSeconds: int
    expiresAt: str


class IceServerView(TypedDict):
    """An `RTCIceServer`."""

    urls: list[str]
    username: str | None
    credential: str | None


class Invite(TypedDict):
    """`partyId` is the client's own name for this device (a tab, an installed app), kept when it connects
    again.
    """

    sessionId: str
    partyId: str
    media: Literal["audio", "video"]


class JoinAck(TypedDict):
    """What there is to catch up with. `stored` says which of the `pendingIds` are safe, by `clientMsgId`;
    `call` is the one that rings or runs.
    """

    ok: Literal[True]
    sessionId: str
    lastSeq: int
    messages: list[MessageView]
    hasMore: bool
    watermarks: dict[str, MarksView]
    presence: dict[str, Literal["ONLINE", "OFFLINE"]]
    billing: BillView
    stored: dict[str, StoredView]
    call: CallView | None


class JoinSession(TypedDict):
    """`afterSeq` is the last message that the client has; `pendingIds` are its own messages that were
    never acknowledged; `partyId` is the device's name in a call, for one that has connected again.
    """

    sessionId: str
    afterSeq: NotRequired[int]
    pendingIds: NotRequired[list[str]]
    partyId: NotRequired[str | None]


class LawyerPayload(TypedDict):
    """What concerns one lawyer."""

    lawyerId: str


class LeaveSession(TypedDict):
    sessionId: str


class LowBalanceView(TypedDict):
    """The bill when the money lasts for less than `thresholdSeconds`."""

    sessionId: str
    elapsedSeconds: int
    totalAmount: str
    walletBalance: str | None
    currency: str
    ratePerMinute: str
    remainingSeconds: int | None
    paidUntil: str | None
    status: Literal["REQUESTED", "ACTIVE", "PAUSED", "ENDED", "FORCE_ENDED", "DECLINED", "MISSED", "CANCELLED"]
    reason: Literal["USER_ENDED", "LAWYER_ENDED", "ADMIN_ENDED", "WALLET_EMPTY", "MAX_AMOUNT", "PEER_GONE", "ABANDONED", "ACCOUNT_DISABLED", "LAWYER_DECLINED", "NO_ANSWER", "LAWYER_NOT_JOINED", "USER_CANCELLED", "USER_NOT_JOINED", "INSUFFICIENT_BALANCE", "USER_LOST", "LAWYER_LOST"] | None
    lastSeq: int | None
    thresholdSeconds: int


class MarkSeen(TypedDict):
    """Without `uptoSeq`: everything there is."""

    sessionId: str
    uptoSeq: NotRequired[int | None]


class MarksView(TypedDict):
    deliveredSeq: int
    seenSeq: int


class MessageDelivered(TypedDict):
    """Either the message, or everything up to a `seq`."""

    sessionId: str
    messageId: NotRequired[str | None]
    uptoSeq: NotRequired[int | None]


class MessageView(TypedDict):
    """A stored message. `seq` counts from 1 without a gap in its session. With `erasedAt`, retention took
    the body: it is empty.
    """

    id: str
    sessionId: str
    seq: int
    senderId: str
    clientMsgId: str
    body: str
    status: Literal["SENT", "DELIVERED", "SEEN"]
    createdAt: str
    deliveredAt: str | None
    seenAt: str | None
    erasedAt: str | None


class PausedView(TypedDict):
    """The bill of a session that is served no more for now. `reason` says who is lost: `USER_LOST` or
    `LAWYER_LOST`; `endsAt` is the instant at which it ends if they do not come back. The bill stopped
    at their last sign of life.
    """

    sessionId: str
    elapsedSeconds: int
    totalAmount: str
    walletBalance: str | None
    currency: str
    ratePerMinute: str
    remainingSeconds: int | None
    paidUntil: str | None
    status: Literal["REQUESTED", "ACTIVE", "PAUSED", "ENDED", "FORCE_ENDED", "DECLINED", "MISSED", "CANCELLED"]
    reason: Literal["USER_ENDED", "LAWYER_ENDED", "ADMIN_ENDED", "WALLET_EMPTY", "MAX_AMOUNT", "PEER_GONE", "ABANDONED", "ACCOUNT_DISABLED", "LAWYER_DECLINED", "NO_ANSWER", "LAWYER_NOT_JOINED", "USER_CANCELLED", "USER_NOT_JOINED", "INSUFFICIENT_BALANCE", "USER_LOST", "LAWYER_LOST"] | None
    lastSeq: int | None
    endsAt: str


class PlaceAck(TypedDict):
    """Where one waits: 1 is next. `estimatedSeconds` is null where nothing is known. With a `turnUntil` it
    is one's turn.
    """

    ok: Literal[True]
    lawyerId: str
    position: int
    estimatedSeconds: int | None
    turnUntil: str | None


class PositionView(TypedDict):
    """One's place in a waiting list. With a `reason` the waiting is over: position is 0, and nothing is
    kept.
    """

    lawyerId: str
    position: int
    estimatedSeconds: int | None
    reason: str | None


class PresenceView(TypedDict):
    sessionId: str
    userId: str
    state: Literal["ONLINE", "OFFLINE"]


class Problem(TypedDict):
    code: str
    message: str
    retryable: bool
    retryAfterMs: NotRequired[int | None]
    fields: NotRequired[list[FieldProblem] | None]
    errorId: NotRequired[str | None]


class RequestAck(TypedDict):
    """The session. `status` is REQUESTED while the lawyer is asked (until `deadline`), ACTIVE with a
    lawyer who accepts by himself.
    """

    ok: Literal[True]
    sessionId: str
    status: str
    requestState: Literal["RINGING", "ACCEPTED", "DECLINED", "MISSED", "CANCELLED", "ANSWERED_ELSEWHERE"] | None
    deadline: str | None


class RequestConsultation(TypedDict):
    """`maxAmount` caps what the consultation may cost."""

    lawyerId: str
    maxAmount: NotRequired[str | None]


class RequestStateView(TypedDict):
    """Where the request is. Until `deadline` the lawyer may answer (RINGING), or both must have joined the
    session (ACCEPTED).
    """

    sessionId: str
    userId: str
    lawyerId: str
    state: Literal["RINGING", "ACCEPTED", "DECLINED", "MISSED", "CANCELLED", "ANSWERED_ELSEWHERE"]
    reason: str | None
    deadline: str | None


class RingView(TypedDict):
    """Somebody asks for a consultation. It may come twice; `sessionId` tells."""

    sessionId: str
    userId: str
    lawyerId: str
    ratePerMinute: str
    currency: str
    deadline: str


class SeenAck(TypedDict):
    ok: Literal[True]
    deliveredSeq: int
    seenSeq: int
    updated: int


class SendAck(TypedDict):
    """The message is durable. `duplicate`: it was already, under the same `clientMsgId`."""

    ok: Literal[True]
    id: str
    seq: int
    status: Literal["SENT"]
    createdAt: str
    clientMsgId: str
    duplicate: bool


class SendMessage(TypedDict):
    """`clientMsgId` is the client's own name for the message; with it, sending again is safe."""

    sessionId: str
    body: str
    clientMsgId: NotRequired[str | None]


class SendSignal(TypedDict):
    """`n` counts this device's signals in this call from 1. `sdp` is for offer, answer and restart (an
    offer with new ICE credentials), `candidates` for candidates: many in one signal.
    """

    sessionId: str
    callId: str
    n: int
    kind: Literal["offer", "answer", "candidates", "restart"]
    sdp: NotRequired[str | None]
    candidates: NotRequired[list[Candidate] | None]


class SessionPayload(TypedDict):
    """What concerns one session."""

    sessionId: str


class SignalAck(TypedDict):
    """`duplicate`: it was told before, under the same `n`, and is passed on again."""

    ok: Literal[True]
    n: int
    duplicate: bool


class SignalView(TypedDict):
    """What the other side's device says. Drop an `n` that you have had; `sdp` or `candidates`, as `kind`
    has it.
    """

    sessionId: str
    callId: str
    partyId: str
    n: int
    kind: Literal["offer", "answer", "candidates", "restart"]
    sdp: str | None
    candidates: list[CandidateView] | None
    at: str


class StatusView(TypedDict):
    """How far `userId` has received and read."""

    sessionId: str
    userId: str
    deliveredSeq: int
    seenSeq: int


class StoredView(TypedDict):
    id: str
    seq: int
    createdAt: str


class TurnView(TypedDict):
    """The lawyer is kept free until `deadline`: start the consultation now."""

    lawyerId: str
    deadline: str


class Typing(TypedDict):
    sessionId: str
    isTyping: bool


class TypingView(TypedDict):
    sessionId: str
    userId: str
    isTyping: bool


#: What an event may be refused with. A later server may have more.
ErrorCode: TypeAlias = Literal["ANSWERED_ELSEWHERE", "CALL_NOT_ANSWERED", "CALL_NOT_FOUND", "CALL_OVER", "CALL_RUNNING", "DRAINING", "FORBIDDEN", "IDEMPOTENCY_MISMATCH", "INSUFFICIENT_BALANCE", "INTERNAL", "LAWYER_BUSY", "LAWYER_FREE", "LAWYER_NOT_VERIFIED", "LAWYER_OFFLINE", "NOT_BOUND", "NOT_FOUND", "NOT_JOINED", "OTHER_PERSON", "OWN_CALL", "RATE_LIMITED", "REQUEST_CLOSED", "SESSION_NOT_ACTIVE", "SESSION_PAUSED", "START_ABORTED", "STORAGE_BUSY", "STORAGE_UNAVAILABLE", "TOO_MANY_SIGNALS", "UNAUTHENTICATED", "USER_BUSY", "VALIDATION_FAILED", "WAITING_LIST_CLOSED", "WAITING_LIST_FULL"]


class Calls:
    """The events that a client sends, and how each is acknowledged."""

    @overload
    async def call(self, event: Literal["join_session"], payload: JoinSession, *, timeout_s: float = 5.0) -> JoinAck:
        """Enter the session's room and catch up: messages after `afterSeq`, watermarks, billing, which
        `pendingIds` are stored. `hasMore`: ask again after the last seq of the answer.
        """
    @overload
    async def call(self, event: Literal["send_message"], payload: SendMessage, *, timeout_s: float = 5.0) -> SendAck:
        """Store a message. Acknowledged once it is durable; the same `clientMsgId` again gets the same
        answer and stores nothing.
        """
    @overload
    async def call(self, event: Literal["message_delivered"], payload: MessageDelivered, *, timeout_s: float = 5.0) -> DeliveredAck:
        """Everything up to this message has arrived on this person's device."""
    @overload
    async def call(self, event: Literal["mark_seen"], payload: MarkSeen, *, timeout_s: float = 5.0) -> SeenAck:
        """Everything up to `uptoSeq` (default: all) was read. Implies delivered."""
    @overload
    async def call(self, event: Literal["typing"], payload: Typing, *, timeout_s: float = 5.0) -> Ack:
        """Tell the room; never stored, may be dropped."""
    @overload
    async def call(self, event: Literal["leave_session"], payload: LeaveSession, *, timeout_s: float = 5.0) -> Ack:
        """Leave the room with this socket. Does not end the session."""
    @overload
    async def call(self, event: Literal["rtc:invite"], payload: Invite, *, timeout_s: float = 5.0) -> CallAck:
        """Ring every device of the other side, for 45 seconds. When the other side has just done the same,
        both are connected.
        """
    @overload
    async def call(self, event: Literal["rtc:accept"], payload: Accept, *, timeout_s: float = 5.0) -> CallAck:
        """Answer with this device. The first one is selected, and the others hear `rtc:ended` with
        ANSWERED_ELSEWHERE.
        """
    @overload
    async def call(self, event: Literal["rtc:reject"], payload: CallPayload, *, timeout_s: float = 5.0) -> Ack:
        """Refuse a ringing call, for all of this person's devices."""
    @overload
    async def call(self, event: Literal["rtc:hangup"], payload: CallPayload, *, timeout_s: float = 5.0) -> Ack:
        """End the call, or take it back while it rings. From any device of the two; repeated, the same
        answer.
        """
    @overload
    async def call(self, event: Literal["rtc:signal"], payload: SendSignal, *, timeout_s: float = 5.0) -> SignalAck:
        """Tell the other side's device, and no other. Works while the session is paused, so that a lost
        connection can be found again.
        """
    @overload
    async def call(self, event: Literal["rtc:ice_config"], payload: SessionPayload, *, timeout_s: float = 5.0) -> IceAck:
        """STUN and TURN servers, with credentials that last as long as the money and a little more."""
    @overload
    async def call(self, event: Literal["consult:request"], payload: RequestConsultation, *, timeout_s: float = 5.0) -> RequestAck:
        """As `POST /consult/start`: ask the lawyer for a consultation, or begin it where the lawyer
        accepts by himself.
        """
    @overload
    async def call(self, event: Literal["consult:accept"], payload: SessionPayload, *, timeout_s: float = 5.0) -> RequestAck:
        """The lawyer says yes; the first device wins. Billing begins once both have joined the session."""
    @overload
    async def call(self, event: Literal["consult:decline"], payload: SessionPayload, *, timeout_s: float = 5.0) -> RequestAck:
        """The lawyer says no."""
    @overload
    async def call(self, event: Literal["consult:cancel"], payload: SessionPayload, *, timeout_s: float = 5.0) -> RequestAck:
        """The user takes the request back."""
    @overload
    async def call(self, event: Literal["consult:queue"], payload: LawyerPayload, *, timeout_s: float = 5.0) -> PlaceAck:
        """Wait for a busy lawyer who has a waiting list. Again: one's place."""
    @overload
    async def call(self, event: Literal["consult:unqueue"], payload: LawyerPayload, *, timeout_s: float = 5.0) -> Ack:
        """Wait no longer."""
    @overload
    async def call(self, event: Literal["auth:refresh"], payload: AuthRefresh, *, timeout_s: float = 5.0) -> AuthAck:
        """Put a fresh access token behind this connection: from now on it ends when *that* token's log-in
        does.
        """

    async def call(self, event: str, payload: Any, *, timeout_s: float = 5.0) -> Any:
        """Send, and wait for the acknowledgement."""
        raise NotImplementedError


class Listens:
    """The events that the server sends."""

    @overload
    def on(self, event: Literal["new_message"], handler: Callable[[MessageView], object]) -> Callable[[], None]:
        """A message was stored."""
    @overload
    def on(self, event: Literal["message_status"], handler: Callable[[StatusView], object]) -> Callable[[], None]:
        """A participant's watermarks moved; one event for a bulk change."""
    @overload
    def on(self, event: Literal["typing"], handler: Callable[[TypingView], object]) -> Callable[[], None]:
        """The other side types, or stopped to."""
    @overload
    def on(self, event: Literal["presence"], handler: Callable[[PresenceView], object]) -> Callable[[], None]:
        """A participant opened the session on a first device, or has been gone from the last one for a
        moment.
        """
    @overload
    def on(self, event: Literal["rtc:ring"], handler: Callable[[CallView], object]) -> Callable[[], None]:
        """The other side calls."""
    @overload
    def on(self, event: Literal["rtc:state"], handler: Callable[[CallView], object]) -> Callable[[], None]:
        """The call was answered, or the other side's device is back with a new connection. Comes every 30
        seconds, too.
        """
    @overload
    def on(self, event: Literal["rtc:signal"], handler: Callable[[SignalView], object]) -> Callable[[], None]:
        """The other side's device says something."""
    @overload
    def on(self, event: Literal["rtc:ended"], handler: Callable[[CallEndedView], object]) -> Callable[[], None]:
        """The call is over."""
    @overload
    def on(self, event: Literal["session:started"], handler: Callable[[BillView], object]) -> Callable[[], None]:
        """The session is ACTIVE and billed from now."""
    @overload
    def on(self, event: Literal["session:tick"], handler: Callable[[BillView], object]) -> Callable[[], None]:
        """The running bill, with the chat's `lastSeq`."""
    @overload
    def on(self, event: Literal["session:low_balance"], handler: Callable[[LowBalanceView], object]) -> Callable[[], None]:
        """The money lasts for less than the threshold."""
    @overload
    def on(self, event: Literal["session:recharged"], handler: Callable[[BillView], object]) -> Callable[[], None]:
        """The money lasts longer than before."""
    @overload
    def on(self, event: Literal["session:paused"], handler: Callable[[PausedView], object]) -> Callable[[], None]:
        """Somebody who had joined is lost: nothing is billed since then, and nothing can be sent."""
    @overload
    def on(self, event: Literal["session:resumed"], handler: Callable[[BillView], object]) -> Callable[[], None]:
        """They are back: the session is ACTIVE and billed from now."""
    @overload
    def on(self, event: Literal["session:ended"], handler: Callable[[BillView], object]) -> Callable[[], None]:
        """The final bill."""
    @overload
    def on(self, event: Literal["billing:low_balance"], handler: Callable[[CompanyLowBalanceView], object]) -> Callable[[], None]:
        """The company's balance has fallen below a threshold of its own."""
    @overload
    def on(self, event: Literal["billing:owed"], handler: Callable[[CompanyOwedView], object]) -> Callable[[], None]:
        """The company's wallet could not pay for a usage: it is owed, and collected by the next recharge."""
    @overload
    def on(self, event: Literal["billing:recharged"], handler: Callable[[CompanyRechargedView], object]) -> Callable[[], None]:
        """The company's wallet was recharged."""
    @overload
    def on(self, event: Literal["billing:recharge_failed"], handler: Callable[[CompanyRechargeFailedView], object]) -> Callable[[], None]:
        """A recharge failed; nothing was credited."""
    @overload
    def on(self, event: Literal["billing:auto_recharge_stopped"], handler: Callable[[CompanyRechargeFailedView], object]) -> Callable[[], None]:
        """Auto-recharge was stopped after declined payments; somebody has to switch it on again."""
    @overload
    def on(self, event: Literal["billing:updated"], handler: Callable[[CompanyUpdatedView], object]) -> Callable[[], None]:
        """Balance or usage is another than before: look again. At most once a second, and the last change
        is always told.
        """
    @overload
    def on(self, event: Literal["consult:ring"], handler: Callable[[RingView], object]) -> Callable[[], None]:
        """To the lawyer: somebody asks for a consultation."""
    @overload
    def on(self, event: Literal["consult:state"], handler: Callable[[RequestStateView], object]) -> Callable[[], None]:
        """A request is in another state. The lawyer's devices that did not accept hear ANSWERED_ELSEWHERE."""
    @overload
    def on(self, event: Literal["consult:away"], handler: Callable[[AwayView], object]) -> Callable[[], None]:
        """To the lawyer: you were taken offline."""
    @overload
    def on(self, event: Literal["consult:position"], handler: Callable[[PositionView], object]) -> Callable[[], None]:
        """To who waits: the place in the list is another, or gone."""
    @overload
    def on(self, event: Literal["consult:turn"], handler: Callable[[TurnView], object]) -> Callable[[], None]:
        """To who waits: it is your turn."""
    @overload
    def on(self, event: Literal["server:bye"], handler: Callable[[ByeView], object]) -> Callable[[], None]:
        """The server is about to close this connection."""

    def on(self, event: str, handler: Callable[[Any], object]) -> Callable[[], None]:
        """Hear every such event; what is returned ends it."""
        raise NotImplementedError
