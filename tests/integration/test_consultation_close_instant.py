"""A wallet's history is in the order in which it was booked, however long an end waited for its turn."""

import itertools
from pathlib import Path
from typing import Any

import pytest

from billing_engine.ledger.accounts import wallet_of
from tests.integration.test_takeover import deployment


async def test_an_end_that_waited_stands_after_what_was_booked_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process is frozen between taking an end and writing it; a recharge at another one comes first. The user would read a
    balance that goes back, and a row that seems to be missing."""
    async with deployment(tmp_path) as them:
        first, second = await them.process(), await them.process()
        await first.recharge("u1", 100_000)
        session_id = await first.begin()
        await them.advance(12)
        change = first.ledger.change
        recharged = False

        def late(account_id: str, asset: str, decide: Any, *, source: str | None = None) -> Any:
            async def submit() -> Any:
                nonlocal recharged
                if source is not None and not recharged:
                    recharged = True
                    await them.advance(0.5, frozen=[first])
                    await second.recharge("u1", 5_000)
                    await them.advance(0.5, frozen=[first])
                    them.wake(first)
                return await change(account_id, asset, decide, source=source)

            return submit()

        monkeypatch.setattr(first.ledger, "change", late)
        await first.consultations.end(session_id, caller_id="u1")
        assert recharged
        newest_first = await second.ledger.lines(wallet_of("u1"), limit=10)
        for later, earlier in itertools.pairwise(newest_first):
            assert earlier.balance_after is not None
            assert later.balance_after == earlier.balance_after + later.change_minor
        instants = [line.at_ms for line in reversed(newest_first)]
        assert all(earlier <= later for earlier, later in itertools.pairwise(instants))
