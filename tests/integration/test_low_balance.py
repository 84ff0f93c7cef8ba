"""Whoever closed the app is told by letter that the money runs out; whoever looks at it is not bothered twice."""

import pytest

from server.notifications.model import Kind
from tests.support.api import open_api
from tests.support.letters import Letters


@pytest.mark.parametrize("is_connected", [False, True])
async def test_a_letter_for_whoever_is_away_once_a_session(tmp_path, is_connected):
    async with open_api(tmp_path) as api:
        letters = Letters()
        api.services.outbox._notifier = letters
        user, lawyer = await api.a_user("200.00"), await api.a_lawyer()
        if is_connected:
            await api.connect(user.token)
        session = await user.start(lawyer.id)
        for _ in range(8):
            await api.advance(20)

        told = letters.of(Kind.LOW_BALANCE)
        assert len(told) == (0 if is_connected else 1)
        for letter in told:
            assert letter.email == user.email
            assert letter.facts == {"sessionId": session, "remainingSeconds": 120}
