"""The pure functions of the ledger: what they answer, what they refuse, and that they change nothing else."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing_engine.errors import InvariantBroken
from billing_engine.ledger.accounts import REVENUE_CONSULTATIONS, earnings_of, gateway_of, wallet_of
from billing_engine.ledger.model import (
    Account,
    Entry,
    Fenced,
    Hold,
    HoldGone,
    InsufficientFunds,
    KeyState,
    Movement,
    Transfer,
    adopt_hold,
    apply_credit,
    check_transfers,
    close_hold,
    credits_of,
    drop_tail,
    effect_on,
    extend_hold,
    fenced_hold,
    floor_of,
    forget_credits,
    has_document,
    key_of,
    open_hold,
    post,
    same_content,
    void,
)
from server.storage.ledger_codec import entry_of_json, entry_to_json, holds_of_json, holds_to_json

W, V, E = wallet_of("w"), wallet_of("v"), earnings_of("e")
GATEWAY = gateway_of("g")
WHEN: dict[str, Any] = {"at_ms": 5, "day": "2026-01-01"}


def wallet(posted: int = 100, **fields: Any) -> Account:
    return Account(W, "INR", 0, posted, **fields)


def pays(*parts: tuple[str, int], source: str = "p", **fields: Any) -> Movement:
    transfers = tuple(Transfer(W, to, amount, "fee") for to, amount in parts)
    return Movement(W, source, "fee", "INR", "ref", transfers, **fields)


def with_hold(amount: int = 30, **fields: Any) -> tuple[Account, Hold]:
    return open_hold(wallet(**fields), hold_id="h", amount_minor=amount, owner="me", facts={"x": 1})


# --- names ---


def test_families_of_accounts() -> None:
    assert [has_document(one) for one in (W, E, GATEWAY, REVENUE_CONSULTATIONS, "issued:credits")] == [
        True,
        True,
        False,
        False,
        False,
    ]
    assert (floor_of(W), floor_of(E)) == (0, None)
    assert key_of(W, "a|b") == f"{W}|a|b"


# --- posting ---


def test_posting_moves_the_payer_and_leaves_the_rest_to_redo() -> None:
    account, entry = post(wallet(seq=7), pays((E, 60), (REVENUE_CONSULTATIONS, 5)), **WHEN)
    assert (account.posted, account.seq, account.tail) == (35, 8, (entry,))
    assert (entry.key, entry.seq, entry.posted_before, entry.posted_after) == (f"{W}|p", 8, 100, 35)
    assert credits_of(entry) == {E: 60}


def test_posting_all_that_there_is_is_covered_and_a_paisa_more_is_not() -> None:
    assert post(wallet(), pays((E, 100)), **WHEN)[1].state is KeyState.POSTED
    account, entry = post(wallet(), pays((E, 101)), **WHEN)
    assert (entry.state, entry.posted_after, account.posted) == (KeyState.REFUSED, 100, 100)
    assert entry.transfers
    assert credits_of(entry) == {}


def test_what_is_held_cannot_be_paid_out() -> None:
    account, _ = with_hold(30)
    assert post(account, pays((E, 70)), **WHEN)[1].state is KeyState.POSTED
    assert post(account, pays((E, 71)), **WHEN)[1].state is KeyState.REFUSED


def test_a_movement_that_gives_is_never_refused() -> None:
    """A receivable must be payable back in parts."""
    account = Account(E, "INR", None, -50)
    back = Movement(E, "p", "recharge", "INR", "r", (Transfer(GATEWAY, E, 10, "recharge"),))
    assert post(account, back, **WHEN)[0].posted == -40


@pytest.mark.parametrize(
    "transfer",
    [
        Transfer(W, E, 0, "k"),
        Transfer(W, E, -1, "k"),
        Transfer(W, W, 1, "k"),
        Transfer(V, W, 1, "k"),
        Transfer(E, V, 1, "k"),
    ],
)
def test_a_transfer_is_positive_and_paid_by_its_committing_account(transfer: Transfer) -> None:
    with pytest.raises(InvariantBroken):
        check_transfers(W, (Transfer(GATEWAY, W, 5, "k"), transfer))


def test_posting_under_the_key_of_an_open_hold_is_a_defect() -> None:
    account, _ = with_hold()
    with pytest.raises(InvariantBroken):
        post(account, pays((E, 1), source="h"), **WHEN)


def test_same_content_is_kind_reference_and_every_transfer() -> None:
    _, entry = post(wallet(), pays((E, 1), (V, 2)), **WHEN)
    assert same_content(entry, pays((E, 1), (V, 2)))
    for other in (pays((V, 2), (E, 1)), pays((E, 1)), pays((E, 1), (V, 3))):
        assert not same_content(entry, other)


@given(
    transfers=st.lists(
        st.builds(
            Transfer,
            st.sampled_from([W, GATEWAY]),
            st.sampled_from([V, E, REVENUE_CONSULTATIONS, W]),
            st.integers(1, 10**15),
            st.just("k"),
        ).filter(lambda t: t.debit != t.credit),
        min_size=1,
        max_size=6,
    ),
    posted=st.integers(0, 10**15),
)
def test_a_posted_entry_sums_to_zero_over_everyone_it_touches(transfers: list[Transfer], posted: int) -> None:
    account, entry = post(wallet(posted), Movement(W, "p", "k", "INR", "r", tuple(transfers)), **WHEN)
    touched = {t.debit for t in transfers} | {t.credit for t in transfers}
    assert sum(effect_on(one, entry.transfers) for one in touched) == 0
    if entry.state is KeyState.POSTED:
        assert account.posted == posted + effect_on(W, entry.transfers) >= 0
        with_documents = {one for one in touched if has_document(one) and one != W}
        assert credits_of(entry) == {one: effect_on(one, entry.transfers) for one in sorted(with_documents)}
    else:
        assert account.posted == posted


# --- holds ---


def test_a_hold_may_take_everything_and_no_paisa_more() -> None:
    account, hold = with_hold(100)
    assert (account.held, account.spendable, hold) == (100, 0, Hold("h", 100, 1, 1, "me", {"x": 1}))
    with pytest.raises(InsufficientFunds) as short:
        with_hold(101)
    assert short.value.facts["short_minor"] == 1


def test_a_hold_of_nothing_needs_no_money() -> None:
    """A wallet below what it holds may still be asked to hold nothing more."""
    account, _ = open_hold(Account(E, "INR", None, -5), hold_id="h", amount_minor=0, owner="", facts={})
    assert account.holds["h"].amount_minor == 0


@pytest.mark.parametrize("amount", [-1, -(10**15)])
def test_a_hold_is_never_negative(amount: int) -> None:
    with pytest.raises(InvariantBroken):
        with_hold(amount)
    account, hold = with_hold()
    with pytest.raises(InvariantBroken):
        extend_hold(account, hold, n=2, amount_minor=amount, facts={})


def test_a_hold_is_opened_once() -> None:
    account, _ = with_hold()
    with pytest.raises(InvariantBroken):
        open_hold(account, hold_id="h", amount_minor=1, owner="me", facts={})


def test_extending_needs_a_higher_n() -> None:
    account, hold = with_hold()
    for n in (0, 1):
        assert extend_hold(account, hold, n=n, amount_minor=99, facts={}) == (account, hold)
    extended, changed = extend_hold(account, hold, n=7, amount_minor=99, facts={"y": 2})
    assert changed == Hold("h", 99, 7, 1, "me", {"y": 2})
    assert (extended.held, extended.posted, extended.holds["h"]) == (99, 100, changed)
    with pytest.raises(InsufficientFunds):
        extend_hold(account, hold, n=7, amount_minor=101, facts={})


def test_extending_to_less_gives_back() -> None:
    account, hold = with_hold(30)
    assert extend_hold(account, hold, n=2, amount_minor=10, facts={})[0].spendable == 90


def test_only_the_owner_at_the_current_epoch_passes_the_fence() -> None:
    account, hold = with_hold()
    adopted, new = adopt_hold(account, hold, owner="you", facts={"z": 3})
    assert new == Hold("h", 30, 2, 2, "you", {"z": 3})
    assert adopted.held == account.held
    assert fenced_hold(adopted, "h", epoch=2, owner="you") == new
    for epoch, owner in ((1, "me"), (2, "me"), (1, "you"), (3, "you")):
        with pytest.raises(Fenced):
            fenced_hold(adopted, "h", epoch=epoch, owner=owner)
    with pytest.raises(HoldGone):
        fenced_hold(adopted, "i", epoch=1, owner="me")


def test_a_close_takes_its_transfers_and_frees_the_rest() -> None:
    account, hold = with_hold(30)
    other, _ = open_hold(account, hold_id="i", amount_minor=50, owner="me", facts={})
    closed, entry = close_hold(
        other, hold, kind="session", transfers=(Transfer(W, E, 20, "net"),), facts={"s": 1}, **WHEN
    )
    assert (closed.posted, closed.held, list(closed.holds)) == (80, 50, ["i"])
    assert (entry.key, entry.reference, entry.state, dict(entry.facts)) == (
        f"{W}|h",
        "h",
        KeyState.POSTED,
        {"s": 1},
    )
    assert closed.tail == (entry,)


def test_a_close_takes_no_more_than_was_held() -> None:
    account, hold = with_hold(30)
    for parts in ([31], [30, 1]):
        transfers = tuple(Transfer(W, E, part, "net") for part in parts)
        with pytest.raises(InvariantBroken):
            close_hold(account, hold, kind="session", transfers=transfers, facts={}, **WHEN)


def test_a_void_gives_back_its_own_hold_and_no_other() -> None:
    account, _ = with_hold(30)
    both, _ = open_hold(account, hold_id="i", amount_minor=50, owner="me", facts={})
    voided, entry = void(both, key_of(W, "h"), **WHEN)
    assert (voided.held, list(voided.holds), voided.posted) == (50, ["i"], 100)
    assert (entry.state, entry.transfers, entry.posted_after) == (KeyState.VOIDED, (), 100)
    nothing, _ = void(both, key_of(W, "never"), **WHEN)
    assert nothing.held == 80


# --- redo ---


def entry_of(*parts: tuple[str, int], source: str = "p") -> Entry:
    return post(wallet(10**6), pays(*parts, source=source), **WHEN)[1]


def test_a_credit_is_added_once_until_it_is_forgotten() -> None:
    entry = entry_of((E, 5), (E, 7))
    target = Account(E, "INR", None, 100)
    once = apply_credit(target, entry, 12)
    assert (once.posted, once.credited) == (112, ((entry.key, 112),))
    assert apply_credit(once, entry, 12) is once
    other = apply_credit(once, entry_of((E, 1), source="q"), 1)
    forgotten = forget_credits(other, frozenset({entry.key}))
    assert (forgotten.posted, [key for key, _ in forgotten.credited]) == (113, [f"{W}|q"])


def test_a_credit_of_another_asset_is_a_defect() -> None:
    with pytest.raises(InvariantBroken):
        apply_credit(Account(E, "USD", None, 100), entry_of((E, 5)), 5)


def test_a_tail_is_cut_by_key() -> None:
    account, first = post(wallet(), pays((E, 1), source="a"), **WHEN)
    account, second = post(account, pays((E, 1), source="b"), **WHEN)
    account, third = post(account, pays((E, 1), source="c"), **WHEN)
    assert drop_tail(account, frozenset({second.key, "unknown"})).tail == (first, third)
    assert drop_tail(account, frozenset()).tail == (first, second, third)


def test_credits_are_for_other_accounts_with_documents_in_order() -> None:
    transfers = (
        Transfer(W, V, 3, "k"),
        Transfer(W, E, 1, "k"),
        Transfer(GATEWAY, E, 2, "k"),
        Transfer(W, REVENUE_CONSULTATIONS, 9, "k"),
        Transfer(GATEWAY, W, 50, "k"),
    )
    _, entry = post(wallet(), Movement(W, "p", "k", "INR", "r", transfers), **WHEN)
    assert list(credits_of(entry).items()) == [(E, 3), (V, 3)]


# --- what is stored ---

json_facts = st.dictionaries(
    st.text(max_size=5),
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=9),
    max_size=4,
)
texts = st.text(max_size=12)
int64 = st.integers(-(2**63), 2**63 - 1)


@given(
    st.builds(
        Entry,
        key=texts,
        account=texts,
        seq=int64,
        state=st.sampled_from(KeyState),
        kind=texts,
        asset=texts,
        reference=texts,
        transfers=st.lists(st.builds(Transfer, texts, texts, int64, texts), max_size=4).map(tuple),
        posted_before=int64,
        posted_after=int64,
        at_ms=int64,
        day=texts,
        facts=json_facts,
    )
)
def test_an_entry_survives_its_json(entry: Entry) -> None:
    assert entry_of_json(entry_to_json(entry)) == entry


@given(st.lists(st.builds(Hold, texts, int64, int64, int64, texts, json_facts), max_size=4))
def test_holds_survive_their_json(holds: list[Hold]) -> None:
    by_id = {hold.id: hold for hold in holds}
    assert holds_of_json([list(raw) for raw in holds_to_json(by_id)]) == by_id
