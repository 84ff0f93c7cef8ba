"""The tiers that can be had and the models that can be called: look-ups, no files and no I/O."""

from collections.abc import Callable, Iterable, Iterator

from billing_engine.errors import InvariantBroken
from billing_engine.subscriptions.model import FREE, ModelPrice, Provider, Tier


class Tiers:
    """The tiers, from the smallest up. Raises ValueError where two share a name or a rank, or nobody is free."""

    def __init__(self, tiers: Iterable[Tier]) -> None:
        self._ranked = tuple(sorted(tiers, key=lambda tier: tier.rank))
        self._by_name = {tier.name: tier for tier in self._ranked}
        if len({tier.rank for tier in self._ranked}) < len(self._ranked) or len(self._by_name) < len(
            self._ranked
        ):
            raise ValueError("each tier needs a name and a rank of its own")
        if not self._ranked or self._ranked[0].name != FREE or self._ranked[0].price_minor != 0:
            raise ValueError(f"the smallest tier must be {FREE!r} and cost 0")

    def __iter__(self) -> Iterator[Tier]:
        return iter(self._ranked)

    def __len__(self) -> int:
        return len(self._ranked)

    @property
    def free(self) -> Tier:
        """What everybody has who has bought nothing."""
        return self._ranked[0]

    def named(self, name: str) -> Tier | None:
        """The tier of that name; None: there is no such one."""
        return self._by_name.get(name)

    def get(self, name: str) -> Tier:
        """The tier of that name. Raises `InvariantBroken`: somebody has a tier that the file has lost."""
        found = self._by_name.get(name)
        if found is None:
            raise InvariantBroken(rule="a tier that somebody has stays in the file", tier=name)
        return found

    def next_with(self, tier: Tier, fits: Callable[[Tier], bool]) -> Tier | None:
        """The smallest tier above `tier` that `fits`: what to upgrade to; None where none does."""
        return next((other for other in self._ranked if other.rank > tier.rank and fits(other)), None)


class ModelPrices:
    """What each model costs. Raises ValueError where a model is there twice."""

    def __init__(self, prices: Iterable[ModelPrice], *, version: int) -> None:
        listed = tuple(prices)
        self.version = version
        self._by_model = {(price.provider, price.model): price for price in listed}
        if len(self._by_model) < len(listed):
            raise ValueError("a model is there twice")

    def __iter__(self) -> Iterator[ModelPrice]:
        return iter(self._by_model.values())

    def __len__(self) -> int:
        return len(self._by_model)

    def price_of(self, provider: Provider, model: str) -> ModelPrice | None:
        """What the model costs; None: nobody has said, so nobody may call it."""
        return self._by_model.get((provider, model))


def without_price(tiers: Tiers, prices: ModelPrices) -> tuple[str, ...]:
    """`tier: provider model` for each model that a tier names and that has no price: it could never be called."""
    return tuple(
        f"{tier.name}: {provider} {model}"
        for tier in tiers
        for provider, models in sorted(tier.models.items())
        for model in sorted(models)
        if prices.price_of(provider, model) is None
    )
