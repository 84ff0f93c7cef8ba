"""Whether a session that another process bills is being served, as the ledger's hold tells.

A client may be connected to any process, and its message may be sent while `now` is before the hold's paid-until. So one read of
the hold is good until then; that the session ended earlier is the message store's to refuse, in the write itself.
"""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from billing_engine.clock import Clock
from billing_engine.consultations.billing import bill_of, hold_id_of
from billing_engine.consultations.model import LIVE
from billing_engine.consultations.ports import Sessions
from billing_engine.errors import Unavailable
from billing_engine.ledger.accounts import wallet_of
from billing_engine.ledger.service import Ledger

#: A "no" is believed for so long: whoever keeps sending into a session that is over must not read the ledger each time.
NO_FOR_MS: Final = 250
#: Sessions remembered; the longest unused are forgotten first.
_REMEMBERED: Final = 20_000


class _Word(NamedTuple):
    """What the ledger said: served until, or (`until_ms` 0) not, and when this is to be asked again."""

    until_ms: int
    ask_at_ms: int
    is_paused: bool = False


@dataclass(slots=True)
class _Turn:
    """Those who want to know of one session, one after another; `waiting` counts him who is reading, too."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiting: int = 0
    #: Readings that failed. Whoever came before one of them shares it.
    failures: int = 0


class ServedElsewhere:
    """Answers from memory while that is sure, and reads when it is not."""

    def __init__(self, *, ledger: Ledger, sessions: Sessions, clock: Clock) -> None:
        self._ledger = ledger
        self._sessions = sessions
        self._clock = clock
        self._words: OrderedDict[str, _Word] = OrderedDict()
        self._turns: dict[str, _Turn] = {}

    def is_open(self, session_id: str) -> bool | None:
        """Whether it is served at this instant; None: `look` knows. While somebody is looking, everybody who comes later queues behind
        him, so that what is sent in order stays in order.
        """
        return None if self.is_looking(session_id) else self._known(session_id)

    def is_looking(self, session_id: str) -> bool:
        """Whether somebody waits for an answer, so that who comes later must wait behind him."""
        return session_id in self._turns

    def is_paused(self, session_id: str) -> bool:
        """Whether it waited for somebody who is lost when it was looked at last."""
        word = self._words.get(session_id)
        return word is not None and word.is_paused

    async def look(self, session_id: str) -> bool:
        """The answer as of now, in the order of asking. Who waited behind a reading that failed does not read again: his message would
        be stored, and the one before it not.

        Raises:
            Unavailable: the store does not answer.
        """
        turn = self._turns.setdefault(session_id, _Turn())
        turn.waiting += 1
        failures = turn.failures
        try:
            async with turn.lock:
                return await self._answer(session_id, turn, failures)
        finally:
            turn.waiting -= 1
            if turn.waiting == 0:
                del self._turns[session_id]

    async def _answer(self, session_id: str, turn: _Turn, failures: int) -> bool:
        if turn.failures != failures:
            raise Unavailable(session_id=session_id)
        known = self._known(session_id)
        if known is not None:
            return known
        try:
            return await self._read(session_id)
        except Unavailable:
            turn.failures += 1
            raise

    def forget(self, session_id: str) -> None:
        """Something has happened to the session: ask again."""
        self._words.pop(session_id, None)

    def _known(self, session_id: str) -> bool | None:
        word = self._words.get(session_id)
        now_ms = self._clock.now_ms()
        if word is None or now_ms >= word.ask_at_ms:
            return None
        self._words.move_to_end(session_id)
        return now_ms < word.until_ms

    async def _read(self, session_id: str) -> bool:
        session = await self._sessions.get(session_id)
        until_ms, is_paused = 0, False
        if session is not None and session.status in LIVE:
            account = await self._ledger.account(wallet_of(session.user_id), session.currency)
            hold = account.holds.get(hold_id_of(session_id))
            if hold is not None:
                paid_until = bill_of(account, hold).paid_until_ms
                until_ms, is_paused = paid_until or 0, paid_until is None
        now_ms = self._clock.now_ms()
        open_ = now_ms < until_ms
        self._words[session_id] = _Word(until_ms, until_ms if open_ else now_ms + NO_FOR_MS, is_paused)
        self._words.move_to_end(session_id)
        if len(self._words) > _REMEMBERED:
            self._words.popitem(last=False)
        return open_
