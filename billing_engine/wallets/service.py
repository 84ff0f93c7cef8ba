"""The user's prepaid wallet: recharge, balance, history (SPEC 3)."""

from dataclasses import dataclass
from typing import Final

from billing_engine.errors import InvariantBroken
from billing_engine.ledger.accounts import gateway_of, wallet_of
from billing_engine.ledger.model import Entry, Movement, Transfer
from billing_engine.ledger.ports import Line
from billing_engine.ledger.service import Ledger
from billing_engine.money import Asset, format_minor
from billing_engine.payments.errors import AmountOutOfRange
from billing_engine.payments.model import Payment, PaymentStatus, Purpose
from billing_engine.payments.service import Due, PaymentService

RECHARGE: Final = "recharge"


@dataclass(frozen=True, slots=True)
class WalletRules:
    """Bounds of one recharge, in smallest units of `asset`."""

    asset: Asset
    recharge_min_minor: int
    recharge_max_minor: int


@dataclass(frozen=True, slots=True)
class Balance:
    """What may be spent now and what open holds have set aside."""

    spendable_minor: int
    held_minor: int


def recharge_of(payment: Payment) -> Movement:
    """What a collected recharge moves. The gateway's payment is the key: it is credited once, whoever brings the news (LEDGER 2).

    Raises `InvariantBroken` for a payment that is not collected.
    """
    if payment.collected_id is None:
        raise InvariantBroken(rule="only what is collected is credited", payment=payment.id)
    return Movement(
        account=payment.account,
        source=_source(payment),
        kind=RECHARGE,
        asset=payment.currency,
        reference=payment.id,
        transfers=(Transfer(gateway_of(payment.gateway), payment.account, payment.amount_minor, RECHARGE),),
        facts={"gatewayPayment": payment.collected_id},
    )


def _source(payment: Payment) -> str:
    return f"payment:{payment.gateway}:{payment.collected_id}"


class Wallets:
    """The wallet's use cases. `gateway` is the name of the one that recharges are paid through."""

    def __init__(self, *, ledger: Ledger, payments: PaymentService, gateway: str, rules: WalletRules) -> None:
        self._ledger = ledger
        self._payments = payments
        self._gateway = gateway
        self._rules = rules

    @property
    def asset(self) -> Asset:
        """The wallet's currency."""
        return self._rules.asset

    @property
    def gateway(self) -> str:
        """The gateway's name."""
        return self._gateway

    async def recharge(
        self,
        *,
        user_id: str,
        amount_minor: int,
        operation_id: str,
        email: str = "",
        save_method: bool = False,
    ) -> Payment:
        """Ask to be paid, once per operation: with the simulated gateway it is PAID at once, with others it is an order to pay.

        Raises:
            AmountOutOfRange: outside the bounds; nothing was asked for.
            GatewayRefused: the gateway will not take it.
            Unavailable: nobody knows; a repeat finds what there is.
        """
        low, high = self._rules.recharge_min_minor, self._rules.recharge_max_minor
        if not low <= amount_minor <= high:
            bounds = f"{format_minor(low, self.asset)} to {format_minor(high, self.asset)}"
            raise AmountOutOfRange(field="amount", problem=f"must be from {bounds}")
        due = Due(
            purpose=Purpose.WALLET,
            payer_id=user_id,
            payer_email=email,
            account=wallet_of(user_id),
            amount_minor=amount_minor,
            currency=self.asset.code,
            description="Wallet recharge",
            save_method=save_method,
        )
        return await self._payments.begin(due, gateway=self._gateway, operation_id=operation_id)

    async def credit_of(self, payment: Payment) -> Entry | None:
        """The entry that a recharge made; None while it is not credited."""
        if payment.status not in (PaymentStatus.PAID, PaymentStatus.REFUNDED):
            return None
        entry = await self._ledger.entry(payment.account, _source(payment))
        if entry is None:
            raise InvariantBroken(rule="what is paid is credited", payment=payment.id)
        return entry

    async def balance(self, user_id: str) -> Balance:
        """Spendable and held money; a store that cannot be read raises, it is never a zero."""
        account = await self._ledger.account(wallet_of(user_id), self.asset.code)
        return Balance(account.spendable, account.held)

    async def transactions(self, user_id: str, *, limit: int, before: tuple[int, str] | None) -> list[Line]:
        """The wallet's lines, newest first."""
        return await self._ledger.lines(wallet_of(user_id), limit=limit, before=before)
