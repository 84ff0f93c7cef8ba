"""Fixtures for the tests of every folder."""

from tests.support.mongo_server import mongo_admin, mongo_options, mongo_server, mongo_url
from tests.support.valkey import one_valkey, valkey

__all__ = ["mongo_admin", "mongo_options", "mongo_server", "mongo_url", "one_valkey", "valkey"]
