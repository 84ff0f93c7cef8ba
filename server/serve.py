"""`tarazu serve` and `tarazu worker`: build everything, and on SIGTERM or SIGINT hand back what is held and go."""

import asyncio
import gc
import signal
from contextlib import AsyncExitStack
from typing import Final

import structlog
from aiohttp import web

from server.composition import build, build_worker
from server.settings import Settings

log = structlog.get_logger(__name__)

#: For open HTTP requests; sockets have been closed by then (ARCHITECTURE, Socket.IO).
_SHUTDOWN_S: Final = 3.0
#: Connections that may wait to be accepted. Of those beyond it the kernel drops the first packet, and they try again after a second,
#: then two, then four: a storm would last a minute. The kernel has the last word (net.core.somaxconn, 4096 by default).
_BACKLOG: Final = 4_096


async def serve(settings: Settings, *, announce_address: bool = False) -> int:
    """Serve until told to stop; the process's exit code: 0 when asked to, 1 when the store failed for good.

    `announce_address` prints the address on standard output once requests are taken.
    """
    stop = _stop_signal()
    failure: list[BaseException] = []

    def fatal(exc: BaseException) -> None:
        # What the disk did with the last commit is unknown: the next start reads the truth (LEDGER 6).
        log.critical("store_failed_for_good", error=repr(exc))
        failure.append(exc)
        stop.set()

    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(build(settings, on_fatal=fatal))
        _collect_rarely()
        address = await _listen(server.app, settings.host, settings.port, stack)
        log.info(
            "serving", address=address, sessions_taken_up=server.recovered, database=settings.database_name
        )
        if announce_address:
            print(address, flush=True)  # noqa: T201 - the caller reads it
        await stop.wait()
        log.info("stopping")
    log.info("stopped")
    return 1 if failure else 0


async def work(settings: Settings) -> int:
    """Do a worker's work until told to stop; the process's exit code."""
    stop = _stop_signal()
    async with AsyncExitStack() as stack:
        app = await stack.enter_async_context(build_worker(settings))
        _collect_rarely()
        address = None
        if settings.worker_port:
            address = await _listen(app, settings.host, settings.worker_port, stack)
        log.info("working", address=address, database=settings.database_name)
        await stop.wait()
        log.info("stopping")
    log.info("stopped")
    return 0


async def _listen(app: web.Application, host: str, port: int, stack: AsyncExitStack) -> str:
    """Take requests until the stack closes; the address."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=_SHUTDOWN_S)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    await web.TCPSite(runner, host, port, backlog=_BACKLOG).start()
    host, port = runner.addresses[0][:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _stop_signal() -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


def _collect_rarely() -> None:
    """A request makes few objects that live; the default threshold would collect several times a tick."""
    gc.set_threshold(50_000, 20, 50)
    gc.freeze()
