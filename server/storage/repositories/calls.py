"""`CallStore` of the calls: one document a session, and a row for each signal until the call is over."""

from contextlib import suppress
from dataclasses import asdict
from typing import Any, Final

from chat.calls.model import Call, CallState, Device, EndedBy, Signal
from server.storage.collection import Collection, Collections, CollectionSpec, Doc
from server.storage.errors import DuplicateId

CALLS: Final = CollectionSpec(name="calls", integer=("revision", "due_at_ms"), indexes=(("due_at_ms",),))
SIGNALS: Final = CollectionSpec(
    name="call_signals",
    text=("call_id", "person_id"),
    integer=("at_ms", "n"),
    indexes=(("call_id", "person_id", "n"), ("at_ms",)),
)
#: A page of signals. Two devices make no more than `MAX_SIGNALS` each.
_PAGE: Final = 600
#: A device says some thirty things in the worst half minute of an honest call.
_REPLAYED: Final = 128


class CollectionCalls:
    """A change is one conditional write on the session's document: it holds only if nobody has written since."""

    def __init__(self, calls: Collection, signals: Collection) -> None:
        self._calls = calls
        self._signals = signals

    @classmethod
    async def open(cls, collections: Collections) -> "CollectionCalls":
        return cls(await collections.open(CALLS), await collections.open(SIGNALS))

    async def get(self, session_id: str) -> Call | None:
        doc = await self._calls.get(session_id)
        return None if doc is None else _call(doc)

    async def add(self, call: Call) -> bool:
        with suppress(DuplicateId):
            await self._calls.insert({"_id": call.session_id, **_facts(call)})
            return True
        return False

    async def exchange(self, old: Call, new: Call) -> bool:
        where = {"revision": old.revision}
        return await self._calls.update(old.session_id, where=where, set_=_facts(new)) is not None

    async def due(self, now_ms: int, *, limit: int) -> list[Call]:
        docs = await self._calls.find(
            {"due_at_ms": {"lte": now_ms}}, sort=[("due_at_ms", "asc")], limit=limit
        )
        return [_call(doc) for doc in docs]

    async def tell(self, signal: Signal) -> Signal | None:
        id_ = f"{signal.call_id}:{signal.person_id}:{signal.party_id}:{signal.n}"
        try:
            await self._signals.insert({"_id": id_, **_signal_facts(signal)})
        except DuplicateId:
            doc = await self._signals.get(id_)
            # Forgotten since: the call is over, and what comes of this one is no matter.
            return signal if doc is None else _signal(doc)
        return None

    async def told_by(self, call_id: str, person_id: str, *, since_ms: int) -> list[Signal]:
        docs = await self._signals.find(
            {"call_id": call_id, "person_id": person_id, "at_ms": {"gte": since_ms}},
            sort=[("n", "desc")],
            limit=_REPLAYED,
        )
        return [_signal(doc) for doc in reversed(docs)]

    async def forget(self, call_id: str) -> None:
        for doc in await self._signals.find({"call_id": call_id}, limit=_PAGE):
            await self._signals.delete(doc["_id"])

    async def forget_before(self, at_ms: int, *, limit: int) -> int:
        docs = await self._signals.find({"at_ms": {"lt": at_ms}}, sort=[("at_ms", "asc")], limit=limit)
        for doc in docs:
            await self._signals.delete(doc["_id"])
        return len(docs)


def _facts(call: Call) -> Doc:
    facts = asdict(call)
    del facts["session_id"]
    return {**facts, "state": call.state.value, "reason": None if call.reason is None else call.reason.value}


def _call(doc: Doc) -> Call:
    facts: dict[str, Any] = {key: value for key, value in doc.items() if key != "_id"}
    facts["state"] = CallState(doc["state"])
    facts["reason"] = None if doc["reason"] is None else EndedBy(doc["reason"])
    facts["caller"] = Device(**doc["caller"])
    facts["callee"] = None if doc["callee"] is None else Device(**doc["callee"])
    return Call(session_id=doc["_id"], **facts)


def _signal_facts(signal: Signal) -> Doc:
    facts = asdict(signal)
    candidates = signal.candidates
    return {**facts, "candidates": None if candidates is None else [dict(one) for one in candidates]}


def _signal(doc: Doc) -> Signal:
    return Signal(**{key: value for key, value in doc.items() if key != "_id"})
