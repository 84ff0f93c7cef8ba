"""Fixtures for the tests of every folder."""

from tests.support.valkey import one_valkey, valkey

__all__ = ["one_valkey", "valkey"]
