"""Lawyers: register, be verified, go online, be found (SPEC 4)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from billing_engine.clock import Clock
from billing_engine.consultations.model import LawyerTerms
from billing_engine.errors import BillingError, Unavailable
from server.ids import new_id
from server.people.errors import LawyerNotFound, PapersChanged
from server.people.model import (
    LawyerCard,
    LawyerFilter,
    LawyerProfile,
    LawyerSort,
    Place,
    ProfileChange,
    Verification,
    distinct,
)
from server.people.ports import Accounts, BusyPeople, LawyerProfiles
from server.people.ratings import Ratings

#: How many profiles are looked at for one page when the answer depends on who is busy, which no index
#: knows.
_BUSY_BATCH: Final = 200
_BUSY_ROUNDS: Final = 10


@dataclass(frozen=True, slots=True)
class Registration:
    """What a lawyer says at the door. The rate is in the currency's smallest unit, within the bounds of
    the edge.
    """

    email: str
    password: str
    name: str
    rate_minor_per_min: int
    specializations: tuple[str, ...]
    languages: tuple[str, ...]
    bar_council_number: str
    bio: str


@dataclass(frozen=True, slots=True)
class LawyerPage:
    """Part of a search. It may be shorter than the limit; only `next` being None says that it was the
    last.
    """

    cards: list[LawyerCard]
    next: Place | None


@dataclass(frozen=True, slots=True)
class Applicant:
    """A lawyer as the admin's queue shows one."""

    card: LawyerCard
    email: str


@dataclass(frozen=True, slots=True)
class QueuePage:
    """Part of the admin's queue, the oldest first; only `next` being None says that it was the last."""

    applicants: list[Applicant]
    next: Place | None


class LawyerService:
    """Everything about lawyers but their money. It is billing's `Lawyers` port too: see `terms`."""

    def __init__(
        self,
        *,
        profiles: LawyerProfiles,
        ratings: Ratings,
        accounts: Accounts,
        busy: BusyPeople,
        clock: Clock,
        new_id: Callable[[], str] = new_id,
    ) -> None:
        self._profiles = profiles
        self._ratings = ratings
        self._accounts = accounts
        self._busy = busy
        self._clock = clock
        self._new_id = new_id

    async def register(self, form: Registration) -> LawyerProfile:
        """Open a lawyer's account with an unverified profile.

        The profile is written first, under the id that the account will have, and the account is the
        commit point: a crash between the two leaves a profile without an account, which nobody sees (it is
        unverified, the admin's queue shows accounts only, and no verdict on it is taken). Registering
        again with the same address works.

        Raises:
            BillingError: what `Accounts.create_lawyer` raises; there is neither account nor profile then.
        """
        profile = LawyerProfile(
            id=self._new_id(),
            name=form.name,
            rate_minor_per_min=form.rate_minor_per_min,
            specializations=distinct(form.specializations),
            languages=distinct(form.languages),
            bar_council_number=form.bar_council_number,
            bio=form.bio,
            created_at_ms=self._clock.now_ms(),
        )
        await self._profiles.add(profile)
        try:
            await self._accounts.create_lawyer(
                lawyer_id=profile.id, email=form.email, password=form.password, name=form.name
            )
        except Unavailable:
            # The account may exist all the same: a profile too many is invisible, one too few is not.
            raise
        except BillingError:
            await self._profiles.drop(profile.id)
            raise
        return profile

    async def verify(
        self,
        lawyer_id: str,
        *,
        by: str,
        is_verified: bool,
        reason: str | None,
        bar_council_number: str | None = None,
    ) -> LawyerProfile:
        """Put an admin's verdict on a lawyer; the last one counts. A running session is not cut.

        With `bar_council_number` the verdict is on that number: a lawyer who sends another one while the
        admin reads does not get it verified.

        Raises:
            LawyerNotFound: no such lawyer.
            PapersChanged: the number is another one by now; nothing is changed.
        """
        if lawyer_id not in await self._accounts.emails([lawyer_id]):
            raise LawyerNotFound(lawyer=lawyer_id)
        profile = await self._profiles.set_verification(
            lawyer_id,
            is_verified=is_verified,
            verification=Verification(by=by, at_ms=self._clock.now_ms(), reason=reason),
            expect_number=bar_council_number,
        )
        if profile is None and await self._profiles.get(lawyer_id) is not None:
            raise PapersChanged(lawyer=lawyer_id)
        return _found(profile, lawyer_id)

    async def set_availability(self, lawyer_id: str, *, is_online: bool) -> LawyerProfile:
        """Say whether the lawyer takes consultations. An unverified one may say so, too: the start of a
        session looks at the verification first. Going offline does not cut a running session.

        Raises:
            LawyerNotFound: this account has no lawyer's profile.
        """
        at_ms = self._clock.now_ms()
        return _found(await self._profiles.set_online(lawyer_id, is_online=is_online, at_ms=at_ms), lawyer_id)

    async def set_away(self, lawyer_id: str, *, online_at_ms: int) -> bool:
        """Billing's `Lawyers` port: offline for not answering, unless the lawyer has come online again since."""
        return await self._profiles.set_away(lawyer_id, online_at_ms=online_at_ms)

    async def change_profile(self, lawyer_id: str, change: ProfileChange) -> LawyerProfile:
        """Write the named fields. A new name or bar council number asks for a new verification: the old
        one was given to somebody else's papers. A running session keeps its rate.

        Raises:
            LawyerNotFound: this account has no lawyer's profile.
        """
        if change.specializations is not None:
            change = replace(change, specializations=distinct(change.specializations))
        if change.languages is not None:
            change = replace(change, languages=distinct(change.languages))
        while True:
            profile = _found(await self._profiles.get(lawyer_id), lawyer_id)
            if profile.is_suspended:
                raise LawyerNotFound(lawyer=lawyer_id)
            changed = await self._profiles.change(
                lawyer_id, change, drop_verification=change.asks_new_verification(profile), expect=profile
            )
            if changed is not None:
                return changed
            # Another device changed the name or the number in between: decide again on what it wrote.

    async def own(self, lawyer_id: str) -> LawyerCard:
        """The caller's own profile, verified or not.

        Raises:
            LawyerNotFound: this account has no lawyer's profile.
        """
        await self._ratings.settle(lawyer_id)
        return await self.card(_found(await self._profiles.get(lawyer_id), lawyer_id))

    async def look_up(self, lawyer_id: str, *, viewer_id: str, viewer_is_admin: bool) -> LawyerCard:
        """A lawyer as this viewer may see one.

        Raises:
            LawyerNotFound: no such lawyer, or not verified or suspended, and neither the viewer's self nor
            an admin's to see.
        """
        card = await self.own(lawyer_id)
        is_shown = card.profile.is_verified and not card.profile.is_suspended
        if not (is_shown or viewer_is_admin or viewer_id == lawyer_id):
            raise LawyerNotFound(lawyer=lawyer_id)
        return card

    async def search(
        self, wanted: LawyerFilter, *, sort: LawyerSort, limit: int, after: Place | None
    ) -> LawyerPage:
        """Verified lawyers that match, best rated or cheapest first."""
        await self._ratings.settle()
        cards: list[LawyerCard] = []
        batch_size = limit + 1 if wanted.free is None else max(limit + 1, _BUSY_BATCH)
        for _ in range(_BUSY_ROUNDS):
            batch = await self._profiles.search(wanted, sort=sort, limit=batch_size, after=after)
            busy = await self._busy_among(batch)
            for seen, profile in enumerate(batch, start=1):
                is_busy = profile.id in busy
                after = _place(profile, sort)
                if wanted.free is None or wanted.free is not is_busy:
                    cards.append(LawyerCard(profile, is_busy))
                if len(cards) == limit:
                    is_last = seen == len(batch) < batch_size
                    return LawyerPage(cards, None if is_last else after)
            if len(batch) < batch_size:
                return LawyerPage(cards, None)
        return LawyerPage(cards, after)

    async def queue(
        self, *, is_verified: bool | None, is_decided: bool | None, limit: int, after: Place | None
    ) -> QueuePage:
        """Lawyers for the admin, the longest waiting first."""
        found = await self._profiles.queue(
            is_verified=is_verified, is_decided=is_decided, limit=limit + 1, after=after
        )
        page = found[:limit]
        emails = await self._accounts.emails([profile.id for profile in page])
        busy = await self._busy_among(page)
        applicants = [
            Applicant(LawyerCard(profile, profile.id in busy), emails[profile.id])
            for profile in page
            if profile.id in emails
        ]
        has_more = len(found) > limit
        return QueuePage(applicants, Place(page[-1].created_at_ms, page[-1].id) if has_more else None)

    async def terms(self, lawyer_id: str) -> LawyerTerms | None:
        """What the start of a consultation must know, as stored at this moment. A suspended lawyer is none."""
        profile = await self._profiles.get(lawyer_id)
        if profile is None or profile.is_suspended:
            return None
        return LawyerTerms(
            id=profile.id,
            rate_minor_per_min=profile.rate_minor_per_min,
            is_verified=profile.is_verified,
            is_online=profile.is_online,
            auto_accept=profile.auto_accept,
            has_waiting_list=profile.waiting_list,
            online_at_ms=profile.online_at_ms,
        )

    async def card(self, profile: LawyerProfile) -> LawyerCard:
        """The profile, and whether its lawyer is being served right now."""
        return LawyerCard(profile, profile.id in await self._busy_among([profile]))

    async def _busy_among(self, profiles: Sequence[LawyerProfile]) -> set[str]:
        claims = {f"lawyer:{profile.id}": profile.id for profile in profiles}
        return {claims[person] for person in await self._busy.held(list(claims))}


def _found(profile: LawyerProfile | None, lawyer_id: str) -> LawyerProfile:
    if profile is None:
        raise LawyerNotFound(lawyer=lawyer_id)
    return profile


def _place(profile: LawyerProfile, sort: LawyerSort) -> Place:
    """Where a page that ends with this profile goes on. Unrated lawyers sort as 0."""
    value = (profile.rating.centi or 0) if sort is LawyerSort.RATING else profile.rate_minor_per_min
    return Place(value, profile.id)
