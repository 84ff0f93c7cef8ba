"""The order of store calls, read off a recording: of the real committer and of the model's programs alike.

The model shows which orders are safe. That would say nothing about the product if the product kept another order: so both are
recorded and held to the same list, however the calls are batched.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from billing_engine.errors import BillingError, InvariantBroken
from billing_engine.ledger.committer import Committer
from billing_engine.ledger.model import Account, Entry
from billing_engine.ledger.ports import Row, Versioned, Write
from tests.support.commit_model import Checker, Commit, Do, InsertRows, Load, Mark, Rows, Scenario, Store
from tests.support.commit_model_programs import Change, Protocol
from tests.support.ledger_dicts import DictLedgerStore


class Event(NamedTuple):
    """What one store call did with one thing: `read` or `write` an account, `look` for, `copy` out or `mark` a key."""

    what: str
    name: str
    before: Account | None = None
    after: Account | None = None


class Kept(NamedTuple):
    """What is durable in the end, work in progress left aside, and how it came there."""

    accounts: dict[str, Account]
    rows: dict[str, Row]
    told: list[str]
    events: list[Event]


class RecordingStore(DictLedgerStore):
    """Takes notes of every call of the committer."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[Event] = []

    async def load(self, account_ids: Sequence[str]) -> dict[str, Versioned]:
        self.events += [Event("read", id_) for id_ in account_ids]
        return await super().load(account_ids)

    async def rows(self, keys: Sequence[str]) -> dict[str, Row]:
        self.events += [Event("look", key) for key in keys]
        return await super().rows(keys)

    async def commit(self, writes: Sequence[Write]) -> list[str]:
        for write in writes:
            id_ = write.account.id
            before = self.accounts[id_].account if id_ in self.accounts else Account(id_, write.account.asset)
            self.events.append(Event("write", id_, before, write.account))
        return await super().commit(writes)

    async def insert_rows(self, entries: Iterable[Entry]) -> None:
        wanted = list(entries)
        self.events += [Event("copy", entry.key) for entry in wanted]
        await super().insert_rows(wanted)

    async def mark_applied(self, credits_after: Mapping[str, Mapping[str, int]]) -> None:
        self.events += [Event("mark", key) for key in credits_after]
        await super().mark_applied(credits_after)


async def kept_by_committer(changes: Sequence[Change]) -> Kept:
    """One process of the product, one change after the other, then recovery."""
    store = RecordingStore()
    committer = Committer(store)
    committer.start()
    told = []
    for change in changes:
        try:
            told.append(repr(await committer.submit(change.account_id, "INR", change.key, change.decide)))
        except InvariantBroken:
            raise
        except BillingError as refused:
            told.append(type(refused).__name__)
    await committer.redo(await store.pending())
    await committer.stop()
    accounts = {id_: _at_rest(found.account) for id_, found in store.accounts.items()}
    return Kept(accounts, store.entries, told, store.events)


def kept_by_model(names: Sequence[str], programs: Protocol) -> Kept:
    """One process of the model, the same changes, then recovery."""
    checker = Checker(Scenario("in order", ()), programs)
    store = Store()
    events: list[Event] = []

    def heard(call: Any, before: Store) -> None:
        events.extend(_events_of(call, before))

    told = []
    for name in names:
        store, answer = checker.alone(store, Do("change", (name,)), heard=heard)
        told.append(answer.error if hasattr(answer, "error") else repr(answer))
    store, _ = checker.alone(store, Do("recover", ()), heard=heard)
    accounts = {id_: _at_rest(seen.account) for id_, seen in store.accounts}
    return Kept(accounts, {key: row.value for key, row in store.rows}, told, events)


def _events_of(call: Any, store: Store) -> Iterator[Event]:
    match call:
        case Load(account_id):
            yield Event("read", account_id)
        case Rows(keys):
            yield from (Event("look", key) for key in keys)
        case Commit(seen, account):
            yield Event("write", seen.account_id, store.seen(seen.account_id).account, account.value)
        case InsertRows(entries):
            yield from (Event("copy", entry.value.key) for entry in entries)
        case Mark(marks):
            yield from (Event("mark", key) for key, _ in marks)


def disorder(events: Sequence[Event]) -> list[str]:
    """Where a recording of one process does not keep the orders of LEDGER 1."""
    found: list[str] = []
    last: dict[tuple[str, str], int] = {}
    credited: dict[str, int] = {}
    for at, event in enumerate(events):
        what, name, before, after = event
        if before is not None and after is not None:
            # What a process wrote itself it knows as well as what it has read.
            known = max(last.get(("read", name), -1), last.get(("write", name), -1))
            for key in _tail(after) - _tail(before):
                if not known < last.get(("look", key), -1):
                    found.append(
                        f"{key} committed on {name}: the key was not looked for after the account was read"
                    )
            for key in _credited(after) - _credited(before):
                credited[key] = at
                if not last.get(("read", name), -1) < last.get(("look", key), -1):
                    found.append(
                        f"{key} credited to {name}: the row was not looked at after the account was read"
                    )
                if not last.get(("copy", key), at) < at:
                    found.append(f"{key} credited to {name} before it was copied out")
            for key in _tail(before) - _tail(after):
                if ("mark", key) not in last:
                    found.append(f"{key} cut from the tail of {name} before its row was marked")
            for key in _credited(before) - _credited(after):
                if ("mark", key) not in last:
                    found.append(f"{key} forgotten by {name} before its row was marked")
            moved = after.posted - before.posted
            entered = sum(e.posted_after - e.posted_before for e in after.tail if e.key not in _tail(before))
            if moved != entered and not _credited(after) - _credited(before):
                found.append(f"{moved} on {name} without an entry and without a remembered key")
        if what == "mark" and credited.get(name, -1) > at:
            found.append(f"{name} marked before it was credited")
        last[what, name] = at
    return found


def _tail(account: Account) -> set[str]:
    return {entry.key for entry in account.tail}


def _credited(account: Account) -> set[str]:
    return {key for key, _ in account.credited}


def _at_rest(account: Account) -> Account:
    """Without what redo may do now or with the next write."""
    return account._replace(holds=dict(account.holds), tail=(), credited=())
