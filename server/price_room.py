"""The price book, wired: begun from its file, read from storage."""

import structlog

from billing_engine.clock import Clock
from billing_engine.usage.price_seed import OtherCurrency, seed_prices
from billing_engine.usage.prices import PriceBook, notice_ms
from server.settings import Settings
from server.storage.collection import Collections
from server.storage.errors import CannotOpen
from server.storage.repositories.usage_prices import CollectionPriceRows

_log = structlog.get_logger(__name__)


async def open_prices(settings: Settings, collections: Collections, *, clock: Clock) -> PriceBook:
    """The book; at the first start it is written. Raises `CannotOpen`: it is kept in another currency."""
    rows = await CollectionPriceRows.open(collections)
    notice = notice_ms(settings.store_timeout_ms)
    file, asset = settings.price_file(), settings.company_asset
    try:
        warnings = await seed_prices(
            rows, clock, file.prices, version=file.version, currency=asset.code, notice_ms=notice
        )
    except OtherCurrency as exc:
        stored = exc.facts["stored"]
        raise CannotOpen(
            settings.database_name, f"its price book is in {stored}; COMPANY_CURRENCY must be {stored}"
        ) from exc
    for warning in warnings:
        _log.warning("price book", difference=warning)
    return PriceBook(rows, clock, asset, notice_ms=notice)
