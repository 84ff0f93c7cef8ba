"""Death, and failure, at every await of a refund and of a request's approval or rejection.

Whatever the moment: what was decided is done once and whole, what was not decided has left no trace, asking again with the same
key finds what the first try made, and healing alone finishes what nobody asks about again.
"""

from pathlib import Path

import pytest

from billing_engine.ledger.accounts import REVENUE_CONSULTATIONS, earnings_of, wallet_of
from billing_engine.refunds.errors import RefundRequestDecided, RefundTooLarge
from billing_engine.refunds.model import RequestStatus
from billing_engine.verification import Verdict
from tests.support.consult_paths import FUNDS
from tests.support.desk_paths import (
    COMMISSION,
    GROSS,
    NET,
    DeskPath,
    DeskStage,
    cut_off,
    earned,
    filed,
    trouble_at_every_await,
)

AMOUNT = 2_001
REFUNDING = frozenset({"books.get", "books.put", "ledger.rows", "news.refund_decided"})
ANSWERING = frozenset({"requests.get", "requests.settle", "books.put", "news.refund_decided"})


def cut_off_at(before: object, act: object, label: str) -> object:
    async def step(stage: DeskStage) -> None:
        await before(stage)  # type: ignore[operator]
        await cut_off(stage, act, label)  # type: ignore[arg-type]

    return step


PATHS = (
    DeskPath("refund", earned, DeskStage.give_back, REFUNDING),
    DeskPath("ask", earned, DeskStage.file, frozenset({"sessions.get", "requests.of_session", "requests.add"})),
    DeskPath("approve", filed, DeskStage.approve, REFUNDING | ANSWERING),
    DeskPath("reject", filed, DeskStage.reject, ANSWERING),
    DeskPath("healing a refund", cut_off_at(earned, DeskStage.give_back, "news.refund_decided"), DeskStage.heal, REFUNDING | {"books.open"}),  # type: ignore[arg-type]
    DeskPath("healing an approval", cut_off_at(filed, DeskStage.approve, "requests.settle"), DeskStage.heal, ANSWERING | {"books.open"}),  # type: ignore[arg-type]
)  # fmt: skip


async def promises(stage: DeskStage, path: DeskPath) -> None:
    """After healing and before anybody asks again."""
    found = await stage.audit()
    assert found.verdict is Verdict.CLEAN, (found.broken, found.unfinished)
    book = (await stage.refunds.books(["s1"])).get("s1")
    decisions = book.decisions if book is not None else ()
    assert len(decisions) <= 1
    back = decisions[0].amount_minor if decisions else 0
    assert back in (0, AMOUNT)
    await money_is(stage, back)
    assert len(stage.told.letters) == len(decisions)
    # Nothing is lost by asking again.
    if path.name in ("refund", "healing a refund"):
        _, decision = await stage.give_back()
        assert decision.amount_minor == AMOUNT
        await money_is(stage, AMOUNT)
        await stage.give_back("r2", GROSS - AMOUNT)
    else:
        await the_request_again(stage, is_rejected=path.name == "reject")
    await money_is(stage, GROSS)
    with pytest.raises(RefundTooLarge):
        await stage.give_back("r9", 1)
    assert await stage.heal() == 0
    found = await stage.audit()
    assert found.verdict is Verdict.CLEAN, (found.broken, found.unfinished)


async def the_request_again(stage: DeskStage, *, is_rejected: bool) -> None:
    again = await stage.file()
    assert (again.id, again.amount_minor) == ("s1-1", AMOUNT)
    decide, other = (stage.reject, stage.approve) if is_rejected else (stage.approve, stage.reject)
    answered = await decide()
    assert answered.status is (RequestStatus.REJECTED if is_rejected else RequestStatus.APPROVED)
    assert await decide() == answered == await stage.refunds.request("s1-1")
    with pytest.raises(RefundRequestDecided):
        await other()
    back = 0 if is_rejected else AMOUNT
    await money_is(stage, back)
    assert list(stage.told.letters) == ["refund:s1-1"]
    await stage.give_back("r2", GROSS - back)


async def money_is(stage: DeskStage, back: int) -> None:
    """Exactly so much was given back, in its shares."""
    ledger = stage.world.ledger
    commission_back = COMMISSION * back // GROSS
    assert await ledger.balance(wallet_of("u1"), "INR") == FUNDS - GROSS + back
    assert await ledger.balance(earnings_of("l1"), "INR") == NET - (back - commission_back)
    assert await ledger.balance(REVENUE_CONSULTATIONS, "INR") == COMMISSION - commission_back


@pytest.mark.parametrize(
    "atomic",
    [pytest.param(True, id="atomic", marks=pytest.mark.exhaustive), pytest.param(False, id="stepwise")],
)
@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)
@pytest.mark.parametrize("dies", [True, False], ids=["death", "failure"])
async def test_trouble_at_every_await(path: DeskPath, atomic: bool, dies: bool, tmp_path: Path) -> None:
    await trouble_at_every_await(tmp_path, path, promises, atomic=atomic, dies=dies)
