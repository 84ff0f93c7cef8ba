"""Reviews and ratings on a real SQLite file: one each, counted exactly, whatever crashes."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from billing_engine.consultations.model import Status
from billing_engine.errors import BillingError, Unavailable
from server.people.errors import AlreadyReviewed, SessionNotEnded, SessionNotFound
from server.people.model import LawyerFilter, LawyerSort, Place, Rating, Review
from server.people.ratings import Ratings
from server.people.reviews import ReviewService
from tests.support.people import People, open_people, people_on


@pytest.fixture
async def people(tmp_path: Path) -> AsyncIterator[People]:
    async with open_people(tmp_path / "people.db") as people:
        yield people


async def rating_of(people: People, lawyer_id: str) -> Rating:
    return (await people.lawyers.own(lawyer_id)).profile.rating


async def test_the_user_reviews_an_ended_session(people: People) -> None:
    lawyer = await people.a_lawyer()
    for status in (Status.ENDED, Status.FORCE_ENDED):
        session_id = await people.a_session(lawyer.id, status=status)
        review = await people.reviews.post(
            user_id="u1", session_id=session_id, stars=4, comment="Clear advice"
        )
        assert (review.session_id, review.lawyer_id, review.stars) == (session_id, lawyer.id, 4)

    assert await rating_of(people, lawyer.id) == Rating(8, 2)


@pytest.mark.parametrize(
    ("status", "refusal"),
    [
        (Status.ACTIVE, SessionNotEnded),
        (Status.PAUSED, SessionNotEnded),
        (Status.STARTING, SessionNotFound),
        (Status.ABORTED, SessionNotFound),
    ],
)
async def test_only_an_ended_session_is_reviewed(
    people: People, status: Status, refusal: type[BillingError]
) -> None:
    lawyer = await people.a_lawyer()
    session_id = await people.a_session(lawyer.id, status=status)

    with pytest.raises(refusal):
        await people.reviews.post(user_id="u1", session_id=session_id, stars=1, comment=None)
    assert await rating_of(people, lawyer.id) == Rating()


async def test_nobody_else_reviews_a_session(people: People) -> None:
    """A stranger, or the lawyer, who could rate would make ratings worthless."""
    lawyer = await people.a_lawyer()
    session_id = await people.a_session(lawyer.id)

    for caller in ("u2", lawyer.id):
        with pytest.raises(SessionNotFound):
            await people.reviews.post(user_id=caller, session_id=session_id, stars=5, comment=None)
    with pytest.raises(SessionNotFound):
        await people.reviews.post(user_id="u1", session_id="nothing", stars=5, comment=None)


async def test_a_session_is_reviewed_once(people: People) -> None:
    lawyer = await people.a_lawyer()
    session_id = await people.a_review(lawyer.id, 5)

    for stars in (5, 1):
        with pytest.raises(AlreadyReviewed):
            await people.reviews.post(user_id="u1", session_id=session_id, stars=stars, comment=None)
    assert await rating_of(people, lawyer.id) == Rating(5, 1)


async def test_of_many_reviews_of_one_session_one_is_stored(people: People) -> None:
    lawyer = await people.a_lawyer()
    session_id = await people.a_session(lawyer.id)
    start = asyncio.Event()

    async def post(stars: int) -> Review:
        await start.wait()
        return await people.reviews.post(user_id="u1", session_id=session_id, stars=stars, comment=None)

    posts = [asyncio.create_task(post(1 + number % 5)) for number in range(30)]
    await asyncio.sleep(0)
    start.set()
    answers = await asyncio.gather(*posts, return_exceptions=True)

    stored = [answer for answer in answers if isinstance(answer, Review)]
    assert len(stored) == 1
    assert all(isinstance(answer, AlreadyReviewed) for answer in answers if answer not in stored)
    assert await rating_of(people, lawyer.id) == Rating(stored[0].stars, 1)


async def test_concurrent_reviews_are_all_counted(people: People) -> None:
    """Two recounts at once, the slower one with the older sum: without the version it would win and lose a review."""
    lawyer, other = await people.a_lawyer(), await people.a_lawyer()
    sessions = [await people.a_session((lawyer, other)[number % 2].id) for number in range(60)]
    start = asyncio.Event()

    async def post(number: int, session_id: str) -> None:
        await start.wait()
        await people.reviews.post(user_id="u1", session_id=session_id, stars=1 + number % 5, comment=None)

    posts = [asyncio.create_task(post(number, session_id)) for number, session_id in enumerate(sessions)]
    await asyncio.sleep(0)
    start.set()
    await asyncio.gather(*posts)

    for side, one in enumerate((lawyer, other)):
        stars = [1 + number % 5 for number in range(60) if number % 2 == side]
        stored = await people.profiles.get(one.id)
        assert stored is not None
        assert stored.rating == Rating(sum(stars), 30)
    assert await people.reviews_store.uncounted(None, limit=10) == []


async def test_a_recount_that_was_overtaken_writes_nothing_old(people: People) -> None:
    """The interleaving itself: A sums, B stores and recounts, A writes."""
    lawyer = await people.a_lawyer()
    first = await people.a_session(lawyer.id)
    overtaker_done = False

    class Overtaken(type(people.reviews_store)):  # type: ignore[misc]  # the real store, with one step put in between
        async def total_of(self, lawyer_id: str) -> Rating:
            nonlocal overtaker_done
            total = await people.reviews_store.total_of(lawyer_id)
            if not overtaker_done:
                overtaker_done = True
                await people.a_review(lawyer_id, 5)
            return total

    slow_store = Overtaken(people.reviews_store._reviews)
    slow = ReviewService(
        reviews=slow_store,
        ratings=Ratings(profiles=people.profiles, reviews=slow_store),
        sessions=people.sessions,
        clock=people.clock,
    )
    await slow.post(user_id="u1", session_id=first, stars=1, comment=None)

    stored = await people.profiles.get(lawyer.id)
    assert stored is not None
    assert stored.rating == Rating(6, 2)


async def test_a_crash_before_the_count_is_healed_by_the_next_reader(people: People) -> None:
    lawyer = await people.a_lawyer()
    await people.a_review(lawyer.id, 5)
    session_id = await people.a_session(lawyer.id)
    review = Review(session_id, lawyer.id, "u1", 2, None, people.clock.now_ms())
    assert await people.reviews_store.add(review)  # … and the process dies here

    reborn = await people_on(people.collections, people.clock, people.accounts)
    page = await reborn.lawyers.search(
        LawyerFilter(min_rating_centi=350, free=None), sort=LawyerSort.RATING, limit=10, after=None
    )
    assert [card.profile.rating for card in page.cards] == [Rating(7, 2)]
    assert await rating_of(reborn, lawyer.id) == Rating(7, 2)
    with pytest.raises(AlreadyReviewed):
        await reborn.reviews.post(user_id="u1", session_id=session_id, stars=2, comment=None)


async def test_a_crash_before_the_mark_counts_nothing_twice(people: People) -> None:
    lawyer = await people.a_lawyer()
    session_id = await people.a_review(lawyer.id, 3)
    await people.reviews_store._reviews.update(session_id, set_={"is_counted": False})

    assert await rating_of(people, lawyer.id) == Rating(3, 1)
    assert await people.reviews_store.uncounted(None, limit=10) == []


async def test_a_stored_review_is_answered_even_when_it_cannot_be_counted_now(people: People) -> None:
    """An error would make the client try again and hear ALREADY_REVIEWED for its own review."""
    lawyer = await people.a_lawyer()
    session_id = await people.a_session(lawyer.id)

    class Failing(type(people.profiles)):  # type: ignore[misc]  # the real store, failing once
        async def set_rating(self, lawyer_id: str, rating: Rating, *, expect_version: int) -> bool:
            raise Unavailable(lawyer=lawyer_id, rating=rating, version=expect_version)

    failing = Failing(people.profiles._lawyers)
    service = ReviewService(
        reviews=people.reviews_store,
        ratings=Ratings(profiles=failing, reviews=people.reviews_store),
        sessions=people.sessions,
        clock=people.clock,
    )
    await service.post(user_id="u1", session_id=session_id, stars=4, comment=None)

    assert await rating_of(people, lawyer.id) == Rating(4, 1)


async def test_a_rating_leaves_the_rest_of_the_profile_alone(people: People) -> None:
    """Recounting and editing at once: a whole-document write would undo one of them."""
    lawyer = await people.a_lawyer(online=False)
    session_id = await people.a_session(lawyer.id)

    await asyncio.gather(
        people.reviews.post(user_id="u1", session_id=session_id, stars=5, comment=None),
        people.lawyers.set_availability(lawyer.id, is_online=True),
    )

    stored = await people.profiles.get(lawyer.id)
    assert stored is not None
    assert (stored.rating, stored.is_online, stored.is_verified) == (Rating(5, 1), True, True)


async def test_reviews_page_newest_first(people: People) -> None:
    lawyer, other = await people.a_lawyer(), await people.a_lawyer()
    posted = []
    for number in range(11):
        people.clock.jump_ms(number % 2)
        posted.append(await people.a_review(lawyer.id, 1 + number % 5, f"No. {number}"))
        await people.a_review(other.id, 1)
    listed: list[str] = []
    after: Place | None = None
    while page := await people.reviews.list_of(lawyer.id, limit=4, after=after):
        listed += [review.session_id for review in page]
        after = Place(page[-1].created_at_ms, page[-1].session_id)

    assert listed == posted[::-1]
