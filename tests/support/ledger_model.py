"""The ledger as plain dicts: what each operation must answer and leave behind, with no tail, no redo, no store and no clock."""

import copy
from dataclasses import dataclass
from typing import Any

from billing_engine.errors import BillingError, InvariantBroken
from billing_engine.ledger.model import (
    Entry,
    Fenced,
    Hold,
    HoldGone,
    InsufficientFunds,
    KeyReused,
    KeyState,
    KeyVoided,
    Movement,
    Transfer,
)
from billing_engine.ledger.service import Ledger
from tests.support.ledger_moves import INR, adopt, close, extend, open_

#: (state, kind, reference, transfers, balance before, balance after)
Fate = tuple[KeyState, str, str, tuple[Transfer, ...], int, int]


@dataclass(frozen=True)
class Post:
    movement: Movement

    async def run(self, ledger: Ledger) -> Any:
        return await ledger.post(self.movement)


@dataclass(frozen=True)
class Open:
    wallet: str
    hold_id: str
    amount_minor: int
    owner: str

    async def run(self, ledger: Ledger) -> Any:
        return await open_(ledger, self.wallet, self.hold_id, self.amount_minor, owner=self.owner)


@dataclass(frozen=True)
class Extend:
    wallet: str
    hold_id: str
    n: int
    to_minor: int
    epoch: int
    owner: str

    async def run(self, ledger: Ledger) -> Any:
        return await extend(
            ledger,
            self.wallet,
            self.hold_id,
            n=self.n,
            to_minor=self.to_minor,
            epoch=self.epoch,
            owner=self.owner,
        )


@dataclass(frozen=True)
class Adopt:
    wallet: str
    hold_id: str
    from_epoch: int
    owner: str

    async def run(self, ledger: Ledger) -> Any:
        return await adopt(ledger, self.wallet, self.hold_id, from_epoch=self.from_epoch, owner=self.owner)


@dataclass(frozen=True)
class Close:
    wallet: str
    hold_id: str
    parts: tuple[tuple[str, int], ...]
    fence: tuple[int, str] | None

    async def run(self, ledger: Ledger) -> Any:
        return await close(ledger, self.wallet, self.hold_id, *self.parts, fence=self.fence)


@dataclass(frozen=True)
class Void:
    wallet: str
    source: str

    async def run(self, ledger: Ledger) -> Any:
        return await ledger.void(self.wallet, INR, self.source)


Op = Post | Open | Extend | Adopt | Close | Void


async def outcome_of(op: Op, ledger: Ledger) -> Any:
    """What the real ledger answers, in the model's words."""
    try:
        answer = await op.run(ledger)
    except BillingError as refused:
        return type(refused)
    return summary(answer)


def summary(answer: Entry | Hold) -> Any:
    """An entry's fate; a hold without what only its owner understands."""
    if isinstance(answer, Hold):
        return tuple(answer)[:5]
    return (
        answer.state,
        answer.kind,
        answer.reference,
        answer.transfers,
        answer.posted_before,
        answer.posted_after,
    )


class Model:
    """Balances, holds and keys."""

    def __init__(self) -> None:
        self.posted: dict[str, int] = {}
        #: wallet -> hold id -> [id, amount, n, epoch, owner]
        self.holds: dict[str, dict[str, tuple[str, int, int, int, str]]] = {}
        self.keys: dict[str, Fate] = {}
        #: Credits of a batch's entries to other accounts: redo brings them after all of the batch is decided.
        self._late: list[Transfer] | None = None

    def copy(self) -> "Model":
        return copy.deepcopy(self)

    def spendable(self, wallet: str) -> int:
        held = sum(amount for _, amount, *_ in self.holds.get(wallet, {}).values())
        return self.posted.get(wallet, 0) - held

    def apply(self, op: Op) -> Any:
        """Do it; the outcome in the words of `outcome_of`."""
        try:
            return getattr(self, f"_{type(op).__name__.lower()}")(op)
        except BillingError as refused:
            return type(refused)

    def apply_batch(self, ops: list[Op]) -> list[Any]:
        """Do them at once: decided in order, and only then credited."""
        self._late = []
        outcomes = [self.apply(op) for op in ops]
        late, self._late = self._late, None
        for transfer in late:
            self._credit(transfer)
        return outcomes

    def _post(self, op: Post) -> Fate:
        movement = op.movement
        wallet, holds = movement.account, self.holds.get(movement.account, {})
        known = self.keys.get(movement.key)
        if known is None:
            if movement.source in holds:
                raise InvariantBroken
            change = sum(
                t.amount_minor * ((t.credit == wallet) - (t.debit == wallet)) for t in movement.transfers
            )
            covered = change >= 0 or self.spendable(wallet) + change >= 0
            state = KeyState.POSTED if covered else KeyState.REFUSED
            known = self._end(
                wallet, movement.source, state, movement.kind, movement.reference, movement.transfers
            )
        elif known[0] is KeyState.VOIDED:
            raise KeyVoided
        elif known[1:4] != (movement.kind, movement.reference, movement.transfers):
            raise KeyReused
        if known[0] is KeyState.REFUSED:
            raise InsufficientFunds
        return known

    def _open(self, op: Open) -> Any:
        known = self.keys.get(f"{op.wallet}|{op.hold_id}")
        holds = self.holds.setdefault(op.wallet, {})
        if known is not None:
            raise KeyVoided if known[0] is KeyState.VOIDED else HoldGone
        if op.hold_id not in holds:
            if self.spendable(op.wallet) < op.amount_minor:
                raise InsufficientFunds
            holds[op.hold_id] = (op.hold_id, op.amount_minor, 1, 1, op.owner)
        return holds[op.hold_id]

    def _extend(self, op: Extend) -> Any:
        hold = self._fenced(op.wallet, op.hold_id, (op.epoch, op.owner))
        if op.n > hold[2]:
            if op.to_minor - hold[1] > max(0, self.spendable(op.wallet)):
                raise InsufficientFunds
            hold = (hold[0], op.to_minor, op.n, hold[3], hold[4])
            self.holds[op.wallet][op.hold_id] = hold
        return hold

    def _adopt(self, op: Adopt) -> Any:
        hold = self._fenced(op.wallet, op.hold_id, None)
        if (hold[3], hold[4]) != (op.from_epoch + 1, op.owner):
            if hold[3] != op.from_epoch:
                raise Fenced
            hold = (hold[0], hold[1], hold[2] + 1, hold[3] + 1, op.owner)
            self.holds[op.wallet][op.hold_id] = hold
        return hold

    def _close(self, op: Close) -> Fate:
        known = self.keys.get(f"{op.wallet}|{op.hold_id}")
        if known is not None:
            return known
        hold = self._fenced(op.wallet, op.hold_id, op.fence)
        if sum(amount for _, amount in op.parts) > hold[1]:
            raise InvariantBroken
        del self.holds[op.wallet][op.hold_id]
        transfers = tuple(Transfer(op.wallet, to, amount, "session") for to, amount in op.parts)
        return self._end(op.wallet, op.hold_id, KeyState.POSTED, "session", op.hold_id, transfers)

    def _void(self, op: Void) -> Fate:
        known = self.keys.get(f"{op.wallet}|{op.source}")
        if known is not None:
            return known
        self.holds.get(op.wallet, {}).pop(op.source, None)
        return self._end(op.wallet, op.source, KeyState.VOIDED, "void", "", ())

    def _fenced(
        self, wallet: str, hold_id: str, fence: tuple[int, str] | None
    ) -> tuple[str, int, int, int, str]:
        hold = self.holds.get(wallet, {}).get(hold_id)
        if hold is None:
            raise HoldGone
        if fence is not None and (hold[3], hold[4]) != fence:
            raise Fenced
        return hold

    def _credit(self, transfer: Transfer) -> None:
        self.posted[transfer.credit] = self.posted.get(transfer.credit, 0) + transfer.amount_minor

    def _end(
        self,
        wallet: str,
        source: str,
        state: KeyState,
        kind: str,
        reference: str,
        transfers: tuple[Transfer, ...],
    ) -> Fate:
        before = self.posted.get(wallet, 0)
        if state is KeyState.POSTED:
            for transfer in transfers:
                self.posted[transfer.debit] = self.posted.get(transfer.debit, 0) - transfer.amount_minor
                if self._late is None or transfer.credit == wallet:
                    self._credit(transfer)
                else:
                    self._late.append(transfer)
        fate = (state, kind, reference, transfers, before, self.posted.get(wallet, 0))
        self.keys[f"{wallet}|{source}"] = fate
        return fate
