"""Writes transcripts: a page of messages at a time, so that a long chat holds up nobody and fills no memory."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Final, Protocol
from zoneinfo import ZoneInfo

from billing_engine.consultations.service import Consultations
from chat.service import ChatService
from server.auth.accounts import Accounts
from server.auth.model import Role
from server.transcripts.model import Entry, Heading, Party, Weaver
from server.transcripts.text import TextTranscript
from server.transcripts.wire import JsonTranscript

#: Messages in one piece. Fifty of the longest are 1.6 MB; so few are read without a thread.
PAGE: Final = 50


class Format(Protocol):
    """How the parts of a transcript look."""

    def begin(self) -> bytes: ...

    def entries(self, entries: Iterable[Entry]) -> bytes: ...

    def end(self, count: int) -> bytes: ...


class Transcripts:
    """A consultation as a document, for its parties."""

    def __init__(
        self, *, consultations: Consultations, chat: ChatService, accounts: Accounts, zone: ZoneInfo
    ) -> None:
        self._consultations = consultations
        self._chat = chat
        self._accounts = accounts
        self._zone = zone

    async def text(self, session_id: str, *, caller_id: str) -> AsyncIterator[bytes]:
        """To be read. What the caller may not have is refused before the first piece.

        Raises:
            SessionNotFound, NotFound: no such consultation of the caller's.
            Unavailable: also between the pieces; what was written is then not complete.
        """
        heading = await self._heading(session_id, caller_id)
        return self._written(heading, caller_id, TextTranscript(heading, self._zone))

    async def json(self, session_id: str, *, caller_id: str) -> AsyncIterator[bytes]:
        """For programs; raises what `text` raises."""
        heading = await self._heading(session_id, caller_id)
        return self._written(heading, caller_id, JsonTranscript(heading, self._zone.key))

    async def _heading(self, session_id: str, caller_id: str) -> Heading:
        view = await self._consultations.get(session_id, caller_id=caller_id)
        conversation = await self._chat.membership(caller_id, session_id)
        user = await self._party(conversation.user_id, Role.USER)
        lawyer = await self._party(conversation.lawyer_id, Role.LAWYER)
        return Heading(view, (user, lawyer), conversation.last_seq)

    async def _party(self, person_id: str, role: Role) -> Party:
        account = await self._accounts.get(person_id)
        return Party(person_id, role, "" if account is None else account.name)

    async def _written(self, heading: Heading, caller_id: str, form: Format) -> AsyncIterator[bytes]:
        session_id = heading.view.session.id
        weaver = Weaver(await self._consultations.timeline(session_id))
        yield form.begin()
        seq = 0
        while seq < heading.last_seq:
            page = await self._chat.history(caller_id, session_id, after_seq=seq, limit=PAGE)
            yield form.entries(weaver.page(page, heading.last_seq))
            seq = page.messages[-1].seq
            # A client that reads as fast as we write would otherwise let nobody else have a turn.
            await asyncio.sleep(0)
        yield form.entries(weaver.rest()) + form.end(heading.last_seq)
