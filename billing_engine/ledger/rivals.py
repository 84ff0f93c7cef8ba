"""Two processes that write the same accounts: one of them finds a moved version, and tries again."""

import asyncio
import random
from typing import Final

#: A version that moves this often under one batch means that writers fight over it; the callers may retry.
ATTEMPTS: Final = 20
_LONGEST_S: Final = 0.05


async def let_rivals_finish(attempt: int) -> None:
    """Before try number `attempt`, counted from 0. The second comes at once: most collisions are over by then. From the third on, each
    waits a little, by chance, or two processes of one rhythm would move one another's versions for ever.
    """
    if attempt > 1:
        await asyncio.sleep(random.uniform(0, min(_LONGEST_S, 0.001 * 2**attempt)))  # noqa: S311  no secret
