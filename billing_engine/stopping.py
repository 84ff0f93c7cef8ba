"""How a task is stopped."""

import asyncio
from collections.abc import Iterable
from typing import Any, Final

#: How long a task may take over its goodbye before it is told again.
_AGAIN_S: Final = 0.2


async def stop_tasks(tasks: Iterable["asyncio.Task[Any] | None"]) -> None:
    """Cancel, and return once all have ended, whatever they ended with.

    Again and again: `asyncio.wait_for` of Python 3.11 drops a cancellation that meets a finished wait, and MongoDB's driver uses it in
    every command. A loop that was told once would go on for ever, and its stopper with it.
    """
    pending = {task for task in tasks if task is not None and not task.done()}
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=_AGAIN_S)
