"""Which of the driver's failures mean what."""

from types import TracebackType
from typing import Final

from pymongo.errors import (
    BulkWriteError,
    ConnectionFailure,
    DuplicateKeyError,
    InvalidOperation,
    NetworkTimeout,
    OperationFailure,
    PyMongoError,
)

from server.storage.errors import StoreUnavailable

DUPLICATE_KEY: Final = 11_000
#: Answers that blame the command: the same command would be refused again, so saying "try again" would hide a mistake of ours.
#: Source: error_codes.yml of the MongoDB server.
_MISTAKES: Final = frozenset(
    {
        2,  # BadValue
        9,  # FailedToParse
        14,  # TypeMismatch
        17,  # ProtocolError
        26,  # NamespaceNotFound
        27,  # IndexNotFound
        28,  # PathNotViable
        40,  # ConflictingUpdateOperators
        48,  # NamespaceExists
        52,  # DollarPrefixedFieldName
        59,  # CommandNotFound
        66,  # ImmutableField
        67,  # CannotCreateIndex
        72,  # InvalidOptions
        85,  # IndexOptionsConflict
        86,  # IndexKeySpecsConflict
        121,  # DocumentValidationFailure
        10_334,  # BSONObjectTooLarge
        DUPLICATE_KEY,
    }
)


def is_duplicate(exc: BulkWriteError) -> bool:
    """Whether every write that failed met an existing key, and all others were acknowledged as asked."""
    return not exc.details.get("writeConcernErrors") and all(
        error.get("code") == DUPLICATE_KEY for error in exc.details.get("writeErrors", ())
    )


def is_trouble(exc: BaseException) -> bool:
    """Whether the store failed or may have: the outcome of a write is unknown. A duplicate key and a mistake of ours are none."""
    if isinstance(exc, BulkWriteError):
        return bool(exc.details.get("writeConcernErrors")) or any(
            error.get("code") not in _MISTAKES for error in exc.details.get("writeErrors", ())
        )
    if isinstance(exc, DuplicateKeyError):
        return False
    if isinstance(exc, OperationFailure):
        # A code that we do not know is treated as unknown: never as done, never as refused.
        return exc.code not in _MISTAKES
    if isinstance(exc, (ConnectionFailure, NetworkTimeout)):
        return True
    if isinstance(exc, InvalidOperation):
        # The server is going down and its connections are gone; any other of these is a mistake of ours.
        return "after close" in str(exc)
    return isinstance(exc, PyMongoError) and exc.timeout


class StoreFailures:
    """`with store_failures:` turns trouble of the driver into `StoreUnavailable` and leaves everything else alone.

    `DuplicateKeyError` above all goes through: only its caller knows what an existing key means.
    """

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if exc is not None and is_trouble(exc):
            raise StoreUnavailable from exc


#: It keeps nothing between uses: one serves all.
store_failures: Final = StoreFailures()
