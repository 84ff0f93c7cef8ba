"""What every store of waiting lists must do. An engine's test supplies the fixture `rows`."""

import asyncio

from billing_engine.consultations.waiting import WaitingRows
from billing_engine.consultations.waiting_model import Waiting


class WaitingContract:
    """Subclasses supply `rows`."""

    async def test_a_user_has_one_place_however_often_they_come(self, rows: WaitingRows) -> None:
        added = await asyncio.gather(*(rows.add(Waiting("l1", "u1", 1_000 + n)) for n in range(10)))

        assert len(set(added)) == 1
        assert await rows.of_lawyer("l1") == [added[0]]
        assert await rows.get("l1", "u1") == added[0]
        assert await rows.get("l1", "nobody") is None

    async def test_the_first_to_come_is_first_and_every_list_is_its_own(self, rows: WaitingRows) -> None:
        for lawyer, user, since_ms in (("l1", "u2", 3), ("l1", "u1", 5), ("l2", "u1", 4), ("l1", "u3", 3)):
            await rows.add(Waiting(lawyer, user, since_ms))

        assert [one.user_id for one in await rows.of_lawyer("l1")] == ["u2", "u3", "u1"]
        assert [one.lawyer_id for one in await rows.of_user("u1")] == ["l2", "l1"]
        assert sorted(await rows.lawyers()) == ["l1", "l2"]

    async def test_many_who_give_a_turn_give_one(self, rows: WaitingRows) -> None:
        place = await rows.add(Waiting("l1", "u1", 1_000))
        given = await asyncio.gather(
            *(rows.give_turn(place, turn_id=f"t{n}", until_ms=9_000) for n in range(10))
        )

        (turn,) = [one for one in given if one is not None]
        assert turn.turn_until_ms == 9_000
        assert await rows.get("l1", "u1") == turn

    async def test_who_knows_another_turn_drops_and_clears_nothing(self, rows: WaitingRows) -> None:
        """Who looked before the turn was given must not take it from the user who was told of it."""
        place = await rows.add(Waiting("l1", "u1", 1_000))
        turn = await rows.give_turn(place, turn_id="t1", until_ms=9_000)
        assert turn is not None

        assert not await rows.drop(place)
        await rows.take_turn_back(Waiting("l1", "u1", 1_000, "t0", 9_000))
        assert await rows.get("l1", "u1") == turn
        await rows.take_turn_back(turn)
        assert await rows.get("l1", "u1") == place
        assert not await rows.drop(turn)
        assert [await rows.drop(place), await rows.drop(place)] == [True, False]
        assert await rows.give_turn(place, turn_id="t2", until_ms=9_000) is None
        assert await rows.lawyers() == []
