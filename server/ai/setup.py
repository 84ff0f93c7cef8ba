"""The providers of AI whose keys are set, opened and closed."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from billing_engine.subscriptions.model import Provider
from billing_engine.subscriptions.ports import AiProvider
from server.ai.adapter import Adapter
from server.ai.anthropic import AnthropicProvider
from server.ai.aws import AwsProvider
from server.ai.google import GoogleProvider
from server.ai.http import AiHttp
from server.ai.huggingface import HuggingFaceProvider
from server.ai.openai import OpenAiProvider
from server.settings import Settings


@asynccontextmanager
async def open_ai_providers(settings: Settings) -> AsyncIterator[Mapping[Provider, AiProvider]]:
    """By name; a provider without a key is not there. All share one HTTP client, which is closed at the end."""
    known: tuple[tuple[type[Adapter], str, str], ...] = (
        (OpenAiProvider, settings.openai_api_key.get_secret_value(), settings.openai_base_url),
        (AnthropicProvider, settings.anthropic_api_key.get_secret_value(), settings.anthropic_base_url),
        (GoogleProvider, settings.google_ai_api_key.get_secret_value(), settings.google_ai_base_url),
        (HuggingFaceProvider, settings.huggingface_api_key.get_secret_value(), settings.huggingface_base_url),
        (AwsProvider, settings.aws_bedrock_api_key.get_secret_value(), settings.aws_bedrock_base_url),
    )
    http = AiHttp(timeout_s=settings.ai_timeout_seconds)
    try:
        yield {kind.name: kind(http, key, base_url) for kind, key, base_url in known if key}
    finally:
        await http.close()
