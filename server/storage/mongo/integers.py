"""Every integer is an Int64 in the database and a plain int in the program.

A driver stores small integers in 32 bits; `$inc` on the server then answers with whatever type fits, and what a report adds up has
changed its type along the way. One type for all leaves nothing to chance.
"""

from typing import Any, Final

from bson import Int64
from bson.codec_options import CodecOptions, TypeDecoder, TypeRegistry


def int64(value: Any) -> Any:
    """A copy of a JSON value with every integer in it, however deep, as Int64. Booleans stay booleans, tuples become lists.

    Raises `OverflowError` when it is sent, for an integer beyond 64 bits: check before.
    """
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    if isinstance(value, int):
        return Int64(value)
    if isinstance(value, dict):
        return {name: int64(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [int64(inner) for inner in value]
    return value


class _PlainInt(TypeDecoder):
    bson_type = Int64

    def transform_bson(self, value: Any) -> int:
        return int(value)


#: Reading gives plain ints: an Int64 prints differently and lives on in documents that callers pass around.
CODEC: Final[CodecOptions[dict[str, Any]]] = CodecOptions(type_registry=TypeRegistry([_PlainInt()]))
