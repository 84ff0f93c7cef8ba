"""Registering, verifying and finding lawyers, on a real SQLite file."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from billing_engine.errors import BillingError, Unavailable
from server.people.errors import LawyerNotFound, PapersChanged
from server.people.model import LawyerFilter, LawyerProfile, LawyerSort, Place, ProfileChange
from server.people.service import LawyerPage, Registration
from tests.support.people import EmailTaken, People, open_people

FORM = Registration(
    email="asha@example.com",
    password="long enough",
    name="Asha Rao",
    rate_minor_per_min=3_000,
    specializations=("Tax", "Family Law", "TAX"),
    languages=("Hindi", "English"),
    bar_council_number="MH/1/2001",
    bio="Twenty years at the bar.",
)


@pytest.fixture
async def people(tmp_path: Path) -> AsyncIterator[People]:
    async with open_people(tmp_path / "people.db") as people:
        yield people


async def search(
    people: People,
    *,
    sort: LawyerSort = LawyerSort.RATING,
    limit: int = 50,
    after: Place | None = None,
    **wanted: object,
) -> LawyerPage:
    return await people.lawyers.search(LawyerFilter(**wanted), sort=sort, limit=limit, after=after)  # type: ignore[arg-type]  # a test's filters


async def found(people: People, **wanted: object) -> list[str]:
    return [card.profile.name for card in (await search(people, sort=LawyerSort.RATE, **wanted)).cards]  # type: ignore[arg-type]


# Registration


async def test_a_lawyer_begins_unverified_offline_and_unrated(people: People) -> None:
    profile = await people.lawyers.register(FORM)

    assert await people.profiles.get(profile.id) == profile
    assert (profile.is_verified, profile.is_online, profile.rating.count) == (False, False, 0)
    assert profile.specializations == ("Tax", "Family Law")
    assert people.accounts.by_id == {profile.id: "asha@example.com"}


async def test_a_taken_address_leaves_no_profile(people: People) -> None:
    await people.lawyers.register(FORM)
    with pytest.raises(EmailTaken):
        await people.lawyers.register(FORM)

    assert len(await people.profiles.queue(is_verified=None, is_decided=None, limit=10, after=None)) == 1


async def test_a_crash_before_the_account_leaves_nothing_that_anyone_sees(people: People) -> None:
    """The admin must not verify a ghost, and the lawyer must be able to register after all."""
    people.accounts.failure = asyncio.CancelledError()
    with pytest.raises(asyncio.CancelledError):
        await people.lawyers.register(FORM)
    (ghost,) = await people.profiles.queue(is_verified=None, is_decided=None, limit=10, after=None)

    queue = await people.lawyers.queue(is_verified=False, is_decided=None, limit=10, after=None)
    assert queue.applicants == []
    with pytest.raises(LawyerNotFound):
        await people.lawyers.verify(ghost.id, by="admin", is_verified=True, reason=None)
    assert (await search(people)).cards == []
    again = await people.lawyers.register(FORM)
    assert (await people.lawyers.own(again.id)).profile == again


@pytest.mark.parametrize("failure", [Unavailable(), asyncio.CancelledError()])
async def test_an_account_whose_reply_was_lost_has_its_profile(
    people: People, failure: BaseException
) -> None:
    """The lawyer can log in: a missing profile would lock the lawyer out of everything for ever."""
    people.accounts.failure, people.accounts.fails_after_commit = failure, True
    with pytest.raises((Unavailable, asyncio.CancelledError)):
        await people.lawyers.register(FORM)

    (lawyer_id,) = people.accounts.by_id
    assert (await people.lawyers.own(lawyer_id)).profile.name == "Asha Rao"
    queue = await people.lawyers.queue(is_verified=False, is_decided=None, limit=10, after=None)
    assert [applicant.card.profile.id for applicant in queue.applicants] == [lawyer_id]


# Verification


async def test_a_verdict_is_kept_with_its_admin_and_reason(people: People) -> None:
    lawyer = await people.a_lawyer(verified=False)
    rejected = await people.lawyers.verify(lawyer.id, by="a1", is_verified=False, reason="No such number")

    assert not rejected.is_verified
    assert rejected.verification is not None
    assert (rejected.verification.by, rejected.verification.reason) == ("a1", "No such number")
    assert rejected.verification.at_ms == people.clock.now_ms()
    verified = await people.lawyers.verify(lawyer.id, by="a2", is_verified=True, reason=None)
    assert verified.is_verified
    assert await people.profiles.get(lawyer.id) == verified


async def test_a_verdict_on_nobody_is_not_found(people: People) -> None:
    with pytest.raises(LawyerNotFound):
        await people.lawyers.verify("nobody", by="a1", is_verified=True, reason=None)
    people.accounts.by_id["u1"] = "user@example.com"
    with pytest.raises(LawyerNotFound):
        await people.lawyers.verify("u1", by="a1", is_verified=True, reason=None)


async def test_a_verdict_on_a_number_is_not_one_on_the_next(people: People) -> None:
    """The lawyer changes the number between the admin's look and the admin's click."""
    lawyer = await people.a_lawyer(verified=False, bar_council_number="MH/1/2001")
    await people.lawyers.change_profile(lawyer.id, ProfileChange(bar_council_number="DL/9/1999"))

    with pytest.raises(PapersChanged):
        await people.lawyers.verify(
            lawyer.id, by="a1", is_verified=True, reason=None, bar_council_number="MH/1/2001"
        )
    assert not (await people.lawyers.own(lawyer.id)).profile.is_verified
    verified = await people.lawyers.verify(
        lawyer.id, by="a1", is_verified=True, reason=None, bar_council_number="DL/9/1999"
    )
    assert verified.is_verified


async def test_the_queue_is_oldest_first_and_pages_without_a_gap(people: People) -> None:
    waiting = []
    for number in range(7):
        people.clock.jump_ms(number % 2)
        waiting.append((await people.a_lawyer(verified=False)).id)
        await people.a_lawyer(verified=True)
    seen: list[str] = []
    after: Place | None = None
    while True:
        page = await people.lawyers.queue(is_verified=False, is_decided=None, limit=3, after=after)
        assert len(page.applicants) <= 3
        seen += [applicant.card.profile.id for applicant in page.applicants]
        after = page.next
        if after is None:
            break
        if len(seen) == 3:
            waiting.append((await people.a_lawyer(verified=False)).id)

    assert seen == waiting


async def test_the_queue_tells_the_undecided_from_the_rejected(people: People) -> None:
    new = await people.a_lawyer(verified=False)
    rejected = await people.a_lawyer(verified=False)
    await people.lawyers.verify(rejected.id, by="a1", is_verified=False, reason="No such number")

    async def queue(*, is_decided: bool | None) -> list[str]:
        page = await people.lawyers.queue(is_verified=False, is_decided=is_decided, limit=10, after=None)
        return [applicant.card.profile.id for applicant in page.applicants]

    assert await queue(is_decided=None) == [new.id, rejected.id]
    assert await queue(is_decided=False) == [new.id]
    assert await queue(is_decided=True) == [rejected.id]


# Profile and availability


async def test_availability_is_the_lawyers_own_word(people: People) -> None:
    lawyer = await people.a_lawyer(verified=False, online=False)

    assert (await people.lawyers.set_availability(lawyer.id, is_online=True)).is_online
    terms = await people.lawyers.terms(lawyer.id)
    assert terms is not None
    assert (terms.is_online, terms.is_verified) == (True, False)
    assert not (await people.lawyers.set_availability(lawyer.id, is_online=False)).is_online


async def test_an_account_without_a_profile_is_not_found(people: People) -> None:
    with pytest.raises(LawyerNotFound):
        await people.lawyers.set_availability("nobody", is_online=True)
    with pytest.raises(LawyerNotFound):
        await people.lawyers.change_profile("nobody", ProfileChange(bio="x"))
    with pytest.raises(LawyerNotFound):
        await people.lawyers.own("nobody")
    assert await people.lawyers.terms("nobody") is None


async def test_a_change_writes_the_named_fields_only(people: People) -> None:
    lawyer = await people.a_lawyer()
    before = await people.profiles.get(lawyer.id)
    assert before is not None
    changed = await people.lawyers.change_profile(
        lawyer.id, ProfileChange(rate_minor_per_min=4_500, languages=("Tamil", "tamil"))
    )

    assert changed.rate_minor_per_min == 4_500
    assert changed.languages == ("Tamil",)
    assert changed.is_verified
    assert (changed.name, changed.specializations, changed.bio) == (
        before.name,
        before.specializations,
        before.bio,
    )
    assert await found(people, language="tamil") == [lawyer.name]
    assert await found(people, language="Hindi") == []
    terms = await people.lawyers.terms(lawyer.id)
    assert terms is not None
    assert terms.rate_minor_per_min == 4_500


async def test_an_empty_list_and_an_empty_bio_are_values(people: People) -> None:
    lawyer = await people.a_lawyer(bio="Something")
    changed = await people.lawyers.change_profile(lawyer.id, ProfileChange(languages=(), bio=""))

    assert (changed.languages, changed.bio) == ((), "")


async def test_an_empty_change_changes_nothing(people: People) -> None:
    lawyer = await people.a_lawyer()
    before = await people.profiles.get(lawyer.id)

    assert await people.lawyers.change_profile(lawyer.id, ProfileChange()) == before


async def test_new_papers_wait_for_the_admin_again(people: People) -> None:
    """A verified lawyer who takes another's number would serve under a verification of somebody else."""
    lawyer = await people.a_lawyer()
    changed = await people.lawyers.change_profile(lawyer.id, ProfileChange(bar_council_number="DL/9/1999"))

    assert not changed.is_verified
    assert changed.verification is None
    queue = await people.lawyers.queue(is_verified=False, is_decided=False, limit=10, after=None)
    assert [applicant.card.profile.id for applicant in queue.applicants] == [lawyer.id]


async def test_two_devices_cannot_slip_new_papers_past_the_admin(people: People) -> None:
    """A → B decides on A, B → A decides on A too: with blind writes B could end up verified."""
    lawyer = await people.a_lawyer(bar_council_number="A")
    stale = await people.profiles.get(lawyer.id)
    assert stale is not None
    await people.lawyers.change_profile(lawyer.id, ProfileChange(bar_council_number="B"))

    overtaken = await people.profiles.change(
        lawyer.id, ProfileChange(bar_council_number="A"), drop_verification=False, expect=stale
    )
    assert overtaken is None
    again = await people.lawyers.change_profile(lawyer.id, ProfileChange(bar_council_number="A"))
    assert not again.is_verified


# Search


async def test_only_verified_lawyers_are_found(people: People) -> None:
    shown = await people.a_lawyer()
    await people.a_lawyer(verified=False)

    assert await found(people) == [shown.name]


async def test_filters_hold_together(people: People) -> None:
    tax = await people.a_lawyer(
        specializations=("Tax Law", "Criminal"), languages=("Hindi",), rate_minor_per_min=1_000
    )
    tamil = await people.a_lawyer(
        specializations=("Tax Law",), languages=("Tamil",), rate_minor_per_min=2_000
    )
    away = await people.a_lawyer(
        specializations=("Family",), languages=("Hindi",), online=False, rate_minor_per_min=3_000
    )

    assert await found(people) == [tax.name, tamil.name, away.name]
    assert await found(people, specialization="  tax   LAW ") == [tax.name, tamil.name]
    assert await found(people, specialization="tax") == []
    assert await found(people, language="HINDI") == [tax.name, away.name]
    assert await found(people, specialization="tax law", language="tamil") == [tamil.name]
    assert await found(people, online=True) == [tax.name, tamil.name]
    assert await found(people, online=False) == [away.name]
    assert await found(people, max_rate_minor_per_min=2_000) == [tax.name, tamil.name]
    assert await found(people, max_rate_minor_per_min=999) == []


async def test_min_rating_compares_what_is_printed(people: People) -> None:
    """4.125 is printed 4.13: a search for 4.13 that hides it would contradict the page."""
    lawyer = await people.a_lawyer()
    await people.a_lawyer()
    for stars in (5, 5, 5, 5, 4, 4, 4, 1):
        await people.a_review(lawyer.id, stars)

    assert await found(people, min_rating_centi=413) == [lawyer.name]
    assert await found(people, min_rating_centi=414) == []


async def test_the_busy_are_those_with_a_claim(people: People) -> None:
    free = await people.a_lawyer()
    busy = await people.a_lawyer()
    await people.claims.take(f"lawyer:{busy.id}", "s1")
    await people.claims.take(f"user:{free.id}", "s2")

    assert {card.profile.id: card.is_busy for card in (await search(people)).cards} == {
        free.id: False,
        busy.id: True,
    }
    assert await found(people, free=True) == [free.name]
    assert await found(people, free=False) == [busy.name]
    assert (await people.lawyers.own(busy.id)).is_busy
    await people.claims.release(f"lawyer:{busy.id}", "s1")
    assert await found(people, free=False) == []


async def all_pages(people: People, *, sort: LawyerSort, limit: int, **wanted: object) -> list[LawyerProfile]:
    profiles: list[LawyerProfile] = []
    after: Place | None = None
    while True:
        page = await search(people, sort=sort, limit=limit, after=after, **wanted)
        assert len(page.cards) <= limit
        profiles += [card.profile for card in page.cards]
        if page.next is None:
            return profiles
        after = page.next


@pytest.mark.parametrize("limit", [1, 3, 12, 100])
async def test_both_orders_page_without_a_gap_or_a_repeat(people: People, limit: int) -> None:
    for number in range(12):
        lawyer = await people.a_lawyer(rate_minor_per_min=1_000 + number * 7 % 4)
        for stars in range(number % 4):
            await people.a_review(lawyer.id, stars + 1)

    cheap = await all_pages(people, sort=LawyerSort.RATE, limit=limit)
    assert len({profile.id for profile in cheap}) == len(cheap) == 12
    assert [p.rate_minor_per_min for p in cheap] == sorted(p.rate_minor_per_min for p in cheap)
    best = await all_pages(people, sort=LawyerSort.RATING, limit=limit)
    assert len({profile.id for profile in best}) == len(best) == 12
    ratings = [profile.rating.centi or 0 for profile in best]
    assert ratings == sorted(ratings, reverse=True)
    assert ratings[-1] == 0


@pytest.mark.parametrize("limit", [1, 5])
async def test_the_free_are_found_behind_many_busy_ones(people: People, limit: int) -> None:
    """When everybody is busy but three, a search for the free ones must still reach them."""
    free = []
    for number in range(250):
        lawyer = await people.a_lawyer(rate_minor_per_min=1_000 + number)
        if number in (3, 240, 249):
            free.append(lawyer.id)
        else:
            await people.claims.take(f"lawyer:{lawyer.id}", f"s{number}")

    pages = await all_pages(people, sort=LawyerSort.RATE, limit=limit, free=True)

    assert [profile.id for profile in pages] == free


async def test_an_unverified_lawyer_is_seen_by_self_and_admins_only(people: People) -> None:
    lawyer = await people.a_lawyer(verified=False)

    for viewer, is_admin in ((lawyer.id, False), ("anyone", True)):
        card = await people.lawyers.look_up(lawyer.id, viewer_id=viewer, viewer_is_admin=is_admin)
        assert card.profile.id == lawyer.id
    with pytest.raises(LawyerNotFound):
        await people.lawyers.look_up(lawyer.id, viewer_id="anyone", viewer_is_admin=False)
    with pytest.raises(BillingError):
        await people.lawyers.look_up("nobody", viewer_id="anyone", viewer_is_admin=True)
