"""What billing announces goes on to whoever is next, and an end ends the call as well."""

from types import SimpleNamespace
from typing import Any

from server.call_endings import CallEndings


class Notes:
    """Stands for the announcer and for the calls."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def announce(self, event: Any) -> None:
        self.heard.append(event.name)

    def session_ended(self, session_id: str) -> None:
        self.heard.append(f"call of {session_id}")


def test_only_an_end_ends_a_call_and_everything_goes_on() -> None:
    notes = Notes()
    endings = CallEndings(notes, notes)  # type: ignore[arg-type]
    view = SimpleNamespace(session=SimpleNamespace(id="s1"))

    for name in ("session:started", "session:tick", "session:low_balance", "session:ended"):
        endings.announce(SimpleNamespace(name=name, view=view))  # type: ignore[arg-type]

    assert notes.heard == [
        "session:started",
        "session:tick",
        "session:low_balance",
        "session:ended",
        "call of s1",
    ]
