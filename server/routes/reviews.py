"""Reviews: written by the user of an ended consultation, read by everybody who may see the lawyer."""

from typing import Final

from server.auth.model import Role
from server.people.errors import AlreadyReviewed, LawyerNotFound, SessionNotEnded, SessionNotFound
from server.people.model import Place
from server.people.reviews import ReviewService
from server.people.service import LawyerService
from server.people.wire import ReviewBody, ReviewView
from server.routing import SIGNED_IN, Call, Reply, Route, only
from server.wire import Page, PageQuery, encode_cursor, time_place


async def post_review(call: Call[ReviewBody, None]) -> Reply:
    reviews: ReviewService = call.services.reviews
    review = await reviews.post(
        user_id=call.caller.user_id,
        session_id=call.body.session_id,
        stars=call.body.rating,
        comment=call.body.comment or None,
    )
    return Reply(ReviewView.of(review), status=201)


async def list_reviews(call: Call[None, PageQuery]) -> Page[ReviewView]:
    lawyers: LawyerService = call.services.lawyers
    reviews: ReviewService = call.services.reviews
    lawyer_id, limit = call.path["lawyer_id"], call.query.limit
    await lawyers.look_up(
        lawyer_id, viewer_id=call.caller.user_id, viewer_is_admin=call.caller.role is Role.ADMIN
    )
    place = time_place(call.query.cursor)
    found = await reviews.list_of(lawyer_id, limit=limit + 1, after=None if place is None else Place(*place))
    shown = found[:limit]
    has_more = len(found) > limit
    return Page[ReviewView](
        items=[ReviewView.of(review) for review in shown],
        next_cursor=encode_cursor(shown[-1].created_at_ms, shown[-1].session_id) if has_more else None,
    )


ROUTES: Final = (
    Route(
        method="POST",
        path="/review",
        handler=post_review,
        summary="Review a consultation after its end, once",
        access=only(Role.USER),
        body=ReviewBody,
        response=ReviewView,
        status=201,
        errors=(SessionNotFound, SessionNotEnded, AlreadyReviewed),
        tags=("reviews",),
    ),
    Route(
        method="GET",
        path="/lawyer/{lawyer_id}/reviews",
        handler=list_reviews,
        summary="A lawyer's reviews, newest first",
        access=SIGNED_IN,
        query=PageQuery,
        response=Page[ReviewView],
        errors=(LawyerNotFound,),
        tags=("reviews",),
    ),
)
