"""Fixtures for the tests of every folder, and what is left out unless it is asked for."""

import os

import pytest

from tests.support.mongo_server import mongo_admin, mongo_options, mongo_server, mongo_url
from tests.support.valkey import one_valkey, valkey

__all__ = ["mongo_admin", "mongo_options", "mongo_server", "mongo_url", "one_valkey", "valkey"]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without `TARAZU_EXHAUSTIVE` the deaths of the one-transaction ledger are left to those of the stepwise one, which has more of them."""
    if os.environ.get("TARAZU_EXHAUSTIVE"):
        return
    left_out = [item for item in items if item.get_closest_marker("exhaustive") is not None]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item.get_closest_marker("exhaustive") is None]
