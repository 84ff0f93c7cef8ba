"""The states as diagrams, drawn from the tables that the code stands on."""

from collections.abc import Iterable, Mapping
from typing import Final

from billing_engine.consultations.meter import FOLLOWS
from billing_engine.consultations.model import END_STATUS, FINISHED, MOVES, PUBLIC, Status
from chat.model import MOVES as DELIVERY_MOVES
from chat.model import Delivery, ReceiptKind

#: from, to, label
Arrow = tuple[str, str, str]
#: Mermaid's name for the beginning and the end.
_EDGE: Final = "[*]"

_RECEIPTS: Final[Mapping[ReceiptKind, str]] = {
    ReceiptKind.DELIVERED: "it arrived on a device of the other side",
    ReceiptKind.SEEN: "the other side has read it",
}


def states_markdown() -> str:
    """The whole text."""
    reasons = "".join(f"| `{reason.value}` | `{status.value}` |\n" for reason, status in END_STATUS.items())
    internal = ", ".join(f"`{status.value}`" for status in Status if status not in PUBLIC)
    return f"""\
# States

What is not in a diagram does not happen: each is drawn from the table that the code looks a move up in, and a late or repeated
event changes nothing.

## A consultation

{_diagram(session_arrows())}
{internal} are internal, no client ever sees them. A session is PAUSED while nobody serves it: while no server runs,
or while somebody who had joined is lost (`USER_LOST`, `LAWYER_LOST`). That time is on the timeline and not on the bill.

How it ended says why:

| end reason | status |
| --- | --- |
{reasons}
## A consultation's timeline

`GET /consult/{{id}}` has it. Served is the time after each `start` and `resume` until the next `pause` or `end`; it is summed,
rounded down to whole seconds once, and the bill is `floor(ratePerMinute * seconds / 60)`.

{_diagram(timeline_arrows())}
## A message

{_diagram(delivery_arrows())}
A receipt says "everything up to here", so one event can move many messages. The sender's own receipts do not count.
"""


def session_arrows() -> list[Arrow]:
    """The moves of a session, its beginning and its ends."""
    moves = [(state.value, to.value, step.value) for (state, step), to in MOVES.items() if state is not to]
    ends = [(status.value, _EDGE, "") for status in Status if status in FINISHED]
    return [(_EDGE, Status.STARTING.value, "POST /consult/start"), *moves, *ends]


def timeline_arrows() -> list[Arrow]:
    """Which row of a timeline may follow which."""
    rows = [(last or _EDGE, event, "") for last, following in FOLLOWS.items() for event in following]
    return [*rows, ("end", _EDGE, "")]


def delivery_arrows() -> list[Arrow]:
    """The moves of a message."""
    moves = [(state.value, to.value, _RECEIPTS[kind]) for (state, kind), to in DELIVERY_MOVES.items()]
    return [(_EDGE, Delivery.SENT.value, "stored"), *moves]


def _diagram(arrows: Iterable[Arrow]) -> str:
    drawn = list(arrows)
    names = sorted({name for start, to, _ in drawn for name in (start, to)})
    # "end" is a word of Mermaid's own, so the rows of a timeline get ids beside their names.
    named = [f'    state "{name}" as {_id(name)}' for name in names if _id(name) != name]
    lines = [f"    {_id(start)} --> {_id(to)}{f': {label}' if label else ''}" for start, to, label in drawn]
    return "\n".join(["```mermaid", "stateDiagram-v2", *named, *lines, "```", ""])


def _id(name: str) -> str:
    return f"row_{name}" if name.islower() else name
