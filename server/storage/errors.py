"""Failures that every store can have, in the words of both engines."""

from typing import Any

import billing_engine.errors as billing
import chat.errors as chat


class StoreUnavailable(billing.Unavailable, chat.Unavailable):
    """The store did not commit, or it is not known whether it did. A retry by key or id is safe."""

    code = "STORAGE_UNAVAILABLE"
    detail = "The storage did not answer. Try again with the same Idempotency-Key."
    retryable = True

    def __init__(self, **facts: Any) -> None:
        # Neither parent's: each would hand its positional arguments to the other, which takes none.
        self.facts = facts
        Exception.__init__(self, self.code, facts)


class StoreBusy(StoreUnavailable):
    """The bounded write queue is full: nothing was written."""

    code = "STORAGE_BUSY"
    detail = "The storage is busy and took nothing. Try again in a moment."


class DuplicateId(Exception):
    """A document with this `_id` exists already. Repositories turn it into a domain answer."""

    def __init__(self, collection: str, id_: str) -> None:
        self.collection = collection
        self.id = id_
        super().__init__(f"{collection}: {id_!r} exists")


class CannotOpen(Exception):
    """The database cannot be used. The message is meant for the operator and says which one it is."""

    def __init__(self, where: object, reason: str) -> None:
        self.where = where
        self.reason = reason
        super().__init__(f"{where}: {reason}")
