"""Mail, through a server of the operator's."""

from dataclasses import dataclass
from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, parseaddr
from typing import Final

import aiosmtplib

from server.notifications.model import Notification
from server.notifications.options import SmtpSecurity
from server.notifications.ports import NotDelivered

#: For each answer of the mail server. The attempt as a whole is bounded by the outbox.
_TIMEOUT_S: Final = 10.0
#: Answers that say something about us (log-in, TLS, policy) and not about the letter: an operator can put them right.
_OUR_FAULT: Final = frozenset({500, 501, 502, 503, 504, 530, 534, 535, 538})


@dataclass(frozen=True, slots=True)
class SmtpOptions:
    """Where mail goes, as whom."""

    host: str
    port: int
    sender: str
    user: str = ""
    password: str = ""
    security: SmtpSecurity = SmtpSecurity.STARTTLS


class SmtpNotifier:
    """One connection a letter: they are few, and a kept one is a half-dead one by the next."""

    def __init__(self, options: SmtpOptions) -> None:
        self._options = options

    async def notify(self, notification: Notification) -> None:
        options = self._options
        try:
            await aiosmtplib.send(
                _mail(notification, options.sender),
                hostname=options.host,
                port=options.port,
                username=options.user or None,
                password=options.password or None,
                use_tls=options.security is SmtpSecurity.TLS,
                start_tls=options.security is SmtpSecurity.STARTTLS,
                timeout=_TIMEOUT_S,
            )
        except aiosmtplib.SMTPRecipientsRefused as exc:
            codes = [refused.code for refused in exc.recipients]
            raise NotDelivered(
                f"recipient refused: {codes}", for_good=all(_is_final(code) for code in codes)
            ) from exc
        except aiosmtplib.SMTPResponseException as exc:
            raise NotDelivered(f"the mail server said {exc.code}", for_good=_is_final(exc.code)) from exc
        except (aiosmtplib.SMTPException, OSError) as exc:
            raise NotDelivered(f"no mail server: {type(exc).__name__}") from exc


def _is_final(code: int) -> bool:
    return 500 <= code < 600 and code not in _OUR_FAULT


def _mail(notification: Notification, sender: str) -> EmailMessage:
    mail = EmailMessage(policy=SMTP)
    name, address = parseaddr(sender)
    mail["From"] = Address(display_name=name, addr_spec=address)
    # An account's address was checked when it was opened; the policy refuses a line break all the same.
    mail["To"] = Address(addr_spec=notification.email)
    mail["Subject"] = notification.subject
    mail["Date"] = format_datetime(datetime.fromtimestamp(notification.created_at_ms // 1000, UTC))
    # The same at each attempt: mail programs show one of two.
    mail["Message-ID"] = f"<{notification.id}@{address.rpartition('@')[2]}>"
    # Nobody's out-of-office answers a machine (RFC 3834).
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(notification.text)
    return mail
