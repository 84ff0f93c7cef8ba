"""Who may log in, and what a verified token says."""

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
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


class CompanyRight(StrEnum):
    """What somebody may do in a company's name (SPEC 9)."""

    #: Report usages, which the company pays.
    USAGE = "usage"
    #: See what it has, has used and has paid.
    READ = "read"
    #: Change how it pays, who its people are, and its keys.
    MANAGE = "manage"


class MemberAccess(StrEnum):
    """What a company's owner lets a member do."""

    VIEWER = "VIEWER"
    MANAGER = "MANAGER"


#: What each kind of member may do. The owner may do everything.
RIGHTS_OF: Final[Mapping[MemberAccess, frozenset[CompanyRight]]] = {
    MemberAccess.VIEWER: frozenset({CompanyRight.READ}),
    MemberAccess.MANAGER: frozenset(CompanyRight),
}


@dataclass(frozen=True, slots=True)
class CompanyAccess:
    """For which company a caller acts, and what they may do there. `key_id` is the API key that they called with, if they did."""

    company_id: str
    rights: frozenset[CompanyRight]
    key_id: str | None = None


@dataclass(frozen=True, slots=True)
class Principal:
    """The caller, as a verified access token names them. `family_id` is the log-in that the token came from.

    `company` is looked up where a route asks for it; an API key has one always, `key:<its id>` for a user id, and no log-in.
    """

    user_id: str
    role: Role
    family_id: str
    company: CompanyAccess | None = None

    @property
    def is_api_key(self) -> bool:
        """Whether a program calls, with a company's key."""
        return self.company is not None and self.company.key_id is not None


@dataclass(frozen=True, slots=True)
class Disabling:
    """Who shut an account, when and why."""

    by: str
    at_ms: int
    reason: str


class FollowUp(StrEnum):
    """A committed change of an account that has to reach other places: sockets, sessions, profiles, mailboxes.

    The change writes a token of its own into the account's row, in the same step; it goes once everything is done. So a crash
    at any point leaves the work to be found, and doing it twice is harmless.
    """

    PASSWORD = "password"  # noqa: S105 (the name of a change)
    #: Disabled or enabled: the row says which.
    STANDING = "standing"
    DELETION = "deletion"


@dataclass(frozen=True, slots=True)
class PasswordChange:
    """One change of a password. `keep_family` is the log-in that goes on, if any."""

    id: str
    at_ms: int
    keep_family: str | None = None


@dataclass(frozen=True, slots=True)
class Account:
    """Somebody who may log in. `email` is as they wrote it; `email_key` of it is what must be unique.

    `known_addresses` are marks of the networks that it logged in from, the latest last. A deleted account is disabled, too.
    """

    id: str
    email: str
    name: str
    role: Role
    password_hash: str
    created_at_ms: int
    profession: Profession | None = None
    company_name: str | None = None
    #: Of a company's members only: whose company it is, and what they may do. The owner's account *is* the company.
    company_id: str | None = None
    company_access: MemberAccess | None = None
    is_disabled: bool = False
    disabling: Disabling | None = None
    deleted_at_ms: int | None = None
    #: Rises with each new password; None in rows from before it was counted.
    password_version: int | None = None
    #: The latest change whose follow-up is not done.
    password_change: PasswordChange | None = None
    known_addresses: tuple[str, ...] = ()
    #: The tokens of changes that are not carried out everywhere yet.
    due: Mapping[FollowUp, str] = field(default_factory=dict)

    @property
    def is_owner(self) -> bool:
        """Whether the account is a company, and not one of its members or somebody else."""
        return self.role is Role.COMPANY and self.company_id is None

    @property
    def acts_for(self) -> str | None:
        """The id of the company that the account owns or belongs to."""
        return self.id if self.is_owner else self.company_id

    def is_same_password(self, other: "Account") -> bool:
        """Whether nobody set a new password between the two readings of this account."""
        return self.password_hash == other.password_hash


class SignOut(StrEnum):
    """Why a log-in ended."""

    LOGGED_OUT = "LOGGED_OUT"
    TOKEN_REUSED = "TOKEN_REUSED"  # noqa: S105 (a reason)
    PASSWORD_CHANGED = "PASSWORD_CHANGED"  # noqa: S105 (a reason)
    ACCOUNT_DISABLED = "ACCOUNT_DISABLED"


@dataclass(frozen=True, slots=True)
class Ended:
    """A log-in that ended; `family_id` is None where all of the user's did."""

    user_id: str
    family_id: str | None
    why: SignOut


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
