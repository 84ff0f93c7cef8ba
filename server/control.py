"""The running server's private door for commands that write: a Unix socket beside the database, for its owner only.

A SQLite file has one writing process (LEDGER 6), so `tarazu create-admin` beside a running server asks that server.
"""

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import aiohttp
import orjson
import structlog
from aiohttp import web

from billing_engine.errors import BillingError
from server.problems import problem_of

log = structlog.get_logger(__name__)

Command = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]

#: sockaddr_un takes 108 bytes on Linux, 104 on macOS, the closing zero included.
_LONGEST_PATH: Final = 103


class ControlFailed(Exception):
    """The server refused the command, or does not answer; says why."""


def socket_path(database: Path) -> Path:
    """Where the server of this database listens."""
    resolved = database.resolve()
    return resolved.with_name(resolved.name + ".sock")


@asynccontextmanager
async def serve_commands(database: Path, commands: dict[str, Command]) -> AsyncIterator[None]:
    """Answer the commands until the block ends. A path too long for a socket is warned about and does without."""
    path = socket_path(database)
    if len(os.fsencode(path)) > _LONGEST_PATH:
        log.warning(
            "control_socket_path_too_long",
            path=str(path),
            detail="commands that write need the server stopped",
        )
        yield
        return
    app = web.Application()

    async def answer(request: web.Request) -> web.Response:
        return await _answer(request, commands)

    app.router.add_post("/{command}", answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    # The lock on the database says that no other server lives: what lies here is left over from a crash.
    path.unlink(missing_ok=True)
    mask = os.umask(0o177)
    try:
        await web.UnixSite(runner, str(path)).start()
    finally:
        os.umask(mask)
    try:
        yield
    finally:
        await runner.cleanup()
        path.unlink(missing_ok=True)


async def _answer(request: web.Request, commands: dict[str, Command]) -> web.Response:
    command = commands.get(request.match_info["command"])
    if command is None:
        return web.json_response(
            {"code": "UNKNOWN_COMMAND", "detail": "There is no such command."}, status=404
        )
    try:
        answer = await command(orjson.loads(await request.read()))
    except BillingError as exc:
        problem = problem_of(exc, request_id="control")
        return web.Response(body=problem.encode(), status=problem.status, content_type="application/json")
    return web.json_response(answer)


async def ask_server(
    database: Path, command: str, arguments: dict[str, Any], *, timeout_s: float = 30
) -> dict[str, Any]:
    """Run a command in the server that has the database open.

    Raises:
        ControlFailed: it refused, or there is no one at the door.
    """
    path = socket_path(database)
    connector = aiohttp.UnixConnector(path=str(path))
    try:
        async with (
            aiohttp.ClientSession(
                connector=connector, timeout=aiohttp.ClientTimeout(total=timeout_s)
            ) as http,
            http.post(f"http://control/{command}", json=arguments) as response,
        ):
            answer: dict[str, Any] = await response.json()
            if response.status >= 400:
                raise ControlFailed(answer.get("detail", "refused"))
            return answer
    except (OSError, aiohttp.ClientError) as exc:
        raise ControlFailed(f"the server that has {database} open does not answer at {path}") from exc
