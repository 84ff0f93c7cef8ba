"""What the price book begins with: the file's prices at the first start. From then on storage holds the book."""

from collections.abc import Sequence

from billing_engine.clock import Clock
from billing_engine.errors import InvariantBroken
from billing_engine.usage.ports import PriceRows, PriceSeed
from billing_engine.usage.prices import row_of
from billing_engine.usage.pricing import Book, ListedPrice


class OtherCurrency(InvariantBroken):
    """The stored book is in another currency: its numbers would be read as a hundred or a million times another price."""


async def seed_prices(
    rows: PriceRows,
    clock: Clock,
    listed: Sequence[ListedPrice],
    *,
    version: int,
    currency: str,
    notice_ms: int,
) -> list[str]:
    """Write what the book begins with, or what a newer file brings; what the operator should know, in words.

    Until the mark is written, every start is the first: a crash in between, or a second process at the same time, writes the
    rows that are missing and no other. Later, a pair that is new in the file takes effect as any change does. A stored price is
    never touched.

    Raises:
        OtherCurrency: nothing was written.
        Unavailable: some may be written; the next start goes on.
    """
    seed, book, now_ms = await rows.seed(), Book(await rows.every()), clock.now_ms()
    if seed is not None and seed.currency != currency:
        raise OtherCurrency(stored=seed.currency, set=currency)
    warnings: list[str] = []
    for one in listed:
        if book.first(one.pair) is not None:
            warnings += _differences(book, one, now_ms) if seed is not None else []
            continue
        row = row_of(
            one,
            from_ms=0 if seed is None else now_ms + notice_ms,
            by=None,
            reason=f"Version {version} of the price file",
            created_at_ms=now_ms,
            change_id="",
            is_first=True,
        )
        # False: another process that starts, too, was faster.
        await rows.add(row)
    if seed is None:
        await rows.mark_seeded(PriceSeed(version, currency, now_ms))
    return warnings


def _differences(book: Book, listed: ListedPrice, now_ms: int) -> list[str]:
    """What the file has changed since it brought the pair, unless storage says the same by now. An admin's change is no difference."""
    name = ".".join(listed.pair)
    first, now = book.rows(listed.pair)[0], book.row_at(listed.pair, now_ms) or book.rows(listed.pair)[0]
    if (first.entry_type, first.unit) != (listed.entry_type, listed.unit):
        return [f"{name}: entry type and unit of a type never change; storage keeps the first ones"]
    wanted, stored = (listed.price_minor, listed.per), (now.price_minor, now.per)
    if stored == wanted or (first.by is None and (first.price_minor, first.per) == wanted):
        return []
    return [
        f"{name}: storage holds another price than PRICE_BOOK and USAGE_PRICES and keeps it; change it with PUT /admin/usage-prices"
    ]
