"""Every event of the chat's socket: its name, what it carries, what is answered. One table drives dispatch,
validation and documentation.
"""

import re
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Final, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

from chat.errors import (
    ChatError,
    Draining,
    IdempotencyMismatch,
    Invalid,
    MessageNotFound,
    NotFound,
    NotJoined,
    RateLimited,
    SessionNotActive,
    Unavailable,
)
from chat.model import EVERYTHING

#: Characters, not bytes: 8,000 emoji are 32 KB, or 96 KB when a client escapes them in its JSON.
MAX_BODY: Final = 8_000
MAX_CLIENT_MSG_ID: Final = 128
MAX_PENDING_IDS: Final = 50

_PRINTABLE_ASCII: Final = re.compile(r"[\x20-\x7e]+")


def _printable_ascii(text: str) -> str:
    if not _PRINTABLE_ASCII.fullmatch(text):
        raise PydanticCustomError("printable_ascii", "only printable ASCII characters are allowed")
    return text


def _says_something(text: str) -> str:
    if "\x00" in text:
        raise PydanticCustomError("null_character", "null characters are not allowed")
    if not text.strip():
        raise PydanticCustomError("blank", "there must be more in it than white space")
    return text


SessionId = Annotated[str, StringConstraints(min_length=1, max_length=128), AfterValidator(_printable_ascii)]
ClientMsgId = Annotated[
    str,
    StringConstraints(min_length=1, max_length=MAX_CLIENT_MSG_ID),
    AfterValidator(_printable_ascii),
]
#: Kept as it came: nothing is trimmed.
Body = Annotated[str, StringConstraints(min_length=1, max_length=MAX_BODY), AfterValidator(_says_something)]
Seq = Annotated[int, Field(ge=0, le=EVERYTHING)]


class Payload(BaseModel):
    """What a client sends. Types are strict ("5" and true are no integers), unknown fields are ignored."""

    model_config = ConfigDict(
        strict=True, extra="ignore", frozen=True, alias_generator=to_camel, populate_by_name=True
    )

    session_id: SessionId


class JoinSession(Payload):
    """`afterSeq` is the last message that the client has; `pendingIds` are its own messages that were never acknowledged."""

    after_seq: Seq = 0
    pending_ids: Annotated[list[ClientMsgId], Field(max_length=MAX_PENDING_IDS)] = []


class SendMessage(Payload):
    """`clientMsgId` is the client's own name for the message; with it, sending again is safe."""

    body: Body
    client_msg_id: ClientMsgId | None = None


class MessageDelivered(Payload):
    """Either the message, or everything up to a `seq`."""

    message_id: Annotated[str, StringConstraints(min_length=1, max_length=256)] | None = None
    upto_seq: Seq | None = Field(default=None, validate_default=True)

    @field_validator("upto_seq")
    @classmethod
    def one_of_both(cls, upto_seq: int | None, info: ValidationInfo) -> int | None:
        if "message_id" in info.data and (upto_seq is None) is (info.data["message_id"] is None):
            raise PydanticCustomError("one_of_both", "exactly one of messageId and uptoSeq is needed")
        return upto_seq


class MarkSeen(Payload):
    """Without `uptoSeq`: everything there is."""

    upto_seq: Seq | None = None


class Typing(Payload):
    is_typing: bool


class LeaveSession(Payload):
    pass


class View(BaseModel):
    """What the server sends; these models document and test the wire, they do not build it."""

    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, alias_generator=to_camel, populate_by_name=True
    )


Instant = Annotated[str, StringConstraints(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")]
Money = Annotated[str, StringConstraints(pattern=r"^-?\d+\.\d{2,}$")]


class MessageView(View):
    """A stored message. `seq` counts from 1 without a gap in its session. With `erasedAt`, retention took the body: it is empty."""

    id: str
    session_id: str
    seq: int
    sender_id: str
    client_msg_id: str
    body: str
    status: Literal["SENT", "DELIVERED", "SEEN"]
    created_at: Instant
    delivered_at: Instant | None
    seen_at: Instant | None
    erased_at: Instant | None


class MarksView(View):
    delivered_seq: int
    seen_seq: int


class StoredView(View):
    id: str
    seq: int
    created_at: Instant


class Ack(View):
    ok: Literal[True]


class BillView(View):
    """The bill at one instant, as billing tells it. `walletBalance` is null for the lawyer, `remainingSeconds` is null for the
    lawyer above 120. A `lastSeq` above the last message that you have: join again with `afterSeq`.
    """

    session_id: str
    elapsed_seconds: int
    total_amount: Money
    wallet_balance: Money | None
    currency: str
    rate_per_minute: Money
    remaining_seconds: int | None
    paid_until: Instant | None
    status: str
    reason: str | None
    last_seq: int


class LowBalanceView(BillView):
    """The bill when the money lasts for less than `thresholdSeconds`."""

    threshold_seconds: int


class JoinAck(Ack):
    """What there is to catch up with. `stored` says which of the `pendingIds` are safe, by `clientMsgId`."""

    session_id: str
    last_seq: int
    messages: list[MessageView]
    has_more: bool
    watermarks: dict[str, MarksView]
    presence: dict[str, Literal["ONLINE", "OFFLINE"]]
    billing: BillView
    stored: dict[str, StoredView]


class SendAck(Ack):
    """The message is durable. `duplicate`: it was already, under the same `clientMsgId`."""

    id: str
    seq: int
    status: Literal["SENT"]
    created_at: Instant
    client_msg_id: str
    duplicate: bool


class DeliveredAck(Ack):
    delivered_seq: int
    seen_seq: int


class SeenAck(Ack):
    delivered_seq: int
    seen_seq: int
    updated: int


class FieldProblem(View):
    field: str
    message: str


class Problem(View):
    code: str
    message: str
    retryable: bool
    fields: list[FieldProblem] | None = None
    error_id: str | None = None


class Failure(View):
    """The acknowledgement of an event that was not carried out."""

    ok: Literal[False]
    error: Problem


class StatusView(View):
    """How far `userId` has received and read."""

    session_id: str
    user_id: str
    delivered_seq: int
    seen_seq: int


class TypingView(View):
    session_id: str
    user_id: str
    is_typing: bool


class PresenceView(View):
    session_id: str
    user_id: str
    state: Literal["ONLINE", "OFFLINE"]


class ByeView(View):
    """Said before the server closes a connection. Codes below 3500: connect again."""

    code: int
    reason: str
    reconnect: bool


class CompanyView(View):
    """News of a company's wallet. `eventId` is the same when it comes again, and the `webhook-id` of the company's webhook. Facts may
    be added.
    """

    # What is told of a usage is its product's business.
    model_config = ConfigDict(extra="allow")

    company_id: str
    event_id: str
    at: Instant
    currency: str | None = None
    wallet_balance: Money | None = None


class CompanyLowBalanceView(CompanyView):
    threshold: Money | None = None
    usage_id: str | None = None


class CompanyOwedView(CompanyView):
    owed: Money | None = None
    usage_id: str | None = None


class CompanyRechargedView(CompanyView):
    amount: Money | None = None
    invoice_id: str | None = None
    automatic: bool | None = None


class CompanyRechargeFailedView(CompanyView):
    amount: Money | None = None
    invoice_id: str | None = None
    reason: str | None = None


class CompanyUpdatedView(View):
    """Balance or usage is another than before."""

    company_id: str


class Turn(Enum):
    """How an event stands to its neighbours on the same connection."""

    #: Starts in order, is acknowledged when its commit lands: awaiting each would cap a connection at a
    #: message a commit.
    PIPELINED = "pipelined"
    #: Waits until what came before is done, and holds up what comes after.
    ALONE = "alone"


@dataclass(frozen=True, slots=True)
class ClientEvent:
    """An event that clients send. `method` names the handler on `ChatNamespace`. `errors` are those beyond `EVERY_EVENT`."""

    name: str
    payload: type[Payload]
    ack: type[Ack]
    method: str
    turn: Turn
    doc: str
    errors: tuple[type[ChatError], ...] = ()


#: What any event may be refused with.
EVERY_EVENT: Final[tuple[type[ChatError], ...]] = (Invalid, NotFound, RateLimited, Draining, Unavailable)


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """An event that the server sends, to a session's room or to a person. An ephemeral one may be dropped
    where a client lags.
    """

    name: str
    payload: type[View]
    target: Literal["session", "user", "socket", "company"]
    doc: str
    ephemeral: bool = False


CLIENT_EVENTS: Final = {
    event.name: event
    for event in (
        ClientEvent(
            "join_session",
            JoinSession,
            JoinAck,
            "join_session",
            Turn.ALONE,
            "Enter the session's room and catch up: messages after `afterSeq`, watermarks, billing, "
            "which `pendingIds` are stored. `hasMore`: ask again after the last seq of the answer.",
        ),
        ClientEvent(
            "send_message",
            SendMessage,
            SendAck,
            "send_message",
            Turn.PIPELINED,
            "Store a message. Acknowledged once it is durable; the same `clientMsgId` again gets the "
            "same answer and stores nothing.",
            (SessionNotActive, IdempotencyMismatch),
        ),
        ClientEvent(
            "message_delivered",
            MessageDelivered,
            DeliveredAck,
            "message_delivered",
            Turn.PIPELINED,
            "Everything up to this message has arrived on this person's device.",
            (MessageNotFound,),
        ),
        ClientEvent(
            "mark_seen",
            MarkSeen,
            SeenAck,
            "mark_seen",
            Turn.PIPELINED,
            "Everything up to `uptoSeq` (default: all) was read. Implies delivered.",
        ),
        ClientEvent(
            "typing",
            Typing,
            Ack,
            "typing",
            Turn.PIPELINED,
            "Tell the room; never stored, may be dropped.",
            (NotJoined,),
        ),
        ClientEvent(
            "leave_session",
            LeaveSession,
            Ack,
            "leave_session",
            Turn.ALONE,
            "Leave the room with this socket. Does not end the session.",
        ),
    )
}

SERVER_EVENTS: Final = {
    event.name: event
    for event in (
        ServerEvent("new_message", MessageView, "session", "A message was stored."),
        ServerEvent(
            "message_status",
            StatusView,
            "session",
            "A participant's watermarks moved; one event for a bulk change.",
        ),
        ServerEvent("typing", TypingView, "session", "The other side types, or stopped to.", ephemeral=True),
        ServerEvent(
            "presence",
            PresenceView,
            "session",
            "A participant opened the session on a first device, or has been gone from the last one for a moment.",
        ),
        ServerEvent("session:started", BillView, "user", "The session is ACTIVE and billed from now."),
        ServerEvent(
            "session:tick", BillView, "user", "The running bill, with the chat's `lastSeq`.", ephemeral=True
        ),
        ServerEvent(
            "session:low_balance", LowBalanceView, "user", "The money lasts for less than the threshold."
        ),
        ServerEvent("session:recharged", BillView, "user", "The money lasts longer than before."),
        ServerEvent("session:ended", BillView, "user", "The final bill."),
        ServerEvent(
            "billing:low_balance",
            CompanyLowBalanceView,
            "company",
            "The company's balance has fallen below a threshold of its own.",
        ),
        ServerEvent(
            "billing:owed",
            CompanyOwedView,
            "company",
            "The company's wallet could not pay for a usage: it is owed, and collected by the next recharge.",
        ),
        ServerEvent(
            "billing:recharged", CompanyRechargedView, "company", "The company's wallet was recharged."
        ),
        ServerEvent(
            "billing:recharge_failed",
            CompanyRechargeFailedView,
            "company",
            "A recharge failed; nothing was credited.",
        ),
        ServerEvent(
            "billing:auto_recharge_stopped",
            CompanyRechargeFailedView,
            "company",
            "Auto-recharge was stopped after declined payments; somebody has to switch it on again.",
        ),
        ServerEvent(
            "billing:updated",
            CompanyUpdatedView,
            "company",
            "Balance or usage is another than before: look again. At most once a second, and the last change is always told.",
        ),
        ServerEvent("server:bye", ByeView, "socket", "The server is about to close this connection."),
    )
}

P = TypeVar("P", bound=Payload)

EPHEMERAL: Final = frozenset(name for name, event in SERVER_EVENTS.items() if event.ephemeral)


def parse(schema: type[P], payload: object) -> P:
    """The payload as its model. Raises `Invalid` naming each field that is not as it should be."""
    if not isinstance(payload, dict):
        raise Invalid(fields=[("payload", "the payload must be an object")])
    try:
        return schema.model_validate(payload)
    except ValidationError as exc:
        raise Invalid(fields=_fields_of(exc)) from exc


def _fields_of(error: ValidationError) -> list[tuple[str, str]]:
    # Never the input itself: it may be long, secret, or not even encodable.
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    # A missing field is reported under its Python name, a wrong one under the name it came with: clients see
    # one.
    return [
        (
            ".".join(to_camel(part) if isinstance(part, str) else str(part) for part in problem["loc"]),
            problem["msg"],
        )
        for problem in problems
    ]
