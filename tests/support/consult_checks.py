"""What must hold in a consultations world at any moment of rest, whatever happened before."""

from collections import defaultdict
from collections.abc import Iterable

from billing_engine.consultations.billing import ENTRY_KIND, hold_id_of
from billing_engine.consultations.meter import served_ms_of
from billing_engine.consultations.model import BILLED, LIVE, Session, Status
from billing_engine.consultations.settlement import lawyer_claim, user_claim
from billing_engine.ledger.accounts import wallet_of
from billing_engine.ledger.model import Account, KeyState, has_document
from billing_engine.money import price
from server.storage.sqlite.ledger import all_accounts, all_rows
from tests.support.consult import World


async def check_books(world: World) -> dict[str, Account]:
    """All accounts sum to zero, every document is the sum of its rows, nothing waits for redo. The documents by id."""
    documents = {v.account.id: v.account for v in await world.db.scan(lambda conn: list(all_accounts(conn)))}
    of_rows: dict[str, int] = defaultdict(int)
    for row in await world.db.scan(lambda conn: list(all_rows(conn))):
        assert row.applied, row
        if row.entry.state is KeyState.POSTED:
            for transfer in row.entry.transfers:
                of_rows[transfer.debit] -= transfer.amount_minor
                of_rows[transfer.credit] += transfer.amount_minor
    assert sum(of_rows.values()) == 0
    for account in documents.values():
        assert account.posted == of_rows[account.id], account
        assert (account.tail, account.credited) == ((), ()), account
        assert account.held == sum(hold.amount_minor for hold in account.holds.values())
        if account.id.startswith("wallet:"):
            assert account.posted - account.held >= 0, account
    assert {id_ for id_ in of_rows if has_document(id_) and of_rows[id_]} <= set(documents)
    return documents


async def check_sessions(world: World, session_ids: Iterable[str], people: Iterable[str]) -> list[Session]:
    """Records, holds, claims, locks and tasks agree: who is held or claimed is in a session that somebody bills."""
    documents = await check_books(world)
    found = [await world.sessions.get(session_id) for session_id in session_ids]
    sessions = [session for session in found if session is not None]
    live = {session.id for session in sessions if session.status in LIVE}
    assert not [session for session in sessions if session.status is Status.STARTING], sessions
    assert {id_ for id_ in live if world.engine.is_live(id_)} == live, "an active session that nobody bills"
    assert world.engine.live_count == len(live)
    holds = {hold_id for account in documents.values() for hold_id in account.holds}
    assert holds == {hold_id_of(session_id) for session_id in live}, (
        "a hold without its session, or the other way"
    )
    claims = {}
    for person in people:
        for claim in (user_claim(person), lawyer_claim(person)):
            holder = await world.claims.holder(claim)
            if holder is not None:
                claims[claim] = holder
    expected = {user_claim(s.user_id): s.id for s in sessions if s.id in live}
    expected |= {lawyer_claim(s.lawyer_id): s.id for s in sessions if s.id in live}
    assert claims == expected, "somebody is busy for ever, or an active session has lost its claim"
    for session in sessions:
        if session.status in BILLED:
            await check_bill(world, session)
    return sessions


async def check_bill(world: World, session: Session) -> None:
    """An ended session's bill, recomputed from its timeline alone, is what was taken and what every record says."""
    rows = await world.consultations.timeline(session.id)
    assert [row.k for row in rows] == list(range(len(rows)))
    served_s = served_ms_of((row.at_ms, row.event) for row in rows) // 1000
    gross = price(session.rate_minor_per_min, served_s)
    commission = gross * session.commission_bp // 10_000
    assert (rows[0].at_ms, rows[-1].at_ms) == (session.started_at_ms, session.ended_at_ms)
    assert session.end_reason is not None
    assert rows[-1].reason == session.end_reason.value
    assert (session.duration_s, session.total_minor, session.commission_minor) == (
        served_s,
        gross,
        commission,
    )
    entry = await world.ledger.entry(wallet_of(session.user_id), hold_id_of(session.id))
    assert entry is not None
    assert entry.kind == ENTRY_KIND
    assert sum(transfer.amount_minor for transfer in entry.transfers) == gross
    assert entry.posted_before - entry.posted_after == gross
    if session.max_minor is not None:
        assert gross <= session.max_minor
