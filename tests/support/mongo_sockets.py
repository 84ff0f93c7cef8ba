"""Closes what PyMongo leaves open where it is cancelled, so that a warning of an unclosed socket is always one of ours.

Closing a client cancels its monitors, also one that is just connecting or emptying its pool; and whoever cancels a call may meet its
connect. The driver then forgets sockets (PYTHON-5867; still so in 4.20.1), which the garbage collector closes, with a
`ResourceWarning` in whatever test runs by then. Nothing is lost but the test. Remove this file with the release that repairs it.

Source: https://jira.mongodb.org/browse/PYTHON-5867
"""

from collections.abc import Awaitable, Callable
from functools import wraps
from types import FrameType, TracebackType
from typing import Any

from pymongo.asynchronous.pool import Pool

_connect, _reset = Pool.connect, Pool._reset


def _closing(original: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    @wraps(original)
    async def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return await original(*args, **kwargs)
        except BaseException as exc:
            _close(exc.__traceback__)
            raise

    return wrapped


def _close(trace: TracebackType | None) -> None:
    while trace is not None:
        _close_in(trace.tb_frame)
        trace = trace.tb_next


def _close_in(frame: FrameType) -> None:
    code, found = frame.f_code, frame.f_locals
    if code.co_name == "_async_create_connection" and "sock" in found:
        found["sock"].close()
    interfaces = []
    if code is _connect.__code__ and "networking_interface" in found:
        interfaces.append(found["networking_interface"])
    if code is _reset.__code__:
        interfaces += [connection.conn for connection in found.get("sockets", ())]
    for interface in interfaces:
        transport, _protocol = interface.conn
        transport.abort()


def close_what_a_cancelled_connect_leaves() -> None:
    """For all clients of this process from now on; harmless to repeat."""
    Pool.connect, Pool._reset = _closing(_connect), _closing(_reset)
