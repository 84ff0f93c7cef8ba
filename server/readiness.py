"""Whether the parts that the server stands on answer."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import structlog

#: Returns when the part answers, raises when it does not.
Check = Callable[[], Awaitable[object]]
_TIMEOUT_S: Final = 2.0
_log = structlog.get_logger(__name__)


async def unanswered(checks: Mapping[str, Check], *, timeout_s: float = _TIMEOUT_S) -> tuple[str, ...]:
    """The names of the parts that do not answer, in order. All are asked at once, each within `timeout_s`."""
    answers = await asyncio.gather(*(_answers(name, check, timeout_s) for name, check in checks.items()))
    return tuple(sorted(name for name, answered in zip(checks, answers, strict=True) if not answered))


async def _answers(name: str, check: Check, timeout_s: float) -> bool:
    try:
        async with asyncio.timeout(timeout_s):
            await check()
    except Exception as exc:  # noqa: BLE001 (whatever it is, the part does not answer)
        _log.warning("a part does not answer", part=name, error=repr(exc))
        return False
    return True
