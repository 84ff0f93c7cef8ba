"""When the gateway is asked about a payment that is not final. Pure."""

from typing import Final

from billing_engine.payments.model import OPEN, Payment, PaymentStatus

_MINUTE_MS: Final = 60_000
_HOUR_MS: Final = 60 * _MINUTE_MS
#: A payment in doubt is asked for within seconds, then less and less often.
_FIRST_DOUBT_MS: Final = 2_000
_LONGEST_DOUBT_MS: Final = 15 * _MINUTE_MS
#: One that nobody seems to pay: from 15 minutes on, as Razorpay advises, which heals a lost webhook.
_QUIET_MS: Final = (15 * _MINUTE_MS, _HOUR_MS, 4 * _HOUR_MS, 12 * _HOUR_MS)
#: A bank may answer for three days after the gateway has called a payment failed (Razorpay, late authorisation).
GIVE_UP_AFTER_MS: Final = 4 * 24 * _HOUR_MS
#: An order that was never made cannot be paid.
_NO_ORDER_MS: Final = _HOUR_MS


def next_check_ms(payment: Payment, now_ms: int) -> int | None:
    """The instant of the next question after `payment.checks` questions; None when nothing is open."""
    if payment.status is PaymentStatus.COLLECTED:
        # The ledger is what is missing: at once, and again.
        return now_ms + _FIRST_DOUBT_MS
    if payment.status not in OPEN:
        return None
    if payment.status is PaymentStatus.PENDING:
        return now_ms + min(_FIRST_DOUBT_MS << min(payment.checks, 20), _LONGEST_DOUBT_MS)
    return now_ms + _QUIET_MS[min(payment.checks, len(_QUIET_MS) - 1)]


def is_given_up(payment: Payment, now_ms: int) -> bool:
    """Whether nobody will pay it any more, as far as one can tell."""
    no_order = payment.order_id is None and payment.charge is None
    limit_ms = _NO_ORDER_MS if no_order else GIVE_UP_AFTER_MS
    return payment.status in OPEN and now_ms - payment.created_at_ms >= limit_ms
