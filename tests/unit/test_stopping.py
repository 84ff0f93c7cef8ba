"""A stop that never returns keeps a deploy waiting, and its sessions with it."""

import asyncio

import pytest

from billing_engine.stopping import stop_tasks


@pytest.mark.parametrize("steps", range(8))
async def test_a_loop_that_swallows_a_cancellation_is_stopped_all_the_same(steps: int) -> None:
    """As MongoDB's driver does: on Python 3.11 `wait_for` answers its result and forgets that it was cancelled."""

    async def write() -> None:
        await asyncio.sleep(0)

    async def run() -> None:
        while True:
            await asyncio.wait_for(write(), 10)

    task = asyncio.create_task(run())
    for _ in range(steps):
        await asyncio.sleep(0)
    async with asyncio.timeout(10):
        await stop_tasks((None, task))
    assert task.cancelled()


async def test_what_a_task_ends_with_is_nobody_s_failure() -> None:
    async def fails() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            raise RuntimeError

    task = asyncio.create_task(fails())
    await asyncio.sleep(0)
    await stop_tasks((task,))
    assert isinstance(task.exception(), RuntimeError)
