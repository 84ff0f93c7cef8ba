"""The changes that a consultation makes to its wallet account: pure, each decided inside the write that commits it.

Every function takes the newest account and answers the next one with the `Bill`, or raises and changes nothing.
"""

from dataclasses import dataclass, replace
from typing import Any, Final

from billing_engine.consultations.attendance import NOBODY, Absence
from billing_engine.consultations.errors import InsufficientBalance, StillFunded, Unattended
from billing_engine.consultations.meter import Meter
from billing_engine.consultations.model import END_STATUS, EndReason
from billing_engine.consultations.rules import Rules
from billing_engine.ledger.accounts import REVENUE_CONSULTATIONS, earnings_of, wallet_of
from billing_engine.ledger.model import (
    QUANTITY,
    Account,
    Entry,
    Hold,
    HoldGone,
    KeyState,
    KeyVoided,
    Transfer,
    adopt_hold,
    close_hold,
    extend_hold,
    fenced_hold,
    open_hold,
)
from billing_engine.money import commission_of, price

ENTRY_KIND: Final = "consultation"
NET: Final = "consultation_net"
COMMISSION: Final = "consultation_commission"


def hold_id_of(session_id: str) -> str:
    """The hold's id, which is also the source of the entry that closes it."""
    return f"consult:{session_id}"


@dataclass(frozen=True, slots=True)
class Fence:
    """Who may write: the owner's token and epoch (LEDGER 3)."""

    epoch: int
    owner: str


@dataclass(frozen=True, slots=True)
class Bill:
    """A live session's money as of one durable write. `short`: no later slice can be funded as things stand, so that
    `paid_until_ms` is the end unless money arrives (`capped`: unless nothing, the session's own maximum is reached).
    """

    meter: Meter
    held_minor: int
    spendable_minor: int
    n: int
    fence: Fence
    paid_s: int
    limit_s: int
    short: bool
    capped: bool

    @property
    def paid_until_ms(self) -> int | None:
        """The instant to which the hold pays; None while paused."""
        return self.meter.reaches_ms(self.paid_s)

    @property
    def ends_at_ms(self) -> int | None:
        """The instant at which the whole wallet (or the cap) is used up; None while paused."""
        return self.meter.reaches_ms(self.limit_s)


def next_tick_ms(started_at_ms: int, now_ms: int, rules: Rules) -> int:
    """The next instant of the grid startedAt + k x TICK: restarts do not align everyone (LEDGER 4)."""
    return started_at_ms + ((now_ms - started_at_ms) // rules.tick_ms + 1) * rules.tick_ms


def needed_minor(rate_minor_per_min: int, rules: Rules) -> int:
    """What the wallet must hold to start (SPEC 5)."""
    return max(rules.min_balance_minor, price(rate_minor_per_min, rules.min_seconds))


def bill_of(account: Account, hold: Hold) -> Bill:
    """The bill that an account document tells."""
    meter = Meter.of_facts(hold.facts)
    return _bill(account, hold, meter)


def open_session(
    account: Account, known: Entry | None, *, session_id: str, meter: Meter, owner: str, rules: Rules
) -> tuple[Account, Bill]:
    """Hold the first slice. `meter` is fresh: started now, nothing served. A repeat answers the hold that is open.

    Raises:
        InsufficientBalance: less to spend than a start needs.
        KeyVoided: recovery gave this start back.
        HoldGone: the session has been closed already.
    """
    hold_id = hold_id_of(session_id)
    if known is not None:
        raise KeyVoided(key=known.key) if known.state is KeyState.VOIDED else HoldGone(hold=hold_id)
    if hold_id in account.holds:
        return account, bill_of(account, account.holds[hold_id])
    needed = needed_minor(meter.rate_minor_per_min, rules)
    if account.spendable < needed:
        raise InsufficientBalance(required_minor=needed, available_minor=max(0, account.spendable))
    meter = meter.noted(meter.started_at_ms, "start")
    amount = _slice(meter, 0, account.spendable, meter.started_at_ms, rules)
    facts = _facts(meter, amount)
    opened, hold = open_hold(account, hold_id=hold_id, amount_minor=amount, owner=owner, facts=facts)
    return opened, _bill(opened, hold, meter)


@dataclass(frozen=True, slots=True)
class Tick:
    """One extension: at `now_ms` by the owner, write number `n`. Timeline rows below `copied_k` are copied out.

    `gap_from_ms`: the gate was shut from this instant on because the store was late; that time is not billed.
    `joined`: who was seen in the session for the first time.
    """

    session_id: str
    fence: Fence
    n: int
    now_ms: int
    copied_k: int
    gap_from_ms: int | None = None
    joined: tuple[str, ...] = ()


def extend(account: Account, _known: Entry | None, *, tick: Tick, rules: Rules) -> tuple[Account, Bill]:
    """Hold the next slice, or what is left of the wallet. A repeat of the same `n` answers what stands. While paused no money moves.

    Raises:
        HoldGone: the session is closed.
        Fenced: another process owns it.
        Unattended: the gate has been shut for longer than ABANDON_SECONDS.
    """
    hold = fenced_hold(account, hold_id_of(tick.session_id), epoch=tick.fence.epoch, owner=tick.fence.owner)
    if tick.n <= hold.n:
        return account, bill_of(account, hold)
    meter = Meter.of_facts(hold.facts).copied(tick.copied_k).joined_by(tick.joined)
    meter = _without_gap(meter, hold, tick, until_ms=tick.now_ms, rules=rules).proven(tick.now_ms)
    return _extended(account, hold, meter, tick, rules)


def pause(
    account: Account, _known: Entry | None, *, tick: Tick, absence: Absence, rules: Rules
) -> tuple[Account, Bill]:
    """Stop the meter at the last sign of life of whoever is lost, also where a tick has proven service since. Nothing is given back
    and nothing taken. A repeat, and a loss that is not due by the hold's own account of it, answer what stands.

    Raises:
        HoldGone, Fenced, Unattended: as `extend`.
    """
    hold = fenced_hold(account, hold_id_of(tick.session_id), epoch=tick.fence.epoch, owner=tick.fence.owner)
    meter = Meter.of_facts(hold.facts)
    loss = absence.due(meter, tick.now_ms)
    if tick.n <= hold.n or loss is None:
        return account, bill_of(account, hold)
    meter = meter.copied(tick.copied_k).joined_by((*tick.joined, *(person for person, _ in absence.people)))
    meter = _without_gap(meter, hold, tick, until_ms=loss.since_ms, rules=rules)
    meter = meter.pausing(loss.since_ms, loss.reason.value).proven(tick.now_ms)
    return _extended(account, hold, meter, tick, rules)


def resume(account: Account, _known: Entry | None, *, tick: Tick, rules: Rules) -> tuple[Account, Bill]:
    """Let the meter run again, paid by what the hold still pays and the wallet. A repeat, or a running session, answers what stands.

    Raises:
        HoldGone, Fenced: as `extend`.
    """
    hold = fenced_hold(account, hold_id_of(tick.session_id), epoch=tick.fence.epoch, owner=tick.fence.owner)
    meter = Meter.of_facts(hold.facts)
    if tick.n <= hold.n or meter.running_since_ms is not None:
        return account, bill_of(account, hold)
    return _extended(account, hold, meter.copied(tick.copied_k).resuming(tick.now_ms), tick, rules)


def _without_gap(meter: Meter, hold: Hold, tick: Tick, *, until_ms: int, rules: Rules) -> Meter:
    """Without the time up to `until_ms` in which the gate was shut, or nothing was paid. Raises `Unattended`."""
    if meter.running_since_ms is None:
        return meter
    paid_until = meter.reaches_ms(_paid_s(meter, hold.amount_minor))
    shut_from = min((at for at in (paid_until, tick.gap_from_ms) if at is not None), default=tick.now_ms)
    if tick.now_ms - shut_from > rules.abandon_ms:
        raise Unattended(session=tick.session_id, since_ms=shut_from)
    return meter.skipping(shut_from, until_ms, "STORE_DOWN" if tick.gap_from_ms is not None else "SERVER")


def _extended(account: Account, hold: Hold, meter: Meter, tick: Tick, rules: Rules) -> tuple[Account, Bill]:
    amount = _slice(meter, hold.amount_minor, account.spendable, tick.now_ms, rules)
    changed, held = extend_hold(account, hold, n=tick.n, amount_minor=amount, facts=_facts(meter, amount))
    return changed, _bill(changed, held, meter)


def adopt(
    account: Account,
    _known: Entry | None,
    *,
    session_id: str,
    from_epoch: int,
    owner: str,
    evidence_ms: int,
    now_ms: int,
    rules: Rules,
) -> tuple[Account, Bill]:
    """Take the session over at the next epoch. The time since the last evidence of service is a pause (`SERVER`).

    `evidence_ms` is the chat's last stored message or receipt; together with the last tick it is never past paid-until.

    Raises:
        HoldGone: the session is closed.
        StillFunded: another process was faster (the epoch moved).
        Unattended: no service for longer than ABANDON_SECONDS: close it at its evidence instead.
    """
    hold = account.holds.get(hold_id_of(session_id))
    if hold is None:
        raise HoldGone(hold=session_id)
    if hold.owner == owner and hold.epoch == from_epoch + 1:
        return account, bill_of(account, hold)  # this very adoption, whose answer was lost
    if hold.epoch != from_epoch:
        raise StillFunded(session=session_id, epoch=hold.epoch)
    meter = Meter.of_facts(hold.facts)
    last = last_evidence_ms(hold, evidence_ms, now_ms)
    if now_ms - last > rules.abandon_ms:
        raise Unattended(session=session_id, since_ms=last)
    # Being taken up is evidence, too: without it, a second crash would be counted from before the first, and an end at
    # that older evidence would stand before the resumption that the timeline already tells.
    meter = meter.skipping(last, now_ms, "SERVER").waiting(now_ms).proven(now_ms)
    moved, adopted = adopt_hold(account, hold, owner=owner, facts=_facts(meter, hold.amount_minor))
    amount = _slice(meter, hold.amount_minor, moved.spendable, now_ms, rules)
    changed, held = extend_hold(
        moved, adopted, n=adopted.n + 1, amount_minor=amount, facts=_facts(meter, amount)
    )
    return changed, _bill(changed, held, meter)


def last_evidence_ms(hold: Hold, chat_evidence_ms: int, now_ms: int) -> int:
    """The last durable evidence of service: the latest of tick, message and receipt, never past paid-until, never in the future."""
    meter = Meter.of_facts(hold.facts)
    until = meter.reaches_ms(_paid_s(meter, hold.amount_minor))
    last = max(meter.evidence_at_ms, chat_evidence_ms)
    return min(last, now_ms) if until is None else min(last, until, now_ms)


@dataclass(frozen=True, slots=True)
class Close:
    """The end of a session: at `at_ms`, clamped to [evidence, paid-until], for `reason`.

    `only_if_short` makes it conditional on the money being used up; `fence` is the owner's, None for a party's own end.
    Whoever has been lost for the grace when it ends has paused it, whether or not that pause was written first: `absence` is what
    is known of that. Within the grace nothing is paused, and the bill runs to the end.
    """

    session_id: str
    reason: EndReason
    at_ms: int
    fence: Fence | None = None
    only_if_short: bool = False
    absence: Absence = NOBODY


def close(
    account: Account, known: Entry | None, *, order: Close, day: str, booked_at_ms: int
) -> tuple[Account, Entry]:
    """Take the exact price, give the rest of the hold back, fix the outcome. Every later close answers the first one's entry.

    Raises:
        StillFunded: it was to be closed for lack of money and there is money (or the paid time is not over, or somebody was lost
            so early that it should have been paused).
        HoldGone, Fenced: nothing to close, or not by this owner.
    """
    if known is not None:
        return account, known
    hold_id = hold_id_of(order.session_id)
    hold = account.holds.get(hold_id)
    if hold is None:
        raise HoldGone(hold=hold_id)
    if order.fence is not None:
        fenced_hold(account, hold_id, epoch=order.fence.epoch, owner=order.fence.owner)
    bill = bill_of(account, hold)
    meter = bill.meter
    until = bill.paid_until_ms
    reason = order.reason
    if order.only_if_short:
        if until is None or order.at_ms < until or bill.limit_s > bill.paid_s:
            raise StillFunded(session=order.session_id)
        reason = EndReason.MAX_AMOUNT if bill.capped else EndReason.WALLET_EMPTY
    ended_at = max(order.at_ms, meter.evidence_at_ms, meter.started_at_ms)
    if until is not None:
        ended_at = min(ended_at, until)
    if (loss := order.absence.due(meter, ended_at)) is not None:
        if order.only_if_short:
            raise StillFunded(session=order.session_id)
        meter = meter.pausing(loss.since_ms, loss.reason.value)
    served_ms = meter.served_ms_at(ended_at)
    meter = replace(meter, served_ms=served_ms, running_since_ms=None).noted(ended_at, "end", reason.value)
    gross = price(meter.rate_minor_per_min, served_ms // 1000)
    commission = commission_of(gross, meter.commission_bp)
    wallet = wallet_of(meter.user_id)
    wanted = (
        Transfer(wallet, earnings_of(meter.lawyer_id), gross - commission, NET),
        Transfer(wallet, REVENUE_CONSULTATIONS, commission, COMMISSION),
    )
    return close_hold(
        account,
        hold,
        kind=ENTRY_KIND,
        transfers=tuple(transfer for transfer in wanted if transfer.amount_minor > 0),
        facts={
            "sessionId": order.session_id,
            "user": meter.user_id,
            "lawyer": meter.lawyer_id,
            "rate": meter.rate_minor_per_min,
            "startedAt": meter.started_at_ms,
            "endedAt": ended_at,
            "reason": reason.value,
            "status": END_STATUS[reason].value,
            "servedMs": served_ms,
            "durationS": served_ms // 1000,
            QUANTITY: served_ms // 1000,
            "gross": gross,
            "commission": commission,
            "net": gross - commission,
            # What was spendable right after: an answer to whoever ends it, the same however often and late they ask.
            "walletAfter": account.spendable + hold.amount_minor - gross,
            "trail": meter.trail,
        },
        at_ms=booked_at_ms,
        day=day,
    )


def _paid_s(meter: Meter, held_minor: int) -> int:
    return meter.limit_s(held_minor)


def _slice(meter: Meter, held_minor: int, spendable_minor: int, now_ms: int, rules: Rules) -> int:
    """What the hold must be so that the session is paid past the next tick, or as far as the money goes. Never less than it is."""
    horizon_ms = next_tick_ms(meter.started_at_ms, now_ms, rules) + rules.lead_ms
    wanted_s = -(-meter.served_ms_at(horizon_ms) // 1000)
    target_s = min(wanted_s, meter.limit_s(held_minor + spendable_minor))
    return max(held_minor, price(meter.rate_minor_per_min, target_s))


def _facts(meter: Meter, held_minor: int) -> dict[str, Any]:
    return meter.to_facts(meter.reaches_ms(_paid_s(meter, held_minor)))


def _bill(account: Account, hold: Hold, meter: Meter) -> Bill:
    paid_s = _paid_s(meter, hold.amount_minor)
    funds = hold.amount_minor + account.spendable
    limit_s = meter.limit_s(funds)
    return Bill(
        meter=meter,
        held_minor=hold.amount_minor,
        spendable_minor=account.spendable,
        n=hold.n,
        fence=Fence(hold.epoch, hold.owner),
        paid_s=paid_s,
        limit_s=limit_s,
        short=limit_s <= paid_s,
        capped=meter.max_minor is not None and meter.max_minor <= funds,
    )
