"""The one thread that writes: it commits many callers' work together.

A commit costs a disk flush whether it carries one row or a thousand. So the writer takes what waits, runs
each piece of work under a savepoint of its own, commits once, and tells all the callers at once. It does not
linger for more: while one batch is being flushed, the next one gathers by itself.

Nothing is acknowledged before its COMMIT has returned. When a transaction is lost, all in it are told so,
the refused included: a refusal may rest on a row that now does not exist.
"""

import asyncio
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Final, TypeVar

import structlog

from server.storage.errors import StoreBusy, StoreUnavailable
from server.storage.sqlite.failures import for_caller, is_damage, is_io_error, unavailable
from server.storage.sqlite.lanes import Item, Lane, Lanes

T = TypeVar("T")
#: A caller, what its work returned, and what its work raised (then the value means nothing).
Outcome = tuple["asyncio.Future[Any]", Any, BaseException | None]

log = structlog.get_logger(__name__)

_SMALLEST_ROUND: Final = len(Lane)  # one of each lane, or the last lane would never be reached


class TransactionLost(Exception):
    """The batch's transaction ended before its COMMIT: SQLite rolled it back, or the work closed it."""


@dataclass(slots=True)
class WriterStats:
    """Counters since the start, for metrics. Written by the writer thread only."""

    commits: int = 0
    committed_items: int = 0
    lost_batches: int = 0


class Writer:
    """Runs work in the order of submission within a lane. Every method is for the event loop's thread."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        *,
        queue_limit: int,
        batch_limit: int,
        batch_time_ms: int,
        on_fatal: Callable[[BaseException], None],
    ) -> None:
        self.stats = WriterStats()
        #: Why the thread ended before it was asked to; None while all is well.
        self.fatal: BaseException | None = None
        self._connection = connection
        self._batch_limit = batch_limit
        self._batch_time_s = batch_time_ms / 1000
        self._on_fatal = on_fatal
        self._lanes = Lanes(lane_limit=queue_limit, round_limit=max(batch_limit, _SMALLEST_ROUND))
        self._round: deque[Item] = deque()
        self._wake: SimpleQueue[None] = SimpleQueue()
        self._idle = False
        self._accepting = True
        self._stopping = False
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="sqlite-writer", daemon=True)
        self._thread.start()

    # --- the event loop's side ---

    def submit(self, lane: Lane, work: Callable[[sqlite3.Connection], T]) -> "asyncio.Future[T]":
        """Queue `work`; the future is done once the work is committed, refused, or known to be lost.

        Cancelling the future does not stop the work. Raises `StoreBusy`, `StoreUnavailable`.
        """
        if not self._accepting:
            raise StoreUnavailable(reason="the database is closed")
        future: asyncio.Future[T] = self._loop.create_future()
        if not self._lanes.put(lane, (work, future)):
            raise StoreBusy(lane=lane.value)
        # The item is in its lane before this look: a writer about to sleep finds it, one asleep is woken.
        if self._idle:
            self._idle = False
            self._wake.put(None)
        return future

    def depth(self, lane: Lane) -> int:
        """How many items wait in `lane`."""
        return self._lanes.depth(lane)

    async def close(self) -> None:
        """Take no more work, finish what waits, end the thread. The connection stays open.

        Cancelled or not, it leaves no thread behind: what follows gives up the file's lock.
        """
        self._accepting = False
        self._stopping = True
        self._wake.put(None)
        try:
            await self._loop.run_in_executor(None, self._thread.join)
        finally:
            self._thread.join()

    # --- the writer thread's side ---

    def _run(self) -> None:
        try:
            while self._wait():
                self._batch()
        except BaseException as exc:  # noqa: BLE001  whatever it is: no caller may be left waiting for ever
            self.fatal = exc
            self._tell(self._fail_all, exc)

    def _wait(self) -> bool:
        """Sleep until there is work. False when there is none and there will be none."""
        while not self._round:
            stopping = self._stopping  # looked at before the lanes: once it is set they get nothing more
            if self._lanes:
                self._round = self._lanes.take()
            elif stopping:
                return False
            else:
                self._idle = True
                # Whoever submitted just before `_idle` was set did not wake us: look once more.
                if not self._lanes and not self._stopping:
                    self._wake.get()
                self._idle = False
        return True

    def _batch(self) -> None:
        """One transaction: as many items as its limits allow, one COMMIT, one message to the loop."""
        outcomes: list[Outcome] = []
        try:
            self._fill(outcomes)
            self._commit()
        except BaseException as exc:  # noqa: BLE001  a mistake in here must not cost the callers their answer
            self._lose(outcomes, exc)
        else:
            self.stats.commits += 1
            self.stats.committed_items += len(outcomes)
            self._tell(_deliver, outcomes)

    def _fill(self, outcomes: list[Outcome]) -> None:
        connection = self._connection
        execute = connection.execute
        self._begin(outcomes)
        ends_at_s = time.monotonic() + self._batch_time_s
        # Until something is in the transaction, undoing an item is undoing all of it: no savepoint needed.
        empty = True
        while True:
            work, future = self._round.popleft()
            outcomes.append((future, None, None))  # from here on this caller shares the fate of the batch
            try:
                if not empty:
                    execute("SAVEPOINT item")
                value = work(connection)
                if not empty:
                    execute("RELEASE item")
            except BaseException as exc:  # noqa: BLE001  the caller's, whatever it is
                self._undo(exc, empty=empty)
                outcomes[-1] = (future, None, for_caller(exc))
            else:
                if not connection.in_transaction:
                    raise TransactionLost("a piece of work ended the transaction it ran in")
                outcomes[-1] = (future, value, None)
                empty = False
            if len(outcomes) >= self._batch_limit or time.monotonic() >= ends_at_s:
                return
            if not self._round:
                if not self._lanes:
                    return
                self._round = self._lanes.take()

    def _begin(self, outcomes: list[Outcome]) -> None:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
        except sqlite3.Error:
            # Nothing ran. These callers are told so, or the writer would try the same round for ever.
            outcomes.extend((future, None, None) for _work, future in self._round)
            self._round.clear()
            raise

    def _undo(self, exc: BaseException, *, empty: bool) -> None:
        """Take back one item and keep its neighbours. Raises when the transaction is gone."""
        if not self._connection.in_transaction:
            # SQLITE_FULL, SQLITE_IOERR and a few more roll back everything, and say so only here (LEDGER 6).
            raise TransactionLost("the transaction was rolled back") from exc
        if is_damage(exc):
            raise TransactionLost("the database file is damaged") from exc
        if empty:
            self._connection.execute("ROLLBACK")
            self._connection.execute("BEGIN IMMEDIATE")
        else:
            self._connection.execute("ROLLBACK TO item")
            self._connection.execute("RELEASE item")

    def _commit(self) -> None:
        try:
            self._connection.execute("COMMIT")
        except sqlite3.Error as exc:
            if is_io_error(exc):
                # Whether these pages reached the disk is unknown, and after a failed flush the kernel may
                # call a lost page clean: going on could acknowledge what is not there. Restart.
                raise _Fatal from exc
            raise

    def _lose(self, outcomes: list[Outcome], exc: BaseException) -> None:
        self.stats.lost_batches += 1
        log.error("sqlite_batch_lost", callers=len(outcomes), error=repr(exc), cause=repr(exc.__cause__))
        self._tell(_deliver_loss, outcomes, exc)
        cause = exc.__cause__ or exc
        if (
            not isinstance(exc, (sqlite3.Error, TransactionLost))
            or isinstance(exc, _Fatal)
            or is_damage(cause)
        ):
            raise cause
        if self._connection.in_transaction:
            # Should this fail too, the writer ends: a transaction that can be neither kept nor undone.
            self._connection.execute("ROLLBACK")

    def _tell(self, callback: Callable[..., None], *args: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *args)
        except RuntimeError:
            # The loop is closed: nobody is left to be told. What is committed stays committed.
            log.warning("sqlite_writer_without_loop")

    # --- back on the event loop ---

    def _fail_all(self, cause: BaseException) -> None:
        """The writer has ended for good. Runs on the loop, as submissions do: none slips in between."""
        self._accepting = False
        # Not only what was taken: whoever heard of the lost batch first may have submitted again by now.
        while self._round or self._lanes:
            for _work, future in self._round:
                if not future.done():
                    future.set_exception(unavailable(cause))
            self._round = self._lanes.take()
        self._on_fatal(cause)


class _Fatal(sqlite3.Error):
    """A COMMIT whose outcome the disk keeps to itself; its cause is SQLite's error."""


def _deliver(outcomes: list[Outcome]) -> None:
    for future, value, error in outcomes:
        if future.done():
            continue  # its caller was cancelled and waits no longer; the others do
        if error is None:
            future.set_result(value)
        else:
            future.set_exception(error)


def _deliver_loss(outcomes: list[Outcome], cause: BaseException) -> None:
    for future, _value, _error in outcomes:
        if not future.done():
            future.set_exception(unavailable(cause))
