"""A lawyer who is asked, and a line of people, over two real web processes: asked at one, answered at the other."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.e2e.people import assert_bill, has
from tests.e2e.test_cluster import Both, both_of, join
from tests.support.cluster import Cluster
from tests.support.server_process import QUICK

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("requests"), **QUICK) as running:
        yield running
        code, output = running.settled_books()
        assert code == 0, output


@pytest_asyncio.fixture
async def both(cluster: Cluster) -> AsyncIterator[Both]:
    async with both_of(cluster) as people:
        yield people


async def test_asked_at_one_process_and_answered_at_the_other(both: Both) -> None:
    user, lawyer = await both.pair("100.00")
    waiting = await both.left.user("100.00")
    await lawyer.api.ok("PATCH", "/lawyer/profile", {"autoAccept": False, "waitingList": True})
    app = await user.device()
    phone, tablet = await lawyer.device(), await both.device_at(lawyer, both.left)

    asked = await app.ok("consult:request", {"lawyerId": lawyer.id})
    session_id = asked["sessionId"]
    for device in (phone, tablet):
        assert (await device.heard("consult:ring")).payload["sessionId"] == session_id
    await phone.ok("consult:accept", {"sessionId": session_id})
    assert (await tablet.heard("consult:state")).payload["state"] == "ANSWERED_ELSEWHERE"
    await app.heard("consult:state", has(state="ACCEPTED"))

    other = await waiting.device()
    assert (await other.ok("consult:queue", {"lawyerId": lawyer.id}))["position"] == 1
    await asyncio.gather(join(app, session_id), join(phone, session_id))
    for device in (app, phone):
        assert (await device.heard("session:started")).payload["sessionId"] == session_id
    elsewhere = await both.elsewhere(lawyer)
    await elsewhere.post(f"/consult/{session_id}/end")
    assert_bill(await user.session(session_id))
    assert (await other.heard("consult:turn")).payload["lawyerId"] == lawyer.id
    await user.api.refused("POST", "/consult/start", {"lawyerId": lawyer.id}, status=409, code="LAWYER_BUSY")
    again = await other.ok("consult:request", {"lawyerId": lawyer.id})
    await (await both.elsewhere(waiting)).post(f"/consult/{again['sessionId']}/cancel")
    await phone.heard("consult:state", has(sessionId=again["sessionId"], state="CANCELLED"))


async def test_the_process_that_rings_is_killed_and_the_other_rings_on(tmp_path: Path) -> None:
    """Neither the request nor the reservation dies with it: the lawyer is rung again, says yes, and the bill begins with both."""
    with Cluster(tmp_path, **QUICK) as mortal:
        async with both_of(mortal) as both:
            user, lawyer = await both.pair("100.00")
            await lawyer.api.ok("PATCH", "/lawyer/profile", {"autoAccept": False})
            app, phone = await user.device(), await lawyer.device()
            asked = await app.ok("consult:request", {"lawyerId": lawyer.id})
            session_id = asked["sessionId"]
            await phone.heard("consult:ring")
            already = len(phone.events)

            mortal.webs[0].kill()

            ring = await phone.heard("consult:ring", after=already)
            assert (ring.payload["sessionId"], ring.payload["deadline"]) == (session_id, asked["deadline"])
            again = await both.device_at(user, both.right)
            await asyncio.gather(join(again, session_id), join(phone, session_id))
            await phone.ok("consult:accept", {"sessionId": session_id})
            await again.heard("session:started")
            elsewhere = await both.elsewhere(user)
            await elsewhere.post(f"/consult/{session_id}/end")
            assert_bill(await elsewhere.get(f"/consult/{session_id}"))
        code, output = mortal.settled_books()
        assert code == 0, output
