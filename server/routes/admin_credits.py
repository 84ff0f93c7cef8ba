"""The admins' side of credits: look, adjust, and set the price (SPEC 8)."""

from typing import Annotated, Any, Final

from pydantic import AfterValidator, Field

from billing_engine.credits.book import ADJUSTMENT_MAX
from billing_engine.credits.errors import AdjustmentInvalid, InsufficientCredits, NoCredits, PriceInvalid
from billing_engine.credits.model import Adjustment
from billing_engine.credits.pricing import PriceChange
from billing_engine.money import Asset, format_minor, parse_minor
from server.admin.errors import AccountNotFound
from server.auth.model import Account, Profession, Role
from server.people.wire import Reason
from server.routes.credits import CreditBalanceOut, CreditLineOut, room_of
from server.routing import Audited, Call, Route, only
from server.wire import Id, Instant, MoneyIn, MoneyOut, SnakeModel

#: Lines of a user's history that an admin sees at once, and changes of the price.
_SHOWN: Final = 20


def _not_nothing(amount: int) -> int:
    if amount == 0:
        raise ValueError("must not be 0")
    return amount


class UserCreditsOut(CreditBalanceOut):
    """A freelancer's credits, and the last lines of their history."""

    user_id: str
    email: str
    name: str
    profession: Profession | None
    is_disabled: bool
    history: list[CreditLineOut]


class AdjustIn(SnakeModel):
    """How many credits to add (to take, below 0), and why."""

    user_id: Id
    amount: Annotated[int, Field(ge=-ADJUSTMENT_MAX, le=ADJUSTMENT_MAX), AfterValidator(_not_nothing)]
    reason: Reason


class AdjustedOut(SnakeModel):
    """What was done, and the balance right after it."""

    id: str
    user_id: str
    amount: int
    reason: str
    credits_balance: int
    adjusted_by: str
    created_at: Instant


class PriceIn(SnakeModel):
    """What a credit costs from the next call on."""

    price_per_credit: MoneyIn


class PriceChangeOut(SnakeModel):
    """A change of the price."""

    from_price: MoneyOut
    to_price: MoneyOut
    changed_by: str
    changed_at: Instant


class CreditSettingsOut(SnakeModel):
    """The price of now, and how it has changed: the last changes, the newest first."""

    price_per_credit: MoneyOut
    currency: str
    changes: list[PriceChangeOut]


async def _freelancer(call: Call[Any, Any], user_id: str) -> Account:
    """Raises `AccountNotFound`, `NoCredits`."""
    account: Account = await call.services.admin.account(user_id)
    if account.role is not Role.FREELANCER:
        raise NoCredits(user=user_id)
    return account


async def user(call: Call[None, None]) -> UserCreditsOut:
    account = await _freelancer(call, call.path["user_id"])
    book = room_of(call).book
    lines, _ = await book.history(account.id, page=1, limit=_SHOWN)
    return UserCreditsOut.of(
        await book.balance(account.id),
        user_id=account.id,
        email=account.email,
        name=account.name,
        profession=account.profession,
        is_disabled=account.is_disabled,
        history=[CreditLineOut.of(line) for line in lines],
    )


async def adjust(call: Call[AdjustIn, None]) -> AdjustedOut:
    account = await _freelancer(call, call.body.user_id)
    wanted = Adjustment(
        id=call.operation_id,
        user_id=account.id,
        amount=call.body.amount,
        reason=call.body.reason,
        by=call.caller.user_id,
    )
    entry = await room_of(call).book.adjust(wanted)
    return AdjustedOut(
        id=wanted.id,
        user_id=account.id,
        amount=wanted.amount,
        reason=entry.facts["reason"],
        credits_balance=entry.posted_after,
        adjusted_by=entry.facts["by"],
        created_at=entry.at_ms,
    )


async def standing(call: Call[AdjustIn, None]) -> dict[str, Any]:
    """What an adjustment changes, for the audit log. Raises `AccountNotFound`, `NoCredits`."""
    account = await _freelancer(call, call.body.user_id)
    return {"creditsBalance": (await room_of(call).book.balance(account.id)).balance}


async def settings(call: Call[Any, None]) -> CreditSettingsOut:
    prices = room_of(call).prices
    changes = await prices.changes(limit=_SHOWN)
    now = changes[0] if changes else await prices.current()
    return CreditSettingsOut(
        price_per_credit=format_minor(now.price_minor, prices.asset),
        currency=prices.asset.code,
        changes=[_change(change, prices.asset) for change in changes],
    )


async def set_price(call: Call[PriceIn, None]) -> CreditSettingsOut:
    await room_of(call).prices.change(_wanted_minor(call), by=call.caller.user_id)
    return await settings(call)


def _wanted_minor(call: Call[PriceIn, None]) -> int:
    """Raises `MoneyInvalid`, `PriceInvalid`."""
    prices = room_of(call).prices
    price_minor = parse_minor(call.body.price_per_credit, prices.asset, field="price_per_credit")
    prices.check(price_minor)
    return price_minor


async def price_now(call: Call[PriceIn, None]) -> dict[str, Any]:
    """What a new price changes, for the audit log. What is no price is no act of anybody, and is refused here."""
    _wanted_minor(call)
    prices = room_of(call).prices
    return {"pricePerCredit": format_minor((await prices.current()).price_minor, prices.asset)}


def _change(change: PriceChange, asset: Asset) -> PriceChangeOut:
    return PriceChangeOut(
        from_price=format_minor(change.from_minor or 0, asset),
        to_price=format_minor(change.price_minor, asset),
        changed_by=change.by or "",
        changed_at=change.at_ms or 0,
    )


_ADMIN: Final = only(Role.ADMIN)
_TAGS: Final = ("credits",)
ROUTES: Final = (
    Route(
        method="GET",
        path="/admin/credits/user/{user_id}",
        handler=user,
        summary="A freelancer's credits, with the last lines of their history",
        access=_ADMIN,
        response=UserCreditsOut,
        errors=(AccountNotFound, NoCredits),
        tags=_TAGS,
    ),
    Route(
        method="POST",
        path="/admin/credits/adjust",
        handler=adjust,
        summary="Add credits to a freelancer, or take some, never below zero",
        access=_ADMIN,
        body=AdjustIn,
        response=AdjustedOut,
        errors=(AccountNotFound, NoCredits, AdjustmentInvalid, InsufficientCredits),
        idempotent=True,
        audit=Audited("credits.adjust", "user_id", standing),
        tags=_TAGS,
    ),
    Route(
        method="GET",
        path="/admin/credits/settings",
        handler=settings,
        summary="What a credit costs, and how that has changed",
        access=_ADMIN,
        response=CreditSettingsOut,
        tags=_TAGS,
    ),
    Route(
        method="PUT",
        path="/admin/credits/settings",
        handler=set_price,
        summary="Set what a credit costs, for everybody from the next call on; orders keep their price",
        access=_ADMIN,
        body=PriceIn,
        response=CreditSettingsOut,
        errors=(PriceInvalid,),
        audit=Audited("credits.price", "credits.settings", price_now),
        tags=_TAGS,
    ),
)
