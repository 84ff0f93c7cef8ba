"""What every ledger store must do. Subclass it and supply the `store` fixture: a prepared, empty store.

No rule of money is in an adapter, so these tests know of none: a document is bytes with a version and a floor, a row is an
entry with a mark, and everything may happen twice.
"""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from billing_engine.errors import InvariantBroken
from billing_engine.ledger.model import QUANTITY, Account, Entry, Hold, KeyState, Transfer
from billing_engine.ledger.ports import (
    Activity,
    AtomicLedgerStore,
    Booked,
    LedgerStore,
    Line,
    Moved,
    OpenHold,
    Row,
    Total,
    Versioned,
    Write,
)

INT64_MAX = 2**63 - 1
INT64_MIN = -(2**63)
W, V = "wallet:w", "wallet:v"
E = "earnings:e"
INR = "INR"
GATEWAY, REVENUE = "gateway:g", "revenue:r"


def account(id_: str = W, posted: int = 0, **fields: Any) -> Account:
    fields.setdefault("floor", None if id_.startswith("earnings:") else 0)
    return Account(id_, INR, posted=posted, **fields)


def entry(key: str = "k", seq: int = 1, *transfers: Transfer, **fields: Any) -> Entry:
    values: dict[str, Any] = {
        "account": W,
        "state": KeyState.POSTED,
        "kind": "recharge",
        "asset": "INR",
        "reference": f"ref-{key}",
        "transfers": transfers or (Transfer(GATEWAY, W, 100, "recharge"),),
        "posted_before": 0,
        "posted_after": 100,
        "at_ms": 1_000,
        "day": "2026-01-01",
        "facts": {},
    }
    return Entry(key=key, seq=seq, **(values | fields))


def hold(id_: str, amount_minor: int = 5, **facts: Any) -> Hold:
    return Hold(id_, amount_minor, 1, 1, "me", facts)


async def made(store: LedgerStore, *accounts: Account, version: str = "v1") -> None:
    assert await store.commit([Write("", version, one) for one in accounts]) == []


async def copied_out(store: LedgerStore, *entries: Entry, **credits_after: int) -> None:
    """Rows, all of them applied; `credits_after` stands on each."""
    await store.insert_rows(entries)
    await store.mark_applied({one.key: credits_after for one in entries})


async def found(store: LedgerStore, *ids: str) -> dict[str, tuple[str, int]]:
    return {id_: (one.version, one.account.posted) for id_, one in (await store.load(ids)).items()}


class DocumentsContract:
    """Account documents by compare-and-set."""

    async def test_what_does_not_exist_is_not_loaded(self, store: LedgerStore) -> None:
        await made(store, account(W, 7))
        assert await found(store, W, V, W) == {W: ("v1", 7)}
        assert await store.load([]) == {}

    async def test_a_document_comes_back_as_it_was_written(self, store: LedgerStore) -> None:
        whole = Account(
            id="earnings:नमस्ते ' \" % _ \\ 🐈",
            asset="INR",
            floor=None,
            posted=INT64_MAX,
            held=INT64_MAX - 1,
            seq=2**62,
            holds={
                "consult:1": Hold("consult:1", INT64_MAX - 2, 9, 3, "owner-ü", {"trail": [[0, 5, "start"]]}),
                "consult:2": Hold("consult:2", 1, 1, 1, "", {"max": None, "deep": {"a": [1, "x", True]}}),
            },
            tail=(
                entry("a|1", 1, Transfer("a", "b", INT64_MAX, "k"), facts={"n": INT64_MAX, "m": INT64_MIN}),
                entry("a|2", 2, state=KeyState.REFUSED, posted_before=INT64_MIN, posted_after=INT64_MIN),
                entry("a|3", 3, state=KeyState.VOIDED, kind="void", reference="", at_ms=2**53),
            ),
            credited=(("b|1", INT64_MAX), ("c|1", INT64_MIN)),
            facts={"owed": INT64_MAX, "auto": {"on": True, "method": None}, "marks": [INT64_MIN, "ü"]},
        )
        await made(store, whole)
        assert await store.load([whole.id]) == {whole.id: Versioned("v1", whole)}
        emptied = Account(whole.id, "INR", None, INT64_MIN, 0, INT64_MAX, {}, (), ())
        assert await store.commit([Write("v1", "v2", emptied)]) == []
        assert await store.load([whole.id]) == {whole.id: Versioned("v2", emptied)}

    async def test_more_documents_than_one_query_takes(self, store: LedgerStore) -> None:
        many = [account(f"wallet:{i:04}", i) for i in range(1_201)]
        await made(store, *many)
        assert await found(store, *(one.id for one in many)) == {one.id: ("v1", one.posted) for one in many}

    async def test_a_write_needs_the_version_that_it_read(self, store: LedgerStore) -> None:
        await made(store, account(W, 1))
        assert await store.commit([Write("v1", "v2", account(W, 2))]) == []
        assert await store.commit([Write("v1", "v3", account(W, 3))]) == [W]
        assert await found(store, W) == {W: ("v2", 2)}

    async def test_a_document_is_created_once(self, store: LedgerStore) -> None:
        await made(store, account(W, 1))
        assert await store.commit([Write("", "v2", account(W, 2))]) == [W]
        assert await found(store, W) == {W: ("v1", 1)}

    async def test_an_update_creates_nothing(self, store: LedgerStore) -> None:
        assert await store.commit([Write("v1", "v2", account(W, 2))]) == [W]
        assert await found(store, W) == {}

    async def test_each_document_of_a_call_stands_alone(self, store: LedgerStore) -> None:
        await made(store, account(W, 1), account(V, 1), account(E, 1))
        writes = [
            Write("v1", "v2", account(W, 2)),
            Write("old", "v2", account(V, 2)),
            Write("v1", "v2", account(E, -2)),
            Write("", "v2", account("wallet:new", 2)),
            Write("old", "v2", account("wallet:none", 2)),
            Write("", "v2", account(V, 3)),
        ]
        moved = await store.commit(writes)
        assert sorted(moved) == sorted([V, "wallet:none", V])
        assert await found(store, W, V, E, "wallet:new", "wallet:none") == {
            W: ("v2", 2),
            V: ("v1", 1),
            E: ("v2", -2),
            "wallet:new": ("v2", 2),
        }
        assert await store.commit([]) == []

    async def test_of_many_that_create_one_document_one_does(self, store: LedgerStore) -> None:
        answers = await asyncio.gather(
            *(store.commit([Write("", f"v{i}", account(W, i)), _other(i)]) for i in range(20))
        )
        (winner,) = [i for i, moved in enumerate(answers) if moved == []]
        assert [moved for moved in answers if moved] == [[W]] * 19
        assert await found(store, W) == {W: (f"v{winner}", winner)}
        assert len(await found(store, *(_other(i).account.id for i in range(20)))) == 20

    async def test_of_many_that_read_one_version_one_writes(self, store: LedgerStore) -> None:
        await made(store, account(W, 100))
        answers = await asyncio.gather(
            *(store.commit([Write("v1", f"w{i}", account(W, i))]) for i in range(20))
        )
        (winner,) = [i for i, moved in enumerate(answers) if moved == []]
        assert await found(store, W) == {W: (f"w{winner}", winner)}

    @pytest.mark.parametrize(
        "below",
        [
            account(W, -1),
            account(W, 4, held=5, holds={"h": hold("h")}),
            account(W, 9, floor=10),
            account(W, INT64_MIN),
        ],
    )
    @pytest.mark.parametrize("exists", [True, False])
    async def test_a_balance_below_the_floor_is_refused_by_the_store_itself(
        self, store: LedgerStore, below: Account, exists: bool
    ) -> None:
        """The last line of defence: whatever a bug above decides, no wallet goes below zero. Nothing of the call is written."""
        await made(store, account(V, 1))
        if exists:
            await made(store, account(W, 20, floor=below.floor))
        writes = [
            Write("v1", "v2", account(V, 2)),
            Write("v1" if exists else "", "v2", below),
            Write("", "v2", account(E, 2)),
        ]
        with pytest.raises(InvariantBroken):
            await store.commit(writes)
        assert await found(store, W, V, E) == {V: ("v1", 1)} | ({W: ("v1", 20)} if exists else {})

    async def test_a_floor_of_none_or_below_zero_is_no_floor_at_zero(self, store: LedgerStore) -> None:
        await made(store, account(E, -5), account(W, -5, floor=-5))
        assert await store.commit([Write("v1", "v2", account(E, INT64_MIN))]) == []
        with pytest.raises(InvariantBroken):
            await store.commit([Write("v1", "v2", account(W, -6, floor=-5))])

    async def test_a_number_that_no_store_can_keep_is_refused_whole(self, store: LedgerStore) -> None:
        """Never rounded, never wrapped: one paisa above 64 bits must not become a negative balance."""
        await made(store, account(V, 1))
        for posted in (INT64_MAX + 1, INT64_MIN - 1):
            writes = [Write("v1", "v2", account(V, 2)), Write("", "v2", account(E, posted))]
            with pytest.raises(InvariantBroken):
                await store.commit(writes)
        assert await found(store, V, E) == {V: ("v1", 1)}


class RowsContract:
    """Entries copied out once, marked once."""

    async def test_a_row_comes_back_as_it_was_copied_out(self, store: LedgerStore) -> None:
        rows = [
            entry(
                "a|1",
                1,
                Transfer(W, E, INT64_MAX, "net"),
                Transfer(W, REVENUE, 1, "commission"),
                posted_before=INT64_MAX,
                posted_after=INT64_MIN,
                facts={"trail": [[1, 2, None]], "ü": {"n": INT64_MAX}},
            ),
            entry("a|2", 2, state=KeyState.REFUSED),
            entry("a|3", 3, state=KeyState.VOIDED, kind="void", reference=""),
        ]
        await store.insert_rows(rows)
        stored = await store.rows(["a|1", "a|2", "a|3", "a|4", "a|1"])
        assert stored == {one.key: Row(one, applied=False, credits_after={}) for one in rows}
        assert await store.rows([]) == {}

    async def test_copying_out_again_changes_nothing(self, store: LedgerStore) -> None:
        one = entry("k", facts={"a": 1})
        await store.insert_rows([one])
        await store.mark_applied({"k": {W: 5}})
        await store.insert_rows([one, entry("l", 2)])
        stored = await store.rows(["k", "l"])
        assert stored["k"] == Row(one, applied=True, credits_after={W: 5})
        assert not stored["l"].applied
        assert await store.balance_of_rows(GATEWAY, INR) == -200

    @pytest.mark.parametrize(
        "other",
        [
            entry("k", 1, Transfer(GATEWAY, W, 101, "recharge")),
            entry("k", 1, Transfer(GATEWAY, V, 100, "recharge")),
            entry("k", 2),
            entry("k", account=V),
            entry("k", state=KeyState.REFUSED),
            entry("k", state=KeyState.VOIDED),
            entry("k", kind="bonus"),
            entry("k", reference="other"),
            entry("k", asset="USD"),
            entry("k", posted_after=101),
            entry("k", at_ms=1_001),
            entry("k", day="2026-01-02"),
            entry("k", facts={"a": 2}),
        ],
    )
    async def test_other_content_under_a_known_key_breaks_an_invariant(
        self, store: LedgerStore, other: Entry
    ) -> None:
        """A key ends once. Two stories under one key mean that somebody was told the wrong one."""
        await store.insert_rows([entry("k")])
        with pytest.raises(InvariantBroken):
            await store.insert_rows([other])
        assert (await store.rows(["k"]))["k"].entry == entry("k")
        assert await store.balance_of_rows(GATEWAY, INR) == -100

    async def test_copying_out_at_the_same_time_makes_one_row(self, store: LedgerStore) -> None:
        one = entry("k", 1, Transfer(GATEWAY, W, 100, "recharge"), Transfer(W, REVENUE, 1, "fee"))
        await asyncio.gather(*(store.insert_rows([one]) for _ in range(20)))
        assert await store.balance_of_rows(GATEWAY, INR) == -100
        assert await store.balance_of_rows(REVENUE, INR) == 1

    async def test_the_first_mark_stays(self, store: LedgerStore) -> None:
        """The balance after a credit is fixed by the write that added it, not by whoever marks last."""
        await store.insert_rows([entry("k"), entry("l", 2)])
        await store.mark_applied({"k": {E: 5, V: INT64_MAX}})
        await store.mark_applied({"k": {E: 6}, "l": {}})
        rows = await store.rows(["k", "l"])
        assert (rows["k"].applied, rows["k"].credits_after) == (True, {E: 5, V: INT64_MAX})
        assert (rows["l"].applied, rows["l"].credits_after) == (True, {})
        await store.mark_applied({})

    async def test_more_rows_than_one_query_takes(self, store: LedgerStore) -> None:
        await store.insert_rows(entry(f"k{i:04}", i + 1) for i in range(1_201))
        assert len(await store.rows([f"k{i:04}" for i in range(1_201)])) == 1_201


class WorkContract:
    """Where redo has work, and what is held."""

    async def test_pending_names_accounts_with_a_tail_or_a_credit_to_forget(self, store: LedgerStore) -> None:
        await made(
            store,
            account(W, tail=(entry("k"),)),
            account(E, credited=(("k", 1),)),
            account(V, 5, held=5, holds={"h": hold("h")}),
        )
        assert sorted(await store.pending()) == [E, W]
        await store.commit([Write("v1", "v2", account(W)), Write("v1", "v2", account(E))])
        assert await store.pending() == []

    async def test_open_holds_are_found_by_prefix(self, store: LedgerStore) -> None:
        both = {"consult:1": hold("consult:1", 1), "con_ult:2": hold("con_ult:2", 2), "ai:1": hold("ai:1", 3)}
        await made(
            store,
            account(W, 10, held=6, holds=both),
            account(V, 10, held=4, holds={"consult:9": hold("consult:9", 4)}),
            account(E, 10),
        )
        assert sorted(await store.open_holds("consult:")) == [
            OpenHold(V, "consult:9", "me", 1),
            OpenHold(W, "consult:1", "me", 1),
        ]
        assert await store.open_holds("con_ult:") == [OpenHold(W, "con_ult:2", "me", 1)]
        assert len(await store.open_holds("")) == 4
        assert await store.open_holds("%") == []
        await store.commit([Write("v1", "v2", account(W, 10))])
        assert await store.open_holds("") == [OpenHold(V, "consult:9", "me", 1)]

    async def test_open_holds_are_found_by_their_owner(self, store: LedgerStore) -> None:
        """Takeover asks for what a dead process owned: one too many is robbed from the living, one too few is lost."""
        mine, adopted = hold("consult:1", 1), Hold("consult:2", 2, 7, 3, "other", {})
        holds = {"consult:1": mine, "consult:2": adopted, "ai:3": Hold("ai:3", 3, 1, 1, "other", {})}
        await made(
            store,
            account(W, 10, held=6, holds=holds),
            account(V, 10, held=1, holds={"consult:4": hold("consult:4", 1)}),
        )
        assert await store.open_holds("consult:", owner="other") == [OpenHold(W, "consult:2", "other", 3)]
        assert sorted(await store.open_holds("", owner="me")) == [
            OpenHold(V, "consult:4", "me", 1),
            OpenHold(W, "consult:1", "me", 1),
        ]
        assert await store.open_holds("", owner="nobody") == []
        assert await store.open_holds("", owner="") == []
        moved = holds | {"consult:1": mine._replace(owner="other", epoch=2)}
        assert await store.commit([Write("v1", "v2", account(W, 10, held=6, holds=moved))]) == []
        assert await store.open_holds("", owner="me") == [OpenHold(V, "consult:4", "me", 1)]


class ReportsContract:
    """Sums and lists over the rows."""

    async def test_lines_are_what_posted_entries_did_to_the_account(self, store: LedgerStore) -> None:
        pays = (
            Transfer(W, E, 70, "net"),
            Transfer(W, REVENUE, 30, "commission"),
            Transfer(GATEWAY, W, 5, "x"),
        )
        one = entry(
            "a", 1, *pays, kind="session", posted_before=200, posted_after=105, at_ms=5, facts={"d": 7}
        )
        await store.insert_rows(
            [
                one,
                entry("b", 2, *pays, state=KeyState.REFUSED, at_ms=6),
                entry("c", 3, *pays, state=KeyState.VOIDED, at_ms=7),
            ]
        )
        line = Line("a", "session", "ref-a", KeyState.POSTED, -95, 105, 5, {"d": 7})
        assert await store.lines(W, limit=10) == [line]
        (waiting,) = await store.lines(E, limit=10)
        assert (waiting.change_minor, waiting.balance_after) == (70, None)
        await store.mark_applied({"a": {E: 170}})
        (applied,) = await store.lines(E, limit=10)
        assert (applied.change_minor, applied.balance_after) == (70, 170)
        assert await store.lines("wallet:nobody", limit=10) == []

    async def test_an_accounts_own_entries_by_number(self, store: LedgerStore) -> None:
        mine = [entry(f"{W}|{n}", n, at_ms=1_000) for n in range(1, 6)]
        mine[2] = entry(f"{W}|3", 3, state=KeyState.REFUSED, posted_after=0)
        await copied_out(store, *mine, entry(f"{V}|1", 1, account=V))
        assert await store.entries(W, limit=9) == mine
        assert await store.entries(W, above=2, below=5, limit=9) == mine[2:4]
        assert await store.entries(W, below=5, limit=2, newest_first=True) == [mine[3], mine[2]]
        assert await store.entries(W, above=1, limit=1) == [mine[1]]
        assert await store.entries("wallet:nobody", limit=9) == []

    async def test_lines_page_newest_first_without_a_gap_or_a_repeat(self, store: LedgerStore) -> None:
        """Many entries of one millisecond: the key breaks the tie, and a page may end between them."""
        mine = [
            entry(f"k{i:02}", i + 1, *_either_way(i), kind=("a", "b", "c")[i % 3], at_ms=1_000 + i // 7)
            for i in range(30)
        ]
        other = entry("z", 1, Transfer(GATEWAY, V, 1, "a"), account=V, at_ms=1_002)
        await copied_out(store, *mine, other)
        wanted = [one.key for one in sorted(mine, key=lambda e: (e.at_ms, e.key), reverse=True)]
        for limit in (1, 4, 7, 30, 100):
            seen: list[str] = []
            before = None
            while page := await store.lines(W, limit=limit, before=before):
                assert len(page) <= limit
                seen += [line.key for line in page]
                before = (page[-1].at_ms, page[-1].key)
            assert seen == wanted

    async def test_lines_of_some_kinds_of_transfer(self, store: LedgerStore) -> None:
        mine = [
            entry(f"k{i:02}", i + 1, *_either_way(i, kind=("a", "b", "c")[i % 3]), at_ms=i) for i in range(30)
        ]
        await copied_out(store, *mine)
        wanted = [f"k{i:02}" for i in reversed(range(30)) if i % 3 != 1]
        first = await store.lines(W, limit=12, kinds=["a", "c"])
        rest = await store.lines(W, limit=12, kinds=["c", "a"], before=(first[-1].at_ms, first[-1].key))
        assert [line.key for line in first + rest] == wanted
        assert await store.lines(W, limit=12, kinds=["nothing"]) == []
        assert await store.lines(W, limit=12, kinds=[]) == []

    async def test_credits_are_totalled_by_kind_and_by_day_or_month(self, store: LedgerStore) -> None:
        days = ["2026-01-09", "2026-01-10", "2026-01-31", "2026-02-01", "2026-11-01"]
        rows = [
            entry(
                f"k{i}", i + 1, Transfer(W, E, 10**i, "net"), Transfer(W, REVENUE, 7, "commission"), day=day
            )
            for i, day in enumerate(days)
        ]
        refund = entry("back", 9, Transfer(E, W, 5, "net"), day=days[0])
        refused = entry("no", 10, Transfer(W, E, 9, "net"), day=days[0], state=KeyState.REFUSED)
        await store.insert_rows([*rows, refund, refused])
        assert await store.total_credited(E, kinds=["net"]) == Total(11_111, 5)
        assert await store.total_credited(E, kinds=["net"], day_prefix="2026-01") == Total(111, 3)
        assert await store.total_credited(E, kinds=["net"], day_prefix="2026-01-10") == Total(10, 1)
        assert await store.total_credited(E, kinds=["net"], day_prefix="2026-1") == Total(10_000, 1)
        assert await store.total_credited(E, kinds=["net"], day_prefix="2025") == Total(0, 0)
        assert await store.total_credited(E, kinds=["commission"]) == Total(0, 0)
        assert await store.total_credited(E, kinds=[]) == Total(0, 0)
        assert await store.total_credited(W, kinds=["net", "commission"]) == Total(5, 1)
        assert await store.total_credited(REVENUE, kinds=["net", "commission"]) == Total(35, 5)
        assert await store.total_debited(W, kinds=["net"]) == Total(11_111, 5)
        assert await store.total_debited(W, kinds=["net", "commission"], day_prefix="2026-01") == Total(
            132, 6
        )
        assert await store.total_debited(E, kinds=["net"], day_prefix="2026-01-09") == Total(5, 1)
        assert await store.total_debited(E, kinds=["net"], day_prefix="2026-02") == Total(0, 0)
        assert await store.total_debited(E, kinds=[]) == Total(0, 0)
        # What stood on the account when a day began.
        assert await store.balance_of_rows(E, INR, before_day="2026-01-09") == 0
        assert await store.balance_of_rows(E, INR, before_day="2026-01-10") == 1 - 5
        assert await store.balance_of_rows(E, INR, before_day="2026-02-01") == 111 - 5
        assert await store.balance_of_rows(E, INR, before_day="2027-01-01") == 11_111 - 5
        assert await store.balance_of_rows(E, "USD", before_day="2027-01-01") == 0

    async def test_a_system_account_is_the_sum_of_its_rows_exactly(self, store: LedgerStore) -> None:
        """Beyond 2**53 a float would have lost the last paisa."""
        big = 2**62
        await store.insert_rows(
            [
                entry("a", 1, Transfer(GATEWAY, W, big, "recharge")),
                entry("b", 2, Transfer(GATEWAY, W, big - 3, "recharge")),
                entry("c", 3, Transfer(W, GATEWAY, 1, "refund")),
                entry("d", 4, Transfer(GATEWAY, W, 99, "recharge"), state=KeyState.REFUSED),
            ]
        )
        assert await store.balance_of_rows(GATEWAY, INR) == 1 - (2 * big - 3)
        assert await store.total_credited(W, kinds=["recharge"]) == Total(2 * big - 3, 2)
        assert await store.balance_of_rows(W, INR) == 2 * big - 4
        assert await store.balance_of_rows("gateway:unknown", INR) == 0

    async def test_a_system_account_has_a_balance_in_each_asset(self, store: LedgerStore) -> None:
        """One gateway takes rupees and dollars; paise and millionths of a dollar must not be added up."""
        rupees = entry("a", 1, Transfer(GATEWAY, W, 100, "recharge"))
        dollars = entry("b", 1, Transfer(GATEWAY, V, 7_000_000, "recharge"), account=V, asset="USD")
        await store.insert_rows([rupees, dollars])
        assert await store.balance_of_rows(GATEWAY, INR) == -100
        assert await store.balance_of_rows(GATEWAY, "USD") == -7_000_000

    async def test_activity_is_the_sum_of_the_posted_rows_of_each_day_and_kind(
        self, store: LedgerStore
    ) -> None:
        """The platform's revenue: what was refused, is another currency, or lies outside the days is not in it."""
        bill = (Transfer(W, E, 90, "net"), Transfer(W, REVENUE, 10, "commission"))
        first, last = "2026-01-31", "2026-02-01"
        await store.insert_rows(
            [
                entry("k1", 1, *bill, kind="bill", day=first, facts={QUANTITY: 100}),
                entry("k2", 2, *bill, kind="bill", day=first, facts={QUANTITY: 7, "more": "x"}),
                entry("k3", 3, kind="recharge", day=first),
                # A bill of nothing moves nothing, and is a bill.
                replace(entry("k4", 4, kind="bill", day=last), transfers=()),
                entry("k5", 5, *bill, kind="bill", day=last, facts={QUANTITY: 9}, state=KeyState.REFUSED),
                entry("k6", 6, *bill, kind="bill", day=last, facts={QUANTITY: 9}, asset="USD"),
                entry("k7", 7, *bill, kind="bill", day="2026-01-30", facts={QUANTITY: 9}),
                entry("k8", 8, *bill, kind="bill", day="2026-02-02", facts={QUANTITY: 9}),
                replace(entry("k9", 9, state=KeyState.VOIDED, kind="void", day=first), transfers=()),
            ]
        )
        assert await store.activity(INR, first_day=first, last_day=last) == Activity(
            moved=(
                Moved(first, "commission", 20, 2),
                Moved(first, "net", 180, 2),
                Moved(first, "recharge", 100, 1),
            ),
            booked=(
                Booked(first, "bill", 2, 107),
                Booked(first, "recharge", 1, 0),
                Booked(last, "bill", 1, 0),
            ),
        )
        assert await store.activity(INR, first_day=last, last_day=first) == Activity((), ())
        assert await store.activity("EUR", first_day=first, last_day=last) == Activity((), ())
        dollars = await store.activity("USD", first_day="0000", last_day="9999")
        assert dollars.booked == (Booked(last, "bill", 1, 9),)


class LedgerStoreContract(DocumentsContract, RowsContract, WorkContract, ReportsContract):
    """The whole port."""


class AtomicLedgerStoreContract(LedgerStoreContract):
    """For stores whose `commit_all` takes documents and rows together."""

    async def test_documents_and_rows_go_in_together(self, store: AtomicLedgerStore) -> None:
        assert store.atomic
        one = Row(entry("k"), applied=True, credits_after={E: 3})
        writes = [Write("", "v1", account(W, 100)), Write("", "v1", account(E, 3))]
        assert await store.commit_all(writes, [one]) == []
        assert await found(store, W, E) == {W: ("v1", 100), E: ("v1", 3)}
        assert await store.rows(["k"]) == {"k": one}
        assert await store.commit_all([], []) == []

    async def test_a_row_that_was_copied_out_is_marked(self, store: AtomicLedgerStore) -> None:
        await store.insert_rows([entry("k")])
        one = Row(entry("k"), applied=True, credits_after={E: 3})
        assert await store.commit_all([], [one]) == []
        assert await store.commit_all([], [Row(entry("k"), applied=True, credits_after={E: 4})]) == []
        assert await store.rows(["k"]) == {"k": one}
        assert await store.balance_of_rows(GATEWAY, INR) == -100

    @pytest.mark.parametrize("stale", [Write("old", "v2", account(V, 2)), Write("", "v2", account(V, 2))])
    async def test_one_moved_version_stops_everything(self, store: AtomicLedgerStore, stale: Write) -> None:
        await made(store, account(W, 1), account(V, 1))
        writes = [Write("v1", "v2", account(W, 2)), stale, Write("", "v2", account(E, 2))]
        moved = await store.commit_all(writes, [Row(entry("k"), applied=True, credits_after={})])
        assert moved == [V]
        assert await found(store, W, V, E) == {W: ("v1", 1), V: ("v1", 1)}
        assert await store.rows(["k"]) == {}

    async def test_one_balance_below_its_floor_stops_everything(self, store: AtomicLedgerStore) -> None:
        await made(store, account(W, 1), account(V, 1))
        writes = [Write("v1", "v2", account(W, 2)), Write("v1", "v2", account(V, -1))]
        with pytest.raises(InvariantBroken):
            await store.commit_all(writes, [Row(entry("k"), applied=True, credits_after={})])
        assert await found(store, W, V) == {W: ("v1", 1), V: ("v1", 1)}
        assert await store.rows(["k"]) == {}

    async def test_one_key_with_two_stories_stops_everything(self, store: AtomicLedgerStore) -> None:
        await made(store, account(W, 1))
        await store.insert_rows([entry("k")])
        other = Row(entry("k", kind="bonus"), applied=True, credits_after={})
        with pytest.raises(InvariantBroken):
            await store.commit_all(
                [Write("v1", "v2", account(W, 2))],
                [Row(entry("l", 2), applied=True, credits_after={}), other],
            )
        assert await found(store, W) == {W: ("v1", 1)}
        assert list(await store.rows(["k", "l"])) == ["k"]
        assert not (await store.rows(["k"]))["k"].applied


def _other(i: int) -> Write:
    return Write("", "v", account(f"wallet:other{i}", i))


def _either_way(i: int, kind: str = "k") -> tuple[Transfer, ...]:
    """Money into W, out of it, or both."""
    into, out_of = Transfer(GATEWAY, W, 5, kind), Transfer(W, E, 3, kind)
    return ((into,), (out_of,), (into, out_of), (out_of, into))[i % 4]
