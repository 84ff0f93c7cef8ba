"""The TypeScript client with a real server, the other side on the Python client. Compiling it is its type check."""

import asyncio
import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.e2e.people import World, people_of
from tests.support.client_apps import app_of
from tests.support.server_process import QUICK, ServerProcess
from tests.support.typescript_client import PACKAGE, compiled, needed, node_app

pytestmark = pytest.mark.node


@pytest.fixture(scope="module", autouse=True)
def _node() -> None:
    needed()


def test_it_compiles_strictly_and_a_wrong_use_of_it_does_not() -> None:
    options = json.loads((PACKAGE / "tsconfig.json").read_text())["compilerOptions"]
    assert options["strict"] is True
    # Beside the compiled client, where its types are found.
    wrong = compiled().parent / f"wrong-{os.getpid()}.ts"
    wrong.write_text(
        'import { Client } from "./index.js";\n'
        'declare const client: Client;\n'
        'client.on("session:tick", (bill) => bill.totalAmount.toUpperCase());\n'
        'void client.call("mark_seen", { sessionId: "s", uptoSeq: 3 });\n'
        '// @ts-expect-error  no such event\n'
        'client.on("session:tock", () => undefined);\n'
        '// @ts-expect-error  no such field\n'
        'client.on("session:tick", (bill) => bill.amount);\n'
        '// @ts-expect-error  a position is a number\n'
        'void client.call("mark_seen", { sessionId: "s", uptoSeq: "3" });\n'
    )  # fmt: skip
    words = ["node", str(PACKAGE / "node_modules/typescript/bin/tsc"), "--noEmit", "--strict"]
    ran = subprocess.run(
        [*words, "--module", "nodenext", "--target", "es2022", "--skipLibCheck", str(wrong)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    wrong.unlink()
    assert ran.returncode == 0, ran.stdout


async def test_a_whole_consultation_of_the_two_clients(world: World, tmp_path: Path) -> None:
    user, lawyer = await world.pair("300.00")
    session_id = (await user.start(lawyer))["sessionId"]
    who = {"user_id": user.id, "session_id": session_id}
    # The first token has run out: it asks for another one.
    tokens = ["run out", user.api.token or ""]
    async with (
        app_of(lawyer, session_id) as desk,
        node_app(urls=[world.server.url], tokens=tokens, **who) as phone,
    ):
        await phone.hears("joined")
        assert len(phone.told["token"]) == 2
        phone.do("send", body="Can my landlord keep the deposit? 😀", id="a-1")
        assert (await phone.hears("stored"))["seq"] == 1
        await desk.has(1)
        await phone.until(lambda: any(told["mark"]["deliveredSeq"] == 1 for told in phone.told["marks"]))
        await phone.hears("message")
        phone.do("state", message=phone.messages[0])
        assert (await phone.hears("state"))["state"] == "DELIVERED"
        desk.chat.seen()
        await phone.until(lambda: any(told["mark"]["seenSeq"] == 1 for told in phone.told["marks"]))
        await desk.chat.send("For how long did you live there?")
        await phone.until(lambda: len(phone.messages) == 2)
        phone.do("seen")
        await desk.has(2)
        await desk.until(lambda: desk.chat.state(desk.log[1]) == "SEEN")
        phone.do("typing")
        assert (await desk.heard("typing"))["userId"] == user.id
        assert (await phone.event("session:tick"))["status"] == "ACTIVE"
        assert [message["id"] for message in phone.messages] == [message["id"] for message in desk.log]
        await lawyer.end(session_id)
        assert (await phone.event("session:ended"))["reason"] == "LAWYER_ENDED"
        phone.do("send", body="One more thing.", id="late")
        assert (await phone.hears("failed"))["code"] == "SESSION_NOT_ACTIVE"
        await user.api.post("/auth/logout")
        stopped = await phone.hears("stopped")
        assert (stopped["code"], stopped["is"]) == (3500, True)


async def test_torn_lines_a_killed_app_and_a_deploy_lose_nothing(tmp_path: Path) -> None:
    with ServerProcess(tmp_path, **QUICK) as server:
        async with people_of(server) as world:
            user, lawyer = await world.pair("300.00")
            session_id = (await user.start(lawyer))["sessionId"]
            storage = tmp_path / "outbox.json"

            def phone_at(url: str, after_seq: int = 0):  # type: ignore[no-untyped-def]
                return node_app(
                    urls=[url],
                    tokens=[user.api.token or ""],
                    user_id=user.id,
                    session_id=session_id,
                    after_seq=after_seq,
                    storage=storage,
                )

            async with app_of(lawyer, session_id) as desk:
                # Nobody listens there: all of it stays in the outbox when the app is killed.
                async with phone_at("http://127.0.0.1:9") as dead:
                    for k in range(3):
                        dead.do("send", body=f"phone {k}", id=f"p{k}")
                    await dead.hears("outbox", 3)
                    dead.kill()
                async with phone_at(server.url) as phone:
                    await phone.until(lambda: len(phone.messages) == 3)
                    for k in range(3, 120):
                        phone.do("send", body=f"phone {k}", id=f"p{k}")
                        await desk.chat.send(f"desk {k}")
                        # There is a line to tear again: it has brought one's own message.
                        if k % 20 == 7:
                            await phone.until(
                                lambda own=f"p{k}": own in {m["clientMsgId"] for m in phone.messages}  # type: ignore[misc]
                            )
                        if k % 20 == 9:
                            phone.do("tear")
                        await phone.hears("outbox", k - 2)
                    await phone.until(lambda: len(phone.messages) == 237)
                    await desk.has(237)
                    port = server.url.rpartition(":")[2]
                    server.terminate()
                    assert (await phone.event("server:bye"))["code"] == 3001
                    assert await asyncio.to_thread(server.wait, 15) == 0
                    phone.do("send", body="while it was down", id="down")
                    await phone.hears("outbox", 118)
                    await asyncio.to_thread(server.start, PORT=port)
                    await desk.has(238)
                    await phone.until(lambda: len(phone.messages) == 238)
                    assert len(phone.told["token"]) >= 7, "it was hardly ever torn"
                    assert [m["seq"] for m in phone.messages] == list(range(1, 239))
                    assert [m["id"] for m in phone.messages] == [m["id"] for m in desk.log]
                    said = [m["body"] for m in desk.log if m["senderId"] == user.id]
                    assert said == [*(f"phone {k}" for k in range(120)), "while it was down"]
                    await phone.until(lambda: len(phone.told["stored"]) == 118)
                # What it has seen does not come again.
                async with phone_at(server.url, after_seq=237) as phone:
                    await phone.hears("joined")
                    assert [m["body"] for m in phone.messages] == ["while it was down"]
            await user.end(session_id)
