"""Adapters of `billing_engine.subscriptions.ports.AiProvider`: small, one a provider, over one HTTP client."""
