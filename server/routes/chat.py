"""A conversation's history (SPEC 6), for its two participants, also after the end."""

from typing import Annotated, Literal

from pydantic import Field

from billing_engine.consultations.errors import SessionNotFound
from chat.errors import NotFound
from chat.model import Delivery
from chat.model import Page as Messages
from server.auth.model import Role
from server.routing import Call, Route, Stream, only
from server.transcripts.wire import TranscriptOut
from server.wire import Instant, PageQuery, WireModel, decode_cursor, encode_cursor, one_of


class MessageOut(WireModel):
    """A stored message. `status` and its instants come from the other participant's receipts.

    With `erasedAt`, the body is empty: its session ended longer ago than bodies are kept.
    """

    id: str
    session_id: str
    seq: int
    sender_id: str
    client_msg_id: str
    body: str
    status: Annotated[str, one_of(Delivery)]
    created_at: Instant
    delivered_at: Instant | None
    seen_at: Instant | None
    erased_at: Instant | None


class WatermarksOut(WireModel):
    """How far a participant has received and read."""

    delivered_seq: int
    seen_seq: int


class HistoryQuery(PageQuery):
    """Without `afterSeq` the newest page, and cursors lead back in time; with it, forward from there."""

    after_seq: Annotated[int, Field(ge=0, le=2**53)] | None = None


class HistoryOut(WireModel):
    """Messages by rising `seq`; `nextCursor` is null where there are no more in that direction."""

    items: list[MessageOut]
    next_cursor: str | None
    last_seq: int
    watermarks: dict[str, WatermarksOut]


async def history(call: Call[None, HistoryQuery]) -> HistoryOut:
    query = call.query
    after_seq, before_seq = query.after_seq, None
    if query.cursor is not None:
        direction, seq = decode_cursor(query.cursor, str, int)
        after_seq, before_seq = (seq, None) if direction == "after" else (None, seq)
    page: Messages = await call.services.chat.history(
        call.caller.user_id,
        call.path["session_id"],
        after_seq=after_seq,
        before_seq=before_seq,
        limit=query.limit,
    )
    next_cursor = None
    if page.has_more and page.messages:
        forward = after_seq is not None
        edge = page.messages[-1] if forward else page.messages[0]
        next_cursor = encode_cursor("after" if forward else "before", edge.seq)
    conversation = page.conversation
    return HistoryOut(
        items=[_message(page, k) for k in range(len(page.messages))],
        next_cursor=next_cursor,
        last_seq=conversation.last_seq,
        watermarks={
            person: WatermarksOut(
                delivered_seq=conversation.marks_of(person).delivered_seq,
                seen_seq=conversation.marks_of(person).seen_seq,
            )
            for person in conversation.participants
        },
    )


def _message(page: Messages, k: int) -> MessageOut:
    message = page.messages[k]
    state = page.state_of(message)
    return MessageOut(
        id=message.id,
        session_id=message.session_id,
        seq=message.seq,
        sender_id=message.sender_id,
        client_msg_id=message.client_msg_id,
        body=message.body,
        status=state.status.value,
        created_at=message.created_at_ms,
        delivered_at=state.delivered_at_ms,
        seen_at=state.seen_at_ms,
        erased_at=message.erased_at_ms,
    )


class TranscriptQuery(WireModel):
    """`text` is to be read, `json` is for programs."""

    format: Literal["json", "text"] = "json"


async def transcript(call: Call[None, TranscriptQuery]) -> Stream:
    transcripts, session_id = call.services.transcripts, call.path["session_id"]
    if call.query.format == "text":
        pieces = await transcripts.text(session_id, caller_id=call.caller.user_id)
        return Stream(pieces, "text/plain; charset=utf-8", _saved_as(f"consultation-{session_id}.txt"))
    pieces = await transcripts.json(session_id, caller_id=call.caller.user_id)
    return Stream(pieces, "application/json; charset=utf-8", _saved_as(f"consultation-{session_id}.json"))


def _saved_as(name: str) -> dict[str, str]:
    # The id in it is one of ours: the consultation was found under it.
    return {"Content-Disposition": f'attachment; filename="{name}"'}


ROUTES: tuple[Route, ...] = (
    Route(
        method="GET",
        path="/chat/{session_id}",
        handler=history,
        summary="The messages of a consultation",
        access=only(Role.USER, Role.LAWYER),
        query=HistoryQuery,
        response=HistoryOut,
        errors=(NotFound,),
        tags=("chat",),
    ),
    Route(
        method="GET",
        path="/chat/{session_id}/transcript",
        handler=transcript,
        summary="A consultation as a document: what was said and what it cost",
        access=only(Role.USER, Role.LAWYER),
        query=TranscriptQuery,
        response=TranscriptOut,
        errors=(NotFound, SessionNotFound),
        also=("text/plain",),
        tags=("chat",),
    ),
)
