"""An operator can tell from /metrics alone that billing is on time, and who is refused."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.api import Api, open_api


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with open_api(tmp_path) as api:
        yield api


async def series(api: Api) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    answer = await (await api.admin()).get("/metrics")
    assert answer.status == 200
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


async def test_a_consultation_leaves_its_marks(api: Api) -> None:
    user = await api.a_user("100.00")
    lawyer = await api.a_lawyer(ratePerMinute="60.00")
    session_id = await user.start(lawyer.id)
    socket = await api.connect(user.token)
    await socket.call("send_message", {"sessionId": session_id, "body": "hello"})
    await socket.call("send_message", {"sessionId": session_id})
    await socket.call("no_such_event", {})
    await api.advance(25)
    live = await series(api)
    assert live["tarazu_sessions_live", ()] == 1
    assert live["tarazu_sockets", ()] == 1
    assert live["tarazu_tick_lateness_seconds_count", ()] == 2
    # Slots of 50 ms group the ticks; a manual clock is never later than that.
    assert live["tarazu_tick_lateness_seconds_bucket", (("le", "0.05"),)] == 2
    assert live["tarazu_ledger_batch_size_count", ()] >= 4
    assert live["tarazu_socket_events_total", (("event", "send_message"), ("outcome", "ok"))] == 1
    assert (
        live["tarazu_socket_events_total", (("event", "send_message"), ("outcome", "VALIDATION_FAILED"))] == 1
    )
    assert live["tarazu_socket_events_total", (("event", "unknown"), ("outcome", "UNKNOWN_EVENT"))] == 1
    await api.advance(80)
    after = await series(api)
    assert after["tarazu_sessions_live", ()] == 0
    assert after["tarazu_cut_off_error_seconds_count", ()] == 1
    assert after["tarazu_cut_off_error_seconds_bucket", (("le", "0.05"),)] == 1


async def test_refused_logins_are_counted_by_reason(api: Api) -> None:
    await (await api.admin()).post(
        "/auth/login", json={"email": "nobody@example.com", "password": "wrong wrong"}
    )
    await (await api.admin()).post("/no/such/path", json={})
    found = await series(api)
    assert found["tarazu_logins_refused_total", (("code", "INVALID_CREDENTIALS"),)] == 1
    assert found["tarazu_http_problems_total", (("code", "NOT_FOUND"), ("route", "none"))] == 1


async def test_no_series_names_a_person_or_a_session(api: Api) -> None:
    """Labels without end fill the operator's memory, and an id in a graph is a leak."""
    user = await api.a_user("100.00")
    lawyer = await api.a_lawyer(ratePerMinute="60.00")
    session_id = await user.start(lawyer.id)
    await user.get(f"/consult/{session_id}")
    text = (await user.get("/metrics")).text
    for secret in (user.id, lawyer.id, session_id, user.token):
        assert secret not in text
