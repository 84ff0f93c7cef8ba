"""Who hears that a payment has come, and that one has gone wrong."""

import logging
from typing import Any

from billing_engine.consultations.service import Consultations
from billing_engine.payments.model import Payment, Purpose
from server.metrics import Metrics

log = logging.getLogger(__name__)


class PaymentNews:
    """`PaymentObserver`: a running consultation is extended; trouble is logged as an error and counted."""

    def __init__(self, consultations: Consultations, metrics: Metrics) -> None:
        self._consultations = consultations
        self._metrics = metrics

    def credited(self, payment: Payment) -> None:
        self._metrics.payment_credited(payment.gateway)
        if payment.purpose is Purpose.WALLET:
            self._consultations.recharged(payment.payer_id)

    def trouble(self, what: str, payment: Payment, **facts: Any) -> None:
        self._metrics.payment_trouble()
        log.error("%s", what, extra={"payment": payment.id, "gateway": payment.gateway, **facts})
