"""API keys as text: `tzk_<id>_<secret>`. Making and reading, no storage.

The prefix lets secret scanners find a key that was published, and the edge tell it from a token. The secret is 256 random bits,
so what is stored is a plain SHA-256: nobody can guess a preimage of it, and a slow hash such as bcrypt, made for passwords that
people choose, would only slow down every call of the company's back end.
"""

import hashlib
import hmac
import re
import secrets
from typing import Final

PREFIX: Final = "tzk_"
_SHAPE: Final = re.compile(r"tzk_([0-9a-f]{32})_[A-Za-z0-9_-]{43}", re.ASCII)


def new_key(key_id: str) -> str:
    """A fresh key with this id. It is shown once."""
    return f"{PREFIX}{key_id}_{secrets.token_urlsafe(32)}"


def key_id_of(key: str) -> str | None:
    """The id in a key, true or not; None for what cannot be a key."""
    match = _SHAPE.fullmatch(key)
    return match[1] if match else None


def digest_of(key: str) -> str:
    """What is stored of a key."""
    return hashlib.sha256(key.encode(errors="replace")).hexdigest()


def is_key_of(key: str, digest: str) -> bool:
    """Whether the digest is this key's; takes as long wherever they differ."""
    return hmac.compare_digest(digest_of(key), digest)
