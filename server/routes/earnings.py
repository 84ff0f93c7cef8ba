"""What a lawyer earned, as the ledger has it."""

from typing import Final

from server.auth.model import Role
from server.people.earnings import EarningsService
from server.people.wire import EarningsSummaryView, EarningView
from server.routing import Call, Route, only
from server.wire import Page, PageQuery, encode_cursor, time_place


async def summary(call: Call[None, None]) -> EarningsSummaryView:
    earnings: EarningsService = call.services.earnings
    return EarningsSummaryView.of(await earnings.summary(call.caller.user_id), call.services.asset)


async def rows(call: Call[None, PageQuery]) -> Page[EarningView]:
    earnings: EarningsService = call.services.earnings
    limit = call.query.limit
    found = await earnings.rows(call.caller.user_id, limit=limit + 1, before=time_place(call.query.cursor))
    shown = found[:limit]
    has_more = len(found) > limit
    return Page[EarningView](
        items=[EarningView.of(row, call.services.asset) for row in shown],
        next_cursor=encode_cursor(shown[-1].at_ms, shown[-1].key) if has_more else None,
    )


ROUTES: Final = (
    Route(
        method="GET",
        path="/lawyer/earnings/summary",
        handler=summary,
        summary="My earnings in total, today and this month",
        access=only(Role.LAWYER),
        response=EarningsSummaryView,
        tags=("earnings",),
    ),
    Route(
        method="GET",
        path="/lawyer/earnings",
        handler=rows,
        summary="My earnings, one row a consultation, newest first",
        access=only(Role.LAWYER),
        query=PageQuery,
        response=Page[EarningView],
        tags=("earnings",),
    ),
)
