"""What is said to those whose app is closed while somebody asks for them, or while it is their turn."""

from collections.abc import Mapping
from typing import Any, Final

from server.auth.model import Account
from server.notifications.model import Kind

_SAID: Final[Mapping[Kind, tuple[str, str]]] = {
    Kind.CONSULT_RING: (
        "Somebody asks for a consultation",
        "somebody asks you for a consultation. Open the app and answer before {deadline}.\n",
    ),
    Kind.CONSULT_TURN: (
        "It is your turn",
        "the lawyer you are waiting for is free and is kept free for you until {deadline}. Open the app and start.\n",
    ),
}
KINDS: Final = frozenset(_SAID)


def consult_letter(kind: Kind, account: Account, facts: Mapping[str, Any]) -> tuple[str, str]:
    """Subject and text."""
    subject, said = _SAID[kind]
    return subject, f"Hello {account.name},\n\n{said.format_map(facts)}"
