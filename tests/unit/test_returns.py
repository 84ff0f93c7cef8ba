"""What money on its way back does to an account, which word about it counts, and what the audit says of both."""

from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing_engine.ledger.accounts import REVENUE_CHARGEBACKS
from billing_engine.ledger.model import Account, Entry, Hold, KeyState, effect_on
from billing_engine.payments.disputes import OUTCOME, WORD_AT
from billing_engine.payments.disputes import return_of as return_of_dispute
from billing_engine.payments.model import DisputeStatus, Payment, PaymentStatus, Purpose, RefundStatus
from billing_engine.payments.payer_refunds import return_of
from billing_engine.payments.refund_model import (
    Dispute,
    PayerRefund,
    PayerRefundStatus,
    bounds_of,
    counts_more,
    outranks,
)
from billing_engine.payments.returns import (
    CHARGEBACK,
    DISPUTE_WON,
    PAYER_REFUND,
    HoldMoved,
    bounded,
    end,
    put_back,
    set_aside_all,
    set_aside_spare,
    taken_minor,
)
from billing_engine.payments.returns_audit import audit_returns
from billing_engine.verification import Findings, Verdict

WALLET = "wallet:u1"
AT = {"at_ms": 5, "day": "2026-01-01"}
OPEN, WON, LOST = DisputeStatus.OPEN, DisputeStatus.WON, DisputeStatus.LOST


def an_account(posted: int = 1_000) -> Account:
    return Account(WALLET, "INR", posted=posted)


def a_payment(amount: int = 1_000, **more: Mapping[str, int]) -> Payment:
    return Payment(
        "p1", Purpose.WALLET, "u1", WALLET, amount, "INR", "razorpay", PaymentStatus.PAID, 0, **more
    )  # type: ignore[arg-type]


def a_refund(amount: int = 400, status: PayerRefundStatus = PayerRefundStatus.PENDING) -> PayerRefund:
    return PayerRefund(
        "f1", "p1", "u1", WALLET, "razorpay", "pay_1", amount, "INR", "Why.", 0, "a1", status=status,
        check_at_ms=9 if status is PayerRefundStatus.PENDING else None,
    )  # fmt: skip


def a_dispute(amount: int = 600, status: DisputeStatus = OPEN, word_at_ms: int = 0) -> Dispute:
    return Dispute(
        "d1", "disp_1", "p1", "u1", WALLET, "razorpay", amount, "INR", "fraud", 0, status, word_at_ms
    )


def held(account: Account, refund: PayerRefund) -> Account:
    account, hold = set_aside_all(account, None, wanted=return_of(refund), **AT)
    assert isinstance(hold, Hold)
    return account


def frozen(account: Account, dispute: Dispute, bound: int) -> Account:
    account, hold = set_aside_spare(account, None, wanted=return_of_dispute(dispute), bound_minor=bound)
    assert isinstance(hold, Hold)
    return account


# --- the account


def test_a_refund_of_what_is_not_there_is_refused_for_ever() -> None:
    account, entry = set_aside_all(an_account(399), None, wanted=return_of(a_refund()), **AT)
    assert isinstance(entry, Entry)
    assert (entry.state, account.posted, account.held) == (KeyState.REFUSED, 399, 0)
    rich = account._replace(posted=10_000)
    assert set_aside_all(rich, entry, wanted=return_of(a_refund()), **AT) == (rich, entry)


@given(posted=st.integers(0, 2_000), bound=st.integers(0, 2_000), amount=st.integers(1, 2_000))
def test_what_is_taken_and_what_is_lost_are_the_amount(posted: int, bound: int, amount: int) -> None:
    dispute = a_dispute(amount)
    account = frozen(an_account(posted), dispute, min(bound, amount))
    assert account.held == min(posted, bound, amount)
    ended, entry = end(
        account, None, wanted=return_of_dispute(dispute), kind=CHARGEBACK, takes=True, facts={}, **AT
    )
    assert (ended.held, ended.posted) == (0, posted - taken_minor(entry))
    assert taken_minor(entry) == min(posted, bound, amount)
    assert effect_on("gateway:razorpay", entry.transfers) == amount
    assert -effect_on(REVENUE_CHARGEBACKS, entry.transfers) == amount - taken_minor(entry)
    back = put_back(return_of_dispute(dispute), entry, kind="x", source="again", facts={})
    for name in (WALLET, REVENUE_CHARGEBACKS, "gateway:razorpay"):
        assert effect_on(name, back.transfers) == -effect_on(name, entry.transfers)


def test_a_dispute_gives_way_in_the_write_that_takes_for_a_refund() -> None:
    dispute = a_dispute(1_000)
    account = frozen(an_account(1_000), dispute, 1_000)
    assert account.spendable == 0
    account, hold = set_aside_spare(
        account, None, wanted=return_of(a_refund(400)), bound_minor=400, disputes={dispute.hold_id: 600}
    )
    assert isinstance(hold, Hold)
    assert (hold.amount_minor, account.holds[dispute.hold_id].amount_minor, account.spendable) == (
        400,
        600,
        0,
    )
    with pytest.raises(HoldMoved):
        bounded(an_account(), {dispute.hold_id: 1})


def test_a_bound_that_stays_takes_no_new_money() -> None:
    """Somebody whose spent money is disputed recharges: that money is theirs to spend."""
    dispute = a_dispute(1_000)
    account = frozen(an_account(300), dispute, 1_000)._replace(posted=900)
    assert bounded(account, {dispute.hold_id: 1_000}) == account
    assert bounded(account, {dispute.hold_id: 999}).held == 899 + 1


# --- which word counts


@pytest.mark.parametrize(
    ("known", "news", "counts"),
    [
        ((OPEN, 9), (OPEN, 10), False),
        ((OPEN, 9), (WON, 1), True),
        ((OPEN, 9), (LOST, 1), True),
        ((WON, 5), (OPEN, 9), False),
        ((LOST, 5), (WON, 4), False),
        ((LOST, 5), (WON, 6), True),
        ((WON, 5), (LOST, 6), True),
        ((WON, 5), (LOST, 5), True),
        ((LOST, 5), (WON, 5), False),
        ((WON, 5), (WON, 6), True),
    ],
)
def test_the_later_final_word_counts(
    known: tuple[DisputeStatus, int], news: tuple[DisputeStatus, int], counts: bool
) -> None:
    assert counts_more(*news, a_dispute(status=known[0], word_at_ms=known[1])) is counts


def test_of_a_refund_the_word_counts_that_ranks_higher() -> None:
    order = [None, RefundStatus.PENDING, RefundStatus.DONE, RefundStatus.FAILED]
    for at, known in enumerate(order):
        for later, news in enumerate(order):
            if news is not None:
                assert outranks(news, known) is (later > at)


amounts = st.dictionaries(st.sampled_from("abcd"), st.integers(0, 1_000), max_size=4)


@given(refunds=amounts, disputes=amounts)
def test_no_paisa_is_frozen_for_two(refunds: dict[str, int], disputes: dict[str, int]) -> None:
    bounds = bounds_of(a_payment(1_000, refunds=refunds, disputes=disputes))
    assert sum(bounds.values()) <= max(0, 1_000 - sum(refunds.values()))
    assert all(0 <= bounds[name] <= disputes[name] for name in disputes)


# --- the audit


def audit(
    account: Account,
    *entries: Entry,
    refund: PayerRefund | None = None,
    dispute: Dispute | None = None,
    reserved: int | None = None,
) -> Findings:
    payment = a_payment(refunds={} if reserved is None else {"f1": reserved})
    return audit_returns(
        [] if refund is None else [refund],
        [] if dispute is None else [dispute],
        {payment.id: payment},
        {account.id: account},
        {entry.key: entry for entry in entries},
    )


def closed(refund: PayerRefund, *, takes: bool) -> tuple[Account, Entry]:
    account = held(an_account(), refund)
    return end(account, None, wanted=return_of(refund), kind=PAYER_REFUND, takes=takes, facts={}, **AT)


def decided(dispute: Dispute, outcome: DisputeStatus) -> tuple[Account, Entry]:
    account = frozen(an_account(), dispute, dispute.amount_minor)
    kind = CHARGEBACK if outcome is LOST else DISPUTE_WON
    facts = {OUTCOME: outcome.value, WORD_AT: 1}
    return end(
        account, None, wanted=return_of_dispute(dispute), kind=kind, takes=outcome is LOST, facts=facts, **AT
    )


def test_what_waits_for_a_bank_is_clean_and_what_waits_for_us_is_unfinished() -> None:
    refund = a_refund()
    assert audit(held(an_account(), refund), refund=refund, reserved=400).verdict is Verdict.CLEAN
    begun = replace(refund, status=PayerRefundStatus.REQUESTED)
    assert audit(an_account(), refund=begun, reserved=400).verdict is Verdict.UNFINISHED
    dispute = a_dispute()
    assert audit(frozen(an_account(), dispute, 600), dispute=dispute).verdict is Verdict.CLEAN
    assert audit(an_account(), dispute=dispute).verdict is Verdict.UNFINISHED
    lost = replace(dispute, status=LOST)
    assert audit(frozen(an_account(), dispute, 600), dispute=lost).verdict is Verdict.UNFINISHED
    assert audit(*decided(dispute, WON), dispute=lost).verdict is Verdict.UNFINISHED


def test_what_is_settled_is_clean() -> None:
    done = a_refund(status=PayerRefundStatus.DONE)
    assert audit(*closed(done, takes=True), refund=done, reserved=400).verdict is Verdict.CLEAN
    failed = a_refund(status=PayerRefundStatus.FAILED)
    assert audit(*closed(failed, takes=False), refund=failed, reserved=0).verdict is Verdict.CLEAN
    for outcome in (WON, LOST):
        dispute = a_dispute(status=outcome)
        assert audit(*decided(dispute, outcome), dispute=dispute).verdict is Verdict.CLEAN


def test_the_audit_finds_what_does_not_agree() -> None:
    pending, done = a_refund(), a_refund(status=PayerRefundStatus.DONE)
    failed, lost = a_refund(status=PayerRefundStatus.FAILED), a_dispute(status=LOST)
    with_hold, with_freeze = held(an_account(), pending), frozen(an_account(), a_dispute(), 600)
    _, sent = closed(done, takes=True)
    _, less = decided(a_dispute(500), LOST)
    wrong = {
        "a hold without a record": audit(with_hold),
        "a freeze without a record": audit(with_freeze),
        "more held than goes back": audit(with_hold, refund=a_refund(399), reserved=399),
        "an entry without a record": audit(an_account(600), sent),
        "a dispute's entry without a record": audit(an_account(500), less),
        "done, and nothing sent": audit(an_account(), refund=done, reserved=400),
        "done, and still held": audit(with_hold, sent, refund=done, reserved=400),
        "failed, and sent": audit(an_account(600), sent, refund=failed, reserved=0),
        "the payment does not know": audit(an_account(600), sent, refund=done, reserved=0),
        "a pending one it does not know": audit(with_hold, refund=pending, reserved=0),
        "lost, and another amount": audit(an_account(500), less, dispute=lost),
        "open, and taken": audit(with_freeze, less, dispute=a_dispute()),
    }
    assert {what for what, found in wrong.items() if found.verdict is not Verdict.BROKEN} == set()
