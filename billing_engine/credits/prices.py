"""The price of a credit, for everybody from the next call on (SPEC 8)."""

from collections.abc import Sequence

from billing_engine.clock import Clock
from billing_engine.credits.errors import PackageNotFound, PriceInvalid
from billing_engine.credits.ports import PriceLog
from billing_engine.credits.pricing import CreditPackage, Offer, PriceChange, offer_of
from billing_engine.errors import Unavailable
from billing_engine.ledger.rivals import ATTEMPTS, let_rivals_finish
from billing_engine.money import Asset, format_minor


class CreditPrices:
    """Packages at the price of now. `first_minor` is the price before any admin has set one."""

    def __init__(
        self,
        *,
        log: PriceLog,
        clock: Clock,
        asset: Asset,
        first_minor: int,
        packages: Sequence[CreditPackage],
    ) -> None:
        self._log = log
        self._clock = clock
        self._asset = asset
        self._first = PriceChange(0, first_minor)
        self._packages = tuple(packages)

    @property
    def asset(self) -> Asset:
        """What credits are paid in."""
        return self._asset

    async def current(self) -> PriceChange:
        """The price of now. Raises `Unavailable`."""
        return await self._log.latest() or self._first

    async def offers(self) -> list[Offer]:
        """Every package, at one price."""
        return self.offers_at(await self.current())

    def offers_at(self, price: PriceChange) -> list[Offer]:
        """Every package at this price."""
        return [offer_of(package, price.price_minor) for package in self._packages]

    async def offer(self, package_id: int) -> Offer:
        """Raises `PackageNotFound`."""
        found = next((one for one in await self.offers() if one.package.id == package_id), None)
        if found is None:
            raise PackageNotFound(package=package_id)
        return found

    def check(self, price_minor: int) -> None:
        """Raises `PriceInvalid` for less than 1, or more than 100000; names `price_per_credit`."""
        low, high = self._asset.scale, 100_000 * self._asset.scale
        if not low <= price_minor <= high:
            bounds = f"{format_minor(low, self._asset)} to {format_minor(high, self._asset)}"
            raise PriceInvalid(field="price_per_credit", problem=f"must be from {bounds}")

    async def change(self, price_minor: int, *, by: str) -> PriceChange:
        """Set the price. The price that it is already changes nothing, so that a repeat is harmless. Raises what `check` raises."""
        self.check(price_minor)
        for attempt in range(ATTEMPTS):
            await let_rivals_finish(attempt)
            now = await self.current()
            if now.price_minor == price_minor:
                return now
            change = PriceChange(now.number + 1, price_minor, now.price_minor, by, self._clock.now_ms())
            if await self._log.add(change):
                return change
        raise Unavailable(reason="the price is being changed by others")

    async def changes(self, *, limit: int) -> list[PriceChange]:
        """How the price has changed, the last change first."""
        return await self._log.newest(limit=limit)
