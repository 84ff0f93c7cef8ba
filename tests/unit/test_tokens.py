"""Access and refresh tokens without a server."""

import jwt
import pytest

from server.auth.model import Principal, Role
from server.auth.passwords import Passwords
from server.auth.tokens import AccessTokens, digest_of, new_refresh_token
from server.errors import Unauthenticated
from tests.support.manual_clock import ManualClock

SECRET = "s" * 32
ME = Principal("u1", Role.LAWYER, "f1")


def _tokens(clock: ManualClock, **change: str) -> AccessTokens:
    arguments = {"secret": SECRET, "issuer": "tarazu", "audience": "app"} | change
    return AccessTokens(**arguments, lifetime_s=900, clock=clock)


def test_what_was_issued_is_verified():
    clock = ManualClock()
    token = _tokens(clock).issue(ME)

    assert _tokens(clock).verify(token) == ME
    claims = jwt.decode(token, options={"verify_signature": False})
    assert claims.keys() == {"sub", "role", "fam", "iat", "exp", "jti", "iss", "aud"}
    assert claims["exp"] - claims["iat"] == 900
    assert jwt.get_unverified_header(token)["alg"] == "HS256"


def test_no_two_tokens_are_alike():
    tokens = _tokens(ManualClock())
    assert tokens.issue(ME) != tokens.issue(ME)


def test_a_short_secret_is_refused_at_the_start():
    with pytest.raises(ValueError, match="32 bytes"):
        _tokens(ManualClock(), secret="s" * 31)


@pytest.mark.parametrize("change", [{"secret": "t" * 32}, {"issuer": "x"}, {"audience": "x"}])
def test_a_token_of_another_house_is_refused(change):
    clock = ManualClock()
    with pytest.raises(Unauthenticated):
        _tokens(clock).verify(_tokens(clock, **change).issue(ME))


@pytest.mark.parametrize("token", ["", "a", "a.b.c", "\x00", "\ud800", "e30.e30.", "x" * 10_000])
def test_rubbish_is_refused(token):
    with pytest.raises(Unauthenticated):
        _tokens(ManualClock()).verify(token)


@pytest.mark.parametrize("cut", [1, -1])
def test_a_changed_token_is_refused(cut):
    clock = ManualClock()
    head, payload, signature = _tokens(clock).issue(ME).split(".")
    with pytest.raises(Unauthenticated):
        _tokens(clock).verify(f"{head}.{payload}.{signature[:-4] if cut < 0 else signature[4:]}")


def test_refresh_tokens_are_long_random_and_stored_as_hashes():
    tokens = {new_refresh_token() for _ in range(100)}
    assert len(tokens) == 100
    assert min(map(len, tokens)) >= 43
    assert all(digest_of(token) != token and len(digest_of(token)) == 64 for token in tokens)


async def test_passwords_match_themselves_only():
    passwords = Passwords(cost=4)
    hashed = await passwords.hash("p\u00e4ssword")
    try:
        assert await passwords.matches("p\u00e4ssword", hashed)
        assert not await passwords.matches("passsword", hashed)
        assert not await passwords.matches("p\u00e4ssword", None)
        assert not await passwords.matches("p\u00e4ssword\x00", hashed)
        assert not await passwords.matches("\ud800" * 9, hashed)
    finally:
        passwords.close()
