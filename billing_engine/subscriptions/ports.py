"""What subscriptions and AI calls need from the outside, in their own words."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Protocol

from billing_engine.subscriptions.model import ModelPrice, Provider, Tokens

# -- AI providers ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AiRequest:
    """A caller's call, as it came. `body` is passed on byte for byte; `parsed` is what it says; `model` is what is asked for, in
    the body, or in the query where the provider has it in the path.
    """

    provider: Provider
    model: str
    body: bytes
    parsed: Mapping[str, Any]
    is_stream: bool


@dataclass(frozen=True, slots=True)
class AiAnswer:
    """A provider's whole answer. `tokens` is None where it did not count, as in an error."""

    status: int
    content_type: str
    body: bytes
    tokens: Tokens | None


class AiStream(Protocol):
    """A provider's answer as it comes. Iterating gives its bytes, unchanged; `close` ends it early."""

    content_type: str

    def __aiter__(self) -> AsyncIterator[bytes]: ...

    @property
    def counted(self) -> Tokens | None:
        """The provider's own count, once it has told it."""
        ...

    @property
    def produced(self) -> Tokens:
        """What is known to have been taken in and put out so far; an estimate as long as `counted` is None."""
        ...

    async def close(self) -> None: ...


class AiProvider(Protocol):
    """One provider of AI. Every adapter passes `tests/contract/ai_provider_contract.py`."""

    name: Provider

    def read(self, body: bytes, query: Mapping[str, str]) -> AiRequest:
        """What a caller asks for. Raises `AiRequestInvalid`, which names the field: no JSON object, no model, a limit that is no
        number, a stream whose end would not tell the count.
        """
        ...

    def most(self, request: AiRequest, price: ModelPrice) -> Tokens:
        """The most that the call can need, from the request's own limits and the model's; never less than what it will be billed."""
        ...

    async def call(self, request: AiRequest) -> AiAnswer:
        """Ask. An answer of 4xx or 5xx is an answer. Raises `AiUnavailable`: there was none; nothing is billed for it."""
        ...

    async def stream(self, request: AiRequest) -> "AiStream | AiAnswer":
        """Ask; the answer as it comes, or a whole one where it is an error. Raises `AiUnavailable`."""
        ...


@dataclass(frozen=True, slots=True)
class CallRow:
    """One AI call as it is logged. Until it is done nobody knows what it cost. `day` is the local day on which it ended.

    `credits_milli` is what was taken, `loss_milli` what could not be; `cost_minor` the provider's price in smallest units of USD.
    """

    id: str
    user_id: str
    provider: str
    model: str
    tier: str
    started_at_ms: int
    is_open: bool = True
    outcome: str = "STARTED"
    day: str = ""
    ended_at_ms: int | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    tokens: int = 0
    cost_minor: int = 0
    credits_milli: int = 0
    loss_milli: int = 0
    latency_ms: int = 0


class CallRows(Protocol):
    """The log of AI calls. All methods raise `Unavailable`."""

    async def add(self, row: CallRow) -> None:
        """Insert, unless it is there."""
        ...

    async def finish(self, row: CallRow) -> None:
        """Replace it, if it is still open."""
        ...

    async def get(self, call_id: str) -> CallRow | None: ...

    async def open_before(self, started_before_ms: int, *, limit: int) -> list[CallRow]:
        """Those that are open and began before then, oldest first."""
        ...

    async def list_for(self, user_id: str, *, limit: int, before: str | None) -> list[CallRow]:
        """The user's, newest first; `before` is the id of the last one of the previous page."""
        ...


# -- subscriptions ---------------------------------------------------------------------------------------------------


class SubscriptionStatus(StrEnum):
    """How a subscription stands at the gateway."""

    #: Asked for, not paid yet.
    PENDING = "PENDING"
    ACTIVE = "ACTIVE"
    #: The payment of this cycle has failed; it is tried again.
    PAST_DUE = "PAST_DUE"
    ENDED = "ENDED"


#: Those in which it runs.
LIVE: Final = frozenset({SubscriptionStatus.ACTIVE, SubscriptionStatus.PAST_DUE})


@dataclass(frozen=True, slots=True)
class GatewaySubscription:
    """A subscription as the gateway knows it now. `user_id` and `tier` are ours. `cancels`: it ends at `period_end_ms`."""

    id: str
    user_id: str
    tier: str
    status: SubscriptionStatus
    period_start_ms: int
    period_end_ms: int
    cancels: bool
    created_at_ms: int


@dataclass(frozen=True, slots=True)
class GatewayInvoice:
    """An invoice for one period of a subscription, as the gateway knows it now. `tier` is what it was made for."""

    id: str
    subscription_id: str
    tier: str
    period_start_ms: int
    period_end_ms: int
    amount_minor: int
    currency: str
    is_paid: bool
    at_ms: int


@dataclass(frozen=True, slots=True)
class SubscriptionWish:
    """Somebody wants to subscribe. `reference` is our operation: a repeat answers the same page."""

    reference: str
    user_id: str
    email: str
    tier: str
    amount_minor: int
    currency: str
    customer_id: str | None = None


@dataclass(frozen=True, slots=True)
class CheckoutPage:
    """Where to subscribe; `id` is the gateway's. Without a URL there is nothing to do: the simulated one is paid at once."""

    id: str
    url: str | None


class SubscriptionGateway(Protocol):
    """A gateway that charges every 30 days. Failures as in `billing_engine.payments.ports.Gateway`: `GatewayUnavailable` is of unknown
    outcome and a repeat is harmless, `GatewayRefused` has done nothing.
    """

    name: str

    async def checkout(self, wish: SubscriptionWish) -> CheckoutPage: ...

    async def subscription_of(self, checkout_id: str) -> str | None:
        """The subscription that a page led to; None as long as nobody has paid there."""
        ...

    async def subscription(self, subscription_id: str) -> GatewaySubscription | None:
        """As it is now; None: the gateway has no such one, or it is none of ours."""
        ...

    async def invoices(self, subscription_id: str) -> Sequence[GatewayInvoice]:
        """Its invoices, oldest first."""
        ...

    async def set_cancels(self, subscription_id: str, cancels: bool) -> None:
        """End it at the end of its cycle, or not after all."""
        ...

    async def change_tier(
        self,
        subscription_id: str,
        *,
        tier: str,
        amount_minor: int,
        currency: str,
        cycle_ends_ms: int | None,
        key: str,
    ) -> None:
        """From its next invoice on it is another tier at another price; nothing is charged now. `cycle_ends_ms` moves the end of the
        running cycle there. Repeating it with the same `key` changes nothing.
        """
        ...


# -- plans -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Subscription:
    """A user's subscription as we know it; one a user, the latest. `reference` is the operation that asked for it.

    `wanted_tier` is what it is to be from its next invoice on, as long as the gateway has not been told; `wanted_key` names that
    change there, `wanted_at_ms` is when it was wished. `check_at_ms` says when the gateway is asked next; None: not until it tells
    something.
    """

    user_id: str
    reference: str
    tier: str
    status: SubscriptionStatus
    created_at_ms: int
    checkout_id: str | None = None
    checkout_url: str | None = None
    subscription_id: str | None = None
    period_end_ms: int = 0
    cancels: bool = False
    next_tier: str | None = None
    wanted_tier: str | None = None
    wanted_key: str = ""
    wanted_at_ms: int = 0
    wanted_cycle_ends_ms: int | None = None
    check_at_ms: int | None = None
    revision: int = 0


class Subscriptions(Protocol):
    """The stored subscriptions. All methods raise `Unavailable`."""

    async def get(self, user_id: str) -> Subscription | None: ...

    async def put(self, subscription: Subscription, *, expect_revision: int | None) -> bool:
        """Replace the user's, by compare-and-set on the revision; with None insert the first. Whether it was."""
        ...

    async def due(self, now_ms: int, *, limit: int) -> list[Subscription]:
        """Those whose gateway is to be asked by now, the longest due first."""
        ...


@dataclass(frozen=True, slots=True)
class TierChange:
    """Somebody's tier became another one. `id` names what changed it. `day` is the local day."""

    id: str
    user_id: str
    was: str
    tier: str
    at_ms: int
    day: str


class TierChanges(Protocol):
    """What metrics count. Raises `Unavailable`."""

    async def add(self, change: TierChange) -> None:
        """Insert, unless it is there."""
        ...


@dataclass(frozen=True, slots=True)
class StoredQuote:
    """What an upgrade was quoted at, and until when that holds."""

    id: str
    user_id: str
    was: str
    tier: str
    amount_minor: int
    credits_milli: int
    resets: bool
    expires_at_ms: int


class Quotes(Protocol):
    """The quotes. All methods raise `Unavailable`."""

    async def add(self, quote: StoredQuote) -> None: ...

    async def get(self, quote_id: str) -> StoredQuote | None: ...

    async def latest(self, user_id: str, tier: str, *, resets: bool, at_ms: int) -> StoredQuote | None:
        """The user's newest quote of that upgrade that still holds."""
        ...


class PlanNews(Protocol):
    """Tells subscribers. Telling again (the same `id`) changes nothing. All methods raise `Unavailable`."""

    async def began(
        self,
        id_: str,
        user_id: str,
        *,
        tier: str,
        ends_at_ms: int,
        invoice_id: str,
        amount_minor: int,
        currency: str,
    ) -> None:
        """A cycle that is paid has begun: the receipt."""
        ...

    async def payment_failed(self, id_: str, user_id: str, *, tier: str, grace_ends_ms: int) -> None: ...

    async def ended(self, id_: str, user_id: str, *, tier: str) -> None: ...

    async def upgraded(self, id_: str, user_id: str, *, tier: str) -> None: ...
