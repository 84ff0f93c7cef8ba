"""Who may log in, and what a verified token says."""

from dataclasses import dataclass
from enum import StrEnum


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
