"""What the ledger promises over any store. Subclass it and supply `store`, prepared and empty.

Two `Ledger`s on one store stand for two processes: each has a committer and a cache of its own.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from billing_engine.errors import InvariantBroken, Unavailable
from billing_engine.ledger.committer import Committer, LedgerBusy
from billing_engine.ledger.model import (
    Account,
    Entry,
    Fenced,
    HoldGone,
    InsufficientFunds,
    KeyReused,
    KeyState,
    KeyVoided,
    Movement,
    Transfer,
    extend_hold,
    open_hold,
)
from billing_engine.ledger.ports import LedgerStore
from billing_engine.ledger.service import Ledger
from server.storage.errors import StoreUnavailable
from tests.support.ledger_moves import (
    GATEWAY,
    INR,
    adopt,
    close,
    extend,
    open_,
    payment,
    recharge,
)
from tests.support.ledger_store_calls import WatchedStore
from tests.support.manual_clock import ManualClock

W, V = "wallet:w", "wallet:v"
E = "earnings:e"
REVENUE = "revenue:consultations"


def day_of(at_ms: int) -> str:
    return f"2026-01-{1 + at_ms // 86_400_000 % 28:02d}"


@asynccontextmanager
async def process(store: LedgerStore, clock: ManualClock | None = None) -> AsyncIterator[Ledger]:
    """A process's ledger over the store, started and in the end stopped."""
    ledger = Ledger(store, clock or ManualClock(), day_of)
    await ledger.start()
    try:
        yield ledger
    finally:
        await ledger.stop()


class LedgerContract:
    """Keys end once, holds are fenced, money is neither made nor lost."""

    @pytest.fixture
    async def clock(self) -> ManualClock:
        return ManualClock()

    @pytest.fixture
    async def ledger(self, store: LedgerStore, clock: ManualClock) -> AsyncIterator[Ledger]:
        async with process(store, clock) as ledger:
            yield ledger

    # --- keys: posted, refused or voided, for ever ---

    async def test_a_movement_is_booked_once_per_source(self, ledger: Ledger, clock: ManualClock) -> None:
        first = await ledger.post(recharge(W, "r", 100))
        clock.jump_ms(86_400_000)
        again = await ledger.post(recharge(W, "r", 100))
        assert again == first
        assert (first.posted_before, first.posted_after, first.seq, first.state) == (
            0,
            100,
            1,
            KeyState.POSTED,
        )
        assert await ledger.balance(W, INR) == 100
        assert await ledger.balance(GATEWAY, INR) == -100

    async def test_fifty_at_once_with_one_source_are_one(self, ledger: Ledger) -> None:
        entries = await asyncio.gather(*(ledger.post(recharge(W, "r", 100)) for _ in range(50)))
        assert all(entry == entries[0] for entry in entries)
        assert await ledger.balance(W, INR) == 100

    @pytest.mark.parametrize(
        "other",
        [
            recharge(W, "r", 101),
            recharge(W, "r", 100, kind="bonus"),
            replace(recharge(W, "r", 100), reference="else"),
            replace(recharge(W, "r", 100), transfers=(Transfer("gateway:else", W, 100, "recharge"),)),
            payment(W, "r", (E, 100)),
        ],
    )
    async def test_a_source_cannot_name_another_movement(self, ledger: Ledger, other: Movement) -> None:
        """The caller would believe that its second operation happened."""
        await ledger.post(recharge(W, "r", 100))
        with pytest.raises(KeyReused):
            await ledger.post(other)
        together = await asyncio.gather(
            ledger.post(recharge(W, "s", 1)), ledger.post(replace(other, source="s")), return_exceptions=True
        )
        assert isinstance(together[1], KeyReused)
        assert await ledger.balance(W, INR) == 101

    async def test_sources_of_different_accounts_do_not_meet(self, ledger: Ledger) -> None:
        await ledger.post(recharge(W, "r", 100))
        await ledger.post(recharge(V, "r", 7))
        assert (await ledger.balance(W, INR), await ledger.balance(V, INR)) == (100, 7)

    async def test_an_account_whose_name_would_blur_its_keys_is_refused(self, ledger: Ledger) -> None:
        """`a|b` with `c` and `a` with `b|c` would be one key for two accounts (LEDGER 2)."""
        await ledger.post(recharge("wallet:a", "b|c", 1))
        with pytest.raises(InvariantBroken):
            await ledger.post(recharge("wallet:a|b", "c", 1))

    async def test_a_refused_source_stays_refused_when_money_comes(self, ledger: Ledger) -> None:
        """Otherwise a retry by a client that was told "no" an hour ago takes the money after all."""
        await ledger.post(recharge(W, "r", 99))
        for _ in range(2):
            with pytest.raises(InsufficientFunds):
                await ledger.post(payment(W, "p", (E, 100)))
            await ledger.post(recharge(W, "r2", 1_000))
        refused = await ledger.entry(W, "p")
        assert refused is not None
        assert (refused.state, refused.posted_before, refused.posted_after) == (KeyState.REFUSED, 99, 99)
        assert await ledger.balance(W, INR) == 1_099
        assert await ledger.balance(E, INR) == 0
        assert (await ledger.void(W, INR, "p")).state is KeyState.REFUSED

    async def test_a_voided_source_never_happens(self, ledger: Ledger) -> None:
        """The caller froze before its write; recovery told the customer that nothing was taken."""
        await ledger.post(recharge(W, "r", 100))
        voided = await ledger.void(W, INR, "p")
        assert voided.state is KeyState.VOIDED
        assert await ledger.void(W, INR, "p") == voided
        with pytest.raises(KeyVoided):
            await ledger.post(payment(W, "p", (E, 1)))
        with pytest.raises(KeyVoided):
            await open_(ledger, W, "p", 1)
        assert await close(ledger, W, "p") == voided
        assert (await ledger.account(W, INR)).spendable == 100

    async def test_what_is_posted_cannot_be_voided(self, ledger: Ledger) -> None:
        posted = await ledger.post(recharge(W, "r", 100))
        assert await ledger.void(W, INR, "r") == posted
        assert await ledger.balance(W, INR) == 100

    async def test_the_fate_of_a_source_can_be_asked(self, ledger: Ledger) -> None:
        assert await ledger.entry(W, "r") is None
        posted = await ledger.post(recharge(W, "r", 100))
        assert await ledger.entry(W, "r") == posted
        assert await ledger.entry(W, "s") is None

    async def test_fates_outlive_the_process(self, store: LedgerStore, clock: ManualClock) -> None:
        async with process(store, clock) as ledger:
            posted = await ledger.post(recharge(W, "r", 100))
            voided = await ledger.void(W, INR, "v")
            with pytest.raises(InsufficientFunds):
                await ledger.post(payment(W, "p", (E, 101)))
        async with process(store, clock) as ledger:
            assert await ledger.post(recharge(W, "r", 100)) == posted
            assert await ledger.void(W, INR, "v") == voided
            with pytest.raises(InsufficientFunds):
                await ledger.post(payment(W, "p", (E, 101)))
            with pytest.raises(KeyVoided):
                await ledger.post(recharge(W, "v", 1))

    # --- movements ---

    async def test_one_debit_may_credit_many(self, ledger: Ledger) -> None:
        await ledger.post(recharge(W, "r", 100))
        entry = await ledger.post(payment(W, "p", (E, 60), (REVENUE, 7), (E, 3), (V, 30)))
        assert entry.posted_after == 0
        assert await ledger.balance(E, INR) == 63
        assert await ledger.balance(V, INR) == 30
        assert await ledger.balance(REVENUE, INR) == 7
        assert [(line.change_minor, line.balance_after) for line in await ledger.lines(E, limit=5)] == [
            (63, 63)
        ]

    async def test_many_debits_of_one_wallet_at_once_never_overdraw_it(self, ledger: Ledger) -> None:
        await ledger.post(recharge(W, "r", 100))
        results = await asyncio.gather(
            *(ledger.post(payment(W, f"p{i}", (E, 7))) for i in range(30)), return_exceptions=True
        )
        assert [isinstance(result, Entry) for result in results] == [i < 14 for i in range(30)]
        assert (await ledger.balance(W, INR), await ledger.balance(E, INR)) == (2, 98)

    async def test_the_floor_belongs_to_the_kind_of_transfer(self, ledger: Ledger) -> None:
        """A reversal may take earnings below zero, a payout may not (LEDGER 5)."""
        await ledger.post(recharge(W, "r", 100))
        await ledger.post(payment(W, "p", (E, 100)))
        with pytest.raises(InsufficientFunds):
            await ledger.post(payment(E, "payout", (GATEWAY, 101)))
        await ledger.post(replace(payment(E, "reversal", (W, 130)), floor=-(10**15)))
        assert (await ledger.balance(E, INR), await ledger.balance(W, INR)) == (-30, 130)

    @pytest.mark.parametrize(
        "wrong",
        [
            payment(W, "x", (E, 0)),
            payment(W, "x", (E, -5)),
            payment(W, "x", (W, 5)),
            replace(payment(V, "x", (W, 5)), account=W),
            replace(recharge(W, "x", 5), asset="USD"),
        ],
    )
    async def test_a_movement_that_one_commit_cannot_carry_breaks_an_invariant(
        self, ledger: Ledger, wrong: Movement
    ) -> None:
        await ledger.post(recharge(W, "r", 100))
        await ledger.post(recharge(V, "r", 100))
        with pytest.raises(InvariantBroken):
            await ledger.post(wrong)
        assert await ledger.entry(W, "x") is None
        assert (await ledger.balance(W, INR), await ledger.balance(V, INR)) == (100, 100)

    async def test_an_account_keeps_one_asset(self, ledger: Ledger) -> None:
        """Dollars added to rupees would still sum to zero. Nothing of such a payment may be seen."""
        await ledger.post(recharge(W, "r", 100))
        dollars = replace(recharge(V, "r", 100), asset="USD")
        await ledger.post(dollars)
        with pytest.raises(InvariantBroken):
            await ledger.post(payment(W, "p", (V, 5)))
        assert (await ledger.account(V, "USD")).posted == 100

    async def test_asking_for_redo_first_does_not_decide_the_asset(self, ledger: Ledger) -> None:
        redo = asyncio.ensure_future(ledger.committer.redo([W]))
        post = asyncio.ensure_future(ledger.post(recharge(W, "r", 1)))
        again = asyncio.ensure_future(ledger.committer.redo([W]))
        await asyncio.gather(redo, post, again)
        assert (await ledger.account(W, INR)).asset == INR

    async def test_system_accounts_have_no_document(self, ledger: Ledger, store: LedgerStore) -> None:
        await ledger.post(recharge(W, "r", 100))
        await ledger.post(payment(W, "p", (REVENUE, 40)))
        assert await store.load([GATEWAY, REVENUE]) == {}
        assert (await ledger.balance(GATEWAY, INR), await ledger.balance(REVENUE, INR)) == (-100, 40)

    async def test_amounts_of_64_bits_are_exact(self, ledger: Ledger) -> None:
        big = 2**63 - 1
        await ledger.post(recharge(W, "r", big))
        with pytest.raises(InvariantBroken):
            await ledger.post(recharge(W, "one too many", 1))
        await ledger.post(payment(W, "p", (E, big - 1)))
        assert (await ledger.balance(W, INR), await ledger.balance(E, INR)) == (1, big - 1)
        assert await ledger.balance(GATEWAY, INR) == -big

    # --- holds: open, extend, adopt, close ---

    async def test_a_hold_sets_money_aside_and_a_close_takes_part_of_it(self, ledger: Ledger) -> None:
        await ledger.post(recharge(W, "r", 100))
        hold = await open_(ledger, W, "h", 30)
        assert (hold.n, hold.epoch, hold.owner) == (1, 1, "me")
        account = await ledger.account(W, INR)
        assert (account.posted, account.held, account.spendable) == (100, 30, 70)
        with pytest.raises(InsufficientFunds):
            await ledger.post(payment(W, "p", (E, 71)))
        await extend(ledger, W, "h", n=2, to_minor=100)
        entry = await close(ledger, W, "h", (E, 80), (REVENUE, 5), seconds=85)
        assert (entry.posted_before, entry.posted_after, dict(entry.facts)) == (100, 15, {"seconds": 85})
        account = await ledger.account(W, INR)
        assert (account.posted, account.held, dict(account.holds)) == (15, 0, {})
        assert (await ledger.balance(E, INR), await ledger.balance(REVENUE, INR)) == (80, 5)

    async def test_opening_again_finds_the_open_hold(self, ledger: Ledger) -> None:
        await ledger.post(recharge(W, "r", 100))
        first = await open_(ledger, W, "h", 30)
        await extend(ledger, W, "h", n=2, to_minor=40)
        again = await open_(ledger, W, "h", 30)
        assert (first.n, again.n, again.amount_minor) == (1, 2, 40)
        assert (await ledger.account(W, INR)).held == 40

    async def test_a_hold_needs_the_money(self, ledger: Ledger) -> None:
        await ledger.post(recharge(W, "r", 100))
        with pytest.raises(InsufficientFunds):
            await open_(ledger, W, "h", 101)
        await open_(ledger, W, "h", 60)
        with pytest.raises(InsufficientFunds):
            await open_(ledger, W, "i", 41)
        with pytest.raises(InsufficientFunds):
            await extend(ledger, W, "h", n=2, to_minor=101)
        account = await ledger.account(W, INR)
        assert (account.held, account.holds["h"].n) == (60, 1)

    @pytest.mark.parametrize("amount_minor", [-1, -60])
    async def test_a_hold_is_never_negative(self, ledger: Ledger, amount_minor: int) -> None:
        """A negative hold beside a positive one is money to spend that is not there."""
        await ledger.post(recharge(W, "r", 100))
        await open_(ledger, W, "h", 60)
        with pytest.raises(InvariantBroken):
            await open_(ledger, W, "i", amount_minor)
        await open_(ledger, W, "j", 40)
        with pytest.raises(InvariantBroken):
            await extend(ledger, W, "j", n=2, to_minor=amount_minor)
        assert (await ledger.account(W, INR)).spendable == 0

    async def test_a_lower_n_changes_nothing_and_ones_own_n_is_success(self, ledger: Ledger) -> None:
        await ledger.post(recharge(W, "r", 100))
        await open_(ledger, W, "h", 10)
        await extend(ledger, W, "h", n=5, to_minor=50, mark="five")
        for n in (1, 4, 5):
            hold = await extend(ledger, W, "h", n=n, to_minor=99, mark="late")
            assert (hold.n, hold.amount_minor, dict(hold.facts)) == (5, 50, {"mark": "five"})
        assert (await ledger.account(W, INR)).held == 50

    async def test_an_adopted_hold_refuses_its_former_owner(self, ledger: Ledger) -> None:
        """Two engines must never bill one session: the loser may be frozen and wake at any time."""
        await ledger.post(recharge(W, "r", 100))
        await open_(ledger, W, "h", 10, owner="old")
        adopted = await adopt(ledger, W, "h", from_epoch=1, owner="new")
        assert (adopted.epoch, adopted.owner, adopted.n, adopted.amount_minor) == (2, "new", 2, 10)
        for epoch, owner in ((1, "old"), (2, "old"), (1, "new"), (3, "new")):
            with pytest.raises(Fenced):
                await extend(ledger, W, "h", n=9, to_minor=20, epoch=epoch, owner=owner)
            with pytest.raises(Fenced):
                await close(ledger, W, "h", (E, 1), fence=(epoch, owner))
        with pytest.raises(Fenced):
            await adopt(ledger, W, "h", from_epoch=1, owner="third")
        await extend(ledger, W, "h", n=9, to_minor=20, epoch=2, owner="new")
        assert (await ledger.account(W, INR)).held == 20

    async def test_a_late_extend_does_not_resurrect_a_closed_hold(self, ledger: Ledger) -> None:
        await ledger.post(recharge(W, "r", 100))
        await open_(ledger, W, "h", 10)
        await close(ledger, W, "h", (E, 10))
        with pytest.raises(HoldGone):
            await extend(ledger, W, "h", n=2, to_minor=20)
        with pytest.raises(HoldGone):
            await adopt(ledger, W, "h", from_epoch=1, owner="new")
        with pytest.raises(HoldGone):
            await open_(ledger, W, "h", 10)
        with pytest.raises(HoldGone):
            await extend(ledger, W, "never", n=2, to_minor=20)
        assert (await ledger.account(W, INR)).held == 0

    async def test_the_first_close_fixes_the_outcome(self, ledger: Ledger) -> None:
        await ledger.post(recharge(W, "r", 100))
        await open_(ledger, W, "h", 50)
        closes = await asyncio.gather(
            close(ledger, W, "h", (E, 40), by="user"),
            close(ledger, W, "h", (E, 50), by="lawyer"),
            close(ledger, W, "h", by="recovery"),
        )
        assert all(entry == closes[0] for entry in closes)
        assert await close(ledger, W, "h", (E, 50)) == closes[0]
        assert (await ledger.balance(E, INR), await ledger.balance(W, INR)) == (40, 60)

    async def test_a_close_takes_no_more_than_was_held(self, ledger: Ledger) -> None:
        await ledger.post(recharge(W, "r", 100))
        await open_(ledger, W, "h", 50)
        with pytest.raises(InvariantBroken):
            await close(ledger, W, "h", (E, 50), (REVENUE, 1))
        assert (await ledger.account(W, INR)).held == 50
        assert await ledger.entry(W, "h") is None

    async def test_a_release_is_a_close_with_no_transfers(self, ledger: Ledger) -> None:
        await ledger.post(recharge(W, "r", 100))
        await open_(ledger, W, "h", 50)
        assert (await close(ledger, W, "h")).transfers == ()
        assert (await ledger.account(W, INR)).spendable == 100
        assert len(await ledger.lines(W, limit=9)) == 1

    async def test_voiding_an_open_hold_gives_it_back_for_good(self, ledger: Ledger) -> None:
        await ledger.post(recharge(W, "r", 100))
        await open_(ledger, W, "h", 50)
        voided = await ledger.void(W, INR, "h")
        assert voided.state is KeyState.VOIDED
        assert (await ledger.account(W, INR)).spendable == 100
        assert await close(ledger, W, "h", (E, 10)) == voided
        with pytest.raises(KeyVoided):
            await open_(ledger, W, "h", 10)
        with pytest.raises(HoldGone):
            await extend(ledger, W, "h", n=2, to_minor=20)

    async def test_the_key_of_an_open_hold_cannot_be_posted_past_it(self, ledger: Ledger) -> None:
        """The hold's close would find its key ended and leave the money set aside for ever."""
        await ledger.post(recharge(W, "r", 100))
        await open_(ledger, W, "h", 50)
        with pytest.raises(InvariantBroken):
            await ledger.post(payment(W, "h", (E, 1)))
        assert (await close(ledger, W, "h", (E, 20))).posted_after == 80

    async def test_open_holds_are_listed_by_prefix(self, ledger: Ledger) -> None:
        await ledger.post(recharge(W, "r", 100))
        for hold_id in ("consult:1", "consult:2", "ai:1"):
            await open_(ledger, W, hold_id, 5)
        await close(ledger, W, "consult:1")
        (found,) = await ledger.open_holds("consult:")
        assert (found.account_id, found.hold_id) == (W, "consult:2")
        assert await ledger.open_holds("consult:", owner=found.owner) == [found]
        assert await ledger.open_holds("consult:", owner="somebody else") == []

    # --- two processes ---

    async def test_money_from_another_process_counts_at_once(
        self, ledger: Ledger, store: LedgerStore
    ) -> None:
        """The cached account says "short". A session must not stay short after the user's recharge elsewhere."""
        await ledger.post(recharge(W, "r", 10))
        await open_(ledger, W, "h", 10)
        async with process(store) as other:
            await other.post(recharge(W, "r2", 50))
            hold = await extend(ledger, W, "h", n=2, to_minor=60)
            assert hold.amount_minor == 60

    async def test_money_spent_by_another_process_is_gone_at_once(
        self, ledger: Ledger, store: LedgerStore
    ) -> None:
        await ledger.post(recharge(W, "r", 100))
        await open_(ledger, W, "h", 10)
        async with process(store) as other:
            await other.post(payment(W, "p", (E, 80)))
            with pytest.raises(InsufficientFunds):
                await extend(ledger, W, "h", n=2, to_minor=21)
            with pytest.raises(InsufficientFunds):
                await ledger.post(payment(W, "p2", (E, 11)))

    async def test_an_owner_that_was_replaced_elsewhere_is_fenced_even_for_an_old_n(
        self, ledger: Ledger, store: LedgerStore
    ) -> None:
        """Its cache still names it the owner; "nothing to do" would let it go on serving."""
        await ledger.post(recharge(W, "r", 100))
        await open_(ledger, W, "h", 10)
        async with process(store) as other:
            await adopt(other, W, "h", from_epoch=1, owner="other")
            for n in (1, 2):
                with pytest.raises(Fenced):
                    await extend(ledger, W, "h", n=n, to_minor=20)

    async def test_a_change_that_met_a_moved_version_is_decided_on_what_is_there_now(
        self, ledger: Ledger, store: LedgerStore
    ) -> None:
        """What it decided first was never stored, so nothing of it may be remembered."""

        def one_more(account: Account, _known: Entry | None) -> tuple[Account, int]:
            hold = account.holds["h"]
            changed, held = extend_hold(
                account, hold, n=hold.n + 1, amount_minor=hold.amount_minor + 1, facts={}
            )
            return changed, held.amount_minor

        await ledger.post(recharge(W, "r", 100))
        await open_(ledger, W, "h", 10)
        async with process(store) as other:
            for i in range(3):
                await other.post(recharge(W, f"other{i}", 1))
                assert await ledger.change(W, INR, one_more) == 11 + i
        assert (await ledger.account(W, INR)).held == 13

    async def test_a_close_elsewhere_is_the_outcome_here(self, ledger: Ledger, store: LedgerStore) -> None:
        await ledger.post(recharge(W, "r", 100))
        await open_(ledger, W, "h", 10)
        async with process(store) as other:
            first = await close(other, W, "h", (E, 4))
            with pytest.raises(HoldGone):
                await extend(ledger, W, "h", n=1, to_minor=10)
            assert await close(ledger, W, "h", (E, 10)) == first
        assert await ledger.balance(E, INR) == 4

    async def test_a_hold_opened_elsewhere_after_a_void_here_is_refused(
        self, ledger: Ledger, store: LedgerStore
    ) -> None:
        await ledger.post(recharge(W, "r", 100))
        await open_(ledger, W, "keeps the account cached", 1)
        async with process(store) as other:
            await open_(other, W, "h", 10)
            await ledger.void(W, INR, "h")
            with pytest.raises(KeyVoided):
                await open_(other, W, "h", 10)
        assert (await ledger.account(W, INR)).held == 1

    async def test_two_processes_working_on_the_same_accounts_keep_the_books(
        self, store: LedgerStore
    ) -> None:
        async with process(store) as one, process(store) as two:
            await one.post(recharge(W, "r", 1_000))
            await one.post(recharge(V, "r", 1_000))

            async def pay(ledger: Ledger, start: int) -> None:
                for i in range(start, start + 15):
                    source, other = (W, V) if i % 2 else (V, W)
                    await ledger.post(payment(source, f"p{i}", (other, 10), (E, 1)))

            await asyncio.gather(pay(one, 0), pay(two, 0), pay(one, 15), pay(two, 15), pay(two, 5))
            assert await one.balance(E, INR) == 30
            assert await one.balance(W, INR) == await two.balance(W, INR) == 985
            assert await one.balance(V, INR) == 985
            assert await store.pending() == []

    # --- group commit: one batch, many callers ---

    @pytest.mark.parametrize("bad", ["raises", "below zero", "no json", "too large", "cannot be copied out"])
    async def test_one_bad_change_does_not_hurt_its_neighbours(self, ledger: Ledger, bad: str) -> None:
        """A defect in one product's code must not fail the payments that happened to share its commit."""

        def change(account: Account, _known: Entry | None) -> tuple[Account, None]:
            if bad == "raises":
                raise ZeroDivisionError
            if bad == "below zero":
                return account._replace(posted=-1), None
            if bad == "too large":
                return account._replace(posted=2**63), None
            if bad == "no json":
                return open_hold(account, hold_id="x", amount_minor=0, owner="", facts={"x": object()})[
                    0
                ], None
            tail = _entry_of_another_account(account)
            return account._replace(tail=(*account.tail, tail), seq=account.seq + 1), None

        await ledger.post(recharge(V, "first", 5))
        results = await asyncio.gather(
            *(ledger.post(recharge(f"wallet:a{i}", "r", 5)) for i in range(5)),
            ledger.change(V, INR, change),
            *(ledger.post(recharge(f"wallet:b{i}", "r", 5)) for i in range(5)),
            ledger.post(payment(W, "too dear", (E, 1))),
            return_exceptions=True,
        )
        assert [type(result) for result in results] == [
            *[Entry] * 5,
            InvariantBroken,
            *[Entry] * 5,
            InsufficientFunds,
        ]
        for i in range(5):
            assert await ledger.balance(f"wallet:a{i}", INR) == await ledger.balance(f"wallet:b{i}", INR) == 5

    async def test_what_is_committed_is_not_decided_again_because_a_neighbour_failed(
        self, ledger: Ledger
    ) -> None:
        """A change without a key, such as an adoption, would find its own write and call itself the loser."""
        runs = 0

        def count(account: Account, _known: Entry | None) -> tuple[Account, int]:
            nonlocal runs
            runs += 1
            hold = account.holds["h"]
            return extend_hold(account, hold, n=hold.n + 1, amount_minor=hold.amount_minor + 1, facts={})[
                0
            ], hold.n

        def poison(account: Account, _known: Entry | None) -> tuple[Account, None]:
            tail = _entry_of_another_account(account)
            return account._replace(tail=(*account.tail, tail), seq=account.seq + 1), None

        await ledger.post(recharge(V, "first", 5))
        await ledger.post(recharge(W, "r", 100))
        await open_(ledger, W, "h", 10)
        results = await asyncio.gather(
            ledger.change(W, INR, count), ledger.change(V, INR, poison), return_exceptions=True
        )
        assert results[0] == 1
        assert isinstance(results[1], InvariantBroken)
        account = await ledger.account(W, INR)
        assert (account.holds["h"].n, account.held) == (2, 11)
        # A new attempt is a new decision only where nothing had been written.
        assert runs == (2 if ledger._store.atomic else 1)

    async def test_a_cancelled_caller_takes_nothing_back(self, ledger: Ledger) -> None:
        """Its movement is under way; and the rest of the batch must get its answers."""
        first = asyncio.ensure_future(ledger.post(recharge(W, "r", 100)))
        second = asyncio.ensure_future(ledger.post(recharge(V, "r", 7)))
        await asyncio.sleep(0)
        first.cancel()
        assert (await second).posted_after == 7
        with pytest.raises(asyncio.CancelledError):
            await first
        entry = await ledger.entry(W, "r")
        assert entry is not None
        assert await ledger.post(recharge(W, "r", 100)) == entry
        assert await ledger.balance(W, INR) == 100

    async def test_a_full_queue_takes_nothing(self, ledger: Ledger, store: LedgerStore) -> None:
        await ledger.stop()
        ledger.committer = Committer(store, queue_limit=2)
        waiting = [asyncio.ensure_future(ledger.post(recharge(W, f"r{i}", 1))) for i in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(LedgerBusy):
            await waiting[2]
        ledger.committer.start()
        await asyncio.gather(*waiting[:2])
        assert await ledger.balance(W, INR) == 2
        assert await ledger.entry(W, "r2") is None

    async def test_a_stopping_ledger_finishes_what_it_took_and_takes_no_more(self, ledger: Ledger) -> None:
        posts = [asyncio.ensure_future(ledger.post(recharge(W, f"r{i}", 1))) for i in range(20)]
        await asyncio.sleep(0)
        await ledger.stop()
        assert [(await post).state for post in posts] == [KeyState.POSTED] * 20
        with pytest.raises(LedgerBusy):
            await ledger.post(recharge(W, "late", 1))

    async def test_after_the_worker_is_gone_nobody_waits_for_ever(self, store: LedgerStore) -> None:
        """An answer that never comes is worse than a refusal: the client's request would hang until its timeout."""
        entered, never = asyncio.Event(), asyncio.Event()

        async def stuck(name: str, call: Callable[[], Awaitable[Any]]) -> Any:
            if name.startswith("commit"):
                entered.set()
                await never.wait()
            return await call()

        ledger = Ledger(WatchedStore(store, stuck), ManualClock(), day_of)
        await ledger.start()
        first = asyncio.ensure_future(ledger.post(recharge(W, "r", 1)))
        await entered.wait()
        queued = asyncio.ensure_future(ledger.post(recharge(W, "s", 1)))
        await asyncio.sleep(0)
        assert ledger.committer._worker is not None
        ledger.committer._worker.cancel()
        for waiting in (first, queued):
            with pytest.raises(Unavailable):
                await waiting
        with pytest.raises(Unavailable):
            await ledger.post(recharge(W, "t", 1))

    # --- a store in trouble ---

    @pytest.mark.parametrize("durable", [False, True])
    async def test_an_unknown_outcome_is_cleared_by_repeating(
        self, store: LedgerStore, durable: bool
    ) -> None:
        failing = False

        async def around(name: str, call: Callable[[], Awaitable[Any]]) -> Any:
            if failing and name.startswith("commit"):
                if durable:
                    await call()
                raise StoreUnavailable
            return await call()

        async with process(WatchedStore(store, around)) as ledger:
            await ledger.post(recharge(W, "r", 100))
            await open_(ledger, W, "h", 10)
            failing = True
            with pytest.raises(Unavailable):
                await ledger.post(payment(W, "p", (E, 30), (V, 1)))
            with pytest.raises(Unavailable):
                await extend(ledger, W, "h", n=2, to_minor=20)
            with pytest.raises(Unavailable):
                await close(ledger, W, "h", (E, 5))
            failing = False
            assert (await ledger.post(payment(W, "p", (E, 30), (V, 1)))).posted_after == 69
            if not durable:
                assert (await extend(ledger, W, "h", n=2, to_minor=20)).amount_minor == 20
            assert (await close(ledger, W, "h", (E, 5))).posted_after == 64
            assert (await ledger.balance(E, INR), await ledger.balance(V, INR)) == (35, 1)
            assert await store.pending() == []

    async def test_a_credit_of_unknown_outcome_is_seen_by_the_credited_session(
        self, store: LedgerStore
    ) -> None:
        """V has an open hold, so this process remembers V's document; the payment to V was durable, its answer lost."""
        failing = False

        async def around(name: str, call: Callable[[], Awaitable[Any]]) -> Any:
            answer = await call()
            if failing and name.startswith("commit"):
                raise StoreUnavailable
            return answer

        async with process(WatchedStore(store, around)) as ledger:
            await ledger.post(recharge(W, "r", 100))
            await ledger.post(recharge(V, "r", 10))
            await open_(ledger, V, "h", 10)
            failing = True
            with pytest.raises(Unavailable):
                await ledger.post(payment(W, "p", (V, 30)))
            failing = False
            await ledger.post(payment(W, "p", (V, 30)))
            assert (await extend(ledger, V, "h", n=2, to_minor=40)).amount_minor == 40

    async def test_a_balance_that_cannot_be_read_is_an_error_never_a_zero(self, store: LedgerStore) -> None:
        async def around(name: str, call: Callable[[], Awaitable[Any]]) -> Any:
            if name in ("load", "balance_of_rows", "lines"):
                raise StoreUnavailable
            return await call()

        ledger = Ledger(WatchedStore(store, around), ManualClock(), day_of)
        for read in (
            ledger.balance(W, INR),
            ledger.balance(GATEWAY, INR),
            ledger.account(W, INR),
            ledger.lines(W, limit=1),
            ledger.entry(W, "r"),
        ):
            with pytest.raises(Unavailable):
                await read

    async def test_whoever_is_paid_by_one_batch_is_read_in_one_call(self, store: LedgerStore) -> None:
        """A deploy, or an hour that is over, ends a thousand sessions at once: a read for each would hold everybody else up."""
        calls: list[str] = []

        async def around(name: str, call: Callable[[], Awaitable[Any]]) -> Any:
            calls.append(name)
            return await call()

        async with process(WatchedStore(store, around)) as ledger:
            for i in range(20):
                await ledger.post(recharge(f"wallet:{i}", "r", 100))
                await open_(ledger, f"wallet:{i}", "h", 10)
            batches = ledger.committer.batches
            calls.clear()
            await asyncio.gather(
                *(close(ledger, f"wallet:{i}", "h", (f"earnings:{i}", 5)) for i in range(20))
            )
            assert ledger.committer.batches == batches + 1
            assert calls.count("load") == 1, calls
            assert len(calls) <= 8, calls

    async def test_accounts_are_read_before_keys(self, store: LedgerStore) -> None:
        """Key first, account second doubles money: between the two another process posts and copies out."""
        reads: list[str] = []

        async def around(name: str, call: Callable[[], Awaitable[Any]]) -> Any:
            reads.append(name)
            return await call()

        async with process(WatchedStore(store, around)) as ledger:
            for i in range(3):
                reads.clear()
                await ledger.post(recharge(W, f"r{i}", 10))
                assert reads.index("load") < reads.index("rows")
            reads.clear()
            await ledger.entry(W, "r0")
            assert reads == ["load", "rows"]


def _entry_of_another_account(account: Account) -> Entry:
    """An entry that claims a key which is known with other content: redo can never copy it out."""
    return Entry(
        key=f"{account.id}|first",
        account=account.id,
        seq=account.seq + 1,
        state=KeyState.POSTED,
        kind="bug",
        asset=INR,
        reference="",
        transfers=(),
        posted_before=5,
        posted_after=5,
        at_ms=0,
        day="2026-01-01",
    )
