"""Calls on a real database and a real socket server, for the worlds of the integration tests."""

from itertools import count
from typing import Any

from chat.calls.ice import IceRules
from chat.calls.service import CallService
from chat.service import ChatService
from server.realtime import Realtime
from server.storage.repositories.calls import CollectionCalls
from server.storage.sqlite.collection import SqliteCollections
from server.storage.sqlite.engine import SqliteDatabase

#: No TURN server is asked by anybody here.
ICE = IceRules(
    stun_urls=("stun:stun.example.com:3478",),
    turn_urls=("turn:turn.example.com:3478",),
    secrets=("a secret of more than thirty-two bytes",),
)
_IDS = count(1)


async def call_service(
    db: SqliteDatabase, realtime: Realtime, *, chat: ChatService, gate: Any, clock: Any
) -> CallService:
    return CallService(
        store=await CollectionCalls.open(SqliteCollections(db)),
        chat=chat,
        gate=gate,
        push=realtime.push,
        devices=realtime.transport,
        clock=clock,
        new_id=lambda: f"call_{next(_IDS)}",
        ice=ICE,
    )
