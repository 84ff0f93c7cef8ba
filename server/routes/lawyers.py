"""Lawyers: register, be found, go online, edit the profile. Paths with a fixed word stand before
`/lawyer/{lawyer_id}`.
"""

from typing import Final

from billing_engine.errors import InvariantBroken
from server.auth.accounts import Accounts
from server.auth.errors import EmailTaken, PasswordsBusy
from server.auth.model import Role
from server.auth.sign_ins import SignIns
from server.errors import ValidationFailed
from server.people.errors import LawyerNotFound
from server.people.model import LawyerFilter, Place, ProfileChange
from server.people.service import LawyerService, Registration
from server.people.wire import (
    AvailabilityBody,
    LawyersQuery,
    LawyerView,
    ProfileBody,
    RegisterLawyerBody,
    rate_minor,
)
from server.routes.auth import REGISTRATION, AccountView, SignedInView, TokensView
from server.routing import PUBLIC, SIGNED_IN, Call, Route, only
from server.wire import Page, decode_cursor, encode_cursor


class RegisteredLawyerView(SignedInView):
    """The account with its first tokens, and the profile that waits for an admin."""

    lawyer: LawyerView


async def register(call: Call[RegisterLawyerBody, None]) -> RegisteredLawyerView:
    lawyers: LawyerService = call.services.lawyers
    accounts: Accounts = call.services.accounts
    sign_ins: SignIns = call.services.sign_ins
    body = call.body
    profile = await lawyers.register(
        Registration(
            email=body.email,
            password=body.password,
            name=body.name,
            rate_minor_per_min=rate_minor(body.rate_per_minute, call.services.asset, field="ratePerMinute"),
            specializations=tuple(body.specializations),
            languages=tuple(body.languages),
            bar_council_number=body.bar_council_number,
            bio=body.bio,
        )
    )
    account = await accounts.get(profile.id)
    if account is None:
        raise InvariantBroken(lawyer=profile.id, problem="registered without an account")
    pair = await sign_ins.open(account)
    return RegisteredLawyerView(
        user=AccountView.of(account),
        **TokensView.of(pair).model_dump(by_alias=False),
        lawyer=LawyerView.own(await lawyers.card(profile), call.services.asset),
    )


async def set_availability(call: Call[AvailabilityBody, None]) -> LawyerView:
    lawyers: LawyerService = call.services.lawyers
    profile = await lawyers.set_availability(call.caller.user_id, is_online=call.body.is_online)
    call.services.waiting.look(profile.id)
    return LawyerView.own(await lawyers.card(profile), call.services.asset)


async def own_profile(call: Call[None, None]) -> LawyerView:
    lawyers: LawyerService = call.services.lawyers
    return LawyerView.own(await lawyers.own(call.caller.user_id), call.services.asset)


async def change_profile(call: Call[ProfileBody, None]) -> LawyerView:
    lawyers: LawyerService = call.services.lawyers
    body = call.body
    rate = body.rate_per_minute
    change = ProfileChange(
        name=body.name,
        rate_minor_per_min=None
        if rate is None
        else rate_minor(rate, call.services.asset, field="ratePerMinute"),
        specializations=None if body.specializations is None else tuple(body.specializations),
        languages=None if body.languages is None else tuple(body.languages),
        bar_council_number=body.bar_council_number,
        bio=body.bio,
        auto_accept=body.auto_accept,
        waiting_list=body.waiting_list,
    )
    profile = await lawyers.change_profile(call.caller.user_id, change)
    call.services.waiting.look(profile.id)
    return LawyerView.own(await lawyers.card(profile), call.services.asset)


async def search(call: Call[None, LawyersQuery]) -> Page[LawyerView]:
    lawyers: LawyerService = call.services.lawyers
    query = call.query
    max_rate = query.max_rate
    wanted = LawyerFilter(
        online=query.online,
        free=query.free,
        specialization=query.specialization,
        language=query.language,
        max_rate_minor_per_min=None
        if max_rate is None
        else rate_minor(max_rate, call.services.asset, field="maxRate"),
        min_rating_centi=query.min_rating,
    )
    page = await lawyers.search(
        wanted, sort=query.sort, limit=query.limit, after=_place(query.cursor, query.sort)
    )
    return Page[LawyerView](
        items=[LawyerView.public(card, call.services.asset) for card in page.cards],
        next_cursor=None
        if page.next is None
        else encode_cursor(query.sort.value, page.next.value, page.next.id),
    )


async def look_up(call: Call[None, None]) -> LawyerView:
    lawyers: LawyerService = call.services.lawyers
    caller, lawyer_id = call.caller, call.path["lawyer_id"]
    is_admin = caller.role is Role.ADMIN
    card = await lawyers.look_up(lawyer_id, viewer_id=caller.user_id, viewer_is_admin=is_admin)
    if is_admin:
        return LawyerView.for_admin(card, call.services.asset)
    return (LawyerView.own if caller.user_id == lawyer_id else LawyerView.public)(card, call.services.asset)


def _place(cursor: str | None, sort: str) -> Place | None:
    """Where the page begins. A cursor belongs to the order it was made in: in another one it would skip
    people.
    """
    if cursor is None:
        return None
    made_in, value, id_ = decode_cursor(cursor, str, int, str)
    if made_in != sort:
        raise ValidationFailed([("cursor", f"is one of a list sorted by {made_in}")])
    return Place(value, id_)


ROUTES: Final = (
    Route(
        method="POST",
        path="/lawyer/register",
        handler=register,
        summary="Open a lawyer's account; an admin verifies it",
        access=PUBLIC,
        body=RegisterLawyerBody,
        response=RegisteredLawyerView,
        status=201,
        errors=(EmailTaken, PasswordsBusy),
        tags=("lawyers",),
        rate=REGISTRATION,
    ),
    Route(
        method="PATCH",
        path="/lawyer/availability",
        handler=set_availability,
        summary="Go online or offline; a running consultation goes on",
        access=only(Role.LAWYER),
        body=AvailabilityBody,
        response=LawyerView,
        errors=(LawyerNotFound,),
        tags=("lawyers",),
    ),
    Route(
        method="GET",
        path="/lawyer/profile",
        handler=own_profile,
        summary="My profile, with the admin's verdict",
        access=only(Role.LAWYER),
        response=LawyerView,
        errors=(LawyerNotFound,),
        tags=("lawyers",),
    ),
    Route(
        method="PATCH",
        path="/lawyer/profile",
        handler=change_profile,
        summary="Change my profile; a new name or bar council number waits for a new verification",
        access=only(Role.LAWYER),
        body=ProfileBody,
        response=LawyerView,
        errors=(LawyerNotFound,),
        tags=("lawyers",),
    ),
    Route(
        method="GET",
        path="/lawyers",
        handler=search,
        summary="Find verified lawyers; a page may be short, only a null `nextCursor` is the end",
        access=SIGNED_IN,
        query=LawyersQuery,
        response=Page[LawyerView],
        tags=("lawyers",),
    ),
    Route(
        method="GET",
        path="/lawyer/{lawyer_id}",
        handler=look_up,
        summary="One lawyer",
        access=SIGNED_IN,
        response=LawyerView,
        errors=(LawyerNotFound,),
        tags=("lawyers",),
    ),
)
