"""Whether the parts that the server stands on answer."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import structlog

#: Returns when the part answers, raises when it does not.
Check = Callable[[], Awaitable[object]]
_log = structlog.get_logger(__name__)


class Readiness:
    """Asks all parts at once, each within `timeout_s`."""

    def __init__(self, checks: Mapping[str, Check], *, timeout_s: float = 2.0) -> None:
        self._checks = dict(checks)
        self._timeout_s = timeout_s

    async def failed(self) -> tuple[str, ...]:
        """The names of the parts that do not answer, in order."""
        answers = await asyncio.gather(*(self._answers(name, check) for name, check in self._checks.items()))
        return tuple(
            sorted(name for name, answers_now in zip(self._checks, answers, strict=True) if not answers_now)
        )

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of all parts."""
        return tuple(sorted(self._checks))

    async def _answers(self, name: str, check: Check) -> bool:
        try:
            async with asyncio.timeout(self._timeout_s):
                await check()
        except Exception as exc:  # noqa: BLE001 (whatever it is, the part does not answer)
            _log.warning("a part does not answer", part=name, error=repr(exc))
            return False
        return True
