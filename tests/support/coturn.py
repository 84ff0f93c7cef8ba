"""A real coturn on a loopback port, with its REST scheme and a secret. Without it tests are left out, loudly; where required, they fail."""

import asyncio
import os
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

SECRET = "north-north-north-north-north-north"
_PATIENCE_S = 20


def coturn(directory: Path) -> AbstractAsyncContextManager[dict[str, str]]:
    """The settings that let a server send its clients there, and nowhere else. `TARAZU_REQUIRE_TURN=1` makes a missing one a failure."""
    binary = shutil.which("turnserver")
    if binary is None:
        message = "NOT TESTED with a TURN server: there is no coturn (on Debian: apt-get install coturn)"
        if os.environ.get("TARAZU_REQUIRE_TURN", "") not in ("", "0"):
            pytest.fail(message)
        pytest.skip(message)
    return _running(binary, directory)


@asynccontextmanager
async def _running(binary: str, directory: Path) -> AsyncIterator[dict[str, str]]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with (directory / "coturn.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            binary, "-n", "--log-file=stdout", "--verbose", "--no-cli", "--no-tls", "--no-dtls", "--no-tcp", "--no-rfc5780",
            "--listening-ip=127.0.0.1", f"--listening-port={port}", "--relay-ip=127.0.0.1", "--relay-threads=1",
            "--min-port=49152", "--max-port=65535", "--allow-loopback-peers", "--realm=tarazu.test",
            "--use-auth-secret", f"--static-auth-secret={SECRET}", "--user-quota=8", "--stale-nonce=600",
            f"--pidfile={directory / 'coturn.pid'}", f"--userdb={directory / 'coturn.db'}",
            stdout=log, stderr=log,
        )  # fmt: skip
    try:
        await _answers(port)
        yield {
            "TURN_URLS": f"turn:127.0.0.1:{port}?transport=udp",
            "TURN_SECRETS": SECRET,
            "ICE_POLICY": "relay",
        }
    finally:
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), _PATIENCE_S)
        except TimeoutError:
            process.kill()
            await process.wait()


async def _answers(port: int) -> None:
    """Until it answers a STUN binding request."""
    loop = asyncio.get_running_loop()
    request = bytes.fromhex("000100002112a442") + bytes(12)
    async with asyncio.timeout(_PATIENCE_S):
        while True:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.setblocking(False)
                try:
                    client.connect(("127.0.0.1", port))
                    await loop.sock_sendall(client, request)
                    await asyncio.wait_for(loop.sock_recv(client, 512), 0.3)
                except (OSError, TimeoutError):
                    await asyncio.sleep(0.05)
                    continue
                return
