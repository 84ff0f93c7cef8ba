"""Somebody is lost through the death of the process that held the socket, while another process bills the session."""

import asyncio
import time
from pathlib import Path

import pytest

from tests.e2e.people import assert_bill, instant_ms
from tests.e2e.test_cluster import both_of, join, say
from tests.support.cluster import Cluster
from tests.support.server_process import QUICK

#: Presence is written again every ten seconds: the last sign of life is at most so much older than the death.
REFRESH_MS = 10_000
#: For clocks that are read at two places, and a busy machine.
SLACK_MS = 2_000
FAIR = {**QUICK, "PEER_GRACE_SECONDS": "2", "PEER_GONE_SECONDS": "90"}


def now_ms() -> int:
    return time.time_ns() // 1_000_000


@pytest.mark.slow
async def test_a_killed_process_takes_a_socket_along_and_the_one_that_bills_pauses(tmp_path: Path) -> None:
    with Cluster(tmp_path, **FAIR) as cluster:
        async with both_of(cluster) as both:
            user, lawyer = await both.pair("300.00")
            user_device, lawyer_device = await user.device(), await lawyer.device()
            at_b = await both.elsewhere(user)
            session_id = (await at_b.post("/consult/start", {"lawyerId": lawyer.id}))["sessionId"]
            for device in (user_device, lawyer_device):
                await join(device, session_id)
            await say(user_device, session_id, "one")
            await lawyer_device.heard("session:tick")
            killed_ms = now_ms()
            cluster.webs[0].kill()
            paused = (await lawyer_device.heard("session:paused", patience_s=60)).payload
            assert (paused["status"], paused["reason"]) == ("PAUSED", "USER_LOST")
            await lawyer_device.refused(
                "send_message", {"sessionId": session_id, "body": "Hello?"}, "SESSION_PAUSED"
            )
            # The pause began at the last refresh of the dead process, whenever it was noticed.
            session = await lawyer.session(session_id)
            (pause,) = [row for row in session["timeline"] if row["event"] == "pause"]
            since_ms = instant_ms(pause["at"])
            assert killed_ms - REFRESH_MS - SLACK_MS <= since_ms <= killed_ms + SLACK_MS, session
            assert instant_ms(paused["endsAt"]) == since_ms + 90_000
            # Tick after tick, the bill stands still.
            bills = [
                (await lawyer_device.heard("session:tick", after=len(lawyer_device.events))).payload
                for _ in range(2)
            ]
            assert {bill["totalAmount"] for bill in bills} == {paused["totalAmount"]}
            back_ms = now_ms()
            back = await both.device_at(user, both.right)
            await join(back, session_id)
            resumed = (await lawyer_device.heard("session:resumed")).payload
            assert (resumed["status"], resumed["totalAmount"]) == ("ACTIVE", paused["totalAmount"])
            await say(back, session_id, "back")
            ended = await lawyer.end(session_id)
            session = await lawyer.session(session_id)
            assert_bill(session)
            assert ended["totalAmount"] == session["totalAmount"]
            (resume,) = [row for row in session["timeline"] if row["event"] == "resume"]
            assert back_ms - SLACK_MS <= instant_ms(resume["at"])
            assert [row["event"] for row in session["timeline"]] == ["start", "pause", "resume", "end"]
        code, output = await asyncio.to_thread(cluster.webs[1].settled_books)
        assert code == 0, output
