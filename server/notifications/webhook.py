"""A signed POST to a service of the operator's, which sends mail, push or text messages as it likes (docs/notifications.md)."""

import hashlib
import hmac
from typing import Final

import aiohttp
import orjson

from billing_engine.clock import Clock
from server.notifications.model import Notification
from server.notifications.ports import NotDelivered
from server.webhook_signing import standard_headers
from server.wire import rfc3339

SIGNATURE: Final = "Tarazu-Signature"
NOTIFICATION_ID: Final = "Tarazu-Notification-Id"
_TIMEOUT: Final = aiohttp.ClientTimeout(total=10, connect=5)
#: "It is gone": the receiver asks us to stop.
_GONE: Final = 410


def signature(secret: bytes, body: bytes, *, at_s: int) -> str:
    """The header's value: the time, and HMAC-SHA256 over `<time>.<body>` in hexadecimal. A repeat is signed anew."""
    mac = hmac.new(secret, f"{at_s}.".encode() + body, hashlib.sha256)
    return f"t={at_s},v1={mac.hexdigest()}"


class WebhookNotifier:
    """Any 2xx answer takes the notification over. `close` when done."""

    def __init__(self, url: str, secret: bytes, clock: Clock) -> None:
        self._url = url
        self._secret = secret
        self._clock = clock
        self._http: aiohttp.ClientSession | None = None

    async def notify(self, notification: Notification) -> None:
        body = orjson.dumps(
            {
                "id": notification.id,
                "kind": notification.kind.value,
                "userId": notification.user_id,
                "email": notification.email,
                "subject": notification.subject,
                "text": notification.text,
                "facts": dict(notification.facts),
                "createdAt": rfc3339(notification.created_at_ms),
            }
        )
        at_s = self._clock.now_ms() // 1000
        headers = {
            "Content-Type": "application/json",
            SIGNATURE: signature(self._secret, body, at_s=at_s),
            NOTIFICATION_ID: notification.id,
            # As companies' webhooks have them: who receives both verifies both the same way.
            **standard_headers((self._secret,), id_=notification.id, at_s=at_s, body=body),
        }
        if self._http is None:
            self._http = aiohttp.ClientSession(timeout=_TIMEOUT, auto_decompress=False)
        try:
            # A redirect would take the letter, with its link, to somebody whom nobody configured.
            async with self._http.post(
                self._url, data=body, headers=headers, allow_redirects=False
            ) as response:
                status = response.status
        except (aiohttp.ClientError, OSError, TimeoutError) as exc:
            raise NotDelivered(f"no answer: {type(exc).__name__}") from exc
        if not 200 <= status < 300:
            raise NotDelivered(f"the webhook answered {status}", for_good=status == _GONE)

    async def close(self) -> None:
        """Close the connections."""
        if self._http is not None:
            await self._http.close()
            self._http = None
