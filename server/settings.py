"""Settings: the only reader of the environment. `.env.example` lists them all, with the same defaults."""

import difflib
import os
import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from email.utils import parseaddr
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from dotenv import dotenv_values
from pydantic import (
    AfterValidator,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from billing_engine.credits.pricing import CreditPackage
from billing_engine.errors import Invalid
from billing_engine.money import ASSETS, USD, Asset, parse_minor
from billing_engine.subscriptions.catalogue import ModelPrices, Tiers, without_price
from billing_engine.subscriptions.metrics import Rules
from chat.calls.ice import IceRules
from server.credit_packages import SHIPPED, PackagesInvalid, load_packages
from server.metric_targets import Targets, TargetsInvalid, parse_targets
from server.model_file import SHIPPED as SHIPPED_MODELS
from server.model_file import ModelsInvalid, load_models
from server.notifications.options import SmtpSecurity
from server.price_file import SHIPPED as SHIPPED_PRICES
from server.price_file import OverridesInvalid, PriceFile, PriceFileInvalid, load_price_file, with_overrides
from server.rate_limits.model import parse_allowance
from server.tier_file import SHIPPED as SHIPPED_TIERS
from server.tier_file import TiersInvalid, load_tiers

#: Signs tokens on a developer's machine. Everybody knows it, so production refuses it.
DEVELOPMENT_SECRET: Final = "tarazu-development-secret-known-to-everybody"  # noqa: S105 (no secret)
_SQLITE: Final = "sqlite:///"
_MONGO: Final = ("mongodb://", "mongodb+srv://")
_REDIS: Final = ("redis://", "rediss://", "unix://")
_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})
_AI_PROVIDERS: Final = ("openai", "anthropic", "google_ai", "huggingface", "aws_bedrock")
_AI_KEYS: Final = tuple(f"{provider}_api_key" for provider in _AI_PROVIDERS)
_AI_BASE_URLS: Final = tuple(f"{provider}_base_url" for provider in _AI_PROVIDERS)
#: Two names this alike are one name, misspelt.
_ALIKE: Final = 0.85


class AppEnv(StrEnum):
    """Where this process runs."""

    DEVELOPMENT = "development"
    PRODUCTION = "production"
    TEST = "test"


class NotifierName(StrEnum):
    """Which way notifications go out."""

    LOG = "log"
    SMTP = "smtp"
    WEBHOOK = "webhook"


def _rate(value: str) -> str:
    parse_allowance(value)
    return value


#: `10/minute`, `100/2hours` or `off`.
Rate = Annotated[str, AfterValidator(_rate)]


class SettingsInvalid(Exception):
    """The environment does not make a server; `problems` names each variable and what is wrong with it."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        self.problems = problems
        super().__init__("; ".join(problems))


class Settings(BaseSettings):
    """Every setting, checked. A variable's name is the field's in upper case; an empty one counts as not set."""

    model_config = SettingsConfigDict(
        env_file_encoding="utf-8",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
    )

    app_env: AppEnv = AppEnv.DEVELOPMENT
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535)] = 8000
    worker_port: Annotated[int, Field(ge=0, le=65_535)] = 0
    cors_origins: Annotated[tuple[str, ...], NoDecode] = ()
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["console", "json"] = "console"

    # The two URLs may carry passwords.
    database_url: Annotated[str, Field(repr=False)] = "sqlite:///data/tarazu.db"
    sqlite_synchronous: Literal["FULL", "NORMAL", "OFF"] = "FULL"
    store_timeout_seconds: Annotated[Decimal, Field(gt=0, le=30)] = Decimal(1)
    mongo_driver: Literal["pymongo", "motor"] = "pymongo"
    lease_ms: Annotated[int, Field(ge=300, le=60_000)] = 1_200
    redis_url: Annotated[str, Field(repr=False)] = ""
    redis_prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,40}$")] = "tarazu"

    jwt_secret: SecretStr = SecretStr(DEVELOPMENT_SECRET)
    jwt_issuer: Annotated[str, Field(min_length=1)] = "tarazu"
    jwt_audience: Annotated[str, Field(min_length=1)] = "tarazu"
    access_token_minutes: Annotated[int, Field(ge=1, le=1_440)] = 15
    refresh_token_days: Annotated[int, Field(ge=1, le=365)] = 30
    refresh_grace_seconds: Annotated[int, Field(ge=0, le=60)] = 10
    bcrypt_cost: Annotated[int, Field(ge=4, le=16)] = 12
    admin_email: str = ""
    admin_password: SecretStr = SecretStr("")

    reset_token_minutes: Annotated[int, Field(ge=5, le=1_440)] = 30
    reset_url: str = ""
    trusted_proxies: Annotated[int, Field(ge=0, le=10)] = 0
    rate_limits: Literal["on", "off"] = "on"
    rate_limit_login_address: Rate = "30/minute"
    rate_limit_login_failures: Rate = "10/15minutes"
    rate_limit_login_strangers: Rate = "100/hour"
    rate_limit_register_address: Rate = "30/hour"
    rate_limit_register_account: Rate = "5/hour"
    rate_limit_password_address: Rate = "30/hour"  # noqa: S105 (a rate)
    rate_limit_password_account: Rate = "5/hour"  # noqa: S105 (a rate)
    rate_limit_recharge_address: Rate = "120/minute"
    rate_limit_recharge_account: Rate = "20/minute"
    rate_limit_start_address: Rate = "600/minute"
    rate_limit_start_account: Rate = "30/minute"
    rate_limit_webhook_address: Rate = "60/minute"
    rate_limit_webhook_account: Rate = "10/minute"
    rate_limit_messages: Rate = "100/5seconds"

    notifier: NotifierName = NotifierName.LOG
    smtp_host: str = ""
    smtp_port: Annotated[int, Field(ge=1, le=65_535)] = 587
    smtp_security: SmtpSecurity = SmtpSecurity.STARTTLS
    smtp_user: str = ""
    smtp_password: SecretStr = SecretStr("")
    smtp_from: str = ""
    notify_webhook_url: str = ""
    notify_webhook_secret: SecretStr = SecretStr("")
    company_webhooks_private: Literal["on", "off"] = "off"
    notification_days: Annotated[int, Field(ge=1, le=3_650)] = 30

    timezone: str = "Asia/Kolkata"
    currency: Literal["INR", "USD"] = "INR"
    tick_seconds: Annotated[int, Field(ge=1, le=3_600)] = 10
    lead_seconds: Annotated[int, Field(ge=2, le=60)] = 3
    min_balance: str = "50.00"
    min_seconds: Annotated[int, Field(ge=1, le=86_400)] = 60
    commission_percent: str = "0"
    retention_chat_days: Annotated[int, Field(ge=0, le=36_500)] = 0
    ring_seconds: Annotated[int, Field(ge=5, le=600)] = 45
    join_seconds: Annotated[int, Field(ge=5, le=600)] = 60
    turn_seconds: Annotated[int, Field(ge=5, le=3_600)] = 120
    queue_limit: Annotated[int, Field(ge=1, le=500)] = 20
    abandon_seconds: Annotated[int, Field(ge=10, le=86_400)] = 120
    fair_metering: Literal["on", "off"] = "on"
    peer_grace_seconds: Annotated[int, Field(ge=1, le=600)] = 15
    peer_gone_seconds: Annotated[int, Field(ge=2, le=3_600)] = 120
    recharge_min: str = "1.00"
    recharge_max: str = "100000.00"
    payout_min: str = "100.00"
    credit_price: str = "50.00"
    credit_packages: str = ""
    credit_unpaid_orders_max: Annotated[int, Field(ge=1, le=1_000)] = 5
    company_currency: Literal["USD", "INR"] = "USD"
    company_gateway: Literal["", "simulated", "stripe"] = ""
    company_recharge_min: str = "5.00"
    company_recharge_max: str = "50000.00"
    price_book: str = ""
    usage_prices: str = ""
    stun_urls: Annotated[tuple[str, ...], NoDecode] = ()
    turn_urls: Annotated[tuple[str, ...], NoDecode] = ()
    turn_secrets: SecretStr = SecretStr("")
    turn_ttl_seconds: Annotated[int, Field(ge=60, le=86_400)] = 3_600
    ice_policy: Literal["all", "relay"] = "all"
    payment_gateway: Literal["simulated", "razorpay", "stripe"] = "simulated"
    gateway_timeout_seconds: Annotated[int, Field(ge=1, le=60)] = 10
    razorpay_key_id: str = ""
    razorpay_key_secret: SecretStr = SecretStr("")
    razorpay_webhook_secret: SecretStr = SecretStr("")
    razorpay_url: str = "https://api.razorpay.com"
    stripe_secret_key: SecretStr = SecretStr("")
    stripe_webhook_secret: SecretStr = SecretStr("")
    stripe_url: str = "https://api.stripe.com"
    checkout_success_url: str = ""
    checkout_cancel_url: str = ""
    stripe_fee_percent: str = "2.9"
    stripe_fee_fixed: str = "0.30"

    ai_tiers_file: str = ""
    ai_models_file: str = ""
    ai_budget_percent: str = "20"
    metrics_targets: str = ""
    ai_timeout_seconds: Annotated[int, Field(ge=1, le=900)] = 120
    openai_api_key: SecretStr = SecretStr("")
    openai_base_url: str = "https://api.openai.com"
    anthropic_api_key: SecretStr = SecretStr("")
    anthropic_base_url: str = "https://api.anthropic.com"
    google_ai_api_key: SecretStr = SecretStr("")
    google_ai_base_url: str = "https://generativelanguage.googleapis.com"
    huggingface_api_key: SecretStr = SecretStr("")
    huggingface_base_url: str = "https://router.huggingface.co"
    aws_bedrock_api_key: SecretStr = SecretStr("")
    aws_bedrock_base_url: str = "https://bedrock-runtime.us-east-1.amazonaws.com"

    @property
    def has_razorpay(self) -> bool:
        """Whether Razorpay's keys are set."""
        return bool(self.razorpay_key_id)

    @property
    def has_stripe(self) -> bool:
        """Whether Stripe's key is set."""
        return bool(self.stripe_secret_key.get_secret_value())

    @property
    def asset(self) -> Asset:
        """The currency of consultations and wallets."""
        return ASSETS[self.currency]

    @property
    def min_balance_minor(self) -> int:
        """`MIN_BALANCE` in smallest units."""
        return parse_minor(self.min_balance, self.asset)

    @property
    def recharge_min_minor(self) -> int:
        """`RECHARGE_MIN` in smallest units."""
        return parse_minor(self.recharge_min, self.asset)

    @property
    def recharge_max_minor(self) -> int:
        """`RECHARGE_MAX` in smallest units."""
        return parse_minor(self.recharge_max, self.asset)

    @property
    def credit_price_minor(self) -> int:
        """`CREDIT_PRICE` in smallest units."""
        return parse_minor(self.credit_price, self.asset)

    def packages(self) -> tuple[CreditPackage, ...]:
        """What `CREDIT_PACKAGES` lists, or the packages that ship. Raises `PackagesInvalid`."""
        return load_packages(Path(self.credit_packages) if self.credit_packages else SHIPPED)

    def tiers(self) -> Tiers:
        """What `AI_TIERS_FILE` lists, or the tiers that ship. Raises `TiersInvalid`."""
        return load_tiers(Path(self.ai_tiers_file) if self.ai_tiers_file else SHIPPED_TIERS)

    def model_prices(self) -> ModelPrices:
        """What `AI_MODELS_FILE` lists, or the models that ship. Raises `ModelsInvalid`."""
        return load_models(Path(self.ai_models_file) if self.ai_models_file else SHIPPED_MODELS)

    def metric_rules(self) -> Rules:
        """What fees and budgets are reckoned by: `STRIPE_FEE_PERCENT`, `STRIPE_FEE_FIXED`, `AI_BUDGET_PERCENT`."""
        return Rules(
            fee_bp=_hundredths(self.stripe_fee_percent),
            fee_fixed_minor=parse_minor(self.stripe_fee_fixed, USD),
            budget_bp=_hundredths(self.ai_budget_percent),
            ranks={tier.name: tier.rank for tier in self.tiers()},
        )

    def targets(self) -> Targets:
        """What `METRICS_TARGETS` lists. Raises `TargetsInvalid`."""
        return parse_targets(self.metrics_targets)

    @property
    def company_asset(self) -> Asset:
        """The currency of companies' wallets and of the price book."""
        return ASSETS[self.company_currency]

    @property
    def company_gateway_name(self) -> str:
        """Through whom companies pay: `COMPANY_GATEWAY`, or else Stripe where its keys are set, or in production. Without keys there
        a recharge answers that the gateway is not set up.
        """
        if self.company_gateway:
            return self.company_gateway
        return "stripe" if self.has_stripe or self.app_env is AppEnv.PRODUCTION else "simulated"

    @property
    def company_recharge_min_minor(self) -> int:
        """`COMPANY_RECHARGE_MIN` in smallest units."""
        return parse_minor(self.company_recharge_min, self.company_asset)

    @property
    def company_recharge_max_minor(self) -> int:
        """`COMPANY_RECHARGE_MAX` in smallest units."""
        return parse_minor(self.company_recharge_max, self.company_asset)

    def price_file(self) -> PriceFile:
        """What the price book begins with: `PRICE_BOOK`, or the file that ships, and over it `USAGE_PRICES`.

        Raises `PriceFileInvalid`, `OverridesInvalid`.
        """
        path = Path(self.price_book) if self.price_book else SHIPPED_PRICES
        return with_overrides(
            load_price_file(self.company_asset, path), self.usage_prices, self.company_asset
        )

    @property
    def payout_min_minor(self) -> int:
        """`PAYOUT_MIN` in smallest units."""
        return parse_minor(self.payout_min, self.asset)

    @property
    def commission_bp(self) -> int:
        """`COMMISSION_PERCENT` in hundredths of a percent."""
        return _hundredths(self.commission_percent)

    @property
    def store_timeout_ms(self) -> int:
        """`STORE_TIMEOUT_SECONDS` in milliseconds."""
        return int(self.store_timeout_seconds * 1000)

    @property
    def zone(self) -> ZoneInfo:
        """Where a day begins."""
        return ZoneInfo(self.timezone)

    @property
    def is_shared(self) -> bool:
        """Whether several processes may use the database at once: MongoDB; a SQLite file has one."""
        return self.database_url.startswith(_MONGO)

    @property
    def sqlite_path(self) -> Path:
        """The database file: `sqlite:///relative` or `sqlite:////absolute`. Only where the database is not shared."""
        return Path(self.database_url.removeprefix(_SQLITE))

    @property
    def database_name(self) -> str:
        """The database as it may be shown: without the user and password of its URL."""
        scheme, _, rest = self.database_url.partition("://")
        return f"{scheme}://{rest.rpartition('@')[2]}"

    def ice_rules(self) -> IceRules:
        """What peer connections of calls are made with."""
        return IceRules(
            stun_urls=self.stun_urls,
            turn_urls=self.turn_urls,
            secrets=_words(_text(self.turn_secrets)),
            ttl_s=self.turn_ttl_seconds,
            relay_only=self.ice_policy == "relay",
        )

    @field_validator("stun_urls", "turn_urls", mode="before")
    @classmethod
    def _separated(cls, value: Any) -> Any:
        return _words(value) if isinstance(value, str) else value

    @field_validator("stun_urls", "turn_urls")
    @classmethod
    def _ice_urls(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        kind = "stun" if info.field_name == "stun_urls" else "turn"
        for url in value:
            if not re.fullmatch(rf"{kind}s?:[A-Za-z0-9._\-\[\]:]+(\?transport=(udp|tcp))?", url):
                raise ValueError(f"{url!r} is no address such as {kind}:{kind}.example.com:3478")
        return value

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        return tuple(origin.strip().rstrip("/") for origin in value.split(",") if origin.strip())

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            scheme, _, rest = origin.partition("://")
            if scheme not in {"http", "https"} or not rest or "/" in rest or "*" in rest:
                raise ValueError(f"{origin!r} is no origin such as https://app.example.com")
        return value

    @field_validator("database_url")
    @classmethod
    def _known_store(cls, value: str) -> str:
        if value.startswith(_MONGO):
            if not urlsplit(value).netloc.rpartition("@")[2]:
                raise ValueError("must name a server, as in mongodb://host:27017/tarazu?replicaSet=rs0")
            return value
        if not value.startswith(_SQLITE) or value == _SQLITE or ":memory:" in value:
            raise ValueError(
                "must be sqlite:///path/to/file.db or mongodb://host:27017/tarazu?replicaSet=rs0"
            )
        return value

    @field_validator("redis_url")
    @classmethod
    def _known_redis(cls, value: str) -> str:
        if value and not value.startswith(_REDIS):
            raise ValueError("must be redis://host:6379/0 (rediss:// with TLS, unix:// for a socket)")
        return value

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (KeyError, ValueError, OSError) as exc:
            raise ValueError(f"{value!r} is no time zone such as Asia/Kolkata") from exc
        return value

    @field_validator("min_balance", "recharge_min", "recharge_max", "payout_min", "credit_price")
    @classmethod
    def _exact_amount(cls, value: str, info: ValidationInfo) -> str:
        asset = ASSETS[info.data.get("currency", "INR")]
        try:
            amount_minor = parse_minor(value, asset)
        except Invalid as exc:
            raise ValueError(exc.facts["problem"]) from exc
        if amount_minor < 0:
            raise ValueError("must not be negative")
        return value

    @field_validator("stripe_fee_fixed")
    @classmethod
    def _exact_fee(cls, value: str) -> str:
        try:
            fee_minor = parse_minor(value, USD)
        except Invalid as exc:
            raise ValueError(exc.facts["problem"]) from exc
        if fee_minor < 0:
            raise ValueError("must not be negative")
        return value

    @field_validator("commission_percent", "stripe_fee_percent", "ai_budget_percent")
    @classmethod
    def _exact_percent(cls, value: str) -> str:
        _hundredths(value)
        return value

    @field_validator("jwt_secret")
    @classmethod
    def _long_enough(cls, value: SecretStr) -> SecretStr:
        if len(value.get_secret_value().encode()) < 32:
            raise ValueError("must have at least 32 bytes, such as `openssl rand -base64 48` gives")
        return value

    @model_validator(mode="after")
    def _together(self) -> "Settings":
        problems = [
            *self._at_odds(),
            *(self._unfit_for_production() if self.app_env is AppEnv.PRODUCTION else []),
        ]
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def _at_odds(self) -> Iterable[str]:
        if self.recharge_min_minor > self.recharge_max_minor:
            yield "RECHARGE_MIN: must not be above RECHARGE_MAX"
        if not 0 < self.company_recharge_min_minor <= self.company_recharge_max_minor:
            yield "COMPANY_RECHARGE_MIN: must be above 0 and not above COMPANY_RECHARGE_MAX"
        if self.company_gateway == "stripe" and not self.has_stripe:
            yield "COMPANY_GATEWAY: stripe needs STRIPE_SECRET_KEY and STRIPE_WEBHOOK_SECRET"
        yield from self._unmeterable()
        low, high = self.asset.scale, 100_000 * self.asset.scale
        if not low <= self.credit_price_minor <= high:
            yield "CREDIT_PRICE: must be from 1.00 to 100000.00"
        try:
            self.packages()
        except PackagesInvalid as exc:
            yield f"CREDIT_PACKAGES: {exc}"
        try:
            self.price_file()
        except PriceFileInvalid as exc:
            yield f"PRICE_BOOK: {exc}"
        except OverridesInvalid as exc:
            yield f"USAGE_PRICES: {exc}"
        yield from self._uncallable()
        yield from self._unrelayed()
        yield from self._unreachable()
        yield from self._unpayable()
        if bool(self.admin_email) != bool(self.admin_password.get_secret_value()):
            yield "ADMIN_EMAIL: set it together with ADMIN_PASSWORD, or neither"

    def _unmeterable(self) -> Iterable[str]:
        """What metering lacks."""
        if self.lead_seconds < 2 * self.store_timeout_seconds:
            # A slice must last over a write that times out and its retry (LEDGER 3).
            yield "LEAD_SECONDS: must be at least twice STORE_TIMEOUT_SECONDS"
        if self.peer_gone_seconds <= self.peer_grace_seconds:
            yield "PEER_GONE_SECONDS: must be more than PEER_GRACE_SECONDS"

    def _uncallable(self) -> Iterable[str]:
        """What AI calls and their metrics lack."""
        try:
            self.targets()
        except TargetsInvalid as exc:
            yield f"METRICS_TARGETS: {exc}"
        tiers, prices = None, None
        try:
            tiers = self.tiers()
        except TiersInvalid as exc:
            yield f"AI_TIERS_FILE: {exc}"
        try:
            prices = self.model_prices()
        except ModelsInvalid as exc:
            yield f"AI_MODELS_FILE: {exc}"
        if tiers is not None and prices is not None and (unpriced := without_price(tiers, prices)):
            yield f"AI_TIERS_FILE: {'; '.join(unpriced)} has no price in AI_MODELS_FILE"
        for name in _AI_BASE_URLS:
            parts = urlsplit(getattr(self, name))
            if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
                yield f"{name.upper()}: must be a URL such as https://api.example.com"
            elif parts.username is not None or parts.password is not None:
                yield f"{name.upper()}: must not have a user or a password"
        for name in _AI_KEYS:
            # It becomes a header: a line break in it would start another one.
            if not re.fullmatch(r"[!-~]*", _text(getattr(self, name))):
                yield f"{name.upper()}: must be one word of plain ASCII"

    def _unrelayed(self) -> Iterable[str]:
        """What the TURN servers of calls lack."""
        secrets = _words(_text(self.turn_secrets))
        if bool(self.turn_urls) != bool(secrets):
            yield "TURN_URLS: set it together with TURN_SECRETS, or neither"
        if any(len(secret.encode()) < 32 for secret in secrets) or len(secrets) > 3:
            # Whoever gets a credential can try secrets against it as fast as they can reckon.
            yield "TURN_SECRETS: each must have at least 32 bytes, and there are at most three"
        if self.ice_policy == "relay" and not self.turn_urls:
            yield "ICE_POLICY: relay needs TURN_URLS and TURN_SECRETS"

    def _unpayable(self) -> Iterable[str]:
        """What the payment gateways lack."""
        razorpay = (
            self.razorpay_key_id,
            *map(_text, (self.razorpay_key_secret, self.razorpay_webhook_secret)),
        )
        if any(razorpay) and not all(razorpay):
            yield "RAZORPAY_KEY_ID: set it together with RAZORPAY_KEY_SECRET and RAZORPAY_WEBHOOK_SECRET, or none"
        stripe = tuple(map(_text, (self.stripe_secret_key, self.stripe_webhook_secret)))
        if any(stripe) and not all(stripe):
            yield "STRIPE_SECRET_KEY: set it together with STRIPE_WEBHOOK_SECRET, or neither"
        if self.has_stripe and not (self.checkout_success_url and self.checkout_cancel_url):
            yield "CHECKOUT_SUCCESS_URL: set it and CHECKOUT_CANCEL_URL with STRIPE_SECRET_KEY: payers come back there"
        if self.payment_gateway == "razorpay" and not self.has_razorpay:
            yield "PAYMENT_GATEWAY: razorpay needs RAZORPAY_KEY_ID, RAZORPAY_KEY_SECRET and RAZORPAY_WEBHOOK_SECRET"
        if self.payment_gateway == "razorpay" and self.currency != "INR":
            yield "PAYMENT_GATEWAY: razorpay takes INR; CURRENCY is another"
        if self.payment_gateway == "stripe" and not self.has_stripe:
            yield "PAYMENT_GATEWAY: stripe needs STRIPE_SECRET_KEY and STRIPE_WEBHOOK_SECRET"

    def _unreachable(self) -> Iterable[str]:
        """What the chosen way of notifying lacks."""
        if self.notifier is NotifierName.SMTP and not (self.smtp_host and self.smtp_from):
            yield "SMTP_HOST: set it and SMTP_FROM when NOTIFIER=smtp"
        if self.notifier is NotifierName.SMTP and "@" not in parseaddr(self.smtp_from)[1]:
            yield "SMTP_FROM: must be an address such as Tarazu <no-reply@example.com>"
        if bool(self.smtp_user) != bool(self.smtp_password.get_secret_value()):
            yield "SMTP_USER: set it together with SMTP_PASSWORD, or neither"
        if self.notifier is NotifierName.WEBHOOK:
            if not self.notify_webhook_url.startswith(("http://", "https://")):
                yield "NOTIFY_WEBHOOK_URL: must be an http(s) URL when NOTIFIER=webhook"
            if len(self.notify_webhook_secret.get_secret_value().encode()) < 32:
                yield "NOTIFY_WEBHOOK_SECRET: must have at least 32 bytes when NOTIFIER=webhook"
        if self.reset_url and "{token}" not in self.reset_url:
            yield "RESET_URL: must have {token} where the token goes"

    def _unfit_for_production(self) -> Iterable[str]:
        if self.rate_limits == "off":
            yield "RATE_LIMITS: off is refused when APP_ENV=production"
        if self.smtp_user and self.smtp_security is SmtpSecurity.NONE and self.smtp_host not in _LOOPBACK:
            yield "SMTP_SECURITY: none would send SMTP_PASSWORD in plain text"
        yield from self._unfit_webhooks()
        if self.jwt_secret.get_secret_value() == DEVELOPMENT_SECRET:
            yield "JWT_SECRET: the development secret is refused when APP_ENV=production"
        if self.payment_gateway == "simulated":
            yield "PAYMENT_GATEWAY: the simulated gateway is refused when APP_ENV=production"
        if self.company_gateway == "simulated":
            yield "COMPANY_GATEWAY: the simulated gateway is refused when APP_ENV=production"
        yield from self._readable_keys()
        if self.bcrypt_cost < 10:
            yield "BCRYPT_COST: must be at least 10 when APP_ENV=production"
        if self.sqlite_synchronous == "OFF":
            yield "SQLITE_SYNCHRONOUS: OFF loses acknowledged money when APP_ENV=production"

    def _readable_keys(self) -> Iterable[str]:
        """Where a key would be sent in plain text."""
        for name in ("razorpay_url", "stripe_url"):
            if not self._is_private(getattr(self, name)):
                yield f"{name.upper()}: must be https when APP_ENV=production; it is sent the gateway's key"
        for name in _AI_BASE_URLS:
            if not self._is_private(getattr(self, name)):
                yield f"{name.upper()}: must be https when APP_ENV=production; it is sent the provider's key"

    def _unfit_webhooks(self) -> Iterable[str]:
        if self.notifier is NotifierName.WEBHOOK and not self._is_private(self.notify_webhook_url):
            yield "NOTIFY_WEBHOOK_URL: must be https when APP_ENV=production; it carries one-time links"
        if self.company_webhooks_private == "on":
            yield "COMPANY_WEBHOOKS_PRIVATE: on is refused when APP_ENV=production; companies would reach into your network"

    @staticmethod
    def _is_private(url: str) -> bool:
        """Whether nobody on the way can read what is sent there."""
        return url.startswith("https://") or urlsplit(url).hostname in _LOOPBACK

    def warnings(self) -> Iterable[str]:
        """What works and is still not wise."""
        if self.app_env is AppEnv.PRODUCTION and self.notifier is NotifierName.LOG:
            yield "NOTIFIER: log reaches nobody; forgotten passwords cannot be reset"
        if self.host not in _LOOPBACK and self.jwt_secret.get_secret_value() == DEVELOPMENT_SECRET:
            yield "JWT_SECRET: everybody who reaches HOST can sign tokens with the development secret"
        if self.is_shared and not self.redis_url:
            yield (
                "REDIS_URL: without it clients of different processes hear each other late: at the next tick, or when they ask"
            )


def variables() -> tuple[str, ...]:
    """The names of all settings as environment variables."""
    return tuple(name.upper() for name in Settings.model_fields)


def load_settings(env_file: str | Path | None = ".env") -> Settings:
    """The settings from the environment, and below it from `env_file` if that exists.

    Raises:
        SettingsInvalid: naming every variable that is wrong.
    """
    try:
        return Settings(_env_file=env_file)
    except ValidationError as exc:
        raise SettingsInvalid(tuple(_named(exc))) from exc


def misspelt(
    environ: Mapping[str, str] | None = None, env_file: str | Path | None = ".env"
) -> tuple[str, ...]:
    """Warnings about variables that look as if they were meant for us and are not read.

    Everything in the file is meant for us; of the environment, what is nearly the name of a setting.
    """
    known = variables()
    in_file = set(dotenv_values(env_file)) if env_file is not None and Path(env_file).is_file() else set()
    warnings = []
    for name in sorted(in_file | set(os.environ if environ is None else environ)):
        if name.upper() in known:
            continue
        plain = name.upper().removeprefix("TARAZU_")
        near = difflib.get_close_matches(plain, known, n=1, cutoff=_ALIKE)
        if near or name in in_file:
            warnings.append(f"{name} is not a setting" + (f"; did you mean {near[0]}?" if near else ""))
    return tuple(warnings)


def _named(error: ValidationError) -> Iterable[str]:
    for item in error.errors(include_url=False, include_context=False, include_input=False):
        message = item["msg"].removeprefix("Value error, ")
        if item["loc"]:
            yield f"{str(item['loc'][0]).upper()}: {message}"
        else:
            yield from message.split("\n")


def _words(text: str) -> tuple[str, ...]:
    """What commas separate."""
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _text(secret: SecretStr) -> str:
    return secret.get_secret_value()


def _hundredths(percent: str) -> int:
    """Hundredths of a percent in `percent`, exactly. Raises ValueError outside 0 to 100 with at most two decimals."""
    whole, _, decimals = percent.partition(".")
    if not (whole.isascii() and whole.isdigit() and len(whole) <= 3 and len(decimals) <= 2):
        raise ValueError("must be a percentage from 0 to 100 with at most two decimals")
    if "." in percent and not (decimals.isascii() and decimals.isdigit()):
        raise ValueError("must be a percentage from 0 to 100 with at most two decimals")
    hundredths = int(whole) * 100 + int(decimals.ljust(2, "0"))
    if hundredths > 10_000:
        raise ValueError("must be a percentage from 0 to 100 with at most two decimals")
    return hundredths
