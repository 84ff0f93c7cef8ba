"""Group commit: many callers' changes decided together, written together, redone together.

One worker takes what has queued up, decides each change in order on the newest account document, and hands the store one
batch of compare-and-sets. While that batch commits, the next one gathers. A change is a pure function, so a batch that met
a moved version is simply decided again.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final, cast

from billing_engine.errors import BillingError, InvariantBroken, Unavailable
from billing_engine.ledger.documents import Document, Documents
from billing_engine.ledger.model import (
    Account,
    Entry,
    apply_credit,
    credits_of,
    drop_tail,
    floor_of,
    forget_credits,
)
from billing_engine.ledger.ports import AtomicLedgerStore, LedgerStore, Row, Versioned, Write
from billing_engine.ledger.redo import Pause, Redo, as_billing_error
from billing_engine.ledger.rivals import ATTEMPTS, let_rivals_finish

#: A change: the account as it is and the entry of the command's key, if there is one -> the next account and an answer.
Decide = Callable[[Account, "Entry | None"], "tuple[Account, Any]"]

BATCH_LIMIT: Final = 1_000


class LedgerBusy(Unavailable):
    """The bounded queue of changes is full: nothing was written."""

    code = "STORAGE_BUSY"
    detail = "The ledger is busy and took nothing. Try again in a moment."


class Command:
    """One caller's change, waiting for its batch; then its answer or error, waiting for the commit."""

    __slots__ = ("account_id", "answer", "asset", "decide", "done", "error", "key")

    def __init__(
        self, account_id: str, asset: str, key: str | None, decide: Decide, done: "asyncio.Future[Any]"
    ) -> None:
        self.account_id = account_id
        self.asset = asset
        self.key = key
        self.decide = decide
        self.done = done
        self.answer: Any = None
        self.error: BaseException | None = None


class _Batch:
    """The documents as the batch found them and as its changes leave them."""

    __slots__ = ("entries", "found", "now", "rows")

    def __init__(self) -> None:
        self.found: dict[str, Document] = {}
        self.now: dict[str, Account] = {}
        self.entries: dict[str, Entry] = {}
        self.rows: dict[str, Row] = {}


class Committer:
    """The ledger's only writer in this process."""

    def __init__(
        self, store: LedgerStore, *, queue_limit: int = 100_000, pause: Pause = let_rivals_finish
    ) -> None:
        self._store = store
        self._queue: deque[Command] = deque()
        self._queue_limit = queue_limit
        self._wake = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None
        self._closing = False
        self._documents = Documents()
        self._pause = pause
        self._redo = Redo(store, self._documents, pause)
        self.batches = 0
        self.commands = 0
        #: Told the number of changes of every batch; must not raise.
        self.on_batch: Callable[[int], None] = lambda _size: None

    def start(self) -> None:
        """Begin to work; the queue may already hold commands."""
        self._worker = asyncio.create_task(self._run(), name="ledger-committer")

    async def stop(self) -> None:
        """Commit what is queued, then stop. Later changes are refused."""
        self._closing = True
        self._wake.set()
        if self._worker is not None:
            # Not awaited itself: a worker that was killed would kill its stopper too.
            await asyncio.wait((self._worker,))

    def submit(self, account_id: str, asset: str, key: str | None, decide: Decide) -> "asyncio.Future[Any]":
        """Queue a change. The future ends with the change's answer once it is durable, or with its error. Cancelling the
        future does not take the change back.

        Raises:
            LedgerBusy: the queue is full or closed; nothing was queued.
        """
        if self._closing or len(self._queue) >= self._queue_limit:
            raise LedgerBusy(queued=len(self._queue))
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if not self._queue:
            self._wake.set()
        self._queue.append(Command(account_id, asset, key, decide, done))
        return done

    async def redo(self, account_ids: Iterable[str]) -> None:
        """Finish what is committed on these accounts and not yet copied out; for recovery and after an unknown outcome."""
        for account_id in account_ids:
            await self.submit(account_id, "", None, _touch)

    async def _run(self) -> None:
        commands: list[Command] = []
        try:
            while True:
                if not self._queue:
                    if self._closing:
                        return
                    self._wake.clear()
                    await self._wake.wait()
                    continue
                commands = [self._queue.popleft() for _ in range(min(len(self._queue), BATCH_LIMIT))]
                await self._serve(commands)
        except BaseException as end:
            # Nobody will answer from here on, so nobody may be left waiting: what was under way is of unknown outcome.
            self._closing = True
            stopped = Unavailable(reason="the ledger stopped", cause=repr(end))
            _fail([command for command in (*commands, *self._queue) if not command.done.done()], stopped)
            self._queue.clear()
            raise

    async def _serve(self, commands: list[Command]) -> None:
        self.batches += 1
        self.commands += len(commands)
        self.on_batch(len(commands))
        waiting = commands
        for attempt in range(ATTEMPTS):
            await self._pause(attempt)
            waiting = await self._attempt(waiting)
            if not waiting:
                return
        _fail(waiting, Unavailable(reason="versions kept moving"))

    async def _attempt(self, commands: list[Command]) -> list[Command]:
        """Answer every command, except those whose account's version had moved: these come back, to be decided again."""
        try:
            if self._store.atomic:
                again = await self._commit_atomically(cast("AtomicLedgerStore", self._store), commands)
            else:
                again = await self._commit_in_steps(commands)
        except Unavailable as unknown:
            self._forget(commands)
            _fail(commands, unknown)
            return []
        except Exception as broken:  # noqa: BLE001 - whatever it is, its caller must hear of it and the others must not
            # Nothing is written. One change broke a rule that the store guards: the others must not pay for it.
            self._forget(commands)
            if len(commands) > 1:
                half = len(commands) // 2
                return await self._attempt(commands[:half]) + await self._attempt(commands[half:])
            _fail(commands, as_billing_error(broken))
            return []
        waiting = set(again)
        _settle([command for command in commands if command not in waiting] if again else commands)
        return again

    def _forget(self, commands: list[Command]) -> None:
        self._documents.forget(command.account_id for command in commands)

    # -- one atomic step (SQLite): the same states, run in memory, stored once ---------------------------------------

    async def _commit_atomically(self, store: AtomicLedgerStore, commands: list[Command]) -> list[Command]:
        batch = await self._decide_all(commands)
        entries = list(batch.entries.values())
        # Whoever is paid, in one read: a thousand ends would else be a thousand reads.
        await self._find({target: entry.asset for entry in entries for target in credits_of(entry)}, batch)
        for entry in entries:
            await self._redo_in_memory(entry, batch)
        for account in [a for a in batch.now.values() if a.tail or a.credited]:
            await self._finish_in_memory(account.id, batch)
        writes = self._writes(batch)
        if not writes and not batch.rows:
            return []
        moved = await store.commit_all(writes, list(batch.rows.values()))
        if moved:
            self._documents.forget(write.account.id for write in writes)
            return commands
        self._documents.remember(writes)
        return []

    async def _redo_in_memory(self, entry: Entry, batch: _Batch) -> None:
        after: dict[str, int] = {}
        for target_id, amount_minor in credits_of(entry).items():
            await self._find({target_id: entry.asset}, batch)
            target = apply_credit(batch.now[target_id], entry, amount_minor)
            after[target_id] = next(balance for key, balance in target.credited if key == entry.key)
            batch.now[target_id] = forget_credits(target, frozenset({entry.key}))
        batch.rows[entry.key] = Row(entry, applied=True, credits_after=after)
        batch.now[entry.account] = drop_tail(batch.now[entry.account], frozenset({entry.key}))

    async def _finish_in_memory(self, account_id: str, batch: _Batch) -> None:
        """Redo what an earlier, stepwise run of this store left behind."""
        left = batch.now[account_id].tail
        # Targets before the rows' marks, as everywhere: the other order adds a credit twice.
        for entry in left:
            await self._find(dict.fromkeys(credits_of(entry), entry.asset), batch)
        known = await self._store.rows([entry.key for entry in left])
        for entry in left:
            row = known.get(entry.key)
            if row is not None and row.applied:
                batch.now[account_id] = drop_tail(batch.now[account_id], frozenset({entry.key}))
            else:
                await self._redo_in_memory(entry, batch)
        remembered = [key for key, _ in batch.now[account_id].credited]
        applied = {key for key, row in (await self._store.rows(remembered)).items() if row.applied}
        applied |= {key for key in remembered if key in batch.rows}
        if applied:
            batch.now[account_id] = forget_credits(batch.now[account_id], frozenset(applied))

    # -- step by step (MongoDB): one conditional write decides, redo follows -----------------------------------------

    async def _commit_in_steps(self, commands: list[Command]) -> list[Command]:
        batch = await self._decide_all(commands)
        writes = self._writes(batch)
        moved = frozenset(await self._store.commit(writes)) if writes else frozenset[str]()
        self._documents.remember(writes, moved)
        # From here on the rest is committed, and a failure belongs to the account whose redo failed: it is neither
        # decided again nor the neighbours' business.
        documents = batch.found | {write.account.id: write for write in writes}
        answered, unfinished, again = [], [], []
        for command in commands:
            account = documents[command.account_id].account
            if account.id in moved:
                again.append(command)
            elif command.error is None and (account.tail or account.credited):
                unfinished.append(command)
            else:
                answered.append(command)
        # A slice moves no money to anybody: its caller need not wait for the redo of others.
        _settle(answered)
        if unfinished:
            ids = dict.fromkeys(command.account_id for command in unfinished)
            await self._finish(unfinished, [documents[id_] for id_ in ids])
        return again

    async def _finish(self, commands: list[Command], documents: list[Document]) -> None:
        try:
            failed = await self._redo.finish(documents)
        except Exception as failure:  # noqa: BLE001 - a repeat by key will redo and then answer
            failed = dict.fromkeys((command.account_id for command in commands), as_billing_error(failure))
        self._documents.forget(failed)
        for command in commands:
            error = failed.get(command.account_id)
            if error is not None:
                command.error = _copy_of(error)

    # -- both ----------------------------------------------------------------------------------------------------

    async def _decide_all(self, commands: list[Command]) -> _Batch:
        """Every command decided on the newest documents, in order."""
        while True:
            batch = _Batch()
            if not await self._stale(await self._decide_each(commands, batch), batch):
                return batch

    async def _decide_each(self, commands: list[Command], batch: _Batch) -> list[str]:
        """The accounts on which some command was refused or changed nothing."""
        # The order of reads is the rule: accounts with their versions first, then the keys.
        await self._find(_assets_of(commands), batch)
        keys = [command.key for command in commands if command.key is not None]
        rows = await self._store.rows(keys) if keys else {}
        now = batch.now
        idle: list[str] = []
        for command in commands:
            account = now[command.account_id]
            known = _known(command.key, account, rows, batch) if command.key is not None else None
            command.error = None
            if command.asset != account.asset and command.asset:
                command.error = InvariantBroken(rule="an account has one asset", account=account.id)
                continue
            try:
                changed, command.answer = command.decide(account, known)
            except BillingError as refused:
                command.error = refused
                idle.append(command.account_id)
            except Exception as bug:  # noqa: BLE001 - a defect in one change is that caller's failure, not the batch's
                command.error = InvariantBroken(rule="a change is a pure function", cause=repr(bug))
                command.error.__cause__ = bug
            else:
                if changed is account:
                    idle.append(command.account_id)
                elif changed.tail is not account.tail:
                    for entry in changed.tail[len(account.tail) :]:
                        batch.entries[entry.key] = entry
                now[command.account_id] = changed
        return idle

    async def _stale(self, idle: list[str], batch: _Batch) -> bool:
        """Whether an answer without a write rests on a document that this process remembers and another one has changed.

        A write proves its own document by its version. "Short", "fenced", "gone" and "nothing to do" write nothing, so
        their document is read once more; what is stale is forgotten.
        """
        now, found, kept = batch.now, batch.found, self._documents
        doubtful = {id_ for id_ in idle if now[id_] is found[id_].account and found[id_] is kept.get(id_)}
        if not doubtful:
            return False
        stored = await self._store.load(list(doubtful))
        stale = [id_ for id_ in doubtful if id_ not in stored or stored[id_].version != found[id_].version]
        kept.forget(stale)
        return bool(stale)

    async def _find(self, assets: dict[str, str], batch: _Batch) -> None:
        """Make sure that the batch has these accounts (id -> asset of a new one)."""
        now, found = batch.now, batch.found
        remembered = self._documents.get
        unknown = []
        for id_ in assets:
            if id_ not in now:
                cached = remembered(id_)
                if cached is None:
                    unknown.append(id_)
                else:
                    found[id_] = cached
                    now[id_] = cached.account
        if unknown:
            loaded = await self._store.load(unknown)
            for id_ in unknown:
                found[id_] = loaded.get(id_) or Versioned("", Account(id_, assets[id_], floor_of(id_)))
                now[id_] = found[id_].account

    def _writes(self, batch: _Batch) -> list[Write]:
        found, write = batch.found, self._documents.write
        return [
            write(found[id_], account)
            for id_, account in batch.now.items()
            if account is not found[id_].account
        ]


def _assets_of(commands: list[Command]) -> dict[str, str]:
    """Account -> the asset that a new one gets. A redo names none and decides nothing."""
    assets = {command.account_id: command.asset for command in commands}
    if "" in assets.values():
        assets |= {command.account_id: command.asset for command in commands if command.asset}
    return assets


def _known(key: str, account: Account, rows: dict[str, Row], batch: _Batch) -> Entry | None:
    if key in batch.entries:
        return batch.entries[key]
    row = rows.get(key)
    if row is not None:
        return row.entry
    return next((entry for entry in account.tail if entry.key == key), None)


def _touch(account: Account, _known: Entry | None) -> tuple[Account, None]:
    """A change that changes nothing: its batch redoes what the account has left."""
    return account, None


def _fail(commands: list[Command], error: BillingError) -> None:
    for command in commands:
        command.error = _copy_of(error)
    _settle(commands)


def _copy_of(error: BillingError) -> BillingError:
    """For each caller its own: callers in many tasks raise it at once."""
    copy = type(error)(**error.facts)
    copy.__cause__ = error
    return copy


def _settle(commands: list[Command]) -> None:
    for command in commands:
        done = command.done
        if done.done():  # the caller was cancelled; what it asked for has happened all the same
            continue
        if command.error is not None:
            done.set_exception(command.error)
        else:
            done.set_result(command.answer)
