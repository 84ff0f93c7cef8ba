"""The first hold of a consultation: where its bill begins, whichever way it was started."""

from functools import partial

from billing_engine.clock import Clock
from billing_engine.consultations.billing import Bill, hold_id_of, open_session
from billing_engine.consultations.errors import StartAborted
from billing_engine.consultations.meter import Meter
from billing_engine.consultations.model import Session
from billing_engine.consultations.rules import Rules
from billing_engine.ledger.accounts import wallet_of
from billing_engine.ledger.model import HoldGone, KeyVoided
from billing_engine.ledger.service import Ledger


async def hold_first_slice(
    session: Session, *, ledger: Ledger, clock: Clock, rules: Rules, owner: str
) -> Bill:
    """Hold the first slice from now on, at the session's rate. A repeat answers the hold that is open, whoever opened it.

    Raises:
        InsufficientBalance: less to spend than a start needs, as of this very write; nothing is held.
        StartAborted: this session was given back, or has ended.
        Unavailable: it may be open or not.
    """
    now_ms = clock.now_ms()
    meter = Meter(
        user_id=session.user_id,
        lawyer_id=session.lawyer_id,
        rate_minor_per_min=session.rate_minor_per_min,
        commission_bp=session.commission_bp,
        max_minor=session.max_minor,
        started_at_ms=now_ms,
        served_ms=0,
        running_since_ms=now_ms,
        evidence_at_ms=now_ms,
    )
    change = partial(open_session, session_id=session.id, meter=meter, owner=owner, rules=rules)
    try:
        bill: Bill = await ledger.change(
            wallet_of(session.user_id), session.currency, change, source=hold_id_of(session.id)
        )
    except (KeyVoided, HoldGone) as exc:
        raise StartAborted(session=session.id) from exc
    return bill
