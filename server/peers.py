"""Other processes of this deployment, reached over the bus: hints that make things happen at once instead of a little later."""

from typing import Final

from billing_engine.consultations.engine import Engine
from billing_engine.consultations.served import ServedElsewhere
from server.realtime.bus import Bus

RECHARGED: Final = "recharged"
ENDED: Final = "ended"
#: A session is served no more for now, or again.
PAUSED: Final = "paused"
#: A process gives its lease up: look now, not at the next beat.
LEAVING: Final = "leaving"
#: Log-ins have ended: ask the store which.
SIGNED_OUT: Final = "signed_out"


class BusPeers:
    """Billing's `Peers` port."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    def recharged(self, user_id: str) -> None:
        self._bus.tell(RECHARGED, {"user": user_id})

    def ended(self, session_id: str) -> None:
        self._bus.tell(ENDED, {"session": session_id})

    def paused_or_resumed(self, session_id: str) -> None:
        self._bus.tell(PAUSED, {"session": session_id})


def hear_peers(bus: Bus, engine: Engine, elsewhere: ServedElsewhere | None) -> None:
    """Pass on to billing what other processes tell."""

    def ended(session_id: str) -> None:
        engine.heard_ended(session_id)
        if elsewhere is not None:
            elsewhere.forget(session_id)

    bus.on(RECHARGED, lambda facts: _ignore(engine.heard_recharged(facts["user"])))
    bus.on(ENDED, lambda facts: ended(facts["session"]))
    if elsewhere is not None:
        bus.on(PAUSED, lambda facts: elsewhere.forget(facts["session"]))


def _ignore(_answer: object) -> None:
    """A hint is answered to nobody."""
