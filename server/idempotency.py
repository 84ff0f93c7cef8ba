"""The same request again gives the same answer again, and moves nothing twice (SPEC 1, LEDGER 2).

A row `caller | route | key` is inserted before anything happens, with the request's fingerprint and a fresh operation id that
every session, hold and transfer of the request is named after. What happens to the row:

- the request took effect (2xx): the answer is kept, for ever;
- it was refused (4xx): nothing took effect, the row goes, the key may be used again after a recharge, say;
- the outcome is unknown (5xx, a crash): the row stays in progress. The next request with the key runs again *with the same
  operation id*, so that what did happen is found and not repeated.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, Protocol

from billing_engine.clock import Clock
from server.errors import IdempotencyInProgress, IdempotencyKeyReused, ValidationFailed

#: After this time without an answer the request counts as crashed. Running twice is harmless, so it may be short.
LEASE_MS: Final = 15_000
_KEY: Final = re.compile(r"[\x21-\x7e]{1,255}")
#: How often a row may vanish (its request was refused) between our failed insert and our read.
_ATTEMPTS: Final = 5


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """What was answered: status and JSON body."""

    status: int
    body: str


@dataclass(frozen=True, slots=True)
class IdempotencyRow:
    """One use of a key. `run` names the run that holds the lease; it ends at `lease_until_ms`."""

    id: str
    fingerprint: str
    operation_id: str
    run: str
    lease_until_ms: int
    created_at_ms: int
    answer: StoredAnswer | None = None


class IdempotencyRows(Protocol):
    """The stored rows. All methods raise `StoreUnavailable`."""

    async def add(self, row: IdempotencyRow) -> bool:
        """Insert; False if the id exists."""
        ...

    async def get(self, row_id: str) -> IdempotencyRow | None: ...

    async def lease(self, row: IdempotencyRow, *, expect_run: str) -> bool:
        """Give the row to `row.run` until `row.lease_until_ms`, if `expect_run` still has it unanswered; whether it was."""
        ...

    async def answer(self, row_id: str, *, operation_id: str, answer: StoredAnswer) -> None:
        """Keep the answer, if the row is this operation's and has none yet."""
        ...

    async def drop(self, row_id: str, *, run: str) -> None:
        """Delete the row, if it is this run's and unanswered."""
        ...


class Idempotency:
    """Decides for each request with a key: run it, run it again, or answer as before."""

    def __init__(
        self,
        *,
        rows: IdempotencyRows,
        clock: Clock,
        new_id: Callable[[], str],
        lease_ms: int = LEASE_MS,
        process: str | None = None,
        is_alive: Callable[[str], bool] = lambda _process: True,
    ) -> None:
        """`process` names this one in its runs. `is_alive` says of another whether it may still be running what it began: where
        nobody else serves these rows, nobody is. A wrong no is harmless: see `LEASE_MS`.
        """
        self._rows = rows
        self._clock = clock
        self._new_id = new_id
        self._lease_ms = lease_ms
        self._process = process or new_id()
        self._is_alive = is_alive

    async def begin(self, *, caller: str, route: str, key: str, fingerprint: str) -> IdempotencyRow:
        """The row of this request. With an answer: give that one. Without: run, under its operation id.

        Raises:
            ValidationFailed: the key is no key; names `Idempotency-Key`.
            IdempotencyKeyReused: the key stands for another request.
            IdempotencyInProgress: the first request still runs.
        """
        if not _KEY.fullmatch(key):
            raise ValidationFailed([("Idempotency-Key", "must be 1 to 255 visible ASCII characters")])
        row_id = f"{caller}|{route}|{key}"
        for _ in range(_ATTEMPTS):
            now_ms = self._clock.now_ms()
            fresh = IdempotencyRow(
                id=row_id,
                fingerprint=fingerprint,
                operation_id=self._new_id(),
                run=f"{self._process}:{self._new_id()}",
                lease_until_ms=now_ms + self._lease_ms,
                created_at_ms=now_ms,
            )
            if await self._rows.add(fresh):
                return fresh
            known = await self._rows.get(row_id)
            if known is None:
                continue
            return await self._join(known, fresh)
        raise IdempotencyInProgress(retry_after_s=1)

    async def _join(self, known: IdempotencyRow, fresh: IdempotencyRow) -> IdempotencyRow:
        if known.fingerprint != fresh.fingerprint:
            raise IdempotencyKeyReused
        if known.answer is not None:
            return known
        left_ms = known.lease_until_ms - self._clock.now_ms()
        runner = known.run.partition(":")[0]
        crashed = runner != self._process and not self._is_alive(runner)
        if left_ms > 0 and not crashed:
            raise IdempotencyInProgress(retry_after_s=left_ms / 1000)
        again = replace(known, run=fresh.run, lease_until_ms=fresh.lease_until_ms)
        if not await self._rows.lease(again, expect_run=known.run):
            raise IdempotencyInProgress(retry_after_s=1)
        return again

    async def keep(self, row: IdempotencyRow, answer: StoredAnswer) -> None:
        """The request took effect: this is its answer from now on."""
        await self._rows.answer(row.id, operation_id=row.operation_id, answer=answer)

    async def forget(self, row: IdempotencyRow) -> None:
        """The request was refused: the key is free again."""
        await self._rows.drop(row.id, run=row.run)

    async def leave(self, row: IdempotencyRow) -> None:
        """The outcome is unknown: whoever asks next runs the same operation again, at once."""
        await self._rows.lease(replace(row, lease_until_ms=0), expect_run=row.run)
