"""The user's prepaid wallet: recharge, balance, history (SPEC 3)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from billing_engine.errors import Invalid
from billing_engine.ledger.accounts import gateway_of, wallet_of
from billing_engine.ledger.model import Entry, Movement, Transfer
from billing_engine.ledger.ports import Line
from billing_engine.ledger.service import Ledger
from billing_engine.money import Asset, format_minor
from billing_engine.wallets.ports import InstantGateway

RECHARGE: Final = "recharge"


class AmountOutOfRange(Invalid):
    """A recharge below the minimum or above the maximum."""


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


class Wallets:
    """The wallet's use cases. `on_recharged` hears of every credit after it is durable."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        gateway: InstantGateway,
        rules: WalletRules,
        on_recharged: Callable[[str], None],
    ) -> None:
        self._ledger = ledger
        self._gateway = gateway
        self._rules = rules
        self._on_recharged = on_recharged

    @property
    def asset(self) -> Asset:
        """The wallet's currency."""
        return self._rules.asset

    async def recharge(self, *, user_id: str, amount_minor: int, operation_id: str) -> Entry:
        """Collect and credit, once per operation; a running session is extended at once.

        Raises:
            AmountOutOfRange: outside the bounds; nothing was collected.
        """
        low, high = self._rules.recharge_min_minor, self._rules.recharge_max_minor
        if not low <= amount_minor <= high:
            bounds = f"{format_minor(low, self.asset)} to {format_minor(high, self.asset)}"
            raise AmountOutOfRange(field="amount", problem=f"must be from {bounds}")
        payment = await self._gateway.charge(
            reference=operation_id, amount_minor=amount_minor, currency=self.asset.code
        )
        wallet = wallet_of(user_id)
        entry = await self._ledger.post(
            Movement(
                account=wallet,
                source=f"payment:{payment.gateway}:{payment.id}",
                kind=RECHARGE,
                asset=self.asset.code,
                reference=payment.id,
                transfers=(Transfer(gateway_of(payment.gateway), wallet, amount_minor, RECHARGE),),
            )
        )
        self._on_recharged(user_id)
        return entry

    async def balance(self, user_id: str) -> Balance:
        """Spendable and held money; a store that cannot be read raises, it is never a zero."""
        account = await self._ledger.account(wallet_of(user_id), self.asset.code)
        return Balance(account.spendable, account.held)

    async def transactions(self, user_id: str, *, limit: int, before: tuple[int, str] | None) -> list[Line]:
        """The wallet's lines, newest first."""
        return await self._ledger.lines(wallet_of(user_id), limit=limit, before=before)
