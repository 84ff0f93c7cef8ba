"""The commit protocol of LEDGER 1 to 3 and 5 as programs of the model checker, each rule a switch.

What a change *decides* is the product's own code (`ledger/model.py`, `Ledger.post`, `billing.close`, ...): only the order of the
store calls around it is written down again here, as `ledger/committer.py` makes them for a store without transactions.
With `broken=None` that is the protocol; with a rule, the one place that keeps this rule does the plausible other thing.
"""

from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from billing_engine.errors import BillingError, InvariantBroken
from billing_engine.ledger.committer import Decide
from billing_engine.ledger.model import (
    Account,
    Entry,
    Hold,
    KeyState,
    apply_credit,
    credits_of,
    drop_tail,
    forget_credits,
    key_of,
)
from billing_engine.ledger.ports import Row
from billing_engine.ledger.service import Ledger
from tests.support.commit_model import (
    ABSENT,
    STALE,
    Again,
    Commit,
    Delete,
    Do,
    Doc,
    Get,
    Insert,
    InsertRows,
    Load,
    Mark,
    Move,
    NeverHappens,
    Pending,
    Program,
    Refusal,
    Rows,
    Rules,
    Seen,
    Started,
    Store,
    Then,
    Unknown,
    get,
    is_refusal,
)
from tests.support.ledger_dicts import DictLedgerStore
from tests.support.manual_clock import ManualClock


class Rule(Enum):
    """The rules that the model has. The text says what happens where the rule is broken."""

    ACCOUNT_BEFORE_KEY = "the key is read first, the account second"
    TARGET_BEFORE_MARK = "the row's mark is read first, the credited account second"
    CREDIT_WITH_KEY = "the amount is added in one write, its key remembered in the next"
    FORGET_AFTER_MARK = "a credit's key is forgotten before the row is marked"
    TAIL_AFTER_MARK = "the tail is cut before the rows are marked applied"
    TAIL_BY_KEY = "the tail is cut by length"
    ONE_CONDITIONAL_WRITE = "a write does not ask whether its version still stands"
    VERSION_WITH_EACH_WRITE = "only an entry moves the version, not a hold or a credit"
    VERSION_NEVER_REPEATS = "the version is a counter, which a fail-over sets back"
    MAJORITY_READS = "a read shows what only the primary has"
    MAJORITY_WRITES = "a write answers when only the primary has it"
    RECOVERY_WRITES = "recovery concludes from absence that a key never happens"
    VOID_MOVES_VERSION = "a void leaves the account's version as it was"
    EXTEND_NEVER_CREATES = "an extend opens the hold anew when it is gone"
    N_RISES = "an extend with a lower number writes all the same"
    EPOCH_FENCES_EXTEND = "an extend asks neither epoch nor owner"
    EPOCH_FENCES_CLOSE = "the owner's close asks neither epoch nor owner"
    ADOPTION_BY_TOKEN = "an adoption that finds the next epoch takes it for its own, whoever's token it bears"
    FIRST_CLOSE_WINS = "a close that finds no hold books an outcome of its own"
    SESSION_COPIES = "the session row is made from the closer's own figures, not from the entry"
    EMPTY_ONLY_IF_SHORT = "WALLET_EMPTY is written without asking whether money is short"
    GIVE_BACK_VOIDS = "a start is given back without voiding its hold's key"
    GIVE_BACK_BY_CAS = "a start is aborted whatever its row says by now"
    START_BY_CAS = "a start sets its row ACTIVE whatever it says by now"
    CLAIM_BY_SESSION = "a claim is deleted by its person alone"
    HOLD_BEFORE_ACTIVE = "the row is made ACTIVE before the hold is open"


@dataclass(frozen=True)
class Change:
    """A change of one account, as the product decides it; `broken` has what a broken rule decides instead."""

    account_id: str
    source: str | None
    decide: Decide
    broken: Mapping[Rule, Decide] = field(default_factory=dict)

    @property
    def key(self) -> str | None:
        return None if self.source is None else key_of(self.account_id, self.source)


class _Asked(BaseException):
    def __init__(self, account_id: str, source: str | None, decide: Decide) -> None:
        self.change = Change(account_id, source, decide)


class _Ledger(Ledger):
    """The real service, stopped where it hands its decision to the committer."""

    def change(self, account_id: str, asset: str, decide: Decide, *, source: str | None = None) -> Any:
        raise _Asked(account_id, source, decide)


def change_of(operation: Callable[[Ledger], Awaitable[Any]], **broken: "Change") -> Change:
    """What the operation asks the committer for. `broken`: by a rule's name, the operation that is asked for without it."""
    try:
        operation(_Ledger(DictLedgerStore(), ManualClock(), lambda _: "2026-01-01")).__await__().send(None)
    except _Asked as asked:
        change = asked.change
        instead = {Rule[name]: other.decide for name, other in broken.items()}
        return Change(change.account_id, change.source, change.decide, instead)
    raise AssertionError("an operation changes an account")


class Protocol(Rules):
    """The programs. A program yields store calls and returns what its caller is told."""

    def __init__(self, changes: Mapping[str, Change], broken: Rule | None = None) -> None:
        self.changes = changes
        self.broken = broken
        self.majority_reads = broken is not Rule.MAJORITY_READS
        self.majority_writes = broken is not Rule.MAJORITY_WRITES
        self.conditional_writes = broken is not Rule.ONE_CONDITIONAL_WRITE

    def next_version(self, store: Store, now: Seen, account: Account) -> Any:
        if self.broken is Rule.VERSION_WITH_EACH_WRITE:
            return account.seq
        if self.broken is Rule.VERSION_NEVER_REPEATS:
            return (now.version or 0) + 1
        voided = bool(account.tail) and account.tail[-1].state is KeyState.VOIDED
        if self.broken is Rule.VOID_MOVES_VERSION and voided and now.version != ABSENT:
            return now.version
        return super().next_version(store, now, account)

    def still(self, version: Any, standing: Collection[Any]) -> Any:
        if self.broken in (Rule.VERSION_WITH_EACH_WRITE, Rule.VERSION_NEVER_REPEATS):
            return version
        return super().still(version, standing)

    # -- one account (LEDGER 1 and 2)

    def change(self, name: str) -> Program:
        """Account, then key, then compare-and-set, then redo."""
        change = self.changes[name]
        keys = () if change.key is None else (change.key,)
        if self.broken is Rule.ACCOUNT_BEFORE_KEY:
            rows = yield Rows(keys)
            seen = yield Load(change.account_id)
        else:
            seen = yield Load(change.account_id)
            rows = (yield Rows(keys)) if keys else ()
        known = _known(change.key, seen.account, rows)
        try:
            decide = change.broken.get(self.broken, change.decide) if self.broken else change.decide
            changed, answer = decide(seen.account, known)
        except InvariantBroken:
            raise
        except BillingError as refused:
            return Refusal(type(refused).__name__)
        if changed is seen.account:
            return Then("touch", (change.account_id, Doc.of(answer)))
        after = Doc.of(changed)
        if not (yield from self._written(seen, after)):
            return Again()
        return Then("redo", (after, Doc.of(answer)))

    def touch(self, account_id: str, answer: Any) -> Program:
        """Finish what the account has left."""
        seen = yield Load(account_id)
        return Then("redo", (seen.doc, answer))

    def redo(self, doc: Doc, answer: Any) -> Program:
        """Copy the tail out, apply its credits, mark, cut, forget."""
        account = doc.value
        keys = tuple(entry.key for entry in account.tail)
        if keys:
            yield InsertRows(tuple(Doc.of(entry) for entry in account.tail))
            if self.broken is Rule.TAIL_AFTER_MARK:
                yield Do("cut", (account.id, keys))
            rows = yield Rows(keys)
            marks = []
            for entry, row in zip(account.tail, rows, strict=True):
                if not row.value.applied:
                    after = []
                    for target_id, amount_minor in credits_of(entry).items():
                        balance = yield Do("credit", (Doc.of(entry), target_id, amount_minor))
                        after.append((target_id, balance.value))
                        if self.broken is Rule.FORGET_AFTER_MARK:
                            yield Do("forget", (target_id, (entry.key,)))
                    marks.append((entry.key, tuple(after)))
            yield Mark(tuple(marks))
            yield Do("cut", (account.id, keys))
            for target_id in sorted({target for entry in account.tail for target in credits_of(entry)}):
                yield Do("forget", (target_id, keys))
        if account.credited:
            remembered = tuple(key for key, _ in account.credited)
            rows = yield Rows(remembered)
            applied = tuple(row.value.entry.key for row in rows if row is not None and row.value.applied)
            yield Do("forget", (account.id, applied))
        return answer

    def credit(self, doc: Doc, target_id: str, amount_minor: int) -> Program:
        """Target, then the row's mark, then one write of amount and key together."""
        entry: Entry = doc.value
        if self.broken is Rule.TARGET_BEFORE_MARK:
            (row,) = yield Rows((entry.key,))
            seen = yield Load(target_id)
        else:
            seen = yield Load(target_id)
            (row,) = yield Rows((entry.key,))
        if row.value.applied:
            return row.value.credits_after[target_id]
        credited = apply_credit(seen.account, entry, amount_minor)
        if credited is seen.account:
            return next(after for key, after in credited.credited if key == entry.key)
        if self.broken is Rule.CREDIT_WITH_KEY:
            added = credited._replace(credited=seen.account.credited)
            if not (yield from self._written(seen, Doc.of(added))):
                return Again()
            return Then("remember", (doc, target_id))
        if not (yield from self._written(seen, Doc.of(credited))):
            return Again()
        return credited.posted

    def remember(self, doc: Doc, target_id: str) -> Program:
        """The second half of a credit, where they are two writes."""
        seen = yield Load(target_id)
        account = seen.account
        credited = (*account.credited, (doc.value.key, account.posted))
        if not (yield from self._written(seen, Doc.of(account._replace(credited=credited)))):
            return Again()
        return account.posted

    def cut(self, account_id: str, keys: tuple[str, ...]) -> Program:
        seen = yield Load(account_id)
        cut = drop_tail(seen.account, frozenset(keys))
        if self.broken is Rule.TAIL_BY_KEY:
            cut = seen.account._replace(tail=seen.account.tail[len(keys) :])
        if cut != seen.account and not (yield from self._written(seen, Doc.of(cut))):
            return Again()
        return None

    def forget(self, target_id: str, keys: tuple[str, ...]) -> Program:
        seen = yield Load(target_id)
        forgot = forget_credits(seen.account, frozenset(keys))
        if forgot != seen.account and not (yield from self._written(seen, Doc.of(forgot))):
            return Again()
        return None

    def _written(self, seen: Seen, account: Doc) -> Program:
        """Whether the write stands. A lost answer is found out by its token, never by what the document says."""
        answer = yield Commit(seen, account)
        if not isinstance(answer, Unknown):
            return answer
        now = yield Load(seen.account_id)
        # A counter's token may be anybody's; a stale one is nobody's.
        return now.version == answer.version and answer.version != STALE

    # -- recovery and sequences

    def recover(self) -> Program:
        for account_id in (yield Pending()):
            yield Do("touch", (account_id, None))
        return None

    def script(self, *steps: Do) -> Program:
        """One after the other."""
        told = None
        for step in steps:
            told = yield step
        return told

    def conclude(self, name: str) -> Program:
        """Find out that a key never happens: by a void; broken, by not finding it."""
        change = self.changes[name]
        if self.broken is Rule.RECOVERY_WRITES and change.key is not None:
            seen = yield Load(change.account_id)
            rows = yield Rows((change.key,))
            if _known(change.key, seen.account, rows) is None:
                return NeverHappens(change.key)
        return Then("change", (name,))

    # -- sessions (LEDGER 3 and 5)

    def start(self, session: str, opens: str, voids: str, owner: str) -> Program:
        """Row, claim, hold, ACTIVE: `Consultations._start`."""
        status = yield Get(f"session:{session}")
        if status not in (None, "STARTING"):
            return "not started" if status == "ABORTED" else Started(session)
        yield Insert(f"session:{session}", "STARTING")
        if not (yield Insert("claim:user", session)):
            holder = yield Get("claim:user")
            if holder != session:
                other = yield Get(f"session:{holder}")
                if other == "ABORTED":
                    yield Do("give_back", (holder, f"void {holder}"))
                    if not (yield Insert("claim:user", session)):
                        return Then("busy", (session, voids))
                else:
                    return Then("busy", (session, voids))
        if self.broken is Rule.HOLD_BEFORE_ACTIVE:
            yield Move(f"session:{session}", ("STARTING",), "ACTIVE")
        held = yield Do("change", (opens,))
        if is_refusal(held.value) or held.value.owner != owner:
            return Then("busy", (session, voids))
        expect = None if self.broken is Rule.START_BY_CAS else ("STARTING",)
        if self.broken is Rule.HOLD_BEFORE_ACTIVE:
            expect = ("ACTIVE",)
        active = yield Move(f"session:{session}", expect, "ACTIVE")
        return Started(session) if active else "not started"

    def busy(self, session: str, voids: str) -> Program:
        yield Do("give_back", (session, voids))
        return "not started"

    def give_back(self, session: str, voids: str) -> Program:
        """The row first, the claim last: `Consultations.give_back`."""
        expect = None if self.broken is Rule.GIVE_BACK_BY_CAS else ("STARTING", "ABORTED")
        if not (yield Move(f"session:{session}", expect, "ABORTED")):
            return "left alone"
        if self.broken is not Rule.GIVE_BACK_VOIDS:
            yield Do("change", (voids,))
        yield Delete("claim:user", None if self.broken is Rule.CLAIM_BY_SESSION else session)
        return "given back"

    def end(self, session: str, closes: str, by: str) -> Program:
        """Close, then the row, then the claim: `Engine.settle`."""
        told = yield Do("change", (closes,))
        if is_refusal(told.value):
            return told
        outcome = _outcome(told.value)
        if self.broken is Rule.SESSION_COPIES:
            outcome = ("ENDED", by)
        yield Move(f"session:{session}", ("ACTIVE",), outcome)
        yield Delete("claim:user", session)
        return told

    def problems(self, store: Store, *, at_rest: bool) -> Iterator[str]:
        """Sessions, claims and holds agree."""
        active = []
        for cell, status in store.cells:
            family, _, session = cell.partition(":")
            if family != "session":
                continue
            entry, hold = _hold_of(store, session)
            if status == "ACTIVE":
                active.append(session)
                if hold is None and (entry is None or entry.state is KeyState.VOIDED):
                    yield f"{session} is ACTIVE, without a hold and without a bill"
                if get(store.cells, "claim:user") != session:
                    yield f"{session} is ACTIVE, the user is claimed by {get(store.cells, 'claim:user')}"
            elif isinstance(status, tuple) and (entry is None or _outcome(entry) != status):
                yield f"{session} says {status}, its entry {entry}"
            if at_rest and status in ("STARTING", "ABORTED"):
                if status == "STARTING":
                    yield f"{session} is still STARTING"
                if hold is not None:
                    yield f"{session} is {status}, its hold is open"
                if get(store.cells, "claim:user") == session:
                    yield f"{session} is {status}, and its user claimed"
        if len(active) > 1:
            yield f"one user in {active}"


def _known(key: str | None, account: Account, rows: tuple[Any, ...]) -> Entry | None:
    row: Row | None = rows[0].value if rows and rows[0] is not None else None
    if row is not None:
        return row.entry
    return next((entry for entry in account.tail if entry.key == key), None)


def _outcome(entry: Entry) -> tuple[str, Any]:
    return "ENDED", entry.facts.get("by")


def _hold_of(store: Store, session: str) -> tuple[Entry | None, Hold | None]:
    for id_, seen in store.accounts:
        entry = store.books().entries.get(key_of(id_, session))
        hold = seen.account.holds.get(session)
        if entry is not None or hold is not None:
            return entry, hold
    return None, None
