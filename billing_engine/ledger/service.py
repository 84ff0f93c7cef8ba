"""Every movement of money passes through here."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from billing_engine.clock import Clock
from billing_engine.ledger.committer import Committer, Decide
from billing_engine.ledger.model import (
    Account,
    Entry,
    InsufficientFunds,
    KeyReused,
    KeyState,
    KeyVoided,
    Movement,
    effect_on,
    floor_of,
    has_document,
    key_of,
    post,
    same_content,
    void,
)
from billing_engine.ledger.ports import Activity, LedgerStore, Line, OpenHold, Row, Total


class Ledger:
    """Accounts, holds and entries over one store. One instance is the only writer of its process."""

    def __init__(self, store: LedgerStore, clock: Clock, day_of: Callable[[int], str]) -> None:
        self._store = store
        self._clock = clock
        self._day_of = day_of
        self.committer = Committer(store)

    async def start(self) -> None:
        """Start the committer and redo what a former process committed and did not copy out."""
        self.committer.start()
        await self.recover()

    async def stop(self) -> None:
        """Commit what is queued and stop."""
        await self.committer.stop()

    async def recover(self) -> None:
        """Redo, from whatever point it was left at. Harmless at any time."""
        await self.committer.redo(await self._store.pending())

    def day_of(self, at_ms: int) -> str:
        """The local day of an instant, YYYY-MM-DD."""
        return self._day_of(at_ms)

    def change(
        self, account_id: str, asset: str, decide: Decide, *, source: str | None = None
    ) -> "asyncio.Future[Any]":
        """Queue a pure change of one account for the next group commit; awaiting it gives its answer, once durable.

        `decide(account, known)` gets the newest account and the entry of `source`'s key, if it has ended. It may run several
        times and must answer a repeat with the first result. The change goes on when the caller is cancelled.

        Raises:
            BillingError: what `decide` raised; nothing was changed.
            Unavailable: the outcome is unknown; repeat with the same source.
        """
        key = key_of(account_id, source) if source is not None else None
        return self.committer.submit(account_id, asset, key, decide)

    async def post(self, movement: Movement) -> Entry:
        """Book the movement once per source; the first entry again for a repeat.

        Raises:
            InsufficientFunds: the payer would pass its floor. The refusal is kept: the same source is refused for ever.
            KeyReused: the source is known with other content.
            KeyVoided: the source was voided.
        """

        def decide(account: Account, known: Entry | None) -> tuple[Account, Entry]:
            if known is None:
                at_ms = self._clock.now_ms()
                return post(account, movement, at_ms=at_ms, day=self._day_of(at_ms))
            if known.state is KeyState.VOIDED:
                raise KeyVoided(key=known.key)
            if not same_content(known, movement):
                raise KeyReused(key=known.key)
            return account, known

        entry: Entry = await self.change(movement.account, movement.asset, decide, source=movement.source)
        if entry.state is KeyState.REFUSED:
            needed = -effect_on(entry.account, entry.transfers)
            raise InsufficientFunds(account=entry.account, needed_minor=needed)
        return entry

    async def void(self, account_id: str, asset: str, source: str) -> Entry:
        """Decide by writing that `source` never happens; an open hold of that name is given back. What has ended stays as it ended."""

        def decide(account: Account, known: Entry | None) -> tuple[Account, Entry]:
            if known is not None:
                return account, known
            at_ms = self._clock.now_ms()
            return void(account, key_of(account_id, source), at_ms=at_ms, day=self._day_of(at_ms))

        entry: Entry = await self.change(account_id, asset, decide, source=source)
        return entry

    async def account(self, account_id: str, asset: str) -> Account:
        """The account as last committed, its own redo done. A store that cannot be read raises; it is never a zero."""
        found = (await self._store.load([account_id])).get(account_id)
        if found is not None and found.account.tail:
            await self.committer.redo([account_id])
            found = (await self._store.load([account_id])).get(account_id)
        return found.account if found is not None else Account(account_id, asset, floor_of(account_id))

    async def accounts(self, account_ids: Sequence[str]) -> dict[str, Account]:
        """Those that exist, as `account` gives each."""
        found = await self._store.load(account_ids)
        if behind := [id_ for id_, one in found.items() if one.account.tail]:
            await self.committer.redo(behind)
            found |= await self._store.load(behind)
        return {id_: one.account for id_, one in found.items()}

    async def balance(self, account_id: str, asset: str) -> int:
        """What stands on the account: posted for one with a document, the sum of its rows for a system account."""
        if has_document(account_id):
            return (await self.account(account_id, asset)).posted
        return await self._store.balance_of_rows(account_id, asset)

    async def entry(self, account_id: str, source: str) -> Entry | None:
        """How the source ended, or None while nothing has been committed under it."""
        found = (await self._store.load([account_id])).get(account_id)
        key = key_of(account_id, source)
        row = (await self._store.rows([key])).get(key)
        if row is not None:
            return row.entry
        return next((entry for entry in found.account.tail if entry.key == key), None) if found else None

    async def lines(
        self,
        account_id: str,
        *,
        limit: int,
        before: tuple[int, str] | None = None,
        kinds: Sequence[str] | None = None,
    ) -> list[Line]:
        """The account's history, newest first, after redo of its own entries."""
        await self.account(account_id, "")
        return await self._store.lines(account_id, limit=limit, before=before, kinds=kinds)

    async def entries(
        self,
        account_id: str,
        *,
        above: int = 0,
        below: int | None = None,
        limit: int,
        newest_first: bool = False,
    ) -> list[Entry]:
        """The account's own entries by number, as last copied out: ask `account` first, whose redo copies out what it has."""
        return await self._store.entries(
            account_id, above=above, below=below, limit=limit, newest_first=newest_first
        )

    async def total_credited(self, account_id: str, *, kinds: Sequence[str], day_prefix: str = "") -> Total:
        """Sum of what these kinds of transfer brought to the account on days starting with the prefix."""
        return await self._store.total_credited(account_id, kinds=kinds, day_prefix=day_prefix)

    async def total_debited(self, account_id: str, *, kinds: Sequence[str], day_prefix: str = "") -> Total:
        """Sum of what these kinds of transfer took from the account on days starting with the prefix."""
        return await self._store.total_debited(account_id, kinds=kinds, day_prefix=day_prefix)

    async def balance_before(self, account_id: str, asset: str, day: str) -> int:
        """What the account's entries of the days before `day` (YYYY-MM-DD) add up to, after redo of its own."""
        await self.account(account_id, asset)
        return await self._store.balance_of_rows(account_id, asset, before_day=day)

    async def open_holds(self, prefix: str, *, owner: str | None = None) -> list[OpenHold]:
        """The open holds whose id starts with `prefix`; with `owner` only those that it owns."""
        return await self._store.open_holds(prefix, owner=owner)

    async def copied_out(self, keys: Sequence[str]) -> dict[str, Row]:
        """The rows of these keys, whole: with all their transfers."""
        return await self._store.rows(keys)

    async def activity(self, asset: str, *, first_day: str, last_day: str) -> Activity:
        """What the asset's rows moved and booked on these local days, by day and kind."""
        return await self._store.activity(asset, first_day=first_day, last_day=last_day)
