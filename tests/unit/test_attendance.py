"""Who is lost and since when, and what the hold makes of it: pure."""

from typing import Any

import pytest

from billing_engine.consultations.attendance import NOBODY, PRESENT, Absence, Attendance, GoneSince, Loss
from billing_engine.consultations.billing import (
    Close,
    Fence,
    Tick,
    adopt,
    close,
    extend,
    hold_id_of,
    open_session,
    pause,
    resume,
)
from billing_engine.consultations.errors import StillFunded, Unattended
from billing_engine.consultations.meter import Meter
from billing_engine.consultations.model import EndReason, LostReason
from billing_engine.consultations.rules import Rules
from billing_engine.ledger.model import Account, Entry, Fenced, HoldGone

RULES = Rules(min_balance_minor=0, min_seconds=1)
SID = "s"
FENCE = Fence(1, "here")


def a_meter(**facts: Any) -> Meter:
    usual: dict[str, Any] = {
        "user_id": "u", "lawyer_id": "l", "rate_minor_per_min": 6_000, "commission_bp": 0, "max_minor": None,
        "started_at_ms": 0, "served_ms": 0, "running_since_ms": 0, "evidence_at_ms": 0,
    }  # fmt: skip
    return Meter(**(usual | facts))


def opened(funds: int = 100_000) -> Account:
    account = Account("wallet:u", "INR", posted=funds)
    account, _ = open_session(account, None, session_id=SID, meter=a_meter(), owner="here", rules=RULES)
    return account


def tick(n: int, now_ms: int, **more: Any) -> Tick:
    return Tick(SID, FENCE, n, now_ms, 0, **more)


def served(account: Account, to_ms: int) -> tuple[Account, int]:
    """Ticked every ten seconds up to then; the number of the last write."""
    n = account.holds[hold_id_of(SID)].n
    for now_ms in range(10_000, to_ms + 1, 10_000):
        n += 1
        account, _ = extend(account, None, tick=tick(n, now_ms), rules=RULES)
    return account, n


def gone(since_ms: int, person: str = "u") -> Absence:
    return Absence(((person, since_ms),), RULES.peer_grace_ms)


def meter_of(account: Account) -> Meter:
    return Meter.of_facts(account.holds[hold_id_of(SID)].facts)


# -- who is lost


def test_the_first_one_lost_counts_and_nobody_from_before_it_ran() -> None:
    both = Absence((("l", 4_000), ("u", 5_000)), 15_000)
    assert both.loss(a_meter()) == Loss(4_000, LostReason.LAWYER_LOST)
    assert both.loss(a_meter(running_since_ms=4_500)) == Loss(4_500, LostReason.LAWYER_LOST)
    assert both.loss(a_meter(running_since_ms=9_000)) == Loss(9_000, LostReason.USER_LOST), (
        "at the same instant"
    )
    assert both.loss(a_meter(running_since_ms=None, waiting_since_ms=7_000)) == Loss(
        7_000, LostReason.USER_LOST
    )
    assert NOBODY.loss(a_meter()) is None
    assert both.due(a_meter(), 18_999) is None
    assert both.due(a_meter(), 19_000) == Loss(4_000, LostReason.LAWYER_LOST)
    assert both.due(a_meter(running_since_ms=None, waiting_since_ms=0), 99_000) is None


def test_only_who_had_joined_can_be_lost() -> None:
    """Who left a trace had; of whom there is none, the bill knows."""
    attendance = Attendance(("u", "l"), 1_000)
    assert attendance.absence(a_meter(joined=("u", "l")), 1) == Absence((), 1), "nobody has looked"
    attendance.take({"u": GoneSince(None), "l": GoneSince(7_000)}, 9_000)
    assert attendance.absence(a_meter(), 1).people == (("l", 7_000),)
    assert attendance.absence(a_meter(joined=("u",)), 1).people == (("u", 1_000), ("l", 7_000))
    assert attendance.traced(1).people == (("l", 7_000),)
    assert attendance.arrived(a_meter()) == ("l",)
    assert attendance.arrived(a_meter(joined=("l",))) == ()


def test_who_vanished_is_lost_since_the_last_look_that_did_not_know_it() -> None:
    attendance, meter = Attendance(("u", "l"), 1_000), a_meter(joined=("u", "l"))
    attendance.take({"u": PRESENT, "l": PRESENT}, 5_000)
    assert attendance.is_whole(meter)
    attendance.take({"u": PRESENT, "l": None}, 8_000)
    assert not attendance.is_whole(meter)
    attendance.take({"u": PRESENT, "l": GoneSince(None)}, 11_000)
    assert attendance.absence(meter, 1).people == (("l", 8_000),)
    # What nobody knows for a while changes nothing of it.
    attendance.take({"u": PRESENT, "l": None}, 14_000)
    attendance.take({"u": PRESENT, "l": GoneSince(None)}, 17_000)
    assert attendance.absence(meter, 1).people == (("l", 8_000),)


# -- what the hold makes of it


def test_a_pause_begins_at_the_last_sign_though_ticks_have_proven_service_since() -> None:
    account, n = served(opened(), 30_000)
    before = account.held
    account, bill = pause(account, None, tick=tick(n + 1, 36_000), absence=gone(21_000), rules=RULES)
    meter = meter_of(account)
    assert (meter.served_ms, meter.running_since_ms, meter.waiting_since_ms) == (21_000, None, 21_000)
    assert (meter.pause_reason, meter.joined, bill.paid_until_ms) == ("USER_LOST", ("u",), None)
    assert account.held == before, "the hold never shrinks, and nothing more is held"
    assert meter.trail[-1][1:] == (21_000, "pause", "USER_LOST")


def test_a_repeated_write_answers_what_stands() -> None:
    account, n = served(opened(), 30_000)
    paused, first = pause(account, None, tick=tick(n + 1, 36_000), absence=gone(21_000), rules=RULES)
    for repeat in (n + 1, n):
        assert pause(paused, None, tick=tick(repeat, 99_000), absence=gone(0), rules=RULES) == (paused, first)
    # Paused once is paused, also with a higher number and an earlier loss.
    assert pause(paused, None, tick=tick(n + 2, 50_000), absence=gone(3_000), rules=RULES) == (paused, first)
    resumed, bill = resume(paused, None, tick=tick(n + 2, 60_000), rules=RULES)
    assert resume(resumed, None, tick=tick(n + 2, 61_000), rules=RULES) == (resumed, bill)
    assert resume(resumed, None, tick=tick(n + 3, 61_000), rules=RULES) == (resumed, bill)


def test_a_loss_that_is_not_due_by_the_holds_own_account_pauses_nothing() -> None:
    account, n = served(opened(), 30_000)
    same, _ = pause(account, None, tick=tick(n + 1, 35_999), absence=gone(21_000), rules=RULES)
    assert same == account


def test_a_resumption_pays_on_from_what_the_hold_pays() -> None:
    account, n = served(opened(4_000), 30_000)
    account, _ = pause(account, None, tick=tick(n + 1, 36_000), absence=gone(21_000, "l"), rules=RULES)
    account, bill = resume(account, None, tick=tick(n + 2, 100_000), rules=RULES)
    # 40 s are paid in all, 21 are served.
    assert (bill.paid_until_ms, bill.ends_at_ms) == (119_000, 119_000)
    assert meter_of(account).trail[-1][1:] == (100_000, "resume", "LAWYER_LOST")
    assert meter_of(account).running_since_ms == 100_000


def test_no_other_owner_and_no_closed_session_is_paused_or_resumed() -> None:
    account, n = served(opened(), 30_000)
    stranger = Tick(SID, Fence(1, "elsewhere"), n + 1, 36_000, 0)
    late = Tick("other", FENCE, n + 1, 36_000, 0)
    for order, error in ((stranger, Fenced), (late, HoldGone)):
        with pytest.raises(error):
            pause(account, None, tick=order, absence=gone(0), rules=RULES)
        with pytest.raises(error):
            resume(account, None, tick=order, rules=RULES)


def test_a_shut_gate_before_the_loss_stays_the_stores() -> None:
    account, n = served(opened(), 30_000)
    order = tick(n + 1, 60_000, gap_from_ms=43_000)
    account, _ = pause(account, None, tick=order, absence=gone(44_000), rules=RULES)
    assert [row[1:] for row in meter_of(account).trail[1:]] == [
        (43_000, "pause", "STORE_DOWN"),
        (44_000, "resume", "STORE_DOWN"),
        (44_000, "pause", "USER_LOST"),
    ]
    assert meter_of(account).served_ms == 43_000
    with pytest.raises(Unattended):
        pause(
            served(opened(), 30_000)[0],
            None,
            tick=tick(n + 1, 200_000, gap_from_ms=43_000),
            absence=gone(44_000),
            rules=RULES,
        )


@pytest.mark.parametrize("is_paused_first", [True, False])
@pytest.mark.parametrize("reason", [EndReason.LAWYER_ENDED, EndReason.PEER_GONE])
def test_the_bill_is_the_same_whichever_is_written_first(is_paused_first: bool, reason: EndReason) -> None:
    account, n = served(opened(), 30_000)
    if is_paused_first:
        account, _ = pause(account, None, tick=tick(n + 1, 36_500), absence=gone(21_000), rules=RULES)
    entry = ended(account, Close(SID, reason, 37_000, absence=gone(21_000)))
    assert (entry.facts["servedMs"], entry.facts["endedAt"], entry.facts["gross"]) == (21_000, 37_000, 2_100)
    assert [row[1:3] for row in entry.facts["trail"]] == [(0, "start"), (21_000, "pause"), (37_000, "end")]


def test_within_the_grace_an_end_bills_to_the_end() -> None:
    account, _ = served(opened(), 30_000)
    entry = ended(account, Close(SID, EndReason.USER_ENDED, 35_999, absence=gone(21_000)))
    assert entry.facts["servedMs"] == 35_999


def test_money_is_not_used_up_at_an_instant_at_which_it_is_paused() -> None:
    account, _ = served(opened(3_500), 30_000)
    with pytest.raises(StillFunded):
        ended(account, Close(SID, EndReason.WALLET_EMPTY, 35_000, only_if_short=True, absence=gone(20_000)))
    order = Close(SID, EndReason.WALLET_EMPTY, 35_000, only_if_short=True, absence=gone(20_001))
    assert ended(account, order).facts["servedMs"] == 35_000


def test_a_hold_that_an_older_version_has_opened_can_be_read() -> None:
    facts = dict(a_meter().to_facts(None))
    for new in ("joined", "waitingSince", "pauseReason"):
        del facts[new]
    assert Meter.of_facts(facts) == a_meter()


def test_whoever_takes_a_paused_session_up_waits_anew() -> None:
    """While no server ran nobody could come back; whose sign another process still tells is waited for from now, too."""
    account, n = served(opened(), 30_000)
    account, _ = pause(account, None, tick=tick(n + 1, 36_000), absence=gone(21_000), rules=RULES)
    account, bill = adopt(
        account, None, session_id=SID, from_epoch=1, owner="there", evidence_ms=0, now_ms=140_000, rules=RULES
    )
    assert gone(21_000).loss(bill.meter) == Loss(140_000, LostReason.USER_LOST)
    assert (bill.meter.served_ms, bill.paid_until_ms) == (21_000, None)


def ended(account: Account, order: Close) -> Entry:
    _, entry = close(account, None, order=order, day="2026-01-01", booked_at_ms=order.at_ms)
    return entry
