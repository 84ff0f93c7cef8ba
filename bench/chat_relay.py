"""python-socketio as a chat relay that stores nothing and checks nothing: what `bench.chat_throughput` compares with.

As its documentation shows it, on uvloop like ours: `emit` to a room, an acknowledgement by `return`.
"""

import asyncio
import itertools
from datetime import UTC, datetime
from typing import Any

import socketio
import uvloop
from aiohttp import web


async def main() -> None:
    sio = socketio.AsyncServer(
        async_mode="aiohttp", transports=["websocket"], ping_interval=10, ping_timeout=8
    )
    last_seq: dict[str, itertools.count[int]] = {}

    @sio.event  # type: ignore[untyped-decorator]  # python-socketio ships no types
    async def join_session(sid: str, data: dict[str, Any]) -> dict[str, Any]:
        await sio.enter_room(sid, data["sessionId"])
        return {"ok": True}

    @sio.event  # type: ignore[untyped-decorator]  # python-socketio ships no types
    async def send_message(sid: str, data: dict[str, Any]) -> dict[str, Any]:
        session_id = data["sessionId"]
        seq = next(last_seq.setdefault(session_id, itertools.count(1)))
        message = {
            "id": f"{session_id}:{seq:09d}",
            "sessionId": session_id,
            "seq": seq,
            "senderId": sid,
            "clientMsgId": data["clientMsgId"],
            "body": data["body"],
            "status": "SENT",
            "createdAt": datetime.now(UTC).isoformat(),
            "deliveredAt": None,
            "seenAt": None,
        }
        await sio.emit("new_message", message, room=session_id)
        return {
            "ok": True,
            "id": message["id"],
            "seq": seq,
            "status": "SENT",
            "createdAt": message["createdAt"],
            "clientMsgId": data["clientMsgId"],
            "duplicate": False,
        }

    app = web.Application()
    sio.attach(app)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=4096).start()
    print(f"http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main())
