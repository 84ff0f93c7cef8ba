"""Thousands who come at once are taken in a few at a time, in order, and what else is due runs in between."""

import asyncio

from server.realtime.turnstile import Turnstile


async def test_so_many_in_each_turn_of_the_loop_and_in_order() -> None:
    turnstile = Turnstile(8)
    turn, passed = 0, []

    async def one(number: int) -> None:
        await turnstile.enter()
        passed.append((turn, number))

    tasks = [asyncio.create_task(one(number)) for number in range(100)]
    while not all(task.done() for task in tasks):
        turn += 1
        await asyncio.sleep(0)

    assert [number for _, number in passed] == list(range(100))
    # The first eight need not wait, so they share their turn with nobody who had to.
    assert max(sum(at == which for at, _ in passed) for which, _ in passed) <= 8
    assert turn >= 100 / 8, "everything else had its turns"
    assert len(turnstile) == 0


async def test_one_by_one_nobody_waits() -> None:
    turnstile = Turnstile(1)
    for _ in range(10):
        entering = turnstile.enter()
        try:
            entering.send(None)
        except StopIteration:
            pass
        else:
            raise AssertionError("it waited")
        await asyncio.sleep(0)


async def test_who_is_cancelled_takes_no_turn() -> None:
    turnstile = Turnstile(1)
    tasks = [asyncio.create_task(turnstile.enter()) for _ in range(10)]
    await asyncio.sleep(0)
    for task in tasks[1:9]:
        task.cancel()
    await asyncio.wait_for(tasks[9], 5)
    assert len(turnstile) == 0
