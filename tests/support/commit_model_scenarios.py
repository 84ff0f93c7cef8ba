"""What the model checker is let loose on: small wallets, two or three processes, and which broken rule each scenario must notice."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Final

from billing_engine.consultations.billing import Close, hold_id_of, open_session
from billing_engine.consultations.billing import close as close_session
from billing_engine.consultations.meter import Meter
from billing_engine.consultations.model import EndReason
from billing_engine.consultations.rules import Rules as BillingRules
from billing_engine.ledger.accounts import earnings_of, wallet_of
from billing_engine.ledger.model import (
    Account,
    Entry,
    Hold,
    KeyState,
    close_hold,
    extend_hold,
    open_hold,
)
from billing_engine.ledger.service import Ledger
from tests.support.commit_model import Do, Refusal, Scenario
from tests.support.commit_model_programs import Change, Rule, change_of
from tests.support.ledger_books import Books
from tests.support.ledger_moves import INR, adopt, close, extend, open_, payment, recharge

W, V = wallet_of("w"), wallet_of("v")
E = earnings_of("e")
REVENUE = "revenue:consultations"

#: A consultation at one minor unit a second, whose wallet pays for a minute: 13 are held (one tick and its lead), 47 are left.
_T0: Final = 1_000_000
_BILLING: Final = BillingRules(min_balance_minor=0)
_METER: Final = Meter("w", "e", 60, 0, None, _T0, 0, _T0, _T0)
_PAID_UNTIL: Final = _T0 + 13_000


def _pay(wallet: str, source: str, *parts: tuple[str, int]) -> Change:
    return change_of(lambda ledger: ledger.post(payment(wallet, source, *parts)))


def _recharge(wallet: str, source: str, amount_minor: int) -> Change:
    return change_of(lambda ledger: ledger.post(recharge(wallet, source, amount_minor)))


def _void(source: str) -> Change:
    return change_of(lambda ledger: ledger.void(W, INR, source))


def _open(hold_id: str, owner: str, amount_minor: int = 30) -> Change:
    return change_of(lambda ledger: open_(ledger, W, hold_id, amount_minor, owner=owner))


def _extend(n: int, to_minor: int, *, owner: str, epoch: int = 1) -> Change:
    asked = partial(extend, wallet=W, hold_id="h", n=n, to_minor=to_minor, epoch=epoch, owner=owner, by=owner)

    def anybody(account: Account, _known: Entry | None) -> tuple[Account, Any]:
        hold = account.holds.get("h")
        if hold is None:
            return account, None
        return extend_hold(account, hold, n=hold.n + 1, amount_minor=to_minor, facts={"by": owner})

    def resurrecting(account: Account, known: Entry | None) -> tuple[Account, Hold]:
        if "h" in account.holds:
            return change.decide(account, known)
        return open_hold(account, hold_id="h", amount_minor=to_minor, owner=owner, facts={"by": owner})

    def whatever_n(account: Account, known: Entry | None) -> tuple[Account, Hold]:
        hold = account.holds.get("h")
        if hold is None or n > hold.n:
            return change.decide(account, known)
        before = account._replace(holds={**account.holds, "h": hold._replace(n=n - 1)})
        return extend_hold(before, before.holds["h"], n=n, amount_minor=to_minor, facts={"by": owner})

    change = change_of(asked)
    return replace(
        change,
        broken={
            Rule.EPOCH_FENCES_EXTEND: anybody,
            Rule.EXTEND_NEVER_CREATES: resurrecting,
            Rule.N_RISES: whatever_n,
        },
    )


def _adopt(owner: str) -> Change:
    def taking_it_for_ours(account: Account, known: Entry | None) -> tuple[Account, Hold]:
        hold = account.holds.get("h")
        return (account, hold) if hold is not None and hold.epoch == 2 else change.decide(account, known)

    change = change_of(lambda ledger: adopt(ledger, W, "h", from_epoch=1, owner=owner))
    return replace(change, broken={Rule.ADOPTION_BY_TOKEN: taking_it_for_ours})


def _close(by: str, amount_minor: int, *, hold_id: str = "h", fence: tuple[int, str] | None = None) -> Change:
    """Closed by its owner (`fence`), or by a party through whichever process."""
    facts = {"by": by} if fence is None else {"by": by, "fenced": fence[1]}

    def asked(ledger: Ledger) -> Any:
        return close(ledger, W, hold_id, (E, amount_minor), fence=fence, **facts)

    def unfenced(ledger: Ledger) -> Any:
        return close(ledger, W, hold_id, (E, amount_minor), **facts)

    def releasing(account: Account, known: Entry | None) -> tuple[Account, Entry]:
        if hold_id in account.holds:
            return change.decide(account, known)
        gone = Hold(hold_id, 0, 1, 1, by, {})
        bare = account._replace(holds={**account.holds, hold_id: gone})
        return close_hold(bare, gone, kind="session", transfers=(), facts=facts, at_ms=0, day="2026-01-01")

    change = change_of(asked, EPOCH_FENCES_CLOSE=change_of(unfenced))
    return replace(change, broken={**change.broken, Rule.FIRST_CLOSE_WINS: releasing})


def _consultation(decide: Callable[..., Any], **kwargs: Any) -> Change:
    return Change(W, hold_id_of("s"), partial(decide, **kwargs))


def _close_empty() -> Change:
    order = Close("s", EndReason.WALLET_EMPTY, _PAID_UNTIL, only_if_short=True)
    told = {"day": "2026-01-01", "booked_at_ms": _PAID_UNTIL}
    anyway = _consultation(close_session, order=replace(order, only_if_short=False), **told)
    change = _consultation(close_session, order=order, **told)
    return replace(change, broken={Rule.EMPTY_ONLY_IF_SHORT: anyway.decide})


CHANGES: Final = {
    "recharge 100": _recharge(W, "first", 100),
    "recharge 60": _recharge(W, "first", 60),
    "recharge v 100": _recharge(V, "first", 100),
    "recharge again": _recharge(W, "second", 100),
    "pay 70 a": _pay(W, "a", (E, 70)),
    "pay 70 b": _pay(W, "b", (E, 70)),
    "pay 20": _pay(W, "b", (REVENUE, 20)),
    "pay 10": _pay(W, "c", (REVENUE, 10)),
    "pay 30": _pay(W, "d", (E, 30)),
    "pay two": _pay(W, "two", (E, 60), (V, 10), (REVENUE, 1)),
    "v pays 50": _pay(V, "a", (E, 50)),
    "v pays w": _pay(V, "a", (W, 50)),
    "w pays v": _pay(W, "a", (V, 70)),
    "spend the rest": _pay(W, "rest", (E, 47)),
    "void a": _void("a"),
    "void h": _void("h"),
    "open h": _open("h", "a"),
    "extend h to 60": _extend(2, 60, owner="a"),
    "extend h to 70": _extend(3, 70, owner="a"),
    "b extends h": _extend(4, 80, owner="b", epoch=2),
    "a adopts h": _adopt("a2"),
    "b adopts h": _adopt("b"),
    "owner closes h": _close("a", 20, fence=(1, "a")),
    "user closes h": _close("user", 20),
    "lawyer closes h": _close("lawyer", 25),
    "open s1": _open("s1", "a"),
    "open s1 too": _open("s1", "b"),
    "open s2": _open("s2", "b"),
    "void s1": _void("s1"),
    "void s2": _void("s2"),
    "user closes s1": _close("user", 20, hold_id="s1"),
    "lawyer closes s1": _close("lawyer", 25, hold_id="s1"),
    "open consultation": _consultation(open_session, session_id="s", meter=_METER, owner="a", rules=_BILLING),
    "close as empty": _close_empty(),
}


def _do(name: str) -> Do:
    return Do("change", (name,))


def _then(*names: str) -> Do:
    return Do("script", tuple(_do(name) for name in names))


def _start(session: str, owner: str, opens: str = "") -> Do:
    return Do("start", (session, opens or f"open {session}", f"void {session}", owner))


def _posted(books: Books) -> dict[str, int]:
    return {id_: account.posted for id_, account in books.accounts.items()}


def _states(told: list[Any]) -> list[str]:
    return sorted(entry.state.value for entry in told)


_MONEY = _do("recharge 100")
_HELD = (_MONEY, _do("open h"))
_RECOVER = Do("recover", ())
_STARTED = (("claim:user", "s1"), ("session:s1", "ACTIVE"))
_REAP = Do("give_back", ("s1", "void s1"))
#: Its load, rows and commit: from there on the entry is in the tail, and redo is left to do.
COMMITTED = 3

SCENARIOS: Final = {
    scenario.name: scenario
    for scenario in [
        Scenario(
            "two debits",
            (_do("pay 70 a"), _do("pay 70 b")),
            (_MONEY,),
            lost=1,
            check=lambda told, books: _states(told) == ["posted", "refused"] and _posted(books)[W] == 30,
        ),
        Scenario(
            "two debits and a recovery",
            (_do("pay 70 a"), _do("pay 70 b"), _RECOVER),
            (_MONEY,),
            slow=True,
            check=lambda told, books: _states(told[:2]) == ["posted", "refused"] and _posted(books)[W] == 30,
        ),
        Scenario(
            "one debit, twice, and a lost message",
            (_do("pay 70 a"), _do("pay 70 a")),
            (_MONEY,),
            lost=1,
            check=lambda told, books: told[0] == told[1] and _posted(books) == {W: 30, E: 70},
        ),
        Scenario(
            "one debit, by three",
            (_do("pay 70 a"), _do("pay 70 a"), _do("pay 70 a")),
            (_MONEY,),
            check=lambda told, books: told[0] == told[1] == told[2] and _posted(books) == {W: 30, E: 70},
        ),
        Scenario(
            "a debit that credits two, redone by two",
            (Do("touch", (W, None)), Do("touch", (V, None)), _RECOVER),
            (_MONEY, _do("recharge v 100"), _do("pay two")),
            cut_at=COMMITTED,
            check=lambda _, books: _posted(books) == {W: 29, V: 110, E: 60},
        ),
        Scenario(
            "a redo, and two debits behind it",
            (_RECOVER, _then("pay 10", "pay 30")),
            (_MONEY, _do("pay 20")),
            cut_at=COMMITTED,
            check=lambda _, books: _posted(books) == {W: 40, E: 30},
        ),
        Scenario(
            "two wallets that pay one",
            (_do("pay 70 a"), _do("v pays 50")),
            (_MONEY, _do("recharge v 100")),
            lost=1,
            check=lambda _, books: _posted(books) == {W: 30, V: 50, E: 120},
        ),
        Scenario(
            "two wallets that pay each other",
            (_do("w pays v"), _do("v pays w")),
            (_MONEY, _do("recharge v 100")),
            lost=1,
            check=lambda _, books: _posted(books) == {W: 80, V: 120},
        ),
        Scenario(
            "two wallets that pay each other and a recovery",
            (_do("w pays v"), _do("v pays w"), _RECOVER),
            (_MONEY, _do("recharge v 100")),
            slow=True,
            check=lambda _, books: _posted(books) == {W: 80, V: 120},
        ),
        Scenario(
            "the first recharge, twice, and a debit",
            (_do("recharge 100"), _do("recharge 100"), _do("pay 70 a")),
            check=lambda told, books: told[0] == told[1] and _posted(books)[W] in (100, 30),
        ),
        Scenario(
            "void against a late debit",
            (_do("pay 70 a"), Do("conclude", ("void a",)), _RECOVER),
            (_MONEY,),
            check=lambda told, books: (
                (type(told[0]), told[1].state, _posted(books)[W])
                in ((Entry, KeyState.POSTED, 30), (Refusal, KeyState.VOIDED, 100))
            ),
        ),
        Scenario(
            "void against a late open",
            (_do("open h"), Do("conclude", ("void h",)), _RECOVER),
            (_MONEY,),
            lost=1,
            check=lambda told, books: told[1].state is KeyState.VOIDED and books.accounts[W].spendable == 100,
        ),
        Scenario(
            "extends and a party's close",
            (_do("extend h to 60"), _do("extend h to 70"), _do("user closes h")),
            _HELD,
            check=lambda told, books: books.accounts[W].held == 0 and _posted(books) == {W: 80, E: 20},
        ),
        Scenario(
            "adoption while the owner is frozen in an extend",
            (_do("extend h to 60"), _then("b adopts h", "b extends h"), _do("owner closes h")),
            _HELD,
            lost=1,
        ),
        Scenario(
            "two adopters, and each extends",
            (
                _then("a adopts h", "extend h to 60"),
                _then("b adopts h", "b extends h"),
                _do("extend h to 70"),
            ),
            _HELD,
            check=lambda told, books: books.accounts[W].holds["h"].epoch == 2,
        ),
        Scenario(
            "two adopters",
            (_do("a adopts h"), _do("b adopts h")),
            _HELD,
            lost=1,
            check=lambda told, books: sum(isinstance(one, Hold) for one in told) == 1,
        ),
        Scenario(
            "the first close and the second",
            (_do("user closes h"), _do("lawyer closes h"), _do("owner closes h")),
            _HELD,
            check=lambda told, books: told[0] == told[1] == told[2] and books.accounts[W].held == 0,
        ),
        Scenario(
            "close against void, and a lost message",
            (_do("user closes h"), _do("void h")),
            _HELD,
            lost=1,
            check=lambda told, books: told[0] == told[1],
        ),
        Scenario(
            "both parties end the session",
            (Do("end", ("s1", "user closes s1", "user")), Do("end", ("s1", "lawyer closes s1", "lawyer"))),
            (_MONEY, _do("open s1")),
            cells=_STARTED,
            lost=1,
            check=lambda told, books: told[0] == told[1],
        ),
        Scenario(
            "close for an empty wallet against a recharge",
            (_do("close as empty"), _do("recharge again"), _RECOVER),
            (_do("recharge 60"), _do("open consultation"), _do("spend the rest")),
            check=lambda told, books: (
                (type(told[0]), "consult:s" in books.accounts[W].holds) in ((Entry, False), (Refusal, True))
            ),
        ),
        Scenario(
            "a late start, a reaper, and the user's next start",
            (_start("s1", "a"), _REAP, _start("s2", "b")),
            (_MONEY,),
            recovery=(_REAP, Do("give_back", ("s2", "void s2"))),
        ),
        Scenario(
            "one start by two processes, and a reaper",
            (_start("s1", "a"), _start("s1", "b", "open s1 too"), _REAP),
            (_MONEY,),
            recovery=(_REAP,),
        ),
        Scenario(
            "a late start, a reaper, and a lost message",
            (_start("s1", "a"), _REAP),
            (_MONEY,),
            recovery=(_REAP,),
            lost=2,
        ),
        Scenario(
            "recharges and a fail-over",
            (_do("recharge again"), _do("pay 70 a")),
            (_MONEY,),
            failovers=1,
            check=lambda _, books: sum(_posted(books).values()) == 200,
        ),
        Scenario(
            "extends and a fail-over",
            (_do("extend h to 60"), _do("extend h to 60")),
            _HELD,
            failovers=1,
            check=lambda _, books: books.accounts[W].holds["h"].n == 2,
        ),
    ]
}

#: The rule, and the scenario that notices when it is broken.
NOTICED_BY: Final = {
    Rule.ACCOUNT_BEFORE_KEY: "one debit, twice, and a lost message",
    Rule.TARGET_BEFORE_MARK: "a debit that credits two, redone by two",
    Rule.CREDIT_WITH_KEY: "two debits",
    Rule.FORGET_AFTER_MARK: "two debits",
    Rule.TAIL_AFTER_MARK: "two debits",
    Rule.TAIL_BY_KEY: "a redo, and two debits behind it",
    Rule.ONE_CONDITIONAL_WRITE: "two debits",
    Rule.VERSION_WITH_EACH_WRITE: "extends and a party's close",
    Rule.VERSION_NEVER_REPEATS: "recharges and a fail-over",
    Rule.MAJORITY_READS: "extends and a fail-over",
    Rule.MAJORITY_WRITES: "recharges and a fail-over",
    Rule.RECOVERY_WRITES: "void against a late debit",
    Rule.VOID_MOVES_VERSION: "void against a late debit",
    Rule.EXTEND_NEVER_CREATES: "extends and a party's close",
    Rule.N_RISES: "extends and a party's close",
    Rule.EPOCH_FENCES_EXTEND: "adoption while the owner is frozen in an extend",
    Rule.EPOCH_FENCES_CLOSE: "adoption while the owner is frozen in an extend",
    Rule.ADOPTION_BY_TOKEN: "two adopters",
    Rule.FIRST_CLOSE_WINS: "the first close and the second",
    Rule.SESSION_COPIES: "both parties end the session",
    Rule.EMPTY_ONLY_IF_SHORT: "close for an empty wallet against a recharge",
    Rule.GIVE_BACK_VOIDS: "a late start, a reaper, and a lost message",
    Rule.GIVE_BACK_BY_CAS: "a late start, a reaper, and a lost message",
    Rule.START_BY_CAS: "a late start, a reaper, and a lost message",
    Rule.CLAIM_BY_SESSION: "a late start, a reaper, and the user's next start",
    Rule.HOLD_BEFORE_ACTIVE: "a late start, a reaper, and a lost message",
}
