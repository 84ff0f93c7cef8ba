"""Choices of the notifiers that the settings name."""

from enum import StrEnum


class SmtpSecurity(StrEnum):
    """How the connection is protected. STARTTLS is required where it is chosen: no quiet fall-back to plain text."""

    STARTTLS = "starttls"
    TLS = "tls"
    NONE = "none"
