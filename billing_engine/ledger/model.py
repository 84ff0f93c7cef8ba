"""The ledger's states and the pure functions that move between them. No I/O, no clock.

An *account* is a document that is its own write-ahead log (LEDGER 1): besides its balance it carries its open *holds* and a
*tail* of entries that are committed here and not yet copied out. A function below takes an account and answers the next
one; the store accepts it with one compare-and-set on `version`, or refuses it. What follows a commit is *redo*:
copying the tail's entries to rows and their credits to other accounts, repeatable from any point.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from billing_engine.errors import Conflict, InvariantBroken, NotEnough

#: Accounts of these families have no document: their balance is the sum of the rows (LEDGER 1).
SYSTEM_FAMILIES: Final = frozenset({"gateway", "revenue", "issued", "receivable"})
#: The fact that says how much an entry was billed for, in the unit of its kind (a consultation: whole seconds). Reports add
#: it up, so stores keep it beside the other columns.
QUANTITY: Final = "quantity"


class InsufficientFunds(NotEnough):
    """The account's spendable balance does not cover the amount; nothing was changed."""


class KeyReused(Conflict):
    """The key is known with other content."""

    code = "KEY_REUSED"
    detail = "This key has been used for another operation."


class KeyVoided(Conflict):
    """The key was voided: what it named will never happen."""

    code = "KEY_VOIDED"
    detail = "This operation was cancelled before it took effect."


class HoldGone(Conflict):
    """The hold is closed or was never opened: it can be neither extended nor resurrected."""

    code = "HOLD_GONE"
    detail = "The hold is closed."


class Fenced(Conflict):
    """Another owner has adopted the hold: this writer's epoch or token is not the current one."""

    code = "FENCED"
    detail = "Another process owns this hold."


class KeyState(StrEnum):
    """How a key ended, durably and for ever (LEDGER 2)."""

    POSTED = "posted"
    REFUSED = "refused"
    VOIDED = "voided"


@dataclass(frozen=True, slots=True)
class Transfer:
    """`amount_minor` (positive) moves from account `debit` to account `credit`."""

    debit: str
    credit: str
    amount_minor: int
    kind: str


@dataclass(frozen=True, slots=True)
class Entry:
    """One immutable line of an account's history: the fate of one key and all transfers it made.

    `posted_before` and `posted_after` are the committing account's. A refused entry carries the transfers that were asked for
    and moved nothing; a voided one carries none. `day` is the local day (YYYY-MM-DD), computed once (LEDGER 8).
    """

    key: str
    account: str
    seq: int
    state: KeyState
    kind: str
    asset: str
    reference: str
    transfers: tuple[Transfer, ...]
    posted_before: int
    posted_after: int
    at_ms: int
    day: str
    facts: Mapping[str, Any] = field(default_factory=dict)


#: Holds and accounts are named tuples: they are made anew with every slice, and a tuple costs a third of a frozen dataclass.
_NONE: Final[Mapping[str, Any]] = MappingProxyType({})


class Hold(NamedTuple):
    """Money set aside on an account. `n` rises with each write; `epoch` and `owner` fence (LEDGER 3).

    `facts` belong to whoever holds (a consultation's meter) and change only together with the money.
    """

    id: str
    amount_minor: int
    n: int
    epoch: int
    owner: str
    facts: Mapping[str, Any]


class Account(NamedTuple):
    """The account document. Its version, a token that is new with each write, is the store's and stands beside it.

    `floor` is what the store itself enforces for `posted - held` (None: the kind of transfer decides).
    `held` is the sum of the open holds. `credited` holds (key, balance after) of credits that were added here and whose row is
    not yet marked applied. `facts` belong to whoever the account is for (a company's totals, its debt): like a hold's they change
    only in a write of the account, together with the money.
    """

    id: str
    asset: str
    floor: int | None = 0
    posted: int = 0
    held: int = 0
    seq: int = 0
    holds: Mapping[str, Hold] = _NONE
    tail: tuple[Entry, ...] = ()
    credited: tuple[tuple[str, int], ...] = ()
    facts: Mapping[str, Any] = _NONE

    @property
    def spendable(self) -> int:
        """Smallest units that may be held or paid now."""
        return self.posted - self.held


def has_document(account_id: str) -> bool:
    """Whether the account keeps a balance of its own; system accounts are the sum of their rows."""
    return account_id.partition(":")[0] not in SYSTEM_FAMILIES


def floor_of(account_id: str) -> int | None:
    """What the store refuses to go below. Earnings have no stored floor: a reversal may leave a receivable (LEDGER 5)."""
    return None if account_id.startswith("earnings:") else 0


def key_of(account_id: str, source: str) -> str:
    """A key contains its account, so that two accounts can never both commit it (LEDGER 2).

    Raises `InvariantBroken` for an account whose name would blur where the source begins.
    """
    if "|" in account_id:
        raise InvariantBroken(rule="an account's name has no bar", account=account_id)
    return f"{account_id}|{source}"


@dataclass(frozen=True, slots=True)
class Movement:
    """A movement to post once: `source` is the caller's permanent name for it.

    `account` is where it commits: the guarded account that pays or, where a system account pays, the one that receives.
    Every transfer is paid by `account` or by a system account. `floor` is what the payer may not go below.
    """

    account: str
    source: str
    kind: str
    asset: str
    reference: str
    transfers: tuple[Transfer, ...]
    floor: int = 0
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        return key_of(self.account, self.source)


def check_transfers(account_id: str, transfers: tuple[Transfer, ...]) -> None:
    """Raises `InvariantBroken` for a transfer that one commit on `account_id` cannot carry."""
    for transfer in transfers:
        paid_here = transfer.debit == account_id or not has_document(transfer.debit)
        if transfer.amount_minor <= 0 or transfer.debit == transfer.credit or not paid_here:
            raise InvariantBroken(
                rule="a transfer is positive and paid by its committing account", transfer=transfer
            )


def effect_on(account_id: str, transfers: tuple[Transfer, ...]) -> int:
    """What the transfers add to (or take from) one account."""
    into = sum(t.amount_minor for t in transfers if t.credit == account_id)
    out_of = sum(t.amount_minor for t in transfers if t.debit == account_id)
    return into - out_of


def quantity_of(entry: Entry) -> int:
    """How much the entry was billed for, in the unit of its kind; 0 for a kind that measures nothing."""
    # Consultations measured under this name before the fact had one of its own.
    return int(entry.facts.get(QUANTITY, entry.facts.get("durationS", 0)))


def same_content(entry: Entry, movement: Movement) -> bool:
    """Whether a repeated key names the same movement."""
    return (entry.kind, entry.reference, entry.transfers) == (
        movement.kind,
        movement.reference,
        movement.transfers,
    )


def post(account: Account, movement: Movement, *, at_ms: int, day: str) -> tuple[Account, Entry]:
    """Commit the movement, or commit that it is refused because the payer would pass its floor.

    Raises:
        InvariantBroken: one commit on this account cannot carry the movement, or its key belongs to an open hold.
    """
    if movement.source in account.holds:
        # The hold's close would find its key ended and leave the money set aside for ever.
        raise InvariantBroken(rule="a hold's key is ended by its close", hold=movement.source)
    check_transfers(account.id, movement.transfers)
    change = effect_on(account.id, movement.transfers)
    covered = change >= 0 or account.spendable + change >= movement.floor
    entry = Entry(
        key=movement.key,
        account=account.id,
        seq=account.seq + 1,
        state=KeyState.POSTED if covered else KeyState.REFUSED,
        kind=movement.kind,
        asset=account.asset,
        reference=movement.reference,
        transfers=movement.transfers,
        posted_before=account.posted,
        posted_after=account.posted + change if covered else account.posted,
        at_ms=at_ms,
        day=day,
        # What open holds had set aside at this moment: an answer made from the entry alone can tell what was spendable.
        facts={**movement.facts, "held": account.held},
    )
    return _push(account, entry), entry


def void(account: Account, key: str, *, at_ms: int, day: str) -> tuple[Account, Entry]:
    """Decide by writing that `key` never happens. An open hold of that key is given back in the same write."""
    given_back = next((hold for id_, hold in account.holds.items() if key_of(account.id, id_) == key), None)
    entry = Entry(
        key=key,
        account=account.id,
        seq=account.seq + 1,
        state=KeyState.VOIDED,
        kind="void",
        asset=account.asset,
        reference="",
        transfers=(),
        posted_before=account.posted,
        posted_after=account.posted,
        at_ms=at_ms,
        day=day,
    )
    return _push(account if given_back is None else _without_hold(account, given_back), entry), entry


def open_hold(
    account: Account, *, hold_id: str, amount_minor: int, owner: str, facts: Mapping[str, Any]
) -> tuple[Account, Hold]:
    """Set money aside under a new hold, epoch 1, n 1.

    Raises:
        InsufficientFunds: the account has less to spend; nothing is changed.
        InvariantBroken: the hold is open already (the caller looks before it opens), or the amount is negative.
    """
    if hold_id in account.holds or amount_minor < 0:
        raise InvariantBroken(rule="a hold is opened once, and never negative", hold=hold_id)
    _require_spendable(account, amount_minor)
    hold = Hold(hold_id, amount_minor, n=1, epoch=1, owner=owner, facts=facts)
    return _with_hold(account, hold), hold


def fenced_hold(account: Account, hold_id: str, *, epoch: int, owner: str) -> Hold:
    """The open hold, if the caller owns it. Raises `HoldGone` or `Fenced`."""
    hold = account.holds.get(hold_id)
    if hold is None:
        raise HoldGone(hold=hold_id)
    if hold.epoch != epoch or hold.owner != owner:
        raise Fenced(hold=hold_id, epoch=hold.epoch)
    return hold


def extend_hold(
    account: Account, hold: Hold, *, n: int, amount_minor: int, facts: Mapping[str, Any]
) -> tuple[Account, Hold]:
    """Set the hold's amount (usually more) and facts. A write with an `n` that is not above the hold's changes nothing.

    Raises:
        InsufficientFunds: the account cannot cover the increase; nothing is changed.
        InvariantBroken: the amount is negative, which would be money to spend that is not there.
    """
    if n <= hold.n:
        return account, hold
    if amount_minor < 0:
        raise InvariantBroken(rule="a hold is never negative", hold=hold.id)
    _require_spendable(account, amount_minor - hold.amount_minor)
    changed = Hold(hold.id, amount_minor, n, hold.epoch, hold.owner, facts)
    return _with_hold(account, changed), changed


def adopt_hold(account: Account, hold: Hold, *, owner: str, facts: Mapping[str, Any]) -> tuple[Account, Hold]:
    """Make `owner` the hold's owner at the next epoch: every later write of the former owner is refused."""
    adopted = Hold(hold.id, hold.amount_minor, hold.n + 1, hold.epoch + 1, owner, facts)
    return _with_hold(account, adopted), adopted


def close_hold(
    account: Account,
    hold: Hold,
    *,
    kind: str,
    transfers: tuple[Transfer, ...],
    facts: Mapping[str, Any],
    at_ms: int,
    day: str,
) -> tuple[Account, Entry]:
    """One write: the hold goes, its transfers are taken from the account, the entry fixes the outcome for ever.

    Raises:
        InvariantBroken: the transfers take more than was held.
    """
    check_transfers(account.id, transfers)
    change = effect_on(account.id, transfers)
    if -change > hold.amount_minor:
        raise InvariantBroken(rule="a close takes no more than was held", hold=hold.id, take=-change)
    entry = Entry(
        key=key_of(account.id, hold.id),
        account=account.id,
        seq=account.seq + 1,
        state=KeyState.POSTED,
        kind=kind,
        asset=account.asset,
        reference=hold.id,
        transfers=transfers,
        posted_before=account.posted,
        posted_after=account.posted + change,
        at_ms=at_ms,
        day=day,
        facts=facts,
    )
    return _push(_without_hold(account, hold), entry), entry


def credits_of(entry: Entry) -> dict[str, int]:
    """What redo must add to which other accounts, for a posted entry: account -> smallest units, in id order."""
    if entry.state is not KeyState.POSTED:
        return {}
    amounts: dict[str, int] = {}
    for transfer in entry.transfers:
        if transfer.credit != entry.account and has_document(transfer.credit):
            amounts[transfer.credit] = amounts.get(transfer.credit, 0) + transfer.amount_minor
    return dict(sorted(amounts.items()))


def apply_credit(target: Account, entry: Entry, amount_minor: int) -> Account:
    """Redo, step two: add the credit and remember its key in one write. A key that is remembered is not added again.

    Raises `InvariantBroken` when the account holds another asset than the entry moves.
    """
    if target.asset != entry.asset:
        raise InvariantBroken(rule="an account has one asset", account=target.id, key=entry.key)
    if any(known == entry.key for known, _ in target.credited):
        return target
    after = target.posted + amount_minor
    return target._replace(posted=after, credited=(*target.credited, (entry.key, after)))


def forget_credits(target: Account, keys: frozenset[str]) -> Account:
    """Redo, last step on the receiving side: the rows of `keys` are marked applied."""
    return target._replace(credited=tuple(item for item in target.credited if item[0] not in keys))


def drop_tail(account: Account, keys: frozenset[str]) -> Account:
    """Redo, last step on the committing side: these entries are rows and their credits are applied. Never by length."""
    return account._replace(tail=tuple(entry for entry in account.tail if entry.key not in keys))


def _push(account: Account, entry: Entry) -> Account:
    return account._replace(posted=entry.posted_after, seq=entry.seq, tail=(*account.tail, entry))


def _with_hold(account: Account, hold: Hold) -> Account:
    id_, asset, floor, posted, held, seq, holds, tail, credited, facts = account
    before = holds.get(hold.id)
    held += hold.amount_minor - (before.amount_minor if before is not None else 0)
    return Account(id_, asset, floor, posted, held, seq, {**holds, hold.id: hold}, tail, credited, facts)


def _without_hold(account: Account, hold: Hold) -> Account:
    holds = {id_: other for id_, other in account.holds.items() if id_ != hold.id}
    return account._replace(holds=holds, held=account.held - hold.amount_minor)


def _require_spendable(account: Account, increase_minor: int) -> None:
    if increase_minor > 0 and account.spendable < increase_minor:
        raise InsufficientFunds(account=account.id, short_minor=increase_minor - account.spendable)
