"""The user's wallet (SPEC 3)."""

from typing import Annotated, Any

from billing_engine.consultations.billing import ENTRY_KIND
from billing_engine.ledger.model import Entry
from billing_engine.ledger.ports import Line
from billing_engine.money import Asset, format_minor, parse_minor
from billing_engine.wallets.service import RECHARGE, AmountOutOfRange
from server.auth.model import Role
from server.rate_limits.service import Limited, RateLimit
from server.routing import Call, Route, only
from server.wire import (
    Instant,
    MoneyIn,
    MoneyOut,
    Page,
    PageQuery,
    WireModel,
    encode_cursor,
    one_of,
    time_place,
)


class RechargeIn(WireModel):
    """How much to add."""

    amount: MoneyIn


class TransactionOut(WireModel):
    """One row of the wallet. `amount` is positive, `type` says in which direction it went."""

    id: str
    type: Annotated[str, one_of(("CREDIT", "DEBIT"))]
    kind: Annotated[str, one_of(kind.upper() for kind in (RECHARGE, ENTRY_KIND))]
    amount: MoneyOut
    currency: str
    balance_before: MoneyOut
    balance_after: MoneyOut
    reference_id: str
    status: Annotated[str, one_of(("COMPLETED",))]
    created_at: Instant


class RechargeOut(WireModel):
    """A recharge that is credited: the gateway's payment and the wallet as it was right after."""

    payment_id: str
    status: Annotated[str, one_of(("PAID",))]
    amount: MoneyOut
    currency: str
    wallet_balance: MoneyOut
    transaction: TransactionOut


class BalanceOut(WireModel):
    """`walletBalance` may be spent now; `held` is set aside for a running consultation."""

    wallet_balance: MoneyOut
    held: MoneyOut
    currency: str


async def recharge(call: Call[RechargeIn, None]) -> RechargeOut:
    wallets = call.services.wallets
    asset: Asset = wallets.asset
    entry: Entry = await wallets.recharge(
        user_id=call.caller.user_id,
        amount_minor=parse_minor(call.body.amount, asset),
        operation_id=call.operation_id,
    )
    # From the entry's own record, so that a repeat answers what the first one did and not the balance of now.
    amount_minor = entry.posted_after - entry.posted_before
    return RechargeOut(
        payment_id=entry.reference,
        status="PAID",
        amount=format_minor(amount_minor, asset),
        currency=asset.code,
        wallet_balance=format_minor(entry.posted_after - entry.facts["held"], asset),
        transaction=_transaction(
            key=entry.key,
            kind=entry.kind,
            change_minor=amount_minor,
            after_minor=entry.posted_after,
            reference=entry.reference,
            at_ms=entry.at_ms,
            asset=asset,
        ),
    )


async def balance(call: Call[None, None]) -> BalanceOut:
    wallets = call.services.wallets
    found = await wallets.balance(call.caller.user_id)
    return BalanceOut(
        wallet_balance=format_minor(found.spendable_minor, wallets.asset),
        held=format_minor(found.held_minor, wallets.asset),
        currency=wallets.asset.code,
    )


async def transactions(call: Call[None, PageQuery]) -> Page[TransactionOut]:
    wallets = call.services.wallets
    limit = call.query.limit
    lines: list[Line] = await wallets.transactions(
        call.caller.user_id, limit=limit + 1, before=time_place(call.query.cursor)
    )
    shown = lines[:limit]
    return Page[TransactionOut](
        items=[
            _transaction(
                key=line.key,
                kind=line.kind,
                change_minor=line.change_minor,
                after_minor=line.balance_after or 0,
                reference=line.reference,
                at_ms=line.at_ms,
                asset=wallets.asset,
            )
            for line in shown
        ],
        next_cursor=encode_cursor(shown[-1].at_ms, shown[-1].key) if len(lines) > limit else None,
    )


def _transaction(
    *, asset: Asset, change_minor: int, after_minor: int, key: str, reference: str, **row: Any
) -> TransactionOut:
    return TransactionOut(
        id=key.partition("|")[2],
        type="CREDIT" if change_minor > 0 else "DEBIT",
        kind=row["kind"].upper(),
        amount=format_minor(abs(change_minor), asset),
        currency=asset.code,
        balance_before=format_minor(after_minor - change_minor, asset),
        balance_after=format_minor(after_minor, asset),
        reference_id=reference.removeprefix("consult:"),
        status="COMPLETED",
        created_at=row["at_ms"],
    )


ROUTES: tuple[Route, ...] = (
    Route(
        method="POST",
        path="/wallet/recharge",
        handler=recharge,
        summary="Add money to the wallet",
        access=only(Role.USER),
        body=RechargeIn,
        response=RechargeOut,
        status=201,
        errors=(AmountOutOfRange,),
        rate=RateLimit(Limited.RECHARGE, account=lambda call: str(call.caller.user_id)),
        idempotent=True,
        tags=("wallet",),
    ),
    Route(
        method="GET",
        path="/wallet/balance",
        handler=balance,
        summary="What may be spent now, and what is held",
        access=only(Role.USER),
        response=BalanceOut,
        tags=("wallet",),
    ),
    Route(
        method="GET",
        path="/wallet/transactions",
        handler=transactions,
        summary="The wallet's history, newest first",
        access=only(Role.USER),
        query=PageQuery,
        response=Page[TransactionOut],
        tags=("wallet",),
    ),
)
