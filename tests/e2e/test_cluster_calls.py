"""A call over two real processes on one database: the one that bills the session is killed, the other one goes on with both and ends them."""

from pathlib import Path

import pytest

from tests.e2e.people import has
from tests.e2e.test_cluster import adopted, both_of, talk_at
from tests.support.cluster import Cluster
from tests.support.server_process import QUICK

pytestmark = pytest.mark.slow


async def test_a_call_outlives_a_process_and_ends_with_its_session(tmp_path: Path) -> None:
    with Cluster(tmp_path, **QUICK) as cluster:
        async with both_of(cluster) as both:
            user, lawyer, hers, his, session_id = await talk_at(both, both.left, both.right, "300.00")
            of_session = {"sessionId": session_id}
            invite = {**of_session, "partyId": "u", "media": "audio"}
            call_id = (await hers.ok("rtc:invite", invite))["call"]["callId"]
            await his.heard("rtc:ring", has(callId=call_id))
            of_call = {**of_session, "callId": call_id}
            await his.ok("rtc:accept", {**of_call, "partyId": "l"})
            await hers.heard("rtc:state", has(calleePartyId="l"))
            await hers.ok("rtc:signal", {**of_call, "n": 1, "kind": "offer", "sdp": "v=0"})
            await his.heard("rtc:signal", has(n=1))

            cluster.webs[0].kill()
            at_other = await both.elsewhere(user)
            # What he says to a device that is gone is kept for it.
            await his.ok("rtc:signal", {**of_call, "n": 1, "kind": "answer", "sdp": "v=0 answered"})
            back = await both.device_at(user, both.right)
            joined = await back.ok("join_session", {**of_session, "partyId": "u"})
            assert (joined["call"]["callId"], joined["call"]["state"]) == (call_id, "CONNECTED")
            assert (await back.heard("rtc:signal")).payload["sdp"] == "v=0 answered"
            await his.heard("rtc:state", has(callerPartyId="u"))
            await back.ok("rtc:signal", {**of_call, "n": 2, "kind": "restart", "sdp": "v=0 again"})
            await his.heard("rtc:signal", has(n=2))

            await adopted(at_other, session_id)
            await at_other.post(f"/consult/{session_id}/end")
            for device in (back, his):
                assert (await device.heard("rtc:ended")).payload["reason"] == "SESSION_ENDED"
            await his.refused(
                "rtc:signal", {**of_call, "n": 3, "kind": "offer", "sdp": "v=0"}, "SESSION_NOT_ACTIVE"
            )
            assert lawyer.id in joined["call"].values()
            code, output = cluster.webs[1].settled_books()
            assert code == 0, output
