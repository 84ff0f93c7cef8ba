"""What the gateway of AI calls adds to a provider that answers at once, beside a proxy that meters nothing.

    python -m bench.ai_gateway                       # 200 calls/s, then as many as go, then streams
    python -m bench.ai_gateway --rate 200 --seconds 10

The server (durable SQLite) and the proxy have core 0, in turns; the provider and the load have core 1. Latencies are of the caller: asking
the provider itself is the first line, and what the others take longer is what they add. The proxy is aiohttp's server and client, and passes
bytes on.
"""

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any, Final

import aiohttp
import orjson
from aiohttp import web

from bench.chat_throughput import Target, started
from bench.usage_support import LOAD_CORE, SERVER_CORE

USERS: Final = 40
_PASSWORD: Final = "a password of the bench"
_PROMPT: Final = "Why is the sky blue? " * 40
_BODY: Final = {
    "model": "gpt-4o-mini",
    "messages": [{"role": "user", "content": _PROMPT}],
    "max_tokens": 200,
}
ASKED: Final = orjson.dumps(_BODY)
STREAMED: Final = orjson.dumps(_BODY | {"stream": True, "stream_options": {"include_usage": True}})
_USAGE: Final = {"prompt_tokens": 200, "completion_tokens": 150, "total_tokens": 350}
_ANSWER: Final = orjson.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": "gpt-4o-mini",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Because. " * 80}}],
        "usage": _USAGE,
    }
)
_CHUNK: Final = b'data: {"choices": [{"index": 0, "delta": {"content": "word "}}], "usage": null}\n\n'
_LAST: Final = b'data: {"choices": [], "usage": %b}\n\ndata: [DONE]\n\n' % orjson.dumps(_USAGE)
_CHUNKS: Final = 20

Ask = Callable[[aiohttp.ClientSession, int], Awaitable[float]]


# -- what is served ------------------------------------------------------------------------------------------------------


async def _provide(request: web.Request) -> web.StreamResponse:
    if b'"stream":true' not in await request.read():
        return web.Response(body=_ANSWER, content_type="application/json")
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    for _ in range(_CHUNKS):
        await response.write(_CHUNK)
        await asyncio.sleep(0)
    await response.write(_LAST)
    return response


def _proxy(upstream: str) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    session: list[aiohttp.ClientSession] = []

    async def handle(request: web.Request) -> web.StreamResponse:
        if not session:
            session.append(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
        body = await request.read()
        headers = {"Content-Type": "application/json", "Authorization": "Bearer key"}
        async with session[0].post(f"{upstream}/v1/chat/completions", data=body, headers=headers) as found:
            if found.content_type != "text/event-stream":
                return web.Response(body=await found.read(), content_type=found.content_type)
            response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
            await response.prepare(request)
            async for piece in found.content.iter_any():
                await response.write(piece)
            return response

    return handle


async def _serve(handler: Any) -> None:
    app = web.Application()
    app.router.add_post("/{path:.*}", handler)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(f"http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
    await asyncio.Event().wait()


def _on(core: int, name: str, *arguments: str, directory: Path, **env: str) -> Any:
    return started(name, ("taskset", "-c", str(core), sys.executable, "-m", *arguments), directory, **env)


def _tarazu(directory: Path, upstream: str) -> Any:
    return _on(
        SERVER_CORE,
        "gateway",
        "server",
        "serve",
        "--announce-address",
        directory=directory,
        APP_ENV="test",
        HOST="127.0.0.1",
        PORT="0",
        DATABASE_URL=f"sqlite:///{directory / 'tarazu.db'}",
        BCRYPT_COST="4",
        RATE_LIMITS="off",
        ACCESS_TOKEN_MINUTES="600",
        LOG_FORMAT="json",
        LOG_LEVEL="WARNING",
        OPENAI_API_KEY="key",
        OPENAI_BASE_URL=upstream,
    )


async def _subscribers(url: str) -> list[str]:
    """Access tokens of enterprise subscribers."""
    async with aiohttp.ClientSession(url) as http:

        async def post(path: str, body: Any, token: str = "") -> Any:
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            async with http.post(path, json=body, headers=headers) as response:
                assert response.status < 300, await response.text()
                return await response.json()

        tokens = []
        for n in range(USERS):
            form = {"email": f"u{n}@example.com", "password": _PASSWORD, "name": "Somebody"}
            token = (await post("/auth/register", form))["accessToken"]
            await post("/api/subscriptions/checkout", {"tier": "enterprise"}, token)
            tokens.append(token)
        return tokens


# -- load ----------------------------------------------------------------------------------------------------------------


def asker(url: str, path: str, tokens: Sequence[str], body: bytes, *, first_byte: bool = False) -> Ask:
    """Asks once and says how long the whole answer took, or the first byte of it, in milliseconds."""
    whose = cycle(tokens)

    async def ask(http: aiohttp.ClientSession, _: int) -> float:
        headers = {"Authorization": f"Bearer {next(whose)}", "Content-Type": "application/json"}
        began = time.perf_counter()
        async with http.post(url + path, data=body, headers=headers) as response:
            assert response.status == 200, await response.text()
            if first_byte:
                await response.content.readany()
                took_s = time.perf_counter() - began
                await response.read()
                return took_s * 1000
            await response.read()
        return (time.perf_counter() - began) * 1000

    return ask


async def at_rate(ask: Ask, rate: int, seconds: float) -> list[float]:
    """Calls begin when they are due, however long others take."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        await asyncio.gather(*(ask(http, n) for n in range(20)))
        loop, calls = asyncio.get_running_loop(), []
        began = loop.time()
        for n in range(int(rate * seconds)):
            await asyncio.sleep(max(0.0, began + n / rate - loop.time()))
            calls.append(asyncio.ensure_future(ask(http, n)))
        return list(await asyncio.gather(*calls))


async def closed(ask: Ask, callers: int, seconds: float) -> int:
    """How many calls are answered while each caller asks again at once."""
    done = 0
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        ends = time.perf_counter() + seconds

        async def one() -> None:
            nonlocal done
            while time.perf_counter() < ends:
                await ask(http, 0)
                done += 1

        await asyncio.gather(*(one() for _ in range(callers)))
    return done


def spread(took_ms: list[float]) -> tuple[float, float]:
    """p50 and p99."""
    ranked = sorted(took_ms)
    return ranked[len(ranked) // 2], ranked[int(len(ranked) * 0.99)]


async def run(args: argparse.Namespace, directory: Path) -> None:
    os.sched_setaffinity(0, {LOAD_CORE})
    provider = _on(LOAD_CORE, "provider", "bench.ai_gateway", "--serve", "provider", directory=directory)
    async with provider as upstream:
        serve_proxy = ("bench.ai_gateway", "--serve", "proxy", "--upstream", upstream.url)
        async with (
            _on(SERVER_CORE, "proxy", *serve_proxy, directory=directory) as proxy,
            _tarazu(directory, upstream.url) as gateway,
        ):
            tokens = await _subscribers(gateway.url)
            targets: list[tuple[str, Target, str]] = [
                ("provider", upstream, "/v1/chat/completions"),
                ("proxy", proxy, "/api/ai/openai"),
                ("gateway", gateway, "/api/ai/openai"),
            ]
            for title, body, first_byte in (
                ("whole answers", ASKED, False),
                ("streams, first byte", STREAMED, True),
            ):
                print(
                    f"\n{title}: {args.rate} calls/s for {args.seconds:g} s; ms (load {os.getloadavg()[0]:.1f})"
                )
                base = (0.0, 0.0)
                for name, target, path in targets:
                    cpu_s = target.cpu_s()
                    ask = asker(target.url, path, tokens, body, first_byte=first_byte)
                    p50, p99 = spread(await at_rate(ask, args.rate, args.seconds))
                    cpu_ms = (target.cpu_s() - cpu_s) * 1000 / (args.rate * args.seconds + 20)
                    if target is upstream:
                        base = p50, p99
                    added = f"adds {p50 - base[0]:.2f}, {p99 - base[1]:.2f}"
                    print(f"  {name:9} p50 {p50:.2f} p99 {p99:.2f}  {added}  CPU {cpu_ms:.2f} a call")
            print(
                f"\nas many as go, {args.callers} callers, {args.seconds:g} s (load {os.getloadavg()[0]:.1f})"
            )
            rates = {}
            for name, target, path in targets[1:]:
                cpu_s = target.cpu_s()
                done = await closed(asker(target.url, path, tokens, ASKED), args.callers, args.seconds)
                used_s = target.cpu_s() - cpu_s
                rates[name] = done / args.seconds, done / used_s
                print(f"  {name:9} {done / args.seconds:.0f} calls/s, {done / used_s:.0f} a CPU second")
            (proxied, proxied_cpu), (metered, metered_cpu) = rates["proxy"], rates["gateway"]
            print(
                f"  ratio     {metered / proxied:.2f} of its calls/s, {metered_cpu / proxied_cpu:.2f} a CPU second"
            )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rate", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--callers", type=int, default=32)
    parser.add_argument("--serve", choices=("provider", "proxy"), help=argparse.SUPPRESS)
    parser.add_argument("--upstream", default="", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        asyncio.run(_serve(_provide if args.serve == "provider" else _proxy(args.upstream)))
        return
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(run(args, Path(directory)))


if __name__ == "__main__":
    main()
