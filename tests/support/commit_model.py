"""An explicit-state model checker for the commit protocol: every order of every store step of two or three processes.

A *world* is the store (account documents, entry rows, session rows and claims as cells) and, per process, where its program stands and
what it remembers. A step is one atomic call of the store. Programs are generators that yield store calls; since they are
deterministic, a process is no more than its programs' arguments and the answers they were given, and a world can be hashed.

What may go wrong, at every step:

- *freeze*: some other process is always free to go first, for as long as it likes. The sleeper goes on with what it remembers.
- *crash*: a process that never goes on. The others' orders without it are prefixes of orders that are explored anyway; and in every
  world that is reached, all die, one recovers, every operation is repeated by its key, and the books are read again.
- *lost request, lost reply*: the caller hears nothing, does not know, and repeats by key (`Scenario.lost` times in a run).
- *rollback*: a write that reached only the primary is undone by a fail-over (`Scenario.failovers` times in a run).

A version is new with each write, so all that anyone can ever ask of a version that he remembers is whether it still stands: the
model keeps no more of it than that, which is what makes worlds meet again.
"""

from collections import Counter, deque
from collections.abc import Callable, Collection, Generator, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple

from billing_engine.errors import BillingError, InvariantBroken
from billing_engine.ledger.model import Account, Entry, Hold, KeyState, floor_of
from billing_engine.ledger.ports import Row
from tests.support.ledger_books import Books

#: A version that was replaced: it will never stand again.
STALE = -1
#: The version of a document that does not exist.
ABSENT = ""


class Doc:
    """A value that is compared and hashed by identity: equal values are one `Doc`."""

    __slots__ = ("text", "value")
    _known: dict[str, "Doc"] = {}  # noqa: RUF012 - the one table of all of them

    def __init__(self, value: Any, text: str) -> None:
        self.value = value
        self.text = text

    @staticmethod
    def of(value: Any) -> "Doc":
        if isinstance(value, Account):
            value = value._replace(holds=dict(value.holds))
        text = repr(value)
        if text not in Doc._known:
            Doc._known[text] = Doc(value, text)
        return Doc._known[text]

    def __repr__(self) -> str:
        return brief(self.value)


class Seen(NamedTuple):
    """An account document as somebody saw it: its version, and what it said."""

    account_id: str
    version: Any
    doc: Doc

    @property
    def account(self) -> Account:
        account: Account = self.doc.value
        return account


class Unknown(NamedTuple):
    """The answer to a write that got lost on the way back: all that is known is the token that it would have left."""

    account_id: str
    version: Any


class Store(NamedTuple):
    """Everything durable. `undo`: the account document that the next fail-over puts back, as the last write is on one node only."""

    accounts: tuple[tuple[str, Seen], ...] = ()
    rows: tuple[tuple[str, Doc], ...] = ()
    cells: tuple[tuple[str, Any], ...] = ()
    undo: Seen | None = None

    def seen(self, account_id: str) -> Seen:
        found = get(self.accounts, account_id)
        return found or Seen(account_id, ABSENT, Doc.of(Account(account_id, "INR", floor_of(account_id))))

    def with_account(self, seen: Seen) -> "Store":
        if seen.version == ABSENT:
            return self._replace(accounts=tuple(pair for pair in self.accounts if pair[0] != seen.account_id))
        return self._replace(accounts=put(self.accounts, seen.account_id, seen))

    def durable(self) -> "Store":
        """What stands if the primary fails now."""
        return self if self.undo is None else self.with_account(self.undo)._replace(undo=None)

    def books(self) -> Books:
        moved: Counter[str] = Counter()
        rows = {key: row.value for key, row in self.rows}
        for row in rows.values():
            if row.entry.state is KeyState.POSTED:
                for transfer in row.entry.transfers:
                    moved[transfer.credit] += transfer.amount_minor
                    moved[transfer.debit] -= transfer.amount_minor
        return Books({id_: seen.account for id_, seen in self.accounts}, rows, moved)


def get(pairs: tuple[tuple[str, Any], ...], key: str) -> Any:
    return next((value for name, value in pairs if name == key), None)


def put(pairs: tuple[tuple[str, Any], ...], key: str, value: Any) -> tuple[tuple[str, Any], ...]:
    return tuple(
        sorted((*(pair for pair in pairs if pair[0] != key), (key, value)), key=lambda pair: pair[0])
    )


# -- store calls: each atomic, each for itself, as on MongoDB ------------------------------------------------------------


class Load(NamedTuple):
    account_id: str

    def run(self, store: Store, rules: "Rules") -> tuple[Store, Any]:
        # Majority read concern: what a fail-over could take back is not shown.
        return store, (store.durable() if rules.majority_reads else store).seen(self.account_id)


class Rows(NamedTuple):
    keys: tuple[str, ...]

    def run(self, store: Store, rules: "Rules") -> tuple[Store, Any]:
        return store, tuple(get(store.rows, key) for key in self.keys)


class Commit(NamedTuple):
    """Replace the document that was seen, if its version still stands. Answers whether it did."""

    seen: Seen
    account: Doc

    def run(self, store: Store, rules: "Rules") -> tuple[Store, Any]:
        id_, now = self.seen.account_id, store.seen(self.seen.account_id)
        if rules.conditional_writes and now.version != self.seen.version:
            return store, False
        account = self.account.value
        if (
            account.floor is not None
            and account.posted - account.held < account.floor
            and rules.conditional_writes
        ):
            raise InvariantBroken(rule="the store refuses a balance below the floor", account=id_)
        version = rules.next_version(store, now, account)
        return store.with_account(Seen(id_, version, self.account))._replace(undo=None), True


class InsertRows(NamedTuple):
    entries: tuple[Doc, ...]

    def run(self, store: Store, rules: "Rules") -> tuple[Store, Any]:
        rows = store.rows
        for doc in self.entries:
            entry = doc.value
            row = get(rows, entry.key)
            if row is None:
                rows = put(rows, entry.key, Doc.of(Row(entry, applied=False, credits_after={})))
            elif row.value.entry != entry:
                raise InvariantBroken(rule="a key ends once", key=entry.key)
        return store._replace(rows=rows, undo=None), None


class Mark(NamedTuple):
    """(key, ((account, balance after), ...)) of each entry whose credits are all applied."""

    marks: tuple[tuple[str, tuple[tuple[str, int], ...]], ...]

    def run(self, store: Store, rules: "Rules") -> tuple[Store, Any]:
        rows = store.rows
        for key, after in self.marks:
            row = get(rows, key).value
            if not row.applied:
                rows = put(rows, key, Doc.of(Row(row.entry, applied=True, credits_after=dict(after))))
        return store._replace(rows=rows, undo=None), None


class Pending(NamedTuple):
    def run(self, store: Store, rules: "Rules") -> tuple[Store, Any]:
        return store, tuple(id_ for id_, s in store.accounts if s.account.tail or s.account.credited)


class Get(NamedTuple):
    cell: str

    def run(self, store: Store, rules: "Rules") -> tuple[Store, Any]:
        return store, get(store.cells, self.cell)


class Insert(NamedTuple):
    """A document with a unique id. Answers whether it was new."""

    cell: str
    value: Any

    def run(self, store: Store, rules: "Rules") -> tuple[Store, Any]:
        if get(store.cells, self.cell) is not None:
            return store, False
        return store._replace(cells=put(store.cells, self.cell, self.value)), True


class Move(NamedTuple):
    """Replace a cell by `to` if it holds one of `expect` (None: whatever it holds). Answers whether it did."""

    cell: str
    expect: tuple[Any, ...] | None
    to: Any

    def run(self, store: Store, rules: "Rules") -> tuple[Store, Any]:
        if self.expect is not None and get(store.cells, self.cell) not in self.expect:
            return store, False
        return store._replace(cells=put(store.cells, self.cell, self.to)), True


class Delete(NamedTuple):
    """Delete a cell if it holds `expect` (None: whatever it holds)."""

    cell: str
    expect: Any

    def run(self, store: Store, rules: "Rules") -> tuple[Store, Any]:
        if self.expect is not None and get(store.cells, self.cell) != self.expect:
            return store, False
        return store._replace(cells=tuple(pair for pair in store.cells if pair[0] != self.cell)), True


_READS = (Load, Rows, Pending, Get)


# -- processes -----------------------------------------------------------------------------------------------------------


class Do(NamedTuple):
    """Yielded by a program: run another one, and be given what it returns."""

    program: str
    args: tuple[Any, ...]


class Then(NamedTuple):
    """Returned by a program: go on as another one, and forget everything but its arguments."""

    program: str
    args: tuple[Any, ...]


class Again(NamedTuple):
    """Returned by a program: begin again from the start."""


class Frame(NamedTuple):
    """A running program: with the answers that it was given, all of its state."""

    program: str
    args: tuple[Any, ...]
    answers: tuple[Any, ...] = ()


class Process(NamedTuple):
    name: str
    begins: Do
    frames: tuple[Frame, ...]
    #: What its caller was told, when it is through.
    told: Doc | None = None


class How(Enum):
    """What happens to a step; the value is how a trace says it."""

    RUNS = ""
    LOSES_REQUEST = "; the request is lost"
    LOSES_REPLY = "; the reply is lost"
    ON_PRIMARY_ONLY = "; on the primary only"
    FAILS_OVER = "the primary fails, its last write is undone"


class World(NamedTuple):
    store: Store
    processes: tuple[Process, ...]
    lost: int = 0
    failovers: int = 0


class Rules:
    """What the store and its caller's programs do. A subclass says which rule is broken on purpose."""

    majority_reads = True
    majority_writes = True
    conditional_writes = True

    def next_version(self, store: Store, now: Seen, account: Account) -> Any:
        """A token that nobody remembers. At most two stand, with one write to be undone: three names are enough."""
        standing = {now.version, None if store.undo is None else store.undo.version}
        return next(name for name in range(3) if name not in standing)

    def problems(self, store: Store, *, at_rest: bool) -> Iterator[str]:
        """What is wrong beside the books; `at_rest`: recovery has run."""
        yield from ()

    def still(self, version: Any, standing: Collection[Any]) -> Any:
        """What is left of a version that somebody remembers, when only `standing` can ever be met again."""
        return version if version in standing else STALE


Program = Generator[Any, Any, Any]


@dataclass(frozen=True)
class Scenario:
    """What runs at once, after `before` has run alone; and what must hold at the end, beside the invariants."""

    name: str
    processes: tuple[Do, ...]
    before: tuple[Do, ...] = ()
    cells: tuple[tuple[str, Any], ...] = ()
    #: Leave the last of `before` off after so many of its store calls: a redo is left to do.
    cut_at: int | None = None
    lost: int = 0
    failovers: int = 0
    #: What recovery does beside redo.
    recovery: tuple[Do, ...] = ()
    #: Too many worlds for a quick run.
    slow: bool = False
    #: (what each caller was told, the books) when all are through.
    check: Callable[[list[Any], Books], bool] = lambda told, books: True

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Report:
    worlds: int
    steps: int
    stores: int
    ends: int


class Violation(Exception):
    """A rule is broken; the text is the shortest way there."""


class Checker:
    """Explores one scenario under one set of rules, breadth first: the first counterexample is a shortest one."""

    def __init__(self, scenario: Scenario, programs: Any) -> None:
        self.scenario = scenario
        self.programs = programs
        self._advanced: dict[Frame, Any] = {}
        self._sound: set[Any] = set()
        self._settled: set[Store] = set()
        #: How each world was first met: from which, and by whose step.
        self._came: dict[World, tuple[World, How, int] | None] = {}

    def run(self) -> Report:
        first = self._first()
        self._came = {first: None}
        to_do = deque([first])
        steps = ends = 0
        while to_do:
            world = to_do.popleft()
            try:
                self._check_world(world)
                if all(process.told is not None for process in world.processes):
                    ends += 1
                    self._check_end(world)
            except (Violation, BillingError) as broken:
                raise Violation(self._trace(world, f"{broken}")) from None
            for how, i in self._moves(world):
                steps += 1
                try:
                    after = self._moved(world, how, i)
                    self._check_move(world, after)
                except (Violation, InvariantBroken) as broken:
                    raise Violation(self._trace(world, f"{self._label(world, how, i)}: {broken}")) from None
                if after not in self._came:
                    self._came[after] = (world, how, i)
                    to_do.append(after)
        return Report(len(self._came), steps, len(self._settled), ends)

    # -- steps

    def _first(self) -> World:
        store = Store(cells=self.scenario.cells)
        for i, do in enumerate(self.scenario.before):
            last = i == len(self.scenario.before) - 1
            store, told = self.alone(store, do, steps=self.scenario.cut_at if last else None)
            assert last or not is_refusal(told), told
        names = "ABC"
        processes = tuple(self._begin(names[i], do) for i, do in enumerate(self.scenario.processes))
        return World(store, processes, self.scenario.lost, self.scenario.failovers)

    def _moves(self, world: World) -> Iterator[tuple[How, int]]:
        if world.store.undo is not None:
            yield How.FAILS_OVER, 0
        for i, process in enumerate(world.processes):
            if process.told is not None:
                continue
            yield How.RUNS, i
            if world.lost:
                yield How.LOSES_REQUEST, i
                if not isinstance(self._call_of(process), _READS):
                    yield How.LOSES_REPLY, i
            if world.failovers and isinstance(self._call_of(process), Commit):
                yield How.ON_PRIMARY_ONLY, i

    def _moved(self, world: World, how: How, i: int) -> World:
        match how:
            case How.RUNS:
                return self._step(world, i)
            case How.LOSES_REQUEST:
                return self._forgets(world, i)
            case How.LOSES_REPLY:
                return self._loses_reply(world, i)
            case How.ON_PRIMARY_ONLY:
                return self._unreplicated(world, i)
            case How.FAILS_OVER:
                return self._rolled_back(world)

    def _step(self, world: World, i: int) -> World:
        process = world.processes[i]
        store, answer = self._call_of(process).run(world.store, self.programs)
        return self._after(world, store, i, self._answer(process, answer))

    def _forgets(self, world: World, i: int) -> World:
        again = self._begin(world.processes[i].name, world.processes[i].begins)
        return self._after(world, world.store, i, again)._replace(lost=world.lost - 1)

    def _loses_reply(self, world: World, i: int) -> World:
        process = world.processes[i]
        store, _ = self._call_of(process).run(world.store, self.programs)
        again = self._begin(process.name, process.begins)
        return self._after(world, store, i, again)._replace(lost=world.lost - 1)

    def _unreplicated(self, world: World, i: int) -> World:
        process = world.processes[i]
        call = self._call_of(process)
        before = world.store.seen(call.seen.account_id)
        store, written = call.run(world.store, self.programs)
        if not written or world.store.undo is not None:
            return world
        store = store._replace(undo=before)
        answer = Unknown(before.account_id, store.seen(before.account_id).version)
        told = answer if self.programs.majority_writes else True
        return self._after(world, store, i, self._answer(process, told))._replace(
            failovers=world.failovers - 1
        )

    def _rolled_back(self, world: World) -> World:
        return _with_stale(world._replace(store=world.store.durable()), world.store, self.programs)

    def _after(self, world: World, store: Store, i: int, process: Process) -> World:
        processes = (*world.processes[:i], process, *world.processes[i + 1 :])
        return _with_stale(World(store, processes, world.lost, world.failovers), world.store, self.programs)

    def _begin(self, name: str, do: Do) -> Process:
        return self._settle_frames(Process(name, do, (Frame(do.program, do.args),)))

    def _answer(self, process: Process, answer: Any) -> Process:
        frames = (*process.frames[:-1], _given(process.frames[-1], answer))
        return self._settle_frames(Process(process.name, process.begins, frames))

    def _settle_frames(self, process: Process) -> Process:
        """Run what needs no store: calls, returns, new beginnings."""
        frames = process.frames
        while True:
            top = frames[-1]
            what = self._advance(top)
            if isinstance(what, Do):
                frames = (*frames, Frame(what.program, what.args))
            elif isinstance(what, Then):
                frames = (*frames[:-1], Frame(what.program, what.args))
            elif isinstance(what, Again):
                frames = (*frames[:-1], Frame(top.program, top.args))
            elif not isinstance(what, Returned):
                return Process(process.name, process.begins, frames)
            elif len(frames) == 1:
                return Process(process.name, process.begins, (), what.value)
            else:
                frames = (*frames[:-2], _given(frames[-2], what.value))

    def _call_of(self, process: Process) -> Any:
        return self._advance(process.frames[-1])

    def _advance(self, frame: Frame) -> Any:
        """What the program does next: a store call, `Do`, `Then`, `Again` or `Returned`."""
        if frame not in self._advanced:
            program = getattr(self.programs, frame.program)(*frame.args)
            try:
                what = next(program)
                for answer in frame.answers:
                    what = program.send(answer)
            except StopIteration as stop:
                what = stop.value
                if not isinstance(what, Then | Again):
                    what = Returned(what if isinstance(what, Doc) else Doc.of(what))
            self._advanced[frame] = what
        return self._advanced[frame]

    def alone(
        self,
        store: Store,
        do: Do,
        *,
        steps: int | None = None,
        heard: Callable[[Any, Store], None] = lambda _call, _store: None,
    ) -> tuple[Store, Any]:
        """One process, undisturbed, to its end or for so many steps: the store then, and what its caller is told.

        `heard` is told each store call and the store before it.
        """
        world = World(store, (self._begin("R", do),))
        while world.processes[0].told is None and steps != 0:
            heard(self._call_of(world.processes[0]), world.store)
            world = self._step(world, 0)
            steps = None if steps is None else steps - 1
        told = world.processes[0].told
        return world.store, told.value if told is not None else None

    # -- what must hold

    def _check_world(self, world: World) -> None:
        store = world.store._replace(undo=None)
        if store not in self._settled:
            self._check_store(store, at_rest=False)
            self._check_recovery(store)
            self._settled.add(store)
        for process in world.processes:
            if process.told is not None:
                _require_kept(process, world.store.durable())

    def _check_store(self, store: Store, *, at_rest: bool) -> None:
        for problem in (*store.books().problems(at_rest=at_rest), *problems_of_holds(store)):
            raise Violation(problem)
        for problem in self.programs.problems(store, at_rest=at_rest):
            raise Violation(problem)

    def _check_recovery(self, store: Store) -> None:
        """All died here."""
        before = store.books()
        now = store
        recovery = (Do("recover", ()), *self.scenario.recovery)
        for do in (*recovery, *self.scenario.processes, *recovery):
            try:
                now, _ = self.alone(now, do)
                self._check_store(now, at_rest=False)
            except (Violation, InvariantBroken) as broken:
                raise Violation(f"all die here; then {do.program} {do.args}: {broken}") from None
        try:
            self._check_store(now, at_rest=True)
            _require_same_entries(before, now.books())
        except Violation as broken:
            raise Violation(f"all die here; after recovery: {broken}") from None

    def _check_move(self, before: World, after: World) -> None:
        changed = (before.store.durable(), after.store.durable())
        if changed[0] is changed[1] or changed in self._sound:
            return
        _require_same_entries(changed[0].books(), changed[1].books())
        for problem in problems_of_move(*changed):
            raise Violation(problem)
        self._sound.add(changed)

    def _check_end(self, world: World) -> None:
        books = world.store.books()
        told = [process.told.value for process in world.processes if process.told is not None]
        if not self.scenario.check(told, books):
            raise Violation(f"what the scenario promises at its end: {told} {dict(books.balances())}")

    # -- telling

    def _trace(self, world: World, end: str) -> str:
        lines = [end]
        while (came := self._came[world]) is not None:
            lines.append(self._label(*came))
            world = came[0]
        head = [self.scenario.name, f"at first: {_told_store(world.store)}"]
        return "\n".join([*head, *(f"{i:3} {line}" for i, line in enumerate(reversed(lines), start=1))])

    def _label(self, world: World, how: How, i: int) -> str:
        if how is How.FAILS_OVER:
            return how.value
        process = world.processes[i]
        call = self._call_of(process)
        does = f"{type(call).__name__} {', '.join(brief(part) for part in call)}"
        return f"{process.name} ({', '.join(map(brief, process.begins.args))}) {does}{how.value}"


class Returned(NamedTuple):
    value: Doc


class NeverHappens(NamedTuple):
    """What a caller is told of a key that has not ended and never will."""

    key: str


class Started(NamedTuple):
    """What a caller is told whose session runs."""

    session: str


class Refusal(NamedTuple):
    """What a caller is told who was refused."""

    error: str


def is_refusal(told: Any) -> bool:
    return isinstance(told, Refusal)


def _given(frame: Frame, answer: Any) -> Frame:
    return Frame(frame.program, frame.args, (*frame.answers, answer))


def _with_stale(world: World, before: Store, rules: Rules) -> World:
    """After a write, a version that can never be met again is nothing but stale."""
    if world.store.accounts is before.accounts and world.store.undo is before.undo:
        return world
    changed = {id_ for id_, seen in world.store.accounts if get(before.accounts, id_) is not seen}
    if before.undo is not None:
        changed.add(before.undo.account_id)
    standing = {
        id_: {
            seen.version
            for seen in (world.store.seen(id_), world.store.undo)
            if seen is not None and seen.account_id == id_
        }
        for id_ in changed
    }
    processes = tuple(_aged_process(process, standing, rules) for process in world.processes)
    return World(world.store, processes, world.lost, world.failovers)


def _aged_process(process: Process, standing: dict[str, set[Any]], rules: Rules) -> Process:
    frames = tuple(_aged(frame, standing, rules) for frame in process.frames)
    return Process(process.name, process.begins, frames, process.told)


def _aged(frame: Frame, standing: dict[str, set[Any]], rules: Rules) -> Frame:
    if not any(
        isinstance(answer, Seen | Unknown) and answer.account_id in standing for answer in frame.answers
    ):
        return frame
    answers = tuple(
        answer._replace(version=rules.still(answer.version, standing[answer.account_id]))
        if isinstance(answer, Seen | Unknown) and answer.account_id in standing
        else answer
        for answer in frame.answers
    )
    return Frame(frame.program, frame.args, answers)


def _require_kept(process: Process, store: Store) -> None:
    """What a caller was told, the store says for ever."""
    told = process.told.value if process.told is not None else None
    if isinstance(told, Entry):
        entry = store.books().entries.get(told.key)
        if entry != told:
            raise Violation(f"{process.name} was told {brief(told)}, the store says {brief(entry)}")
    elif isinstance(told, NeverHappens):
        entry = store.books().entries.get(told.key)
        if entry is not None and entry.state is KeyState.POSTED:
            raise Violation(
                f"{process.name} was told that {told.key} never happens, the store says {brief(entry)}"
            )
    elif isinstance(told, Started):
        status = get(store.cells, f"session:{told.session}")
        if status in ("STARTING", "ABORTED"):
            raise Violation(f"{process.name} was told that {told.session} runs, it is {status}")
    elif isinstance(told, Hold):
        entries = store.books().entries
        for id_, seen in store.accounts:
            held = seen.account.holds.get(told.id)
            if f"{id_}|{told.id}" in entries or (held is not None and held.n >= told.n):
                return
        raise Violation(
            f"{process.name} was told {brief(told)}, the store has no such hold, and no end of it"
        )


def _require_same_entries(before: Books, after: Books) -> None:
    """A key that has ended, ended so for ever."""
    for key, entry in before.entries.items():
        if after.entries.get(key) != entry:
            raise Violation(f"{key} ended as {brief(entry)}, now as {brief(after.entries.get(key))}")


def problems_of_holds(store: Store) -> Iterator[str]:
    ended = store.books().entries
    for id_, seen in store.accounts:
        for hold_id in seen.account.holds:
            if f"{id_}|{hold_id}" in ended:
                yield f"{hold_id} is open, and its key has ended as {brief(ended[f'{id_}|{hold_id}'])}"


def problems_of_move(before: Store, after: Store) -> Iterator[str]:
    """Ownership: who wrote a hold, owned it."""
    for id_, seen in after.accounts:
        was, now = before.seen(id_).account, seen.account
        for hold_id, hold in was.holds.items():
            changed = now.holds.get(hold_id)
            if changed is None:
                entry = after.books().entries.get(f"{id_}|{hold_id}")
                fenced = entry.facts.get("fenced", hold.owner) if entry is not None else None
                if fenced != hold.owner:
                    yield f"{hold_id} of {hold.owner} was closed by {fenced}"
                if entry is not None and entry.facts.get("reason") == "WALLET_EMPTY" and was.spendable > 0:
                    yield f"{hold_id} was closed as WALLET_EMPTY with {was.spendable} to spend"
            elif changed != hold:
                if changed.n <= hold.n or changed.epoch < hold.epoch:
                    yield f"a hold went back from {brief(hold)} to {brief(changed)}"
                if changed.epoch == hold.epoch and changed.facts.get("by", hold.owner) != hold.owner:
                    yield f"{hold_id} of {hold.owner} was written by {changed.facts['by']}"


def _told_store(store: Store) -> str:
    return "; ".join(
        [
            *(brief(s.account) for _, s in store.accounts),
            *(f"row {key}" for key, _ in store.rows),
            *map(str, store.cells),
        ]
    )


def brief(value: Any) -> str:
    """A value as a trace shows it."""
    match value:
        case Doc():
            return brief(value.value)
        case Seen():
            return f"{brief(value.account)} seen at version {'(stale)' if value.version == STALE else value.version}"
        case Account():
            holds = " ".join(brief(hold) for hold in value.holds.values())
            tail = " ".join(entry.key for entry in value.tail)
            credited = " ".join(key for key, _ in value.credited)
            return f"{value.id}={value.posted} holds[{holds}] tail[{tail}] credited[{credited}]"
        case Hold():
            return f"{value.id}:{value.amount_minor} n{value.n} epoch{value.epoch} {value.owner}"
        case Entry():
            moved = " ".join(f"{t.amount_minor}->{t.credit}" for t in value.transfers)
            return f"{value.key} #{value.seq} {value.state.value} {moved} {dict(value.facts)}"
        case Row():
            return f"row {value.entry.key}{' applied' if value.applied else ''}"
        case Mapping():
            return str(dict(value))
        case tuple() if not hasattr(value, "_fields"):
            return "(" + ", ".join(brief(part) for part in value) + ")"
        case _:
            return str(value)
