"""What every store of sessions, claims and timelines must do. An engine's test supplies the three fixtures."""

import asyncio
from dataclasses import replace

import pytest

from billing_engine.consultations.model import (
    FINISHED,
    LIVE,
    VISIBLE,
    EndReason,
    Session,
    Status,
    TimelineRow,
)
from billing_engine.consultations.ports import Claims, Sessions, Timeline
from billing_engine.errors import InvariantBroken

MAX_INT = 2**63 - 1


def a_session(id_: str = "s1", **facts: object) -> Session:
    usual: dict[str, object] = {
        "user_id": "u1",
        "lawyer_id": "l1",
        "rate_minor_per_min": 3_000,
        "currency": "INR",
        "commission_bp": 0,
        "max_minor": None,
        "status": Status.STARTING,
        "created_at_ms": 1_000,
    }
    return Session(id=id_, **(usual | facts))  # type: ignore[arg-type]  # the facts of one test


class SessionsContract:
    """Subclasses supply `sessions`."""

    async def test_a_session_comes_back_as_it_was_stored(self, sessions: Sessions) -> None:
        plain = a_session()
        whole = a_session(
            "s2",
            commission_bp=1_250,
            max_minor=MAX_INT,
            status=Status.FORCE_ENDED,
            created_at_ms=1_700_000_000_123,
            started_at_ms=1_700_000_000_456,
            ended_at_ms=1_700_000_060_789,
            end_reason=EndReason.WALLET_EMPTY,
            duration_s=60,
            total_minor=3_000,
            commission_minor=375,
        )
        assert await sessions.add(plain)
        assert await sessions.add(whole)

        assert await sessions.get("s1") == plain
        stored = await sessions.get("s2")
        assert stored == whole
        assert stored is not None
        assert isinstance(stored.status, Status)
        assert isinstance(stored.end_reason, EndReason)

    async def test_an_unknown_session_is_none(self, sessions: Sessions) -> None:
        assert await sessions.get("nobody") is None

    async def test_adding_the_same_id_again_changes_nothing(self, sessions: Sessions) -> None:
        """A start that is run again would otherwise wind a live session back to STARTING."""
        await sessions.add(a_session())
        active = a_session(status=Status.ACTIVE, started_at_ms=1_500)
        await sessions.move("s1", expect=frozenset({Status.STARTING}), to=active)

        assert not await sessions.add(a_session())
        assert await sessions.get("s1") == active

    async def test_a_status_moves_only_from_an_expected_one(self, sessions: Sessions) -> None:
        await sessions.add(a_session())
        active = a_session(status=Status.ACTIVE, started_at_ms=1_500)
        aborted = a_session(status=Status.ABORTED)

        assert await sessions.move("s1", expect=frozenset({Status.STARTING}), to=active)
        assert not await sessions.move("s1", expect=frozenset({Status.STARTING}), to=aborted)
        assert await sessions.get("s1") == active

    async def test_a_move_writes_every_field(self, sessions: Sessions) -> None:
        before = a_session(status=Status.ACTIVE, started_at_ms=1_500)
        await sessions.add(before)
        after = replace(
            before,
            status=Status.ENDED,
            ended_at_ms=61_500,
            end_reason=EndReason.USER_ENDED,
            duration_s=60,
            total_minor=3_000,
            commission_minor=30,
        )

        assert await sessions.move("s1", expect=LIVE, to=after)
        assert await sessions.get("s1") == after

    async def test_an_unknown_session_does_not_move(self, sessions: Sessions) -> None:
        assert not await sessions.move("s1", expect=frozenset(Status), to=a_session())
        assert await sessions.get("s1") is None

    async def test_a_move_cannot_change_the_identity(self, sessions: Sessions) -> None:
        await sessions.add(a_session())
        with pytest.raises(InvariantBroken):
            await sessions.move("s1", expect=frozenset(Status), to=a_session("s2"))

    async def test_of_many_ends_at_once_one_moves_the_session(self, sessions: Sessions) -> None:
        """Both parties press the button, the engine force-ends: two different bills must not be shown."""
        for number in range(10):
            session_id = f"s{number}"
            await sessions.add(a_session(session_id, status=Status.ACTIVE))
            start = asyncio.Event()

            async def end(
                total_minor: int, *, session_id: str = session_id, start: asyncio.Event = start
            ) -> bool:
                await start.wait()
                ended = a_session(session_id, status=Status.ENDED, total_minor=total_minor)
                return await sessions.move(session_id, expect=LIVE, to=ended)

            enders = [asyncio.create_task(end(total_minor)) for total_minor in range(1, 21)]
            await asyncio.sleep(0)
            start.set()
            moved = await asyncio.gather(*enders)

            assert moved.count(True) == 1
            stored = await sessions.get(session_id)
            assert stored is not None
            assert stored.total_minor == moved.index(True) + 1

    async def test_unfinished_is_every_session_that_recovery_must_look_at(self, sessions: Sessions) -> None:
        for number, status in enumerate(Status):
            await sessions.add(a_session(f"s{number}", status=status, created_at_ms=9_000 - number))

        unfinished = await sessions.unfinished()

        # A request without a hold keeps its own time, and so does a turn.
        assert {session.status for session in unfinished} == set(Status) - FINISHED - {
            Status.REQUESTED,
            Status.TURN,
        }
        ages = [session.created_at_ms for session in unfinished]
        assert ages == sorted(ages)

    async def test_a_change_of_some_fields_leaves_what_others_wrote(self, sessions: Sessions) -> None:
        """Who joins while the lawyer accepts must not be forgotten: both would wait for each other."""
        await sessions.add(a_session(status=Status.REQUESTED, asked=True, deadline_ms=5_000))
        stale = await sessions.get("s1")
        asked = frozenset({Status.REQUESTED, Status.ACCEPTED})

        joined, accepted = await asyncio.gather(
            sessions.change("s1", expect=asked, user_joined_at_ms=1_500),
            sessions.change(
                "s1", expect=asked, status=Status.ACCEPTED, accepted_by="phone", deadline_ms=9_000
            ),
        )

        stored = await sessions.get("s1")
        assert stale is not None
        assert joined is not None
        assert accepted is not None
        assert stored == replace(
            stale, status=Status.ACCEPTED, accepted_by="phone", deadline_ms=9_000, user_joined_at_ms=1_500
        )
        closing = {"status": Status.MISSED, "end_reason": EndReason.NO_ANSWER, "deadline_ms": None}
        assert await sessions.change("s1", expect=frozenset({Status.REQUESTED}), **closing) is None
        assert await sessions.change("nobody", expect=asked, **closing) is None
        assert await sessions.get("s1") == stored

    async def test_many_who_answer_at_once_change_one_request_once(self, sessions: Sessions) -> None:
        await sessions.add(a_session(status=Status.REQUESTED, asked=True))
        expect = frozenset({Status.REQUESTED})
        answers = await asyncio.gather(
            *(
                sessions.change("s1", expect=expect, status=Status.ACCEPTED, accepted_by=f"device{number}")
                for number in range(20)
            )
        )
        (won,) = [answer for answer in answers if answer is not None]
        assert await sessions.get("s1") == won

    async def test_sessions_are_found_by_state_and_by_lawyer(self, sessions: Sessions) -> None:
        for number, status in enumerate(Status):
            await sessions.add(a_session(f"s{number:02d}", status=status, created_at_ms=1_000 + number))
        await sessions.add(a_session("other", lawyer_id="l2", status=Status.TURN, created_at_ms=2_000))

        found = await sessions.in_states(frozenset({Status.TURN, Status.REQUESTED}))
        ages = [session.created_at_ms for session in found]
        assert ages == sorted(ages)
        assert len(found) == 3
        assert {session.status for session in found} == {Status.TURN, Status.REQUESTED}
        newest = await sessions.newest_of_lawyer("l1", limit=3)
        assert [session.created_at_ms for session in newest] == [
            1_000 + len(Status) - 1 - number for number in range(3)
        ]

    async def test_unfinished_has_no_upper_bound(self, sessions: Sessions) -> None:
        """A page that is taken for the whole would leave the rest of the sessions unbilled after a restart."""
        many = [a_session(f"s{number:05d}", created_at_ms=1_000 + number // 7) for number in range(2_005)]
        await asyncio.gather(*(sessions.add(session) for session in many))

        assert [session.id for session in await sessions.unfinished()] == [session.id for session in many]

    async def test_both_parties_list_a_session_and_nobody_else(self, sessions: Sessions) -> None:
        mine = a_session(status=Status.ACTIVE)
        await sessions.add(mine)
        await sessions.add(a_session("s2", user_id="u2", lawyer_id="l2", status=Status.ACTIVE))

        assert await sessions.list_for("u1", limit=10, before=None) == [mine]
        assert await sessions.list_for("l1", limit=10, before=None) == [mine]
        assert await sessions.list_for("u3", limit=10, before=None) == []

    async def test_internal_sessions_are_never_listed(self, sessions: Sessions) -> None:
        for number, status in enumerate(Status):
            await sessions.add(a_session(f"s{number}", status=status))

        listed = await sessions.list_for("u1", limit=10, before=None)

        assert {session.status for session in listed} == VISIBLE

    async def test_a_list_pages_newest_first_without_a_gap_or_a_repeat(self, sessions: Sessions) -> None:
        """Ties in time and rows that arrive between two pages are where paging by time alone goes wrong."""
        for number in range(23):
            # A person who is user in some and lawyer in others: the two reads must merge into one order.
            sides = {"user_id": "p"} if number % 3 else {"lawyer_id": "p"}
            await sessions.add(
                a_session(f"s{number:02d}", status=Status.ENDED, created_at_ms=1_000 + number // 4, **sides)
            )
        pages: list[Session] = []
        before: tuple[int, str] | None = None
        while page := await sessions.list_for("p", limit=5, before=before):
            assert len(page) <= 5
            pages += page
            before = (page[-1].created_at_ms, page[-1].id)
            newer = a_session(f"n{len(pages):02d}", user_id="p", status=Status.ENDED, created_at_ms=50_000)
            await sessions.add(newer)

        assert [session.id for session in pages] == [f"s{number:02d}" for number in reversed(range(23))]


class ClaimsContract:
    """Subclasses supply `claims`."""

    async def test_a_free_person_is_claimed(self, claims: Claims) -> None:
        assert await claims.take("user:1", "s1") is None
        assert await claims.holder("user:1") == "s1"

    async def test_a_claimed_person_names_the_holder(self, claims: Claims) -> None:
        await claims.take("user:1", "s1")

        assert await claims.take("user:1", "s2") == "s1"
        assert await claims.holder("user:1") == "s1"

    async def test_taking_ones_own_claim_again_is_success(self, claims: Claims) -> None:
        """The reply to the first insert was lost: the session must not find itself in its own way."""
        await claims.take("user:1", "s1")

        assert await claims.take("user:1", "s1") is None

    async def test_user_and_lawyer_of_one_id_are_two_persons(self, claims: Claims) -> None:
        assert await claims.take("user:1", "s1") is None
        assert await claims.take("lawyer:1", "s2") is None

    async def test_a_release_frees_the_person(self, claims: Claims) -> None:
        await claims.take("user:1", "s1")
        await claims.release("user:1", "s1")

        assert await claims.holder("user:1") is None
        assert await claims.take("user:1", "s2") is None

    async def test_a_release_by_another_session_changes_nothing(self, claims: Claims) -> None:
        """A late release of an ended session must not free the person from the next one."""
        await claims.take("user:1", "s2")
        await claims.release("user:1", "s1")
        await claims.release("user:2", "s1")

        assert await claims.holder("user:1") == "s2"

    async def test_a_claim_left_behind_is_taken_over_from_its_holder_only(self, claims: Claims) -> None:
        await claims.take("user:1", "old")

        assert not await claims.replace("user:1", finished_session_id="other", session_id="new")
        assert await claims.holder("user:1") == "old"
        assert await claims.replace("user:1", finished_session_id="old", session_id="new")
        assert await claims.holder("user:1") == "new"

    async def test_taking_over_again_is_success(self, claims: Claims) -> None:
        await claims.take("user:1", "old")
        await claims.replace("user:1", finished_session_id="old", session_id="new")

        assert await claims.replace("user:1", finished_session_id="old", session_id="new")

    async def test_a_missing_claim_is_not_taken_over(self, claims: Claims) -> None:
        assert not await claims.replace("user:1", finished_session_id="old", session_id="new")
        assert await claims.holder("user:1") is None

    async def test_held_names_the_claimed_among_many(self, claims: Claims) -> None:
        await claims.take("lawyer:1", "s1")
        await claims.take("lawyer:3", "s3")
        await claims.take("lawyer:4", "s4")

        assert await claims.held(["lawyer:1", "lawyer:2", "lawyer:3"]) == {"lawyer:1": "s1", "lawyer:3": "s3"}
        assert await claims.held([]) == {}

    async def test_of_a_hundred_takers_one_wins(self, claims: Claims) -> None:
        """Ten thousand users want one lawyer; two winners would be two bills for one hour of a lawyer."""
        for number in range(5):
            person = f"lawyer:{number}"
            start = asyncio.Event()

            async def take(
                session_id: str, *, person: str = person, start: asyncio.Event = start
            ) -> str | None:
                await start.wait()
                return await claims.take(person, session_id)

            takers = [asyncio.create_task(take(f"s{taker}")) for taker in range(100)]
            await asyncio.sleep(0)
            start.set()
            answers = await asyncio.gather(*takers)

            assert answers.count(None) == 1
            winner = f"s{answers.index(None)}"
            assert set(answers) == {None, winner}
            assert await claims.holder(person) == winner

    async def test_of_many_that_take_over_one_wins(self, claims: Claims) -> None:
        await claims.take("lawyer:1", "old")
        start = asyncio.Event()

        async def take_over(session_id: str) -> bool:
            await start.wait()
            return await claims.replace("lawyer:1", finished_session_id="old", session_id=session_id)

        takers = [asyncio.create_task(take_over(f"s{taker}")) for taker in range(50)]
        await asyncio.sleep(0)
        start.set()
        won = await asyncio.gather(*takers)

        assert won.count(True) == 1
        assert await claims.holder("lawyer:1") == f"s{won.index(True)}"

    async def test_takers_and_releasers_leave_one_holder_or_none(self, claims: Claims) -> None:
        """Everybody who took the claim gives it back: afterwards it is free, and nobody waited for ever."""
        holding = 0
        most = 0

        async def take_and_release(session_id: str) -> bool:
            nonlocal holding, most
            if await claims.take("lawyer:1", session_id) is not None:
                return False
            holding += 1
            most = max(most, holding)
            await asyncio.sleep(0)
            holding -= 1
            await claims.release("lawyer:1", session_id)
            return True

        async with asyncio.timeout(30):
            won = await asyncio.gather(*(take_and_release(f"s{taker}") for taker in range(100)))

        assert any(won)
        assert most == 1
        assert await claims.holder("lawyer:1") is None


def a_row(k: int, event: str = "pause", *, session_id: str = "s1", reason: str | None = None) -> TimelineRow:
    return TimelineRow(session_id=session_id, k=k, at_ms=1_000 + k, event=event, reason=reason)


class TimelineContract:
    """Subclasses supply `timeline`."""

    async def test_rows_come_back_in_their_order(self, timeline: Timeline) -> None:
        story = [a_row(0, "start"), a_row(1, "pause", reason="SERVER"), a_row(2, "resume"), a_row(3, "end")]
        await timeline.add(story[2:])
        await timeline.add(story[:2])

        assert await timeline.of("s1") == story

    async def test_the_timeline_of_nobody_is_empty(self, timeline: Timeline) -> None:
        await timeline.add([])

        assert await timeline.of("s1") == []

    async def test_sessions_do_not_mix(self, timeline: Timeline) -> None:
        await timeline.add([a_row(0, "start"), a_row(0, "start", session_id="s11")])

        assert await timeline.of("s1") == [a_row(0, "start")]

    async def test_adding_rows_again_changes_nothing(self, timeline: Timeline) -> None:
        """Redo after a crash adds what it cannot know to be there."""
        await timeline.add([a_row(0, "start"), a_row(1)])
        await timeline.add([a_row(0, "start"), a_row(1), a_row(2, "resume")])

        assert await timeline.of("s1") == [a_row(0, "start"), a_row(1), a_row(2, "resume")]

    async def test_another_row_in_the_same_place_breaks_an_invariant(self, timeline: Timeline) -> None:
        """The bill is recomputed from these rows: overwriting one would rewrite a bill."""
        await timeline.add([a_row(0, "start")])

        with pytest.raises(InvariantBroken):
            await timeline.add([TimelineRow(session_id="s1", k=0, at_ms=2_000, event="start")])
        assert await timeline.of("s1") == [a_row(0, "start")]

    async def test_a_long_story_is_whole_and_in_order(self, timeline: Timeline) -> None:
        story = [a_row(k) for k in range(1_234)]
        await timeline.add(story)

        assert await timeline.of("s1") == story

    async def test_many_writers_of_one_row_agree(self, timeline: Timeline) -> None:
        await asyncio.gather(*(timeline.add([a_row(0, "start"), a_row(1)]) for _ in range(20)))

        assert await timeline.of("s1") == [a_row(0, "start"), a_row(1)]
