"""The admins' payment desk, wired: what goes back to payers, what banks dispute, and where both are looked up."""

from dataclasses import dataclass

from billing_engine.clock import Clock
from billing_engine.ledger.service import Ledger
from billing_engine.payments.collected import CollectedPayments
from billing_engine.payments.desk_ports import PaymentIndex
from billing_engine.payments.disputes import Disputes
from billing_engine.payments.payer_refunds import PayerRefunds
from billing_engine.payments.ports import PaymentObserver, Payments
from billing_engine.payments.service import PaymentService
from server.notifications.outbox import Outbox
from server.notifications.returns import ReturnNotices
from server.storage.collection import Collections
from server.storage.repositories.payer_refunds import CollectionDisputes, CollectionPayerRefunds
from server.storage.repositories.payment_index import CollectionPaymentIndex


@dataclass(frozen=True, slots=True)
class PaymentDesk:
    """The desk's use cases. One instance a process."""

    refunds: PayerRefunds
    disputes: Disputes
    index: PaymentIndex


async def open_payment_desk(
    collections: Collections,
    *,
    ledger: Ledger,
    clock: Clock,
    payments: PaymentService,
    store: Payments,
    observer: PaymentObserver,
    outbox: Outbox,
) -> PaymentDesk:
    """The desk; `payments` tells it from then on what the gateways say has gone back."""
    collected = CollectedPayments(payments=payments, store=store)
    notices = ReturnNotices(outbox)
    disputes = Disputes(
        ledger=ledger,
        clock=clock,
        payments=collected,
        rows=await CollectionDisputes.open(collections),
        observer=observer,
        news=notices,
    )
    refunds = PayerRefunds(
        ledger=ledger,
        clock=clock,
        gateways=payments,
        payments=collected,
        rows=await CollectionPayerRefunds.open(collections),
        disputes=disputes,
        observer=observer,
        news=notices,
    )
    payments.on_refunded = refunds.look
    return PaymentDesk(refunds, disputes, await CollectionPaymentIndex.open(collections))
