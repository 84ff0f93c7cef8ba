"""The one-time tokens of password resets: made when a mail is written, never stored.

A token is the keyed hash of the request's 256 random bits: a redelivered mail carries the same token, while what the store
holds (the bits, and the token's hash) opens nothing without the server's key.
"""

import base64
import hashlib
import hmac
import secrets
from dataclasses import dataclass
from typing import Final

_DOMAIN: Final = b"tarazu password reset\x00"
#: An account's id, a dot, and 256 bits in base64.
LONGEST: Final = 256


@dataclass(frozen=True, slots=True)
class ParsedToken:
    """Whose password a token may set, if its digest is theirs."""

    account_id: str
    digest: str


class ResetTokens:
    """Makes and reads tokens. All processes have the same key."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def token(self, account_id: str, nonce: str) -> str:
        """The token of this request for this account; always the same."""
        mac = hmac.new(self._key, _DOMAIN + f"{account_id}\x00{nonce}".encode(), hashlib.sha256).digest()
        return f"{account_id}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"

    @staticmethod
    def new_nonce() -> str:
        """256 random bits."""
        return secrets.token_urlsafe(32)

    @staticmethod
    def parse(token: str) -> ParsedToken:
        """What a token says, true or not."""
        return ParsedToken(token.rpartition(".")[0], ResetTokens.digest(token))

    @staticmethod
    def digest(token: str) -> str:
        """What is stored of a token. It is as good as random, so a plain hash cannot be guessed back."""
        return hashlib.sha256(token.encode(errors="replace")).hexdigest()
