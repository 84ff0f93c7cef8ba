"""Check refunds to payers and disputes against the ledger, both ways. Pure. What a bank takes days for is no unfinished work."""

from collections import defaultdict
from collections.abc import Iterable, Mapping

from billing_engine.ledger.accounts import gateway_of
from billing_engine.ledger.model import Account, Entry, KeyState, effect_on
from billing_engine.payments.disputes import OUTCOME
from billing_engine.payments.model import DisputeStatus, Payment
from billing_engine.payments.refund_model import (
    DISPUTE_PREFIX,
    REFUND_PREFIX,
    Dispute,
    PayerRefund,
    PayerRefundStatus,
)
from billing_engine.payments.returns import (
    CHARGEBACK,
    CHARGEBACK_RETURNED,
    DISPUTE_WON,
    PAYER_REFUND,
    PAYER_REFUND_FAILED,
    PAYER_REFUND_RETURNED,
)
from billing_engine.verification import Findings

_REFUND_KINDS = frozenset({PAYER_REFUND, PAYER_REFUND_FAILED, PAYER_REFUND_RETURNED})
_DISPUTE_KINDS = frozenset({CHARGEBACK, DISPUTE_WON, CHARGEBACK_RETURNED})


def audit_returns(
    refunds: Iterable[PayerRefund],
    disputes: Iterable[Dispute],
    payments: Mapping[str, Payment],
    accounts: Mapping[str, Account],
    entries: Mapping[str, Entry],
) -> Findings:
    """Check every refund and every dispute of one snapshot; `entries` by key, from rows and tails alike."""
    found = Findings()
    refund_rows = {refund.id: refund for refund in refunds}
    dispute_rows = {dispute.id: dispute for dispute in disputes}
    by_refund, by_dispute = (
        _by_fact(entries, "refundId", _REFUND_KINDS),
        _by_fact(entries, "disputeId", _DISPUTE_KINDS),
    )
    _check_orphans(accounts, refund_rows, dispute_rows, found)
    for id_ in by_refund.keys() - refund_rows.keys():
        found.require(False, "a refund's entry has its record", id_, by_refund[id_][0].key)
    for id_ in by_dispute.keys() - dispute_rows.keys():
        found.require(False, "a dispute's entry has its record", id_, by_dispute[id_][0].key)
    for refund in refund_rows.values():
        _check_refund(refund, payments.get(refund.payment_id), accounts, by_refund[refund.id], found)
    for dispute in dispute_rows.values():
        _check_dispute(dispute, accounts, by_dispute[dispute.id], found)
    found.counted |= {"payer refunds": len(refund_rows), "disputes": len(dispute_rows)}
    return found


def _by_fact(entries: Mapping[str, Entry], fact: str, kinds: frozenset[str]) -> defaultdict[str, list[Entry]]:
    grouped: defaultdict[str, list[Entry]] = defaultdict(list)
    for entry in sorted(entries.values(), key=lambda entry: entry.seq):
        if entry.kind in kinds:
            grouped[str(entry.facts.get(fact))].append(entry)
    return grouped


def _check_orphans(
    accounts: Mapping[str, Account],
    refunds: Mapping[str, PayerRefund],
    disputes: Mapping[str, Dispute],
    found: Findings,
) -> None:
    records: dict[str, PayerRefund | Dispute] = {one.hold_id: one for one in refunds.values()}
    records |= {one.hold_id: one for one in disputes.values()}
    for account in accounts.values():
        for hold in account.holds.values():
            if not hold.id.startswith((REFUND_PREFIX, DISPUTE_PREFIX)):
                continue
            record = records.get(hold.id)
            found.require(
                record is not None and record.account == account.id,
                "a hold for a refund or a dispute has its record",
                hold.id,
                f"{hold.amount_minor} held on {account.id}",
            )
            if record is not None:
                found.require(
                    hold.amount_minor <= record.amount_minor,
                    "no more is held than goes back",
                    hold.id,
                    f"{hold.amount_minor} of {record.amount_minor}",
                )


def _check_refund(
    refund: PayerRefund,
    payment: Payment | None,
    accounts: Mapping[str, Account],
    entries: list[Entry],
    found: Findings,
) -> None:
    held = _is_held(accounts, refund.account, refund.hold_id)
    if refund.status is PayerRefundStatus.PENDING and held and not entries:
        # The bank takes its time.
        _check_reserved(refund, payment, refund.amount_minor, found)
        return
    if refund.check_at_ms is not None:
        found.waits("a refund is carried out", refund.id, f"its record says {refund.status}")
        return
    gone = refund.amount_minor if refund.status is PayerRefundStatus.DONE else 0
    sent = _sent(refund.gateway, entries)
    found.require(
        sent == gone and not held,
        "a refund takes its amount, or nothing if it failed",
        refund.id,
        f"{refund.status}: {sent} of {refund.amount_minor} sent, held: {held}",
    )
    _check_reserved(refund, payment, gone, found)


def _check_reserved(refund: PayerRefund, payment: Payment | None, amount_minor: int, found: Findings) -> None:
    reserved = None if payment is None else payment.refunds.get(refund.id)
    found.require(
        reserved == amount_minor,
        "a payment knows what goes back of it",
        refund.id,
        f"{refund.status}: {refund.payment_id} says {reserved}",
    )


def _check_dispute(
    dispute: Dispute, accounts: Mapping[str, Account], entries: list[Entry], found: Findings
) -> None:
    held = _is_held(accounts, dispute.account, dispute.hold_id)
    if dispute.status is DisputeStatus.OPEN:
        found.require(not entries, "an open dispute has taken nothing", dispute.id, f"{len(entries)} entries")
        if not held:
            found.waits("an open dispute is frozen", dispute.id, "it has no hold")
        return
    outcome = entries[-1].facts.get(OUTCOME) if entries else None
    found.require(
        not (held and entries), "a decided dispute is not frozen", dispute.id, f"its entry says {outcome}"
    )
    if outcome != dispute.status.value:
        found.waits("a dispute is carried out", dispute.id, f"{dispute.status}, its entries say {outcome}")
        return
    taken = _sent(dispute.gateway, entries)
    found.require(
        taken == (dispute.amount_minor if dispute.status is DisputeStatus.LOST else 0),
        "a dispute takes its amount, or nothing if it was won",
        dispute.id,
        f"{dispute.status}: {taken} of {dispute.amount_minor}",
    )


def _is_held(accounts: Mapping[str, Account], account_id: str, hold_id: str) -> bool:
    return account_id in accounts and hold_id in accounts[account_id].holds


def _sent(gateway: str, entries: list[Entry]) -> int:
    """What went to the gateway, less what came back."""
    posted = [entry for entry in entries if entry.state is KeyState.POSTED]
    return sum(effect_on(gateway_of(gateway), entry.transfers) for entry in posted)
