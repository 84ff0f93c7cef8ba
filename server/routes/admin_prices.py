"""What metered usage costs: the companies' list, and the admins' side of it (SPEC 9)."""

from typing import Annotated, Any, Final

from pydantic import Field, StringConstraints

from billing_engine.money import Asset, format_minor, parse_minor
from billing_engine.usage.errors import (
    PriceChangeExists,
    PriceListUnknown,
    UsagePriceInvalid,
    UsageTypeFixed,
)
from billing_engine.usage.prices import PriceBook, PriceView, WantedPrice
from billing_engine.usage.pricing import ENTRY_TYPE, LIST_NAME, PER_MAX, TYPE, UNIT, PriceRow
from server.admin.wire import InstantIn
from server.auth.model import CompanyRight, Role
from server.people.wire import Reason
from server.routing import Audited, Call, Route, company, only
from server.wire import CompanyMoneyIn, Instant, MoneyOut, WireModel, described

#: Past changes of one price that an admin sees at once.
_SHOWN: Final = 50

ListName = Annotated[str, StringConstraints(pattern=f"^{LIST_NAME}$"), described(examples=["tokens"])]
UsageType = Annotated[str, StringConstraints(pattern=f"^{TYPE}$"), described(examples=["cv-parsing"])]


class PricesQuery(WireModel):
    """One list of the price book, or all."""

    list_name: ListName | None = Field(default=None, alias="list")


class CompanyPriceOut(WireModel):
    """A type of usage costs `price` for every `per` units; `entryType` is its word in the ledger."""

    list_name: str = Field(alias="list")
    type: str
    entry_type: str
    unit: str
    price: MoneyOut
    per: int
    currency: str
    since: Instant


class CompanyPricesOut(WireModel):
    """The prices of now."""

    items: list[CompanyPriceOut]


class PriceChangeLineOut(WireModel):
    """A change, past or to come. `fromPrice` and `fromPer` are null where the type begins, `changedBy` where the file brought it."""

    from_price: MoneyOut | None
    from_per: int | None
    price: MoneyOut
    per: int
    effective_from: Instant
    changed_by: str | None
    reason: str
    created_at: Instant


class UsagePriceOut(WireModel):
    """A type of usage by one list. `price`, `per` and `since` are null while it has not begun.

    `upcoming` has the next change first, and `history` the last one first.
    """

    list_name: str = Field(alias="list")
    type: str
    entry_type: str
    unit: str
    price: MoneyOut | None
    per: int | None
    currency: str
    since: Instant | None
    upcoming: list[PriceChangeLineOut]
    history: list[PriceChangeLineOut]


class UsagePricesOut(WireModel):
    """The price book as it is stored."""

    items: list[UsagePriceOut]


class UsagePriceIn(WireModel):
    """A price from `effectiveFrom` on, or from a few seconds from now.

    `per` stays where it is left out; a new type needs `entryType` and `unit`.
    """

    list_name: ListName = Field(alias="list")
    type: UsageType
    price: CompanyMoneyIn
    per: Annotated[int, Field(ge=1, le=PER_MAX)] | None = None
    unit: Annotated[str, StringConstraints(pattern=f"^{UNIT}$")] | None = None
    entry_type: Annotated[str, StringConstraints(pattern=f"^{ENTRY_TYPE}$")] | None = None
    effective_from: InstantIn | None = None
    reason: Reason


async def prices(call: Call[None, PricesQuery]) -> CompanyPricesOut:
    book = _book(call)
    rows = await book.current(call.query.list_name)
    return CompanyPricesOut(items=[_company_price(row, book.asset) for row in rows])


async def usage_prices(call: Call[None, PricesQuery]) -> UsagePricesOut:
    book = _book(call)
    views = await book.view(call.query.list_name)
    return UsagePricesOut(items=[_usage_price(view, book.asset) for view in views])


async def change(call: Call[UsagePriceIn, None]) -> UsagePriceOut:
    book = _book(call)
    row = await book.change(_wanted(call))
    views = await book.view(row.list_name)
    (view,) = (view for view in views if view.type == row.type)
    return _usage_price(view, book.asset)


async def standing(call: Call[UsagePriceIn, None]) -> dict[str, Any]:
    """What a change follows and, once it is written, what is to come, for the audit log. Raises what the change would."""
    book = _book(call)
    wanted = _wanted(call)
    await book.check(wanted)
    views = await book.view(wanted.list_name)
    found = [view for view in views if view.type == wanted.type]
    if not found:
        return {"price": None, "upcoming": []}
    shown = _usage_price(found[0], book.asset).model_dump(by_alias=True, mode="json")
    return {name: shown[name] for name in ("price", "per", "since", "upcoming")}


def _book(call: Call[Any, Any]) -> PriceBook:
    book: PriceBook = call.services.prices
    return book


def _wanted(call: Call[UsagePriceIn, None]) -> WantedPrice:
    """Raises `MoneyInvalid`."""
    body = call.body
    return WantedPrice(
        id=call.operation_id,
        list_name=body.list_name,
        type=body.type,
        price_minor=parse_minor(body.price, _book(call).asset, field="price"),
        by=call.caller.user_id,
        reason=body.reason,
        per=body.per,
        unit=body.unit,
        entry_type=body.entry_type,
        from_ms=body.effective_from,
    )


def _company_price(row: PriceRow, asset: Asset) -> CompanyPriceOut:
    return CompanyPriceOut(
        list_name=row.list_name,
        type=row.type,
        entry_type=row.entry_type,
        unit=row.unit,
        price=format_minor(row.price_minor, asset),
        per=row.per,
        currency=asset.code,
        since=row.since_ms,
    )


def _usage_price(view: PriceView, asset: Asset) -> UsagePriceOut:
    before = (None, *view.rows)
    lines = [
        (row.from_ms, _line(previous, row, asset)) for previous, row in zip(before, view.rows, strict=False)
    ]
    now = view.now
    return UsagePriceOut(
        list_name=view.list_name,
        type=view.type,
        entry_type=view.rows[0].entry_type,
        unit=view.rows[0].unit,
        price=None if now is None else format_minor(now.price_minor, asset),
        per=None if now is None else now.per,
        currency=asset.code,
        since=None if now is None else now.since_ms,
        upcoming=[line for from_ms, line in lines if from_ms > view.at_ms],
        history=[line for from_ms, line in reversed(lines) if from_ms <= view.at_ms][:_SHOWN],
    )


def _line(previous: PriceRow | None, row: PriceRow, asset: Asset) -> PriceChangeLineOut:
    return PriceChangeLineOut(
        from_price=None if previous is None else format_minor(previous.price_minor, asset),
        from_per=None if previous is None else previous.per,
        price=format_minor(row.price_minor, asset),
        per=row.per,
        effective_from=row.since_ms,
        changed_by=row.by,
        reason=row.reason,
        created_at=row.created_at_ms,
    )


_TAGS: Final = ("usage prices",)
ROUTES: Final = (
    Route(
        method="GET",
        path="/api/prices",
        handler=prices,
        summary="What metered usage costs now, by every list",
        # Whoever may report usage may know what it costs.
        access=company(CompanyRight.READ, admins=True),
        query=PricesQuery,
        response=CompanyPricesOut,
        errors=(PriceListUnknown,),
        tags=_TAGS,
    ),
    Route(
        method="GET",
        path="/admin/usage-prices",
        handler=usage_prices,
        summary="The price book: prices of now, changes to come, and history",
        access=only(Role.ADMIN),
        query=PricesQuery,
        response=UsagePricesOut,
        errors=(PriceListUnknown,),
        tags=_TAGS,
    ),
    Route(
        method="PUT",
        path="/admin/usage-prices",
        handler=change,
        summary="Change a price from an instant to come on, or add a type of usage to a list",
        access=only(Role.ADMIN),
        body=UsagePriceIn,
        response=UsagePriceOut,
        errors=(PriceListUnknown, UsagePriceInvalid, UsageTypeFixed, PriceChangeExists),
        idempotent=True,
        audit=Audited("usage.price", "type", standing),
        tags=_TAGS,
    ),
)
