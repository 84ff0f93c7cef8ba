"""The admin's side of lawyers: the queue and the verdict."""

from typing import Any, Final

from server.auth.model import Role
from server.errors import ValidationFailed
from server.people.errors import LawyerNotFound, PapersChanged
from server.people.model import Place
from server.people.service import LawyerService
from server.people.wire import ApplicantView, LawyerView, QueueQuery, VerifyBody
from server.routing import Audited, Call, Route, only
from server.wire import Page, encode_cursor, time_place


async def queue(call: Call[None, QueueQuery]) -> Page[ApplicantView]:
    lawyers: LawyerService = call.services.lawyers
    place = time_place(call.query.cursor)
    page = await lawyers.queue(
        is_verified=call.query.verified,
        is_decided=call.query.decided,
        limit=call.query.limit,
        after=None if place is None else Place(*place),
    )
    return Page[ApplicantView](
        items=[ApplicantView.of(applicant, call.services.asset) for applicant in page.applicants],
        next_cursor=None if page.next is None else encode_cursor(page.next.value, page.next.id),
    )


async def verify(call: Call[VerifyBody, None]) -> LawyerView:
    lawyers: LawyerService = call.services.lawyers
    verdict = call.body
    if not verdict.is_verified and verdict.reason is None:
        # The lawyer is told why, or could not put it right.
        raise ValidationFailed([("reason", "is required when isVerified is false")])
    profile = await lawyers.verify(
        call.path["lawyer_id"],
        by=call.caller.user_id,
        is_verified=verdict.is_verified,
        reason=verdict.reason,
        bar_council_number=verdict.bar_council_number,
    )
    return LawyerView.for_admin(await lawyers.card(profile), call.services.asset)


async def papers(call: Call[VerifyBody, None]) -> dict[str, Any]:
    """What a verdict is on, for the audit log. Raises `LawyerNotFound`."""
    lawyers: LawyerService = call.services.lawyers
    card = await lawyers.look_up(call.path["lawyer_id"], viewer_id=call.caller.user_id, viewer_is_admin=True)
    verdict = card.profile.verification
    return {
        "isVerified": card.profile.is_verified,
        "barCouncilNumber": card.profile.bar_council_number,
        "reason": None if verdict is None else verdict.reason,
    }


ROUTES: Final = (
    Route(
        method="GET",
        path="/admin/lawyers",
        handler=queue,
        summary="Lawyers by age, the longest waiting first; `?verified=false` is the queue",
        access=only(Role.ADMIN),
        query=QueueQuery,
        response=Page[ApplicantView],
        tags=("lawyers", "admin"),
    ),
    Route(
        method="PATCH",
        path="/lawyer/{lawyer_id}/verify",
        handler=verify,
        summary="Verify a lawyer, or reject one with a reason",
        access=only(Role.ADMIN),
        body=VerifyBody,
        response=LawyerView,
        errors=(LawyerNotFound, PapersChanged),
        audit=Audited("lawyer.verify", "lawyer_id", papers),
        tags=("lawyers", "admin"),
    ),
)
