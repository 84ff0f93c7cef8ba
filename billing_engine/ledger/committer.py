"""Group commit: many callers' changes decided together, written together, redone together.

One worker takes what has queued up, decides each change in order on the newest account document, and hands the store one
batch of compare-and-sets. While that batch commits, the next one gathers. A change is a pure function, so a batch that met
a moved version is simply decided again.
"""

import asyncio
import secrets
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final

from billing_engine.errors import BillingError, InvariantBroken, Unavailable
from billing_engine.ledger.model import (
    Account,
    Entry,
    apply_credit,
    credits_of,
    drop_tail,
    floor_of,
    forget_credits,
)
from billing_engine.ledger.ports import LedgerStore, Row, Write

#: A change: the account as it is and the entry of the command's key, if there is one -> the next account and an answer.
Decide = Callable[[Account, "Entry | None"], "tuple[Account, Any]"]

BATCH_LIMIT: Final = 1_000
#: A version that moves this often under one batch means two writers fight over it; the callers may retry.
ATTEMPTS: Final = 20


class LedgerBusy(Unavailable):
    """The bounded queue of changes is full: nothing was written."""

    code = "STORAGE_BUSY"
    detail = "The ledger is busy and took nothing. Try again in a moment."


@dataclass(slots=True, eq=False)
class Command:
    """One caller's change, waiting for its batch."""

    account_id: str
    asset: str
    key: str | None
    decide: Decide
    done: asyncio.Future[Any]


@dataclass(slots=True)
class _Outcome:
    command: Command
    answer: Any = None
    error: BaseException | None = None


@dataclass(slots=True)
class _Batch:
    """The documents as the batch found them and as its changes leave them."""

    found: dict[str, Account] = field(default_factory=dict)
    now: dict[str, Account] = field(default_factory=dict)
    entries: dict[str, Entry] = field(default_factory=dict)
    rows: dict[str, Row] = field(default_factory=dict)

    def writes(self) -> list[Write]:
        return [
            Write(self.found[id_].version, replace(account, version=new_version()))
            for id_, account in self.now.items()
            if account is not self.found[id_]
        ]


def new_version() -> str:
    """A random token: a counter could repeat after a rollback (LEDGER 1)."""
    return secrets.token_hex(8)


class Committer:
    """The ledger's only writer in this process."""

    def __init__(self, store: LedgerStore, *, queue_limit: int = 100_000) -> None:
        self._store = store
        self._queue: deque[Command] = deque()
        self._queue_limit = queue_limit
        self._wake = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None
        self._closing = False
        # Documents with open holds, as this process last wrote them: a tick needs no read. A moved version is found by the
        # store's compare-and-set, never by this cache.
        self._cache: dict[str, Account] = {}
        self.batches = 0
        self.commands = 0

    def start(self) -> None:
        """Begin to work; the queue may already hold commands."""
        self._worker = asyncio.create_task(self._run(), name="ledger-committer")

    async def stop(self) -> None:
        """Commit what is queued, then stop. Later changes are refused."""
        self._closing = True
        self._wake.set()
        if self._worker is not None:
            await self._worker

    def submit(self, account_id: str, asset: str, key: str | None, decide: Decide) -> asyncio.Future[Any]:
        """Queue a change. The future ends with the change's answer once it is durable, or with its error. Cancelling the
        caller does not take the change back."""
        if self._closing or len(self._queue) >= self._queue_limit:
            raise LedgerBusy(queued=len(self._queue))
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._queue.append(Command(account_id, asset, key, decide, done))
        if not self._wake.is_set():
            self._wake.set()
        return done

    async def redo(self, account_ids: list[str]) -> None:
        """Finish what is committed on these accounts and not yet copied out; for recovery and after an unknown outcome."""
        for account_id in account_ids:
            await self.submit(account_id, "", None, _touch)

    async def _run(self) -> None:
        while True:
            if not self._queue:
                if self._closing:
                    return
                self._wake.clear()
                await self._wake.wait()
                continue
            commands = [self._queue.popleft() for _ in range(min(len(self._queue), BATCH_LIMIT))]
            await self._serve(commands)

    async def _serve(self, commands: list[Command]) -> None:
        self.batches += 1
        self.commands += len(commands)
        try:
            outcomes = await self._commit(commands)
        except InvariantBroken as broken:
            if len(commands) == 1:
                _settle([_Outcome(commands[0], error=broken)])
                return
            # One change broke a rule that the store guards: the others must not pay for it.
            for command in commands:
                await self._serve([command])
            return
        except BaseException as exc:  # the callers must hear of whatever ended the batch
            for command in commands:
                self._cache.pop(command.account_id, None)
            error = exc if isinstance(exc, BillingError) else InvariantBroken(rule="ledger batch", cause=repr(exc))
            error.__cause__ = exc if error is not exc else error.__cause__
            _settle([_Outcome(command, error=error) for command in commands])
            if not isinstance(exc, Exception):
                raise
            return
        _settle(outcomes)

    async def _commit(self, commands: list[Command]) -> list[_Outcome]:
        if self._store.atomic:
            return await self._commit_atomically(commands)
        outcomes = await self._commit_each(commands)
        for account_id in dict.fromkeys(o.command.account_id for o in outcomes if o.error is None):
            await self._redo_account(account_id)
        return outcomes

    # -- one atomic step (SQLite): the same states, run in memory, stored once ---------------------------------------

    async def _commit_atomically(self, commands: list[Command]) -> list[_Outcome]:
        for _ in range(ATTEMPTS):
            batch = _Batch()
            outcomes = await self._decide_all(commands, batch)
            for entry in list(batch.entries.values()):
                await self._redo_in_memory(entry, batch)
            for account in [a for a in batch.now.values() if a.tail or a.credited]:
                await self._finish_in_memory(account.id, batch)
            writes = batch.writes()
            if not writes and not batch.rows:
                return outcomes
            moved = await self._store.commit_all(writes, list(batch.rows.values()))
            self._remember(writes, moved or [])
            if not moved:
                return outcomes
        raise Unavailable(reason="versions kept moving", accounts=len(commands))

    async def _redo_in_memory(self, entry: Entry, batch: _Batch) -> None:
        after: dict[str, int] = {}
        for target_id, amount_minor in credits_of(entry).items():
            await self._find([target_id], batch, entry.asset)
            target = apply_credit(batch.now[target_id], entry.key, amount_minor)
            after[target_id] = next(balance for key, balance in target.credited if key == entry.key)
            batch.now[target_id] = forget_credits(target, frozenset({entry.key}))
        batch.rows[entry.key] = Row(entry, applied=True, credits_after=after)
        account = batch.now[entry.account]
        batch.now[entry.account] = drop_tail(account, frozenset({entry.key}))

    async def _finish_in_memory(self, account_id: str, batch: _Batch) -> None:
        """Redo what an earlier, stepwise run of this store left behind."""
        left = batch.now[account_id].tail
        # Targets before the rows' marks, as everywhere: the other order adds a credit twice.
        for entry in left:
            await self._find(list(credits_of(entry)), batch, entry.asset)
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

    async def _commit_each(self, commands: list[Command]) -> list[_Outcome]:
        finished: list[_Outcome] = []
        waiting = commands
        for _ in range(ATTEMPTS):
            batch = _Batch()
            outcomes = await self._decide_all(waiting, batch)
            writes = batch.writes()
            moved = set(await self._store.commit(writes)) if writes else set()
            self._remember(writes, moved)
            finished += [o for o in outcomes if o.command.account_id not in moved]
            waiting = [o.command for o in outcomes if o.command.account_id in moved]
            if not waiting:
                return finished
        busy = Unavailable(reason="versions kept moving")
        return finished + [_Outcome(command, error=busy) for command in waiting]

    async def _redo_account(self, account_id: str) -> None:
        account = self._cache.get(account_id) or (await self._store.load([account_id])).get(account_id)
        if account is None or not (account.tail or account.credited):
            return
        if account.tail:
            await self._store.insert_rows(account.tail)
            known = await self._store.rows([entry.key for entry in account.tail])
            marks: dict[str, dict[str, int]] = {}
            for entry in account.tail:
                if not known[entry.key].applied:
                    marks[entry.key] = {
                        target_id: await self._credit(target_id, entry, amount_minor)
                        for target_id, amount_minor in credits_of(entry).items()
                    }
            await self._store.mark_applied(marks)
            done = frozenset(entry.key for entry in account.tail)
            await self._change(account_id, lambda found: drop_tail(found, done))
            for target_id in {t for entry in account.tail for t in credits_of(entry)}:
                await self._change(target_id, lambda found: forget_credits(found, done))
        if account.credited:
            remembered = [key for key, _ in account.credited]
            applied = frozenset(k for k, row in (await self._store.rows(remembered)).items() if row.applied)
            await self._change(account_id, lambda found: forget_credits(found, applied))

    async def _credit(self, target_id: str, entry: Entry, amount_minor: int) -> int:
        """Add the credit once: target first, then the row's mark, then one write of amount and key together (LEDGER 1)."""
        for _ in range(ATTEMPTS):
            found = await self._fresh(target_id, entry.asset)
            row = (await self._store.rows([entry.key]))[entry.key]
            if row.applied:
                return row.credits_after[target_id]
            credited = apply_credit(found, entry.key, amount_minor)
            if credited is found or await self._swap(found, credited):
                return next(after for key, after in credited.credited if key == entry.key)
        raise Unavailable(reason="versions kept moving", account=target_id)

    async def _change(self, account_id: str, change: Callable[[Account], Account]) -> None:
        for _ in range(ATTEMPTS):
            found = await self._fresh(account_id, "")
            changed = change(found)
            if (changed.tail, changed.credited) == (found.tail, found.credited):
                return
            if await self._swap(found, changed):
                return
        raise Unavailable(reason="versions kept moving", account=account_id)

    async def _swap(self, found: Account, changed: Account) -> bool:
        write = Write(found.version, replace(changed, version=new_version()))
        moved = await self._store.commit([write])
        self._remember([write], moved)
        return not moved

    async def _fresh(self, account_id: str, asset: str) -> Account:
        found = (await self._store.load([account_id])).get(account_id)
        return found or Account(account_id, asset, floor_of(account_id))

    # -- both ----------------------------------------------------------------------------------------------------

    async def _decide_all(self, commands: list[Command], batch: _Batch) -> list[_Outcome]:
        # The order of reads is the rule: accounts with their versions first, then the keys.
        await self._find([c.account_id for c in commands], batch, None, commands)
        keys = [c.key for c in commands if c.key is not None]
        rows = await self._store.rows(keys) if keys else {}
        outcomes = []
        for command in commands:
            account = batch.now[command.account_id]
            known = self._known(command, account, rows, batch)
            outcome = _Outcome(command)
            try:
                changed, outcome.answer = command.decide(account, known)
            except BillingError as refused:
                outcome.error = refused
            except Exception as bug:
                # A defect in one change is that caller's failure, not the batch's.
                outcome.error = InvariantBroken(rule="a change is a pure function", cause=repr(bug))
                outcome.error.__cause__ = bug
            else:
                for entry in changed.tail[len(account.tail) :]:
                    batch.entries[entry.key] = entry
                batch.now[command.account_id] = changed
            outcomes.append(outcome)
        return outcomes

    @staticmethod
    def _known(command: Command, account: Account, rows: dict[str, Row], batch: _Batch) -> Entry | None:
        if command.key is None:
            return None
        if command.key in batch.entries:
            return batch.entries[command.key]
        for entry in account.tail:
            if entry.key == command.key:
                return entry
        row = rows.get(command.key)
        return row.entry if row is not None else None

    async def _find(
        self, account_ids: list[str], batch: _Batch, asset: str | None, commands: list[Command] | None = None
    ) -> None:
        missing = [id_ for id_ in dict.fromkeys(account_ids) if id_ not in batch.now]
        unknown = [id_ for id_ in missing if id_ not in self._cache]
        loaded = await self._store.load(unknown) if unknown else {}
        assets = {c.account_id: c.asset for c in commands or () if c.asset}
        for id_ in missing:
            account = self._cache.get(id_) or loaded.get(id_)
            if account is None:
                account = Account(id_, asset or assets.get(id_, ""), floor_of(id_))
            batch.found[id_] = batch.now[id_] = account

    def _remember(self, writes: list[Write], moved: list[str] | set[str]) -> None:
        for write in writes:
            account = write.account
            if moved and (account.id in moved or self._store.atomic):
                self._cache.pop(account.id, None)
            elif account.holds or account.tail:
                self._cache[account.id] = account
            else:
                self._cache.pop(account.id, None)


def _touch(account: Account, _known: Entry | None) -> tuple[Account, None]:
    """A change that changes nothing: its batch redoes what the account has left."""
    return account, None


def _settle(outcomes: list[_Outcome]) -> None:
    for outcome in outcomes:
        done = outcome.command.done
        if done.done():  # the caller was cancelled; what it asked for has happened all the same
            continue
        if outcome.error is not None:
            done.set_exception(outcome.error)
        else:
            done.set_result(outcome.answer)

