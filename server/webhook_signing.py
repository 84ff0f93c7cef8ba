"""Standard Webhooks (standardwebhooks.com): the three headers by which a receiver knows that a webhook is ours.

Every webhook that we send carries them, so that one piece of code, or one of the ready-made libraries, verifies them all.
"""

import base64
import hashlib
import hmac
from collections.abc import Sequence
from typing import Final

ID: Final = "webhook-id"
TIMESTAMP: Final = "webhook-timestamp"
SIGNATURE: Final = "webhook-signature"


def standard_headers(keys: Sequence[bytes], *, id_: str, at_s: int, body: bytes) -> dict[str, str]:
    """The headers of one attempt. `id_` is the same at each, the time and so the signature are not.

    The signature is HMAC-SHA256 over `<id>.<time>.<body>` in base64; with several keys one of each, while a secret is exchanged.
    """
    signed = f"{id_}.{at_s}.".encode() + body
    signatures = (base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode() for key in keys)
    return {
        ID: id_,
        TIMESTAMP: str(at_s),
        SIGNATURE: " ".join(f"v1,{signature}" for signature in signatures),
    }
