"""A client for Tarazu: conversations that survive lost connections, with every event typed."""

from tarazu_client.chat import Chat
from tarazu_client.client import Client
from tarazu_client.errors import AckTimeout, ClientError, ConnectionLost, Refused, SignedOut
from tarazu_client.marks import Mark, State
from tarazu_client.outbox import Draft
from tarazu_client.sent import Sent
from tarazu_client.storage import MemoryStorage, SqliteStorage, Storage

__all__ = [
    "AckTimeout",
    "Chat",
    "Client",
    "ClientError",
    "ConnectionLost",
    "Draft",
    "Mark",
    "MemoryStorage",
    "Refused",
    "Sent",
    "SignedOut",
    "SqliteStorage",
    "State",
    "Storage",
]
