"""Hugging Face's router, which speaks as OpenAI does.

Only `max_tokens` is taken for a limit: not everybody behind the router knows the newer name, and who does not would go beyond it.
Source: https://huggingface.co/docs/inference-providers/tasks/chat-completion
"""

from billing_engine.subscriptions.model import Provider
from server.ai.openai import OpenAiProvider


class HuggingFaceProvider(OpenAiProvider):
    """`AiProvider` of Hugging Face. Who runs a model is part of its name (`…:groq`) and so of its price."""

    name = Provider.HUGGINGFACE
    limits = ("max_tokens",)
