"""The price book: what a type of usage costs at an instant, and how an admin changes that from an instant to come on (SPEC 9).

Every process must give the same price for the same instant, and keeps the book in memory, since usages come by the hundreds a
second. So a change takes effect no sooner than `notice_ms` after it is written, and a book is trusted for `CACHE_MS` only. That the
two fit together: a row that counts from F on was begun to be written by F - notice on its writer's clock, and is durable, or refused,
`STORE_TIMEOUT` later. A usage at F or after is priced by a book whose reading began at F - CACHE_MS or later. Clocks are within
`SKEW_MS` of the store's (`/readyz` sees to it), and three may take part: the writer's, that of the process that dated the usage, and
that of the one that prices it. So notice >= CACHE_MS + 4 * SKEW_MS + STORE_TIMEOUT: 5 s where the store has 1 s to answer.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from billing_engine.clock import Clock
from billing_engine.errors import Unavailable
from billing_engine.ledger.rivals import ATTEMPTS, let_rivals_finish
from billing_engine.money import Asset
from billing_engine.usage.errors import (
    PriceChangeExists,
    UsagePriceInvalid,
    UsageTypeFixed,
)
from billing_engine.usage.model import Price
from billing_engine.usage.ports import PriceRows
from billing_engine.usage.pricing import MEASURED, Book, ListedPrice, PriceRow, check_price

#: How long a book that was read is trusted.
CACHE_MS: Final = 2_000
#: How far a process's clock may be from the store's.
SKEW_MS: Final = 500
#: No change takes effect sooner than this after it is written.
NOTICE_MIN_MS: Final = 5_000
#: No change is announced further ahead than this: ten years.
AHEAD_MAX_MS: Final = 3_653 * 86_400_000


def notice_ms(store_timeout_ms: int) -> int:
    """How long before it takes effect a change is written."""
    return max(NOTICE_MIN_MS, CACHE_MS + 4 * SKEW_MS + store_timeout_ms)


@dataclass(frozen=True, slots=True)
class WantedPrice:
    """What an admin asks for. None: as it is now (`per`, `unit`, `entry_type`), as soon as possible (`from_ms`)."""

    id: str
    list_name: str
    type: str
    price_minor: int
    by: str
    reason: str
    per: int | None = None
    unit: str | None = None
    entry_type: str | None = None
    from_ms: int | None = None


@dataclass(frozen=True, slots=True)
class PriceView:
    """One type of one list: the row of now (None while it has not taken effect yet) and all rows in their order."""

    list_name: str
    type: str
    now: PriceRow | None
    rows: Sequence[PriceRow]
    at_ms: int


class PriceBook:
    """`Prices` over the stored rows. One instance a process."""

    def __init__(self, rows: PriceRows, clock: Clock, asset: Asset, *, notice_ms: int) -> None:
        self._rows = rows
        self._clock = clock
        self._asset = asset
        self._notice_ms = notice_ms
        self._book = Book()
        #: When the reading of `_book` began.
        self._read_at_ms = -CACHE_MS
        self._reading: asyncio.Task[None] | None = None

    @property
    def asset(self) -> Asset:
        """What companies pay in."""
        return self._asset

    async def price_at(self, list_name: str, type_: str, at_ms: int) -> Price:
        """See `Prices`. A usage of the past needs no fresher book than one of its own time."""
        book = await self._read_since(min(at_ms, self._clock.now_ms()) - CACHE_MS)
        return book.price_at(list_name, type_, at_ms)

    async def current(self, list_name: str | None = None) -> list[PriceRow]:
        """The prices of now, of all lists or of one. Raises `PriceListUnknown`, `Unavailable`."""
        now_ms = self._clock.now_ms()
        book = await self._read_since(now_ms - CACHE_MS)
        rows = (book.row_at(pair, now_ms) for pair in book.pairs(list_name))
        return [row for row in rows if row is not None]

    async def lists(self) -> tuple[str, ...]:
        """The names of the lists. Raises `Unavailable`."""
        return (await self._read_since(self._clock.now_ms() - CACHE_MS)).lists

    async def view(self, list_name: str | None = None) -> list[PriceView]:
        """Everything, as stored right now. Raises `PriceListUnknown`, `Unavailable`."""
        book, now_ms = await self._fresh(), self._clock.now_ms()
        return [
            PriceView(*pair, now=book.row_at(pair, now_ms), rows=book.rows(pair), at_ms=now_ms)
            for pair in book.pairs(list_name)
        ]

    async def change(self, wanted: WantedPrice) -> PriceRow:
        """Write a change, or add a type to a list. The same `wanted.id` again answers the first row.

        Of two admins who change a price at once, both changes are written; what one of them leaves out is as it was when it was
        looked up. Without `from_ms` the later one counts.

        Raises:
            PriceListUnknown: lists come with the file.
            UsagePriceInvalid: a field is none that the book can hold; `effectiveFrom` is too soon or too far.
            UsageTypeFixed: the type exists with another entry type or unit.
            PriceChangeExists: another change takes effect at `from_ms`.
            Unavailable: it may have been written; the same id again will tell.
        """
        for attempt in range(ATTEMPTS):
            await let_rivals_finish(attempt)
            book = await self._fresh()
            if (done := book.changed_by(wanted.id)) is not None:
                return done
            row = self._row(book, wanted)
            if await self._rows.add(row):
                await self._fresh()
                return row
        raise Unavailable(reason="the price is being changed by others")

    async def check(self, wanted: WantedPrice) -> PriceRow | None:
        """The price that the change would follow. Raises what `change` raises, and changes nothing."""
        book = await self._fresh()
        done = book.changed_by(wanted.id)
        row = done or self._row(book, wanted)
        return book.row_at(row.pair, self._clock.now_ms())

    def _row(self, book: Book, wanted: WantedPrice) -> PriceRow:
        """The row that `wanted` is, as the book stands. Raises what `change` raises."""
        pair = (wanted.list_name, wanted.type)
        book.pairs(wanted.list_name)
        now_ms, first = self._clock.now_ms(), book.first(pair)
        from_ms = self._from_ms(book, wanted, now_ms)
        last = book.row_at(pair, from_ms) or first
        listed = _new(book, wanted) if first is None or last is None else _changed(first, last, wanted)
        check_price(listed, scale=self._asset.scale)
        if first is None and listed.type != (used := book.type_of(listed.entry_type) or listed.type):
            # Best effort between admins: one word for two types makes reports that add them up, and no wrong price.
            raise UsagePriceInvalid(field="entryType", problem=f"is the one of {used}")
        return row_of(
            listed,
            from_ms=from_ms,
            by=wanted.by,
            reason=wanted.reason,
            created_at_ms=now_ms,
            change_id=wanted.id,
            is_first=first is None,
        )

    def _from_ms(self, book: Book, wanted: WantedPrice, now_ms: int) -> int:
        earliest_ms = now_ms + self._notice_ms
        rows = book.rows((wanted.list_name, wanted.type))
        if wanted.from_ms is None:
            # What another admin has just written, by a clock that may be ahead of ours, must not outlive what is asked now.
            rivals = [row.from_ms for row in rows if row.created_at_ms >= now_ms - self._notice_ms]
            rivals = [at_ms for at_ms in rivals if at_ms <= earliest_ms + 2 * SKEW_MS]
            taken = {row.from_ms for row in rows}
            from_ms = max(earliest_ms, max(rivals, default=0) + 1)
            while from_ms in taken:
                from_ms += 1
            return from_ms
        if wanted.from_ms < earliest_ms:
            seconds = -(-self._notice_ms // 1_000)
            raise UsagePriceInvalid(
                field="effectiveFrom", problem=f"must be at least {seconds} seconds from now"
            )
        if wanted.from_ms > now_ms + AHEAD_MAX_MS:
            raise UsagePriceInvalid(field="effectiveFrom", problem="must be at most 10 years from now")
        if any(row.from_ms == wanted.from_ms for row in rows):
            raise PriceChangeExists(list=wanted.list_name, type=wanted.type, from_ms=wanted.from_ms)
        return wanted.from_ms

    async def _fresh(self) -> Book:
        """The book as it is now: read by a reading that begins after this call."""
        if self._reading is not None:
            await asyncio.wait((self._reading,))
        # Whoever else has waited for it may have begun the next one by now; that one began after our call, too.
        await self._join()
        return self._book

    async def _read_since(self, since_ms: int) -> Book:
        """A book whose reading began at `since_ms` or later. Raises `Unavailable`."""
        while self._read_at_ms < since_ms:
            await self._join()
        return self._book

    async def _join(self) -> None:
        """Wait for the one reading that is under way, or begin one. All who wait share its failure: a store that is away is asked
        once, not once for each usage.
        """
        if self._reading is None:
            self._reading = asyncio.create_task(self._read())
            # Looked at here too, for the case that all who waited have gone.
            self._reading.add_done_callback(lambda task: task.cancelled() or task.exception())
        await asyncio.shield(self._reading)

    async def _read(self) -> None:
        began_ms = self._clock.now_ms()
        try:
            self._book = Book(await self._rows.every())
            self._read_at_ms = began_ms
        finally:
            self._reading = None


def row_of(
    listed: ListedPrice,
    *,
    from_ms: int,
    by: str | None,
    reason: str,
    created_at_ms: int,
    change_id: str,
    is_first: bool,
) -> PriceRow:
    """A price, dated."""
    return PriceRow(
        list_name=listed.list_name,
        type=listed.type,
        entry_type=listed.entry_type,
        unit=listed.unit,
        price_minor=listed.price_minor,
        per=listed.per,
        from_ms=from_ms,
        by=by,
        reason=reason,
        created_at_ms=created_at_ms,
        change_id=change_id,
        is_first=is_first,
    )


def _changed(first: PriceRow, last: PriceRow, wanted: WantedPrice) -> ListedPrice:
    """Another price of a type that the list has. Raises `UsageTypeFixed`."""
    for asked, fixed in ((wanted.entry_type, first.entry_type), (wanted.unit, first.unit)):
        if asked not in (None, fixed):
            raise UsageTypeFixed(list=first.list_name, type=first.type)
    listed = ListedPrice(*first.pair, first.entry_type, first.unit, wanted.price_minor, last.per)
    return listed if wanted.per is None else replace(listed, per=wanted.per)


def _new(book: Book, wanted: WantedPrice) -> ListedPrice:
    """A type that is new in the list. Raises `UsagePriceInvalid`, `UsageTypeFixed`."""
    measured, _ = MEASURED.get(wanted.type, (None, None))
    known = book.entry_type_of(wanted.type) or measured
    if known is not None and wanted.entry_type not in (None, known):
        raise UsageTypeFixed(list=wanted.list_name, type=wanted.type)
    entry_type = wanted.entry_type or known
    if entry_type is None:
        raise UsagePriceInvalid(field="entryType", problem="is required for a new type")
    if wanted.unit is None:
        raise UsagePriceInvalid(field="unit", problem="is required for a new type")
    return ListedPrice(
        list_name=wanted.list_name,
        type=wanted.type,
        entry_type=entry_type,
        unit=wanted.unit,
        price_minor=wanted.price_minor,
        per=1 if wanted.per is None else wanted.per,
    )
