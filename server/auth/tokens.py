"""Access tokens (JWT) and refresh tokens (random, stored as hashes): making and reading, no storage."""

import hashlib
import secrets
from typing import Any, Final

import jwt

from billing_engine.clock import Clock
from server.auth.model import Principal, Role
from server.errors import Unauthenticated
from server.ids import new_id

_ALGORITHM: Final = "HS256"
_REQUIRED: Final = ("sub", "role", "fam", "iat", "exp", "jti", "iss", "aud")
#: PyJWT only warns below this.
_MIN_SECRET_BYTES: Final = 32


class AccessTokens:
    """Signs and verifies access tokens. Verifying asks no storage: it does not know what was revoked since."""

    def __init__(self, *, secret: str, issuer: str, audience: str, lifetime_s: int, clock: Clock) -> None:
        if len(secret.encode()) < _MIN_SECRET_BYTES:
            raise ValueError(f"the signing secret needs at least {_MIN_SECRET_BYTES} bytes")
        self._secret = secret
        self._issuer = issuer
        self._audience = audience
        self._clock = clock
        self.lifetime_s: Final = lifetime_s

    def issue(self, principal: Principal) -> str:
        """A token that names the caller for `lifetime_s`."""
        now_s = self._clock.now_ms() // 1000
        claims = {
            "sub": principal.user_id,
            "role": principal.role.value,
            "fam": principal.family_id,
            "iat": now_s,
            "exp": now_s + self.lifetime_s,
            "jti": new_id(),
            "iss": self._issuer,
            "aud": self._audience,
        }
        return jwt.encode(claims, self._secret, algorithm=_ALGORITHM)

    def verify(self, token: str) -> Principal:
        """The caller that the token names.

        Raises:
            Unauthenticated: forged, for somebody else, expired, or not made here.
        """
        try:
            claims = jwt.decode(
                token,
                self._secret,
                algorithms=[_ALGORITHM],
                issuer=self._issuer,
                audience=self._audience,
                # Times are checked below against our clock, which is not the library's.
                options={
                    "require": list(_REQUIRED),
                    "verify_exp": False,
                    "verify_iat": False,
                    "verify_nbf": False,
                },
            )
        except (jwt.InvalidTokenError, ValueError, TypeError) as exc:
            raise Unauthenticated(presented=True) from exc
        return self._principal(claims)

    def expires_at_ms(self, token: str) -> int:
        """When a token that `verify` has just taken stops being one."""
        claims = jwt.decode(token, options={"verify_signature": False})
        return int(claims["exp"]) * 1000

    def _principal(self, claims: dict[str, Any]) -> Principal:
        user_id, role, family_id, expires_s = claims["sub"], claims["role"], claims["fam"], claims["exp"]
        if type(expires_s) is not int or self._clock.now_ms() >= expires_s * 1000:
            raise Unauthenticated(presented=True)
        if not all(isinstance(claim, str) for claim in (user_id, role, family_id)) or role not in set(Role):
            raise Unauthenticated(presented=True)
        return Principal(user_id=user_id, role=Role(role), family_id=family_id)


def new_refresh_token() -> str:
    """256 random bits."""
    return secrets.token_urlsafe(32)


def digest_of(refresh_token: str) -> str:
    """What is stored of a refresh token. It is random, so a plain hash cannot be guessed back."""
    return hashlib.sha256(refresh_token.encode(errors="replace")).hexdigest()
