"""One connection's events start in order, whatever they wait for, and none is lost or answered twice."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from chat.errors import RateLimited
from chat.event_types import Turn
from chat.inbox import Inbox


class Log:
    """Work that writes down when it starts and ends, and ends when the test says so."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.doors: dict[str, asyncio.Event] = {}

    def work(self, name: str, *, waits: bool = True) -> Callable[[], Awaitable[str]]:
        door = self.doors.setdefault(name, asyncio.Event())
        if not waits:
            door.set()

        async def run() -> str:
            self.lines.append(f"+{name}")
            await door.wait()
            self.lines.append(f"-{name}")
            return name

        return run


async def turns() -> None:
    """Let everything that can go on go on."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_pipelined_work_starts_in_order_and_overlaps() -> None:
    log, inbox = Log(), Inbox()
    futures = [inbox.put(log.work(str(k)), Turn.PIPELINED) for k in range(5)]
    await turns()

    assert log.lines == ["+0", "+1", "+2", "+3", "+4"]
    for k in (3, 0, 4, 1, 2):
        log.doors[str(k)].set()
        await turns()
    assert log.lines[5:] == ["-3", "-0", "-4", "-1", "-2"]
    assert await asyncio.gather(*futures) == ["0", "1", "2", "3", "4"]


async def test_work_alone_waits_for_what_came_before_and_holds_up_what_comes_after() -> None:
    log, inbox = Log(), Inbox()
    inbox.put(log.work("a"), Turn.PIPELINED)
    inbox.put(log.work("b"), Turn.PIPELINED)
    inbox.put(log.work("join"), Turn.ALONE)
    inbox.put(log.work("c"), Turn.PIPELINED)
    await turns()
    assert log.lines == ["+a", "+b"]

    log.doors["a"].set()
    await turns()
    assert "+join" not in log.lines
    log.doors["b"].set()
    await turns()
    assert log.lines[-1] == "+join"
    log.doors["join"].set()
    await turns()
    assert log.lines[-2:] == ["-join", "+c"]


async def test_too_much_waiting_is_refused_and_the_rest_still_done() -> None:
    log, inbox = Log(), Inbox(waiting=3, under_way=2)
    names = ["a", "b", "c", "d", "e"]
    futures = [inbox.put(log.work(name), Turn.PIPELINED) for name in names]

    with pytest.raises(RateLimited):
        inbox.put(log.work("f"), Turn.PIPELINED)
    await turns()
    assert log.lines == ["+a", "+b"]

    for name in names:
        log.doors[name].set()
    assert await asyncio.gather(*futures) == names
    assert [line for line in log.lines if line[0] == "+"] == [f"+{name}" for name in names]


async def test_whoever_waits_for_space_gets_it_when_work_is_taken_out() -> None:
    log, inbox = Log(), Inbox(waiting=1, under_way=1)
    inbox.put(log.work("a"), Turn.PIPELINED)
    inbox.put(log.work("b"), Turn.PIPELINED)
    await turns()  # b is in the worker's hands
    inbox.put(log.work("c"), Turn.PIPELINED)

    reader = asyncio.create_task(inbox.space(60))
    await turns()
    assert not reader.done()
    log.doors["a"].set()
    await turns()

    assert reader.done()
    inbox.put(log.work("d", waits=False), Turn.PIPELINED)
    for name in ("b", "c"):
        log.doors[name].set()
    await inbox.idle()
    assert log.lines[-1] == "-d"


async def test_patience_for_space_ends() -> None:
    log, inbox = Log(), Inbox(waiting=1, under_way=1)
    inbox.put(log.work("a"), Turn.PIPELINED)
    inbox.put(log.work("b"), Turn.PIPELINED)
    await turns()
    inbox.put(log.work("c"), Turn.PIPELINED)

    await asyncio.wait_for(inbox.space(0.001), 1)

    with pytest.raises(RateLimited):
        inbox.put(log.work("d"), Turn.PIPELINED)
    for door in log.doors.values():
        door.set()
    await inbox.idle()


@pytest.mark.parametrize("turn", Turn)
async def test_an_error_goes_to_its_caller_and_the_next_goes_on(turn: Turn) -> None:
    inbox = Inbox()

    async def broken() -> None:
        raise KeyError

    failed = inbox.put(broken, turn)
    fine = inbox.put(Log().work("a", waits=False), turn)

    with pytest.raises(KeyError):
        await failed
    assert await fine == "a"


@pytest.mark.parametrize("turn", Turn)
async def test_work_is_finished_though_its_caller_is_gone(turn: Turn) -> None:
    """The socket closed; the message was taken all the same."""
    log, inbox = Log(), Inbox()
    caller = asyncio.ensure_future(inbox.put(log.work("a"), turn))
    await turns()
    caller.cancel()
    await turns()

    log.doors["a"].set()
    await inbox.idle()

    assert log.lines == ["+a", "-a"]


async def test_an_idle_inbox_costs_no_task() -> None:
    inbox = Inbox()
    await inbox.put(Log().work("a", waits=False), Turn.ALONE)
    await inbox.put(Log().work("b", waits=False), Turn.PIPELINED)
    await inbox.idle()
    await turns()

    assert len(asyncio.all_tasks()) == 1
