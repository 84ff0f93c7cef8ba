"""Who may log in, and what a verified token says."""

import re
import unicodedata
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Role(StrEnum):
    """What an account is for (SPEC 2)."""

    USER = "USER"
    LAWYER = "LAWYER"
    FREELANCER = "FREELANCER"
    COMPANY = "COMPANY"
    ADMIN = "ADMIN"


class Profession(StrEnum):
    """What a freelancer does."""

    VIDEOGRAPHER = "videographer"
    VIDEO_EDITOR = "video_editor"


@dataclass(frozen=True, slots=True)
class Principal:
    """The caller, as a verified access token names them. `family_id` is the log-in that the token came from."""

    user_id: str
    role: Role
    family_id: str


@dataclass(frozen=True, slots=True)
class Account:
    """Somebody who may log in. `email` is as they wrote it; `email_key` of it is what must be unique."""

    id: str
    email: str
    name: str
    role: Role
    password_hash: str
    created_at_ms: int
    profession: Profession | None = None
    company_name: str | None = None
    is_disabled: bool = False


@dataclass(frozen=True, slots=True)
class Family:
    """One log-in and every token that descends from it; once ended, none of them works."""

    id: str
    user_id: str
    created_at_ms: int
    ended_at_ms: int | None = None


@dataclass(frozen=True, slots=True)
class RefreshToken:
    """A refresh token as it is stored: never itself, only its hash. `used_at_ms` is when a successor was first given for it."""

    digest: str
    family_id: str
    expires_at_ms: int
    used_at_ms: int | None = None


@dataclass(frozen=True, slots=True)
class TokenPair:
    """What a client goes on with."""

    access_token: str
    refresh_token: str
    expires_in_s: int


#: bcrypt reads no more than 72 bytes; cutting would make two passwords one.
PASSWORD_BYTES: Final = range(8, 73)

#: The local part without quoting, the domain in LDH labels with at least one dot: what people have, not all that RFC 5321 allows.
_EMAIL: Final = re.compile(
    r"[^\s@\"(),:;<>\[\]\\.]+(\.[^\s@\"(),:;<>\[\]\\.]+)*@([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z0-9-]{2,63}",
    re.IGNORECASE,
)
_EMAIL_LENGTH: Final = 254
_LOCAL_PART_BYTES: Final = 64


def email_problem(email: str) -> str | None:
    """What is wrong with an address, None if nothing is."""
    local, _, _ = email.partition("@")
    fits = len(email) <= _EMAIL_LENGTH and len(local.encode(errors="replace")) <= _LOCAL_PART_BYTES
    if fits and email.isprintable() and _EMAIL.fullmatch(email):
        return None
    return "must be an email address such as name@example.com"


def email_key(email: str) -> str:
    """One spelling for all that differ in case only."""
    return unicodedata.normalize("NFC", email.strip()).casefold()


def password_problem(password: str) -> str | None:
    """What is wrong with a new password, None if nothing is."""
    length = len(password.encode(errors="replace"))
    if length not in PASSWORD_BYTES:
        return f"must be {PASSWORD_BYTES.start} to {PASSWORD_BYTES.stop - 1} bytes long, it has {length}"
    if "\x00" in password:
        return "must not contain NUL"
    return None
