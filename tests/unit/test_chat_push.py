"""An event goes to one session or one person, never to everybody, and never around `chat/push.py`."""

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from chat.events import EPHEMERAL
from chat.push import EmptyTarget, Push

ROOT = Path(__file__).parents[2]
#: Socket.IO *clients* of ours may emit: what they send goes to the server.
CLIENTS = {"server/demo.py", "server/demo"}


class Wire:
    """A transport that remembers."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, str, Mapping[str, Any], bool, str | None]] = []

    def send(
        self,
        room: str,
        event: str,
        payload: Mapping[str, Any],
        *,
        ephemeral: bool = False,
        skip: str | None = None,
        here_only: bool = False,
    ) -> None:
        self.sent.append((room, event, payload, ephemeral, skip))

    def tell_processes(self, room: str, facts: Mapping[str, Any]) -> None:
        self.sent.append((room, "", facts, False, None))

    async def hears(self, room: str) -> None:
        raise NotImplementedError

    @property
    def reaches_beyond(self) -> bool:
        return False

    def occupied(self, room: str) -> bool:
        return room == "u:here"

    def close(self, sid: str, *, final: bool) -> None:
        raise NotImplementedError


@pytest.mark.parametrize("target", ["", " ", "\n", None, 0, b"ses", ["ses_1"], []])
def test_an_empty_target_is_refused(target: Any) -> None:
    """The library takes an empty target for everybody: a stranger would read the chat."""
    wire = Wire()
    push = Push(wire)

    for send in (push.to_session, push.to_user, push.to_socket):
        with pytest.raises(EmptyTarget):
            send(target, "new_message", {"body": "secret"})
    with pytest.raises(EmptyTarget):
        push.to_processes(target, {"person": "x"})
    assert wire.sent == []


def test_rooms_of_sessions_people_and_sockets_never_meet() -> None:
    wire = Wire()
    push = Push(wire)

    push.to_session("x", "new_message", {}, skip="sid")
    push.to_user("x", "session:started", {})
    push.to_socket("x", "server:bye", {})

    assert [(room, skip) for room, _, _, _, skip in wire.sent] == [("s:x", "sid"), ("u:x", None), ("x", None)]


def test_only_what_is_worthless_later_may_be_dropped() -> None:
    wire = Wire()
    for event in (
        "new_message",
        "message_status",
        "session:ended",
        "session:low_balance",
        "session:tick",
        "typing",
    ):
        Push(wire).to_user("x", event, {})

    assert {event for _, event, _, ephemeral, _ in wire.sent if ephemeral} == {"session:tick", "typing"}
    assert {"session:tick", "typing"} == EPHEMERAL


def test_posting_never_raises_into_billing() -> None:
    """A tick that fails because a listener is broken would be a bill that is wrong."""

    class Broken(Wire):
        def send(self, *_args: Any, **_options: Any) -> None:
            raise RuntimeError

    with capture_logs() as logs:
        Push(Broken()).post_to_user("x", "session:tick", {})
        Push(Wire()).post_to_user("", "session:tick", {})

    assert [entry["event"] for entry in logs] == ["push_failed", "push_failed"]


def test_watching_asks_for_the_person_not_the_session() -> None:
    assert Push(Wire()).watching("here")
    assert not Push(Wire()).watching("s:here")


def test_nothing_in_the_tree_emits_but_through_push() -> None:
    """`emit(..., to=None)` reaches every client. So there is no emit at all."""
    found = []
    for package in ("chat", "server", "billing_engine"):
        for path in sorted((ROOT / package).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            if any(name == client or name.startswith(f"{client}/") for client in CLIENTS):
                continue
            for node in ast.walk(ast.parse(path.read_text())):
                if (
                    isinstance(node, ast.Call)
                    and isinstance(node.func, ast.Attribute)
                    and node.func.attr == "emit"
                ):
                    found.append(f"{name}:{node.lineno}")
    assert found == []
