"""What consultations need from the outside, in their own words."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from billing_engine.consultations.attendance import Whereabouts
from billing_engine.consultations.model import LawyerTerms, Session, SessionEvent, Status, TimelineRow
from billing_engine.consultations.request_model import RequestEvent


class Sessions(Protocol):
    """The session records."""

    async def add(self, session: Session) -> bool:
        """Insert; False if the id exists (a start that is run again)."""
        ...

    async def get(self, session_id: str) -> Session | None: ...

    async def move(self, session_id: str, *, expect: frozenset[Status], to: Session) -> bool:
        """Compare-and-set: replace the record by `to` if its status is one of `expect`; whether it was."""
        ...

    async def change(self, session_id: str, *, expect: frozenset[Status], **fields: Any) -> Session | None:
        """Compare-and-set of the named fields alone: the new record, or None if its status is none of `expect`. What others write to
        other fields meanwhile stays.
        """
        ...

    async def get_many(self, session_ids: Sequence[str]) -> dict[str, Session]:
        """Those that exist, by id."""
        ...

    async def unfinished(self) -> list[Session]:
        """Every session that is STARTING, ACCEPTED, ACTIVE or PAUSED, oldest first: whatever may have a hold."""
        ...

    async def in_states(self, statuses: frozenset[Status]) -> list[Session]:
        """Every session in one of `statuses`, oldest first. For those that few sessions are in, and not for long."""
        ...

    async def newest_of_lawyer(self, lawyer_id: str, *, limit: int) -> list[Session]:
        """The lawyer's records, whatever their status, newest first."""
        ...

    async def starting(self) -> list[Session]:
        """Every session that is STARTING, oldest first: few, and gone within seconds."""
        ...

    async def list_for(self, person_id: str, *, limit: int, before: tuple[int, str] | None) -> list[Session]:
        """Sessions in which the person is user or lawyer, newest first, never ABORTED or STARTING ones.

        `before` is (created_at_ms, id) of the last one of the previous page.
        """
        ...


class Claims(Protocol):
    """Unique documents `user:ID` and `lawyer:ID` that say which session a person is in: storage's own guard against double booking."""

    async def take(self, person: str, session_id: str) -> str | None:
        """Claim `person`. None on success (also if the claim is this session's own already), else the session that holds it."""
        ...

    async def replace(self, person: str, *, finished_session_id: str, session_id: str) -> bool:
        """Take over a claim that a finished session left behind, by compare-and-set."""
        ...

    async def release(self, person: str, session_id: str) -> None:
        """Drop the claim if it is this session's; harmless otherwise."""
        ...

    async def holder(self, person: str) -> str | None:
        """The session that holds the person, if any."""
        ...

    async def held(self, persons: list[str]) -> dict[str, str]:
        """The session by person, for those that are claimed."""
        ...

    async def everyone(self) -> dict[str, str]:
        """The session by person, for all who are claimed: recovery looks for claims that a crash left behind."""
        ...


class Timeline(Protocol):
    """Rows that follow the ledger's hold. Adding the same (session, k) again changes nothing."""

    async def add(self, rows: list[TimelineRow]) -> None: ...

    async def of(self, session_id: str) -> list[TimelineRow]: ...


class Locks(Protocol):
    """`lock:user:{id}` and `lock:lawyer:{id}`: a fast refusal, never the guard."""

    async def acquire(self, names: tuple[str, ...], token: str) -> str | None:
        """All or none; None on success, else the first name that another token holds."""
        ...

    async def holder(self, name: str) -> str | None:
        """The token that holds the name now."""
        ...

    async def renew(self, names: tuple[str, ...], token: str) -> None: ...

    async def release(self, names: tuple[str, ...], token: str) -> None: ...

    async def ping(self) -> None:
        """Raises `Unavailable` when the locks cannot answer."""
        ...


class Lease(NamedTuple):
    """A process says that it lives: `beat` is another number each time. `role` is what it does (`web`, `worker`)."""

    owner: str
    beat: int
    role: str


class Leases(Protocol):
    """One lease a process, in the store (LEDGER 5). Whether one is stale is each observer's own judgement: see `liveness`."""

    async def beat(self, lease: Lease) -> bool:
        """Write one's own lease; False if it was gone: somebody took this process for dead (or it is new)."""
        ...

    async def all(self) -> list[Lease]:
        """Every lease that is stored."""
        ...

    async def drop(self, owner: str, *, beat: int | None = None) -> None:
        """Delete a lease; with `beat` only if it has not moved since."""
        ...


class Peers(Protocol):
    """Other processes, told of what may concern a session of theirs. A hint: never waits, never raises, may be lost."""

    def recharged(self, user_id: str) -> None:
        """The user's wallet has more."""
        ...

    def ended(self, session_id: str) -> None:
        """The session was closed here."""
        ...

    def paused_or_resumed(self, session_id: str) -> None:
        """Whether the session is served has changed here."""
        ...


class NoPeers:
    """There is no other process."""

    def recharged(self, user_id: str) -> None:
        del user_id

    def ended(self, session_id: str) -> None:
        del session_id

    def paused_or_resumed(self, session_id: str) -> None:
        del session_id


class Attending(Protocol):
    """Who is connected to a session, at whatever process. Asked as a state; never raises."""

    async def of(self, session_id: str, people: Sequence[str]) -> Mapping[str, Whereabouts]:
        """Where each one is, as of now and within a moment. None for whom nobody can tell: missing data is no absence."""
        ...


class Lawyers(Protocol):
    """Who may be consulted, on which terms."""

    async def terms(self, lawyer_id: str) -> LawyerTerms | None: ...

    async def set_away(self, lawyer_id: str, *, online_at_ms: int) -> bool:
        """Take the lawyer offline unless they came online again since `online_at_ms`; whether this did it."""
        ...


class Standing(Protocol):
    """Whose account is shut. Shutting one writes that first and looks for the person's session second."""

    async def any_shut(self, person_ids: tuple[str, ...]) -> bool:
        """Whether one of them is shut, as stored at this moment. Raises `Unavailable`."""
        ...


class Rooms(Protocol):
    """The session's conversation, kept by the chat package."""

    async def open(self, session_id: str, *, user_id: str, lawyer_id: str, at_ms: int) -> None:
        """Make the conversation; harmless when it exists."""
        ...

    async def close(self, session_id: str, *, at_ms: int) -> None:
        """No message is stored after this returns. Harmless when closed or missing."""
        ...

    async def evidence_ms(self, session_ids: Sequence[str]) -> dict[str, int]:
        """Instant of the last stored message or receipt, by session; 0, or no entry, when there is none."""
        ...


class Announcer(Protocol):
    """Tells both parties. Never waits and never raises: billing does not depend on who listens."""

    def announce(self, event: SessionEvent) -> None: ...


class RequestNews(Protocol):
    """Tells people of requests, turns and places. Never waits and never raises; may be lost: what is told can be looked up."""

    def tell(self, event: RequestEvent) -> None: ...
