"""The default way out: a line in the log. It reaches nobody but the operator."""

import structlog

from server.notifications.model import Notification

_log = structlog.get_logger(__name__)


class LogNotifier:
    """`with_text` prints the letter too, one-time link included: for a developer's machine, so that a reset can be tried."""

    def __init__(self, *, with_text: bool) -> None:
        self._with_text = with_text

    async def notify(self, notification: Notification) -> None:
        more = {"subject": notification.subject, "text": notification.text} if self._with_text else {}
        _log.info(
            "notification",
            notification=notification.id,
            kind=notification.kind.value,
            user_id=notification.user_id,
            **more,
        )
