"""Redo, step by step, of many accounts at once: what is committed is copied out, credited, marked and cut (LEDGER 1).

A batch costs the same few store calls whatever its size: one to copy all entries out, one to read the accounts that are
credited, one to look at the rows, one to credit each account once for all its entries, one to mark, one to cut all tails.
"""

from collections.abc import Awaitable, Callable, Iterable

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
from billing_engine.ledger.ports import LedgerStore, Row, Versioned, Write
from billing_engine.ledger.rivals import ATTEMPTS

#: Waits before try number n, see `rivals`.
Pause = Callable[[int], Awaitable[None]]


def as_billing_error(failure: Exception) -> BillingError:
    """The failure itself, or `InvariantBroken` for what no code of ours should raise."""
    if isinstance(failure, BillingError):
        return failure
    broken = InvariantBroken(rule="ledger batch", cause=repr(failure))
    broken.__cause__ = failure
    return broken


class _Work:
    """One redo of many accounts, and how far it has come."""

    __slots__ = ("accounts", "after", "applied", "documents", "entries", "failed", "refused", "waiting")

    def __init__(self, found: Iterable[Document]) -> None:
        #: The newest document of each account that is known here.
        self.documents: dict[str, Document] = {document.account.id: document for document in found}
        self.accounts: dict[str, Account] = {
            id_: document.account for id_, document in self.documents.items()
        }
        self.failed: dict[str, BillingError] = {}
        #: Entries that are copied out, by key; those that some account cannot take; and the keys whose row is marked.
        self.entries: dict[str, Entry] = {}
        self.refused: dict[str, BillingError] = {}
        self.applied: set[str] = set()
        #: Credited account -> key -> amount still to be added; and key -> account -> balance after it was added.
        self.waiting: dict[str, dict[str, int]] = {}
        self.after: dict[str, dict[str, int]] = {}

    def copied_out(self) -> None:
        """Take up the entries of all accounts that have not failed."""
        for account in self.accounts.values():
            if account.id in self.failed:
                continue
            for entry in account.tail:
                self.entries[entry.key] = entry
                self.after[entry.key] = {}
                for target_id, amount_minor in credits_of(entry).items():
                    self.waiting.setdefault(target_id, {})[entry.key] = amount_minor

    def credited(self, target: Account, keys: Iterable[str]) -> None:
        """These credits are in the account, and remembered there with the balance after each."""
        balances = dict(target.credited)
        for key in keys:
            self.after[key][target.id] = balances[key]
            self.done_with(target.id, key)

    def done_with(self, target_id: str, key: str) -> None:
        del self.waiting[target_id][key]
        if not self.waiting[target_id]:
            del self.waiting[target_id]

    def refuse(self, target_id: str, key: str, error: BillingError) -> None:
        """The account cannot take this credit: its entry stays where it is."""
        self.refused[key] = error
        self.done_with(target_id, key)
        self.failed.setdefault(self.entries[key].account, error)

    def blame(self, account_id: str, error: BillingError) -> None:
        """Work on the account is left: whose redo that was has failed."""
        for account in self.accounts.values():
            if account.id == account_id or any(account_id in credits_of(entry) for entry in account.tail):
                self.failed.setdefault(account.id, error)


class Redo:
    """Finishes what is committed. Repeatable from any point, by any process, also by several at once."""

    def __init__(self, store: LedgerStore, documents: Documents, pause: Pause) -> None:
        self._store = store
        self._documents = documents
        self._pause = pause

    async def finish(self, found: Iterable[Document]) -> dict[str, BillingError]:
        """Redo the tails of these accounts and forget the credits on them that are marked.

        Returns:
            The accounts whose redo could not be finished, each with its reason; the others' is finished.

        Raises:
            Unavailable: the store did not answer; none of them is known to be finished.
        """
        work = _Work(found)
        await self._copy_out([account for account in work.accounts.values() if account.tail], work)
        work.copied_out()
        await self._credit(work)
        await self._mark(work)
        await self._cut(work)
        return work.failed

    async def _copy_out(self, accounts: list[Account], work: _Work) -> None:
        if not accounts:
            return
        try:
            await self._store.insert_rows([entry for account in accounts for entry in account.tail])
        except Unavailable:
            raise
        except Exception as broken:  # noqa: BLE001 - one account has an entry that cannot be: the others must not pay for it
            if len(accounts) == 1:
                work.failed[accounts[0].id] = as_billing_error(broken)
                return
            half = len(accounts) // 2
            await self._copy_out(accounts[:half], work)
            await self._copy_out(accounts[half:], work)

    async def _credit(self, work: _Work) -> None:
        """Add every credit once: targets first, then the rows' marks, then one write of amounts and keys together (LEDGER 1)."""
        remembered = {key for account in work.accounts.values() for key, _ in account.credited}
        if not work.waiting and remembered:
            work.applied |= _applied(await self._store.rows(sorted(remembered)))
        #: Accounts that refused several credits in one write get them one by one, so that only the bad one stays behind.
        one_by_one: set[str] = set()
        attempt = 0
        while work.waiting:
            await self._pause(attempt)
            await self._find(work, work.waiting)
            keys = {key for amounts in work.waiting.values() for key in amounts}
            work.applied |= _applied(await self._store.rows(sorted(keys | remembered)))
            writes, keys_of = self._credits(work, one_by_one)
            moved, refused = await self._swap(work, writes)
            for write in writes:
                id_, taken = write.account.id, keys_of[write.account.id]
                if id_ in refused and len(taken) > 1:
                    one_by_one.add(id_)
                elif id_ in refused:
                    work.refuse(id_, taken[0], refused[id_])
                elif id_ not in moved:
                    work.credited(write.account, taken)
            attempt = attempt + 1 if moved else 0
            if attempt == ATTEMPTS:
                for id_ in moved:
                    error = Unavailable(reason="versions kept moving", account=id_)
                    for key in list(work.waiting[id_]):
                        work.refuse(id_, key, error)

    def _credits(self, work: _Work, one_by_one: set[str]) -> tuple[list[Write], dict[str, list[str]]]:
        """One write for each account that is credited, and the keys that it adds."""
        writes: list[Write] = []
        keys_of: dict[str, list[str]] = {}
        for id_, amounts in [(id_, dict(amounts)) for id_, amounts in work.waiting.items()]:
            found = work.documents[id_]
            credited, taken = found.account, list[str]()
            for key, amount_minor in amounts.items():
                if key in work.applied:
                    # Another process has finished this one: what we know of the account may be from before that.
                    work.documents.pop(id_, None)
                    work.done_with(id_, key)
                    continue
                try:
                    before, credited = credited, apply_credit(credited, work.entries[key], amount_minor)
                except BillingError as error:
                    work.refuse(id_, key, error)
                    continue
                if credited is before:
                    work.credited(credited, [key])
                    continue
                taken.append(key)
                if id_ in one_by_one:
                    break
            if taken:
                writes.append(self._documents.write(found, credited))
                keys_of[id_] = taken
        return writes, keys_of

    async def _mark(self, work: _Work) -> None:
        marks = {
            key: after
            for key, after in work.after.items()
            if key not in work.applied and key not in work.refused
        }
        if marks:
            await self._store.mark_applied(marks)
            work.applied |= marks.keys()

    async def _cut(self, work: _Work) -> None:
        """The rows are marked: their entries go from the tails and their keys from the credited accounts, all in one call."""
        targets = (
            id_ for key in work.entries if key in work.applied for id_ in credits_of(work.entries[key])
        )
        left = dict.fromkeys([*work.accounts, *targets])
        for attempt in range(ATTEMPTS):
            await self._pause(attempt)
            await self._find(work, left)
            writes = []
            for id_ in left:
                found = work.documents[id_]
                cut = _without(found.account, work.applied)
                if cut is not found.account:
                    writes.append(self._documents.write(found, cut))
            moved, refused = await self._swap(work, writes)
            for id_, error in refused.items():
                work.blame(id_, error)
            if not moved:
                return
            left = dict.fromkeys(moved)
        for id_ in left:
            work.blame(id_, Unavailable(reason="versions kept moving", account=id_))

    async def _find(self, work: _Work, account_ids: Iterable[str]) -> None:
        """Make sure that the work has the documents of these accounts."""
        missing = []
        for id_ in account_ids:
            if id_ not in work.documents:
                kept = self._documents.get(id_)
                if kept is None:
                    missing.append(id_)
                else:
                    work.documents[id_] = kept
        if missing:
            loaded = await self._store.load(missing)
            for id_ in missing:
                work.documents[id_] = loaded.get(id_) or Versioned("", self._new_account(id_, work))

    @staticmethod
    def _new_account(account_id: str, work: _Work) -> Account:
        keys = work.waiting.get(account_id, {})
        asset = next((work.entries[key].asset for key in keys), "")
        return Account(account_id, asset, floor_of(account_id))

    async def _swap(self, work: _Work, writes: list[Write]) -> tuple[frozenset[str], dict[str, BillingError]]:
        """The accounts whose version had moved, and those that the store refused to write at all."""
        if not writes:
            return frozenset(), {}
        try:
            moved = frozenset(await self._store.commit(writes))
        except Unavailable:
            raise
        except Exception as broken:  # noqa: BLE001 - nothing is written; halve it until the one that cannot be stands alone
            self._documents.forget(write.account.id for write in writes)
            if len(writes) == 1:
                return frozenset(), {writes[0].account.id: as_billing_error(broken)}
            half = len(writes) // 2
            one, other = await self._swap(work, writes[:half]), await self._swap(work, writes[half:])
            return one[0] | other[0], one[1] | other[1]
        self._documents.remember(writes, moved)
        for write in writes:
            if write.account.id in moved:
                work.documents.pop(write.account.id, None)
            else:
                work.documents[write.account.id] = write
        return moved, {}


def _applied(rows: dict[str, Row]) -> set[str]:
    return {key for key, row in rows.items() if row.applied}


def _without(account: Account, applied: set[str]) -> Account:
    """The account without what is copied out and credited: the same object if there is none."""
    tail = frozenset(entry.key for entry in account.tail if entry.key in applied)
    credited = frozenset(key for key, _ in account.credited if key in applied)
    if tail:
        account = drop_tail(account, tail)
    return forget_credits(account, credited) if credited else account
