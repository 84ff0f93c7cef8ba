"""The files of tiers and of models: what ships is what the specification says, and what is wrong is named by its row."""

from decimal import Decimal
from pathlib import Path

import pytest

from billing_engine.subscriptions.catalogue import ModelPrices, Tiers, without_price
from billing_engine.subscriptions.model import Cost, Provider, Tier, Tokens, cost_of
from server.model_file import SHIPPED as SHIPPED_MODELS
from server.model_file import ModelsInvalid, load_models
from server.settings import SettingsInvalid, load_settings
from server.tier_file import SHIPPED as SHIPPED_TIERS
from server.tier_file import TiersInvalid, load_tiers

TIERS, MODELS = load_tiers(), load_models()
ALL = set(Provider)


@pytest.mark.parametrize(
    ("name", "price", "worth", "tokens", "requests", "calls", "providers"),
    [
        ("free", 0, 100, 10_000, 100, 2, {Provider.OPENAI}),
        ("starter", 19, 1_900, 500_000, 1_000, 5, {Provider.OPENAI, Provider.HUGGINGFACE}),
        ("professional", 99, 9_900, 5_000_000, 10_000, 20, ALL - {Provider.AWS}),
        ("enterprise", 499, 49_900, 50_000_000, 100_000, 100, ALL),
    ],
)
def test_the_tiers_are_the_specifications(
    name: str, price: int, worth: int, tokens: int, requests: int, calls: int, providers: set[Provider]
) -> None:
    tier = TIERS.named(name)
    assert tier is not None
    assert (tier.price_minor, tier.credits_milli) == (price * 1_000_000, worth * 1_000)
    assert (tier.monthly_tokens, tier.monthly_requests, tier.parallel_calls) == (tokens, requests, calls)
    assert (tier.providers, tier.credit_markup) == (providers, 1)


def test_they_are_ranked_and_the_first_is_free() -> None:
    assert [tier.name for tier in TIERS] == ["free", "starter", "professional", "enterprise"]
    assert TIERS.free.name == "free"
    assert TIERS.named("gold") is None


def test_small_models_for_small_tiers() -> None:
    for name in ("free", "starter"):
        tier = TIERS.named(name)
        assert tier is not None
        assert tier.may_use(Provider.OPENAI, "gpt-4o-mini")
        assert not tier.may_use(Provider.OPENAI, "gpt-4-turbo")
    starter = TIERS.named("starter")
    assert starter is not None
    assert starter.may_use(Provider.HUGGINGFACE, "anything/at-all")
    assert not without_price(TIERS, MODELS)


def test_the_upgrade_is_the_smallest_that_fits() -> None:
    def with_(provider: Provider, tier: Tier = TIERS.free) -> str | None:
        found = TIERS.next_with(tier, lambda other: provider in other.providers)
        return found.name if found else None

    assert with_(Provider.HUGGINGFACE) == "starter"
    assert with_(Provider.OPENAI) == "starter"
    assert with_(Provider.ANTHROPIC) == "professional"
    assert with_(Provider.AWS) == "enterprise"
    assert with_(Provider.AWS, list(TIERS)[-1]) is None


def test_the_documents_call_costs_6_5_credits() -> None:
    price = MODELS.price_of(Provider.OPENAI, "gpt-4-turbo")
    assert price is not None
    assert (price.input_per_1k, price.output_per_1k) == (Decimal("0.01"), Decimal("0.03"))
    assert cost_of(Tokens(500, 2_000), price, Decimal(1)) == Cost(65_000, 6_500)
    assert MODELS.price_of(Provider.OPENAI, "gpt-9") is None
    assert MODELS.price_of(Provider.AWS, "gpt-4-turbo") is None


def test_every_provider_has_models_with_prices() -> None:
    assert {price.provider for price in MODELS} == ALL
    for price in MODELS:
        assert 0 < price.input_per_1k <= price.output_per_1k < 1
        assert price.max_output_tokens <= price.context_tokens


def test_the_dearest_call_is_computed_exactly(tmp_path: Path) -> None:
    """28 digits are what Python computes with; a cost beyond them would be rounded before it is rounded up."""
    path = tmp_path / "models.toml"
    path.write_text(a_model(input='"9999.99999999"', output='"9999.99999999"'))
    (price,) = load_models(path)
    tokens, markup = Tokens(10**8, 10**8 - 1), Decimal("999.9999")
    exact = (2 * 10**8 - 1) * 999999999999 * 9999999
    assert cost_of(tokens, price, markup).credits_milli == -(-exact * 100_000 // 10**15)


def a_model(head: str = 'version = 1\ncurrency = "USD"\n', **more: str) -> str:
    facts = {
        "provider": '"openai"',
        "model": '"m"',
        "input": '"0.01"',
        "output": '"0.03"',
        "context_tokens": "8",
        "max_output_tokens": "4",
    }
    return (
        head
        + "[[model]]\n"
        + "".join(f"{name} = {value}\n" for name, value in (facts | more).items() if value)
    )


def a_tier(**more: str) -> str:
    facts = {
        "name": '"free"',
        "price": '"0"',
        "credits": '"100"',
        "monthly_tokens": "1",
        "monthly_requests": "1",
        "parallel_calls": "1",
        "credit_markup": '"1"',
        "providers": '["openai"]',
    }
    rows = "".join(f"{name} = {value}\n" for name, value in (facts | more).items() if value)
    return f'version = 1\ncurrency = "USD"\n[[tier]]\n{rows}'


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("not toml", "Expected"),
        ("", "version"),
        ('version = 1\ncurrency = "USD"\n', "[[model]]"),
        ('version = 1\ncurrency = "EUR"\n', "currency"),
        (a_model(head='version = 0\ncurrency = "USD"\n'), "version"),
        (a_model(head='version = 1\ncurrency = "USD"\nother = 1\n'), "other"),
        (a_model(provider='"acme"'), "model 1 (m): 'acme' is no provider"),
        (a_model(model='"a b"'), "model 1 (a b): 'a b' is no name"),
        (a_model(input="0.01"), "0.01 must be a string"),
        (a_model(input="1"), "model 1 (m): input must be a decimal string"),
        (a_model(input='"-1"'), "input"),
        (a_model(output='"1e3"'), "output"),
        (a_model(output='"0.000000001"'), "output"),
        (a_model(output=""), "model 1 (m): output is missing"),
        (a_model(cached='"1"'), "model 1 (m): cached is not known"),
        (a_model(context_tokens="true"), "context_tokens"),
        (a_model(max_output_tokens="0"), "max_output_tokens"),
        (a_model() + a_model(head=""), "twice"),
    ],
)
def test_a_wrong_file_of_models_says_where(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "models.toml"
    path.write_text(content)
    with pytest.raises(ModelsInvalid) as caught:
        load_models(path)
    assert str(path) in str(caught.value)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (a_tier(name='"Free"'), "tier 1 (Free): name"),
        (a_tier(name='"starter"'), "the smallest tier must be 'free'"),
        (a_tier(price='"1"'), "the smallest tier must be 'free'"),
        (a_tier(price='"0.001"'), "whole cents"),
        (a_tier(price='"-1"'), "must not be negative"),
        (a_tier(price="1"), "price must be a decimal string"),
        (a_tier(credits='"0.0001"'), "credits has more than 3 decimals"),
        (a_tier(monthly_tokens='"1"'), "monthly_tokens"),
        (a_tier(parallel_calls="0"), "parallel_calls"),
        (a_tier(credit_markup='"0"'), "credit_markup"),
        (a_tier(credit_markup='"1.00001"'), "credit_markup"),
        (a_tier(providers="[]"), "providers"),
        (a_tier(providers='["acme"]'), "'acme' is no provider"),
        (a_tier(models='{ aws = ["m"] }'), "models has aws"),
        (a_tier(models='{ openai = "m" }'), "models.openai"),
        (a_tier(models="1"), "models must be a table"),
        (a_tier() + a_tier().partition("\n\n")[0].split('"USD"\n')[1], "name and a rank of its own"),
    ],
)
def test_a_wrong_file_of_tiers_says_where(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "tiers.toml"
    path.write_text(content)
    with pytest.raises(TiersInvalid) as caught:
        load_tiers(path)
    assert said in str(caught.value)


def test_no_file_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(ModelsInvalid):
        load_models(tmp_path / "nothing")
    with pytest.raises(TiersInvalid):
        load_tiers(tmp_path / "nothing")


def test_nobody_is_free_in_no_tiers() -> None:
    with pytest.raises(ValueError, match="free"):
        Tiers([])
    assert len(ModelPrices([], version=1)) == 0


# -- settings -----------------------------------------------------------------------------------------------------------


def test_the_settings_name_other_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    models, tiers = tmp_path / "m.toml", tmp_path / "t.toml"
    models.write_text(a_model())
    tiers.write_text(a_tier(models='{ openai = ["m"] }'))
    monkeypatch.setenv("AI_MODELS_FILE", str(models))
    monkeypatch.setenv("AI_TIERS_FILE", str(tiers))
    settings = load_settings(None)
    assert [price.model for price in settings.model_prices()] == ["m"]
    assert len(settings.tiers()) == 1


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("AI_TIERS_FILE", str(SHIPPED_MODELS), "AI_TIERS_FILE: "),
        ("AI_MODELS_FILE", str(SHIPPED_TIERS), "AI_MODELS_FILE: "),
        ("AI_TIMEOUT_SECONDS", "0", "AI_TIMEOUT_SECONDS: "),
        ("OPENAI_BASE_URL", "api.openai.com", "OPENAI_BASE_URL: "),
        ("ANTHROPIC_BASE_URL", "ftp://x", "ANTHROPIC_BASE_URL: "),
        ("GOOGLE_AI_BASE_URL", "https://x/?key=y", "GOOGLE_AI_BASE_URL: "),
        ("AWS_BEDROCK_BASE_URL", "https://u:p@x", "AWS_BEDROCK_BASE_URL: "),
        ("HUGGINGFACE_API_KEY", "a\nX-Other: b", "HUGGINGFACE_API_KEY: "),
    ],
)
def test_a_wrong_setting_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsInvalid) as caught:
        load_settings(None)
    assert any(problem.startswith(said) for problem in caught.value.problems)
    assert "X-Other" not in str(caught.value)


def test_a_model_of_a_tier_needs_a_price(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tiers = tmp_path / "t.toml"
    tiers.write_text(a_tier(models='{ openai = ["gpt-9"] }'))
    monkeypatch.setenv("AI_TIERS_FILE", str(tiers))
    with pytest.raises(SettingsInvalid, match="free: openai gpt-9 has no price"):
        load_settings(None)


def test_keys_go_over_https_alone_in_production(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APP_ENV", "production")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://openai.example.com")
    with pytest.raises(SettingsInvalid, match="OPENAI_BASE_URL: must be https"):
        load_settings(None)
