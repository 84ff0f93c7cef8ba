"""A call between two real browsers, through the page of `examples/call/`: set up by our signalling, ended by an empty wallet.

Once from device to device, and once through a real coturn that knows nothing of us but the secret.
"""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import pytest
from aiohttp import web
from playwright.async_api import Page, async_playwright

from tests.e2e.people import Person, people_of
from tests.support.chromium import chromium
from tests.support.coturn import coturn
from tests.support.server_process import QUICK, ServerProcess

pytestmark = [pytest.mark.node, pytest.mark.slow]
EXAMPLE: Final = Path(__file__).parents[2] / "examples" / "call"
BUNDLE: Final = Path(__file__).parent / "js/node_modules/socket.io-client/dist/socket.io.min.js"
#: For a browser that hangs; on two busy cores it needs some seconds for each step.
_PATIENCE_MS: Final = 60_000
#: Devices that are not there, nobody to ask for permission, and no way to anywhere but this machine.
_FLAGS: Final = (
    "--no-sandbox",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    "--allow-loopback-in-peer-connection",
    "--disable-features=WebRtcHideLocalIpsWithMdns",
    "--autoplay-policy=no-user-gesture-required",
)
_RECEIVED: Final = """async () => {
  const stats = [...(await window.call.peer.getStats()).values()];
  return stats.filter((one) => one.type === "inbound-rtp").reduce((sum, one) => sum + (one.bytesReceived ?? 0), 0);
}"""

#: How the two are connected: the kind of the local end.
_WAY: Final = """async () => {
  const stats = await window.call.peer.getStats();
  const transport = [...stats.values()].find((one) => one.type === "transport");
  return stats.get(stats.get(transport.selectedCandidatePairId).localCandidateId).candidateType;
}"""
#: What changes when the other side starts its ICE again.
_UFRAG: Final = "() => /ice-ufrag:(\\S+)/.exec(window.call.peer.remoteDescription.sdp)[1]"


@asynccontextmanager
async def the_page(directory: Path) -> AsyncIterator[str]:
    """The example with the npm bundle beside it, as an app team would serve it; its origin."""
    if not BUNDLE.is_file():
        message = (
            "NOT TESTED in a browser: the npm socket.io-client is missing (run `npm ci` in tests/e2e/js)"
        )
        if os.environ.get("TARAZU_REQUIRE_NODE", "") not in ("", "0"):
            pytest.fail(message)
        pytest.skip(message)
    for file in (*EXAMPLE.iterdir(), BUNDLE):
        shutil.copy(file, directory)
    app = web.Application()
    app.router.add_static("/", directory)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def opened(stack: AsyncExitStack, playwright: Any, binary: str, origin: str) -> Page:
    """The page in a browser of its own."""
    browser = await playwright.chromium.launch(executable_path=binary, args=list(_FLAGS))
    stack.push_async_callback(browser.close)
    page: Page = await browser.new_page()
    page.set_default_timeout(_PATIENCE_MS)
    await page.goto(f"{origin}/index.html")
    return page


async def joined(page: Page, server: ServerProcess, person: Person, session_id: str) -> None:
    await page.fill("[name=server]", server.url)
    await page.fill("[name=token]", person.api.token or "")
    await page.fill("[name=session]", session_id)
    await page.click("[name=join]")
    await shows(page, "session", "joined")


async def shows(page: Page, field: str, text: str) -> None:
    await page.wait_for_function(
        "([id, text]) => document.getElementById(id).value === text", arg=[field, text]
    )


async def still_paid(user: Person) -> None:
    """A second's money every second, until nobody wants it any more."""
    while True:
        await user.recharge("1.00")
        await asyncio.sleep(0.8)


@pytest.mark.parametrize("way", ["host", "relay"])
async def test_two_browsers_talk_until_the_money_is_gone(tmp_path: Path, way: str) -> None:
    binary = chromium()
    turn = coturn(tmp_path) if way == "relay" else None
    site = tmp_path / "site"
    site.mkdir()
    async with AsyncExitStack() as stack:
        origin = await stack.enter_async_context(the_page(site))
        ice = await stack.enter_async_context(turn) if turn is not None else {}
        server = stack.enter_context(ServerProcess(tmp_path, **QUICK, **ice, CORS_ORIGINS=origin).start())
        world = await stack.enter_async_context(people_of(server))
        playwright = await stack.enter_async_context(async_playwright())
        hers, his = [await opened(stack, playwright, binary, origin) for _ in range(2)]
        user, lawyer = await world.pair("5.00")
        session = await user.start(lawyer)
        paying = asyncio.create_task(still_paid(user))
        try:
            await joined(hers, server, user, session["sessionId"])
            await joined(his, server, lawyer, session["sessionId"])

            await hers.click("#video")
            await shows(his, "state", "ringing")
            await his.click("#accept")
            for page in (hers, his):
                await shows(page, "state", "connected")
                await page.wait_for_function(f"async () => (await ({_RECEIVED})()) > 20000", polling=250)
                assert await page.evaluate(_WAY) == way
            # Both connections break; each is in the call again on its next one, and can say so.
            for page in (hers, his):
                before = await page.evaluate("() => window.call.socket.id")
                await page.evaluate("() => window.call.socket.io.engine.close()")
                await page.wait_for_function(
                    "(before) => (window.call.socket.id ?? before) !== before", arg=before
                )
            ufrag = await his.evaluate(_UFRAG)
            await hers.evaluate("() => window.call.restart()")
            await his.wait_for_function(f"(before) => ({_UFRAG})() !== before", arg=ufrag)
            await hers.wait_for_function("() => window.call.peer.signalingState === 'stable'")
            for page in (hers, his):
                await shows(page, "state", "connected")
        finally:
            paying.cancel()
            with suppress(asyncio.CancelledError):
                await paying

        # A page that is loaded anew is another device: it knows of the call, and is not in it.
        if way == "host":
            late = await opened(stack, playwright, binary, origin)
            await joined(late, server, lawyer, session["sessionId"])
            await shows(late, "state", "elsewhere")

        # Nobody hangs up: from here on the wallet decides.
        for page in (hers, his):
            await shows(page, "session", "WALLET_EMPTY")
            await shows(page, "state", "ended: SESSION_ENDED")
            assert await page.evaluate("() => window.call.ended.connectionState") == "closed"
            assert await page.evaluate("() => window.call.peer") is None
        ended = await user.session(session["sessionId"])
        assert (ended["status"], ended["endReason"]) == ("FORCE_ENDED", "WALLET_EMPTY")
        books = await asyncio.to_thread(server.settled_books)
        assert books[0] == 0, books[1]
