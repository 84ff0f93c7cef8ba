"""Check consultations against the ledger: holds against sessions, outcomes against entries, bills against timelines. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Mapping

from billing_engine.consultations.billing import ENTRY_KIND, hold_id_of
from billing_engine.consultations.meter import Meter, served_ms_of
from billing_engine.consultations.model import BILLED, LIVE, UNSERVED, Session, Status, TimelineRow
from billing_engine.consultations.settlement import ended_record, trail_rows
from billing_engine.errors import InvariantBroken
from billing_engine.ledger.accounts import wallet_of
from billing_engine.ledger.model import Account, Entry, KeyState, key_of
from billing_engine.money import commission_of, price
from billing_engine.verification import Findings

_PREFIX = hold_id_of("")


def audit_consultations(
    sessions: Iterable[Session],
    timeline: Iterable[TimelineRow],
    accounts: Mapping[str, Account],
    entries: Mapping[str, Entry],
    *,
    abandon_ms: int,
    now_ms: int,
) -> Findings:
    """Check every session of one snapshot; `entries` by key, from rows and tails alike."""
    found = Findings()
    rows: dict[str, dict[int, TimelineRow]] = defaultdict(dict)
    for row in timeline:
        rows[row.session_id][row.k] = row
    by_id = {session.id: session for session in sessions}
    holds = [
        (account, id_) for account in accounts.values() for id_ in account.holds if id_.startswith(_PREFIX)
    ]
    for account, hold_id in holds:
        _check_hold(account, hold_id, by_id, found, abandon_ms=abandon_ms, now_ms=now_ms)
    for session in by_id.values():
        wallet = accounts.get(wallet_of(session.user_id))
        hold = hold_id_of(session.id)
        entry = entries.get(key_of(wallet_of(session.user_id), hold))
        if session.status in LIVE and (wallet is None or hold not in wallet.holds):
            _check_closed(session, entry, found)
        elif session.status is Status.STARTING:
            age = _age(session.created_at_ms, now_ms)
            found.waits("a start is finished or given back", session.id, f"begun {age}")
        elif session.status in BILLED:
            _check_outcome(session, entry, rows[session.id], found)
    for entry in entries.values():
        if entry.kind == ENTRY_KIND:
            session_id = entry.facts["sessionId"]
            found.require(session_id in by_id, "a bill has its session", session_id, entry.key)
    found.counted |= {"sessions": len(by_id)}
    return found


def _check_closed(session: Session, entry: Entry | None, found: Findings) -> None:
    if entry is None:
        found.require(False, "a live session has a hold", session.id, session.status)
    else:
        found.waits("a closed session is settled", session.id, "its record is not copied yet")


def _check_hold(
    account: Account,
    hold_id: str,
    by_id: dict[str, Session],
    found: Findings,
    *,
    abandon_ms: int,
    now_ms: int,
) -> None:
    session = by_id.get(hold_id.removeprefix(_PREFIX))
    hold = account.holds[hold_id]
    if session is None:
        found.require(False, "a hold has its session", hold_id, account.id)
        return
    meter = Meter.of_facts(hold.facts)
    found.require(
        (meter.user_id, meter.lawyer_id, meter.rate_minor_per_min)
        == (session.user_id, session.lawyer_id, session.rate_minor_per_min),
        "a hold bills its session's people at its rate",
        session.id,
        hold_id,
    )
    found.require(
        meter.bill_minor(meter.evidence_at_ms) <= hold.amount_minor,
        "served time is paid before it is served",
        session.id,
        f"held {hold.amount_minor}, served {meter.bill_minor(meter.evidence_at_ms)}",
    )
    if session.status is Status.ABORTED or session.status in UNSERVED:
        found.waits("a start that was given back has no hold", session.id, hold_id)
        return
    ended = session.status in BILLED
    found.require(
        not ended, "a finished session has no hold", session.id, f"{session.status}, {hold.amount_minor} held"
    )
    until = meter.reaches_ms(meter.limit_s(hold.amount_minor))
    # While paused it is looked after all the same: each tick proves that a server is there.
    if until is None and now_ms - meter.evidence_at_ms > abandon_ms:
        detail = f"paused, and looked after {_age(meter.evidence_at_ms, now_ms)}; nobody waits any more"
        found.waits("a live session has an owner", session.id, detail)
    if until is not None and now_ms - until > abandon_ms:
        found.waits(
            "a live session has an owner", session.id, f"paid until {_age(until, now_ms)}; nobody bills it"
        )


def _check_outcome(
    session: Session, entry: Entry | None, rows: dict[int, TimelineRow], found: Findings
) -> None:
    if entry is None or entry.state is not KeyState.POSTED or entry.kind != ENTRY_KIND:
        found.require(False, "a finished session has its closing entry", session.id, str(entry and entry.key))
        return
    found.require(
        ended_record(session, entry) == session, "a record is the copy of its entry", session.id, entry.key
    )
    facts = entry.facts
    gross = price(session.rate_minor_per_min, facts["servedMs"] // 1000)
    commission = commission_of(gross, session.commission_bp)
    taken = sum(transfer.amount_minor for transfer in entry.transfers)
    found.require(
        (facts["gross"], facts["commission"], facts["net"], taken)
        == (gross, commission, gross - commission, gross),
        "a bill is the price of the served seconds",
        session.id,
        f"billed {facts['gross']} and took {taken}, served {facts['servedMs']} ms: {gross}",
    )
    missing = [row for row in trail_rows(session.id, facts["trail"]) if row.k not in rows]
    if missing:
        found.waits(
            "a timeline is copied out", session.id, f"{len(missing)} rows are still in the entry only"
        )
    complete = {**{row.k: row for row in trail_rows(session.id, facts["trail"])}, **rows}
    try:
        served_ms = served_ms_of((complete[k].at_ms, complete[k].event) for k in sorted(complete))
    except InvariantBroken as exc:
        found.require(False, "a timeline is start, pauses, end", session.id, str(exc.facts))
        return
    found.require(
        served_ms == facts["servedMs"],
        "a bill can be recomputed from its timeline",
        session.id,
        f"timeline {served_ms} ms, bill {facts['servedMs']} ms",
    )


def _age(at_ms: int, now_ms: int) -> str:
    return f"{(now_ms - at_ms) // 1000} s ago"
