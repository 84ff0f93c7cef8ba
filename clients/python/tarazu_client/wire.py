"""The types of the wire. Made by `python -m clients.generate` from the server's AsyncAPI document. Do not edit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NotRequired, TypeAlias, TypedDict, overload


class Ack(TypedDict):
    ok: Literal[True]


class BillView(TypedDict):
    """The bill at one instant, as billing tells it. `walletBalance` is null for the lawyer,
    `remainingSeconds` is null for the lawyer above 120. A `lastSeq` above the last message that you
    have: join again with `afterSeq`. It is null in an event while the store does not answer; the next
    tick has it.
    """

    sessionId: str
    elapsedSeconds: int
    totalAmount: str
    walletBalance: str | None
    currency: str
    ratePerMinute: str
    remainingSeconds: int | None
    paidUntil: str | None
    status: Literal["ACTIVE", "PAUSED", "ENDED", "FORCE_ENDED"]
    reason: Literal["USER_ENDED", "LAWYER_ENDED", "ADMIN_ENDED", "WALLET_EMPTY", "MAX_AMOUNT", "PEER_GONE", "ABANDONED", "ACCOUNT_DISABLED"] | None
    lastSeq: int | None


class ByeView(TypedDict):
    """Said before the server closes a connection. Codes below 3500: connect again."""

    code: int
    reason: str
    reconnect: bool


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


class JoinAck(TypedDict):
    """What there is to catch up with. `stored` says which of the `pendingIds` are safe, by `clientMsgId`."""

    ok: Literal[True]
    sessionId: str
    lastSeq: int
    messages: list[MessageView]
    hasMore: bool
    watermarks: dict[str, MarksView]
    presence: dict[str, Literal["ONLINE", "OFFLINE"]]
    billing: BillView
    stored: dict[str, StoredView]


class JoinSession(TypedDict):
    """`afterSeq` is the last message that the client has; `pendingIds` are its own messages that were
    never acknowledged.
    """

    sessionId: str
    afterSeq: NotRequired[int]
    pendingIds: NotRequired[list[str]]


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
    status: Literal["ACTIVE", "PAUSED", "ENDED", "FORCE_ENDED"]
    reason: Literal["USER_ENDED", "LAWYER_ENDED", "ADMIN_ENDED", "WALLET_EMPTY", "MAX_AMOUNT", "PEER_GONE", "ABANDONED", "ACCOUNT_DISABLED"] | None
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


class PresenceView(TypedDict):
    sessionId: str
    userId: str
    state: Literal["ONLINE", "OFFLINE"]


class Problem(TypedDict):
    code: str
    message: str
    retryable: bool
    fields: NotRequired[list[FieldProblem] | None]
    errorId: NotRequired[str | None]


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


class Typing(TypedDict):
    sessionId: str
    isTyping: bool


class TypingView(TypedDict):
    sessionId: str
    userId: str
    isTyping: bool


#: What an event may be refused with. A later server may have more.
ErrorCode: TypeAlias = Literal["DRAINING", "IDEMPOTENCY_MISMATCH", "INTERNAL", "NOT_FOUND", "NOT_JOINED", "RATE_LIMITED", "SESSION_NOT_ACTIVE", "STORAGE_BUSY", "STORAGE_UNAVAILABLE", "VALIDATION_FAILED"]


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
    def on(self, event: Literal["server:bye"], handler: Callable[[ByeView], object]) -> Callable[[], None]:
        """The server is about to close this connection."""

    def on(self, event: str, handler: Callable[[Any], object]) -> Callable[[], None]:
        """Hear every such event; what is returned ends it."""
        raise NotImplementedError
