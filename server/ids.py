"""Identifiers: opaque strings that sort by creation (SPEC 1)."""

import uuid_utils


def new_id() -> str:
    """32 hexadecimal digits of a UUIDv7; later ones of this process sort after earlier ones."""
    return uuid_utils.uuid7().hex
