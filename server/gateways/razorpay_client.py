"""Calls to Razorpay through its own package, which is synchronous, untyped and says on stdout what went wrong.

A session of our own sits below the package. It looks at every answer before the package does: so a failure has the gateway's own
reason (the package keeps only the prose), 429 is told from a refusal (both are `BAD_REQUEST_ERROR`), and nothing is printed, since
the package prints only what its session raises as an exception of `requests`.
"""

import asyncio
import re
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import razorpay  # type: ignore[import-untyped, unused-ignore]
import requests
import structlog

from billing_engine.payments.errors import GatewayRefused, GatewayUnavailable

#: Calls at the same time: a thread each. More wait.
_THREADS: Final = 8
_OK: Final = range(200, 300)
_NO_CONTENT: Final = 204
#: Our keys are wrong or may not do this: nothing of it is about the payment that was asked for.
_OUR_KEYS: Final = frozenset({401, 403})
#: Not now: a timeout on their side, still being done, too early, too many.
_NOT_NOW: Final = frozenset({408, 409, 425, 429})
_REFUSALS: Final = range(400, 500)
#: The codes and reasons of the gateway are words; anything else may be anything and is not repeated.
_WORD: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)
_NO_REASON: Final = frozenset({"", "NA"})

_log = structlog.get_logger(__name__)

#: What the gateway answered.
Answer = Mapping[str, Any]


class RazorpayClient:
    """Asks Razorpay and answers its JSON object, or raises `GatewayUnavailable` or `GatewayRefused`."""

    def __init__(self, key_id: str, key_secret: str, *, base_url: str, timeout_s: float) -> None:
        self._auth = (key_id, key_secret)
        self._base_url = base_url.rstrip("/")
        self._timeout_s = timeout_s
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="razorpay")
        self._of_thread = threading.local()
        self._sessions: list[requests.Session] = []

    async def ask(self, what: Callable[[Any], object]) -> Answer:
        """Run `what` with the package's client in a thread.

        The time limit of `requests` is for each wait of its own; ours is for all of them and for a free thread. When it is over the
        thread goes on for a while and nobody hears what it hears.
        """
        try:
            asked = asyncio.get_running_loop().run_in_executor(self._threads, self._run, what)
        except RuntimeError as exc:
            raise GatewayUnavailable(gateway="razorpay", why="closed") from exc
        try:
            async with asyncio.timeout(2 * self._timeout_s):
                answer = await asked
        except TimeoutError as exc:
            raise GatewayUnavailable(gateway="razorpay", why="timeout") from exc
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            # Not we are cancelled, but what waited for a thread when they were closed.
            raise GatewayUnavailable(gateway="razorpay", why="closed") from None
        # The package makes a string of an answer without content.
        return answer if isinstance(answer, Mapping) else {}

    async def close(self) -> None:
        """Wait for the calls under way; those that wait for a thread are given up."""
        await asyncio.to_thread(self._threads.shutdown, cancel_futures=True)
        for session in self._sessions:
            session.close()

    def _run(self, what: Callable[[Any], object]) -> object:
        client = getattr(self._of_thread, "client", None)
        if client is None:
            # One each: nobody promises that a session can be shared between threads.
            session = _Session(self._timeout_s)
            self._sessions.append(session)
            client = razorpay.Client(session=session, auth=self._auth, base_url=self._base_url)
            self._of_thread.client = client
        return what(client)


class _Session(requests.Session):
    """Maps every failure before the package sees it."""

    def __init__(self, timeout_s: float) -> None:
        super().__init__()
        self._timeout_s = timeout_s

    def request(self, method: Any, url: Any, *args: Any, **options: Any) -> requests.Response:
        options["timeout"] = self._timeout_s
        # A redirect would be followed with another method, and is no answer of this gateway's.
        options["allow_redirects"] = False
        try:
            response = super().request(method, url, *args, **options)
        except requests.RequestException as exc:
            # Its request has the keys in a header: whoever prints all there is of an exception must not find them.
            exc.request = exc.response = None
            raise GatewayUnavailable(gateway="razorpay", why=type(exc).__name__) from exc
        _check(response)
        return response


def _check(response: requests.Response) -> None:
    """Nothing if it is the answer; raises what it is instead."""
    status = response.status_code
    if status == _NO_CONTENT:
        return
    body = _object(response)
    if status in _OK:
        if body is None or "error" in body:
            raise GatewayUnavailable(gateway="razorpay", why="no answer of its own", status=status)
        return
    if status in _OUR_KEYS:
        _log.error("razorpay does not accept our keys", status=status)
        raise GatewayUnavailable(gateway="razorpay", why="keys", status=status)
    error = body.get("error") if body is not None else None
    if status not in _REFUSALS or status in _NOT_NOW or not isinstance(error, Mapping):
        raise GatewayUnavailable(gateway="razorpay", why="status", status=status)
    code, reason = _word(error.get("code")), _word(error.get("reason"))
    if code != "BAD_REQUEST_ERROR":
        # GATEWAY_ERROR: it has asked a bank and does not know. SERVER_ERROR: it does not know itself.
        raise GatewayUnavailable(gateway="razorpay", why=code or "error", status=status)
    raise GatewayRefused(gateway="razorpay", reason=code if reason in _NO_REASON else reason)


def _object(response: requests.Response) -> Mapping[str, Any] | None:
    """The JSON object in the answer; None if it is none."""
    try:
        body = response.json()
    except (ValueError, RecursionError):
        return None
    return body if isinstance(body, Mapping) else None


def _word(value: object) -> str:
    return value if isinstance(value, str) and _WORD.fullmatch(value) else ""
