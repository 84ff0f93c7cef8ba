"""The providers that the environment names, asked over loopback."""

import pytest

from billing_engine.subscriptions.model import Provider, Tokens
from billing_engine.subscriptions.ports import AiProvider
from server.ai.setup import open_ai_providers
from server.settings import load_settings
from tests.contract import test_ai_providers as contracts
from tests.support.fake_ai import Reply, fake_ai


async def test_without_keys_there_is_none() -> None:
    async with open_ai_providers(load_settings(None)) as providers:
        assert not providers


async def test_each_key_is_for_its_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    async with fake_ai() as fake:
        fake.default = Reply(Tokens(3, 4))
        for name, value in fake.settings().items():
            monkeypatch.setenv(name, value)
        # As other software has it in the same variable.
        monkeypatch.setenv("OPENAI_BASE_URL", fake.url_of(Provider.OPENAI) + "/v1/")
        async with open_ai_providers(load_settings(None)) as providers:
            assert set(providers) == set(Provider)
            for world in (
                contracts.TestOpenAi(),
                contracts.TestAnthropic(),
                contracts.TestGoogle(),
                contracts.TestHuggingFace(),
                contracts.TestAws(),
            ):
                provider: AiProvider = providers[world.name]
                call = world.call()
                answer = await provider.call(provider.read(call.raw, call.query))
                assert (answer.status, answer.tokens) == (200, Tokens(3, 4))


async def test_one_key_is_one_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_AI_API_KEY", "key")
    async with open_ai_providers(load_settings(None)) as providers:
        assert set(providers) == {Provider.GOOGLE}
