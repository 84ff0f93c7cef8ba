"""Subscriptions and token-metered AI calls (SPEC 10)."""
