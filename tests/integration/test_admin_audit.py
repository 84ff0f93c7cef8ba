"""No act of an admin without its row: over the whole server, with calls that fail, and with a process that dies at any await."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from billing_engine.errors import Conflict, NotFound
from server.admin.audit import AuditLog
from server.admin.model import AuditFilter, AuditState
from server.auth.model import Principal, Role
from server.routing import Audited, Call
from server.storage.errors import StoreUnavailable
from server.storage.repositories.audit import CollectionAudit
from server.storage.sqlite.collection import SqliteCollections
from server.storage.sqlite.engine import SqliteOptions, open_database
from tests.support.api import Api, Person, open_api
from tests.support.faults import Died, Fuse, Moment
from tests.support.manual_clock import ManualClock


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with open_api(tmp_path) as api:
        yield api


async def rows(admin: Person, query: str = "") -> list[Any]:
    answer = await admin.get(f"/admin/audit?limit=100&{query}")
    assert answer.status == 200, answer.text
    found: list[Any] = answer.json["items"]
    return found


# --- what a row says


async def test_every_act_has_a_row_that_says_who_what_whom_why_and_what_changed(api: Api) -> None:
    admin, user = await api.admin(), await api.a_user("500.00")
    lawyer = await api.a_lawyer(verified=False)
    await admin.patch(f"/lawyer/{lawyer.id}/verify", {"isVerified": False, "reason": "No such number."})
    await api.advance(1)
    await admin.patch(f"/lawyer/{lawyer.id}/verify", headers={"X-Request-Id": "the-second-verdict"})
    await api.advance(1)
    session_id = await user.start(lawyer.id)
    await api.advance(5)
    await admin.end(session_id)
    await api.advance(1)
    await admin.post(f"/admin/users/{user.id}/disable", {"reason": "Abuse."})
    await api.advance(1)
    await admin.post(f"/admin/users/{user.id}/enable", {"reason": "A mistake."})

    found = await rows(admin)
    assert [(row["action"], row["subject"], row["reason"], row["state"], row["code"]) for row in found] == [
        ("user.enable", user.id, "A mistake.", "DONE", None),
        ("user.disable", user.id, "Abuse.", "DONE", None),
        ("session.end", session_id, None, "DONE", None),
        ("lawyer.verify", lawyer.id, None, "DONE", None),
        ("lawyer.verify", lawyer.id, "No such number.", "DONE", None),
    ]
    assert {row["adminId"] for row in found} == {admin.id}
    assert [row["at"] for row in found] == sorted((row["at"] for row in found), reverse=True)
    enabled, disabled, ended, verified, rejected = found
    assert verified["requestId"] == "the-second-verdict"
    assert rejected["asked"] == {"isVerified": False, "reason": "No such number.", "barCouncilNumber": None}
    assert (rejected["before"]["isVerified"], rejected["before"]["reason"]) == (False, None)
    assert rejected["after"] == verified["before"]
    assert verified["after"]["isVerified"] is True
    assert ended["before"] | {"status": "ENDED", "endReason": "ADMIN_ENDED"} == ended["after"]
    assert ended["after"]["totalAmount"] == "5.00"
    assert disabled["before"] == {"isDisabled": False, "reason": None, "activeSessionId": None}
    assert disabled["after"] == {"isDisabled": True, "reason": "Abuse.", "activeSessionId": None}
    assert enabled["after"] == disabled["before"]


async def test_what_parties_do_is_no_admins_act(api: Api) -> None:
    user, lawyer = await api.a_user("500.00"), await api.a_lawyer()
    admin = await api.admin()
    before = await rows(admin)
    await user.end(await user.start(lawyer.id))
    await lawyer.patch("/lawyer/profile", {"bio": "New."})
    await admin.post("/auth/logout")
    assert await rows(await api.admin()) == before


async def test_a_refused_act_is_written_down_with_its_code(api: Api) -> None:
    admin, lawyer = await api.admin(), await api.a_lawyer(verified=False)
    await admin.post(f"/admin/users/{admin.id}/disable", {"reason": "Enough."})
    await admin.patch(f"/lawyer/{lawyer.id}/verify", {"barCouncilNumber": "ANOTHER/1"})

    assert [(row["action"], row["state"], row["code"], row["after"]) for row in await rows(admin)] == [
        ("lawyer.verify", "REFUSED", "LAWYER_PAPERS_CHANGED", None),
        ("user.disable", "REFUSED", "OWN_ACCOUNT", None),
    ]


async def test_what_is_about_nobody_leaves_no_row(api: Api) -> None:
    admin = await api.admin()
    before = api.everything()
    for answer in (
        await admin.post("/admin/users/nobody/disable", {"reason": "?"}),
        await admin.patch("/lawyer/nobody/verify"),
        await admin.post("/consult/nobody/end"),
    ):
        assert answer.status == 404
    assert api.everything() == before


async def test_rows_are_found_by_every_filter(api: Api) -> None:
    admin = await api.admin()
    another = await _another_admin(api)
    lawyers = [await api.a_lawyer(verified=False) for _ in range(3)]
    for n, lawyer in enumerate(lawyers):
        await api.advance(10)
        await (another if n == 1 else admin).patch(f"/lawyer/{lawyer.id}/verify")
    await admin.post(f"/admin/users/{lawyers[0].id}/disable", {"reason": "Abuse."})

    async def subjects(query: str) -> list[str]:
        return [row["subject"] for row in await rows(admin, query)]

    first, second, third = (lawyer.id for lawyer in lawyers)
    assert await subjects("") == [first, third, second, first]
    assert await subjects(f"adminId={another.id}") == [second]
    assert await subjects("action=user.disable") == [first]
    assert await subjects(f"subject={first}") == [first, first]
    assert await subjects("state=INTENDED") == []
    assert await subjects("from=2026-01-01T00:00:20Z") == [first, third, second]
    assert await subjects("to=2026-01-01T00:00:20Z") == [first]
    assert await subjects(f"action=lawyer.verify&subject={third}&adminId={admin.id}&state=DONE") == [third]


async def _another_admin(api: Api) -> Person:
    await api.services.accounts.create_admin(email="b@example.com", password="the other one", name="B")
    return await api.log_in("b@example.com", "the other one")


async def test_a_repeated_request_has_one_row(api: Api) -> None:
    admin, user, lawyer = await api.admin(), await api.a_user("500.00"), await api.a_lawyer()
    session_id = await user.start(lawyer.id)
    for _ in range(3):
        answer = await admin.post(f"/consult/{session_id}/end", key="the-key")
        assert answer.status == 200
    assert len(await rows(admin, "action=session.end")) == 1


async def test_nobody_changes_or_deletes_rows_over_http(api: Api) -> None:
    admin = await api.admin()
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        assert (await admin.call(method, "/admin/audit")).status == 405


# --- when the store fails


async def test_no_act_without_its_intent(api: Api) -> None:
    """The log's disk is full: then nobody is disabled either."""
    admin, user = await api.admin(), await api.a_user()
    _failing(api.services.audit, "add")
    answer = await admin.post(f"/admin/users/{user.id}/disable", {"reason": "Abuse."})
    assert answer.status == 503
    assert (await user.get("/auth/me")).status == 200


async def test_an_act_whose_outcome_could_not_be_written_was_done_and_says_so(api: Api) -> None:
    admin, user = await api.admin(), await api.a_user()
    _failing(api.services.audit, "finish")
    answer = await admin.post(f"/admin/users/{user.id}/disable", {"reason": "Abuse."})
    assert (answer.status, answer.json["isDisabled"]) == (200, True)
    (row,) = await rows(admin, "state=INTENDED")
    assert (row["action"], row["subject"], row["after"]) == ("user.disable", user.id, None)
    assert row["before"]["isDisabled"] is False


def _failing(log: AuditLog, method: str) -> None:
    async def fail(*_: Any, **__: Any) -> None:
        raise StoreUnavailable(reason="as planned")

    log._rows = SimpleNamespace(
        **{name: getattr(log._rows, name) for name in ("add", "finish", "find", "count_about")}
        | {method: fail}
    )


# --- a process that dies at any await


class Subject:
    """Something that admins change, in a store of its own: three writes, the second of which is the act."""

    def __init__(self) -> None:
        self.prepared = self.changed = self.told = 0
        self.exists = True
        self.refuses = False

    async def look(self) -> dict[str, Any]:
        if not self.exists:
            raise NotFound
        return {"changed": self.changed}

    async def prepare(self) -> None:
        self.prepared += 1
        if self.refuses:
            raise Conflict

    async def change(self) -> None:
        self.changed = 1

    async def tell(self) -> None:
        self.told = 1


def _call(operation_id: str) -> Call[Any, Any]:
    return Call(
        body=None,
        query=None,
        path={"subject_id": "s1"},
        principal=Principal("admin", Role.ADMIN, "family"),
        operation_id=operation_id,
        services=None,
        request_id="request",
        remote="",
    )


async def _one_run(rows: Any, subject: Any, operation_id: str) -> None:
    async def act(_: Call[Any, Any]) -> str:
        await subject.prepare()
        await subject.change()
        await subject.tell()
        return "done"

    async def facts(_: Call[Any, Any]) -> dict[str, Any]:
        return dict(await subject.look())

    audited = Audited("subject.change", "subject_id", facts)
    await AuditLog(rows, ManualClock()).perform(audited, _call(operation_id), act)


async def test_a_death_at_any_await_leaves_the_act_written_down_or_not_done(tmp_path: Path) -> None:
    """Months later somebody asks who did it. "Nobody" must not be the answer."""
    async with open_database(tmp_path / "audit.db", SqliteOptions(synchronous="OFF")) as db:
        stored = await CollectionAudit.open(SqliteCollections(db))
        whole = Fuse()
        await _one_run(whole.wrap("rows", stored), whole.wrap("subject", Subject()), "whole")
        assert whole.calls == [
            *("subject.look", "rows.add", "subject.prepare", "subject.change", "subject.tell"),
            *("subject.look", "rows.finish"),
        ]
        for at in range(len(whole.calls)):
            for moment in Moment:
                subject, id_ = Subject(), f"{at}-{moment.value}"
                fuse = Fuse(at=at, moment=moment)
                with pytest.raises(Died):
                    await _one_run(fuse.wrap("rows", stored), fuse.wrap("subject", subject), id_)

                kept = {row.id: row for row in await stored.find(AuditFilter(), limit=100, before=None)}
                if subject.changed:
                    assert id_ in kept, (fuse.calls, moment)
                if id_ in kept:
                    assert kept[id_].before == {"changed": 0}
                    finished = fuse.calls[-1] == "rows.finish" and moment is Moment.AFTER
                    assert kept[id_].state is (AuditState.DONE if finished else AuditState.INTENDED)

                # The client asks again under its key: the same operation, and it ends in the row that it began.
                await _one_run(stored, subject, id_)
                kept = {row.id: row for row in await stored.find(AuditFilter(), limit=100, before=None)}
                assert (kept[id_].state, kept[id_].after) == (AuditState.DONE, {"changed": 1})
                assert subject.changed == 1


async def test_a_death_in_a_refused_act_leaves_no_false_outcome(tmp_path: Path) -> None:
    async with open_database(tmp_path / "audit.db", SqliteOptions(synchronous="OFF")) as db:
        stored = await CollectionAudit.open(SqliteCollections(db))
        for at in range(4):
            for moment in Moment:
                subject, id_ = Subject(), f"{at}-{moment.value}"
                subject.refuses = True
                fuse = Fuse(at=at, moment=moment)
                with pytest.raises((Died, Conflict)):
                    await _one_run(fuse.wrap("rows", stored), fuse.wrap("subject", subject), id_)
                assert subject.changed == 0
        states = {row.id: row.state for row in await stored.find(AuditFilter(), limit=100, before=None)}
        assert AuditState.DONE not in states.values()
        assert states["3-after"] is AuditState.REFUSED


async def test_a_client_that_hangs_up_does_not_stop_an_act_half_way(api: Api) -> None:
    admin, user = await api.admin(), await api.a_user()
    began, go_on = asyncio.Event(), asyncio.Event()
    disable = api.services.control.disable

    async def slowly(*args: Any, **more: Any) -> Any:
        began.set()
        await go_on.wait()
        return await disable(*args, **more)

    api.services.control.disable = slowly  # type: ignore[method-assign]
    asking = asyncio.create_task(admin.post(f"/admin/users/{user.id}/disable", {"reason": "Abuse."}))
    await began.wait()
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    go_on.set()
    await api.idle()
    (row,) = await rows(await api.admin(), "action=user.disable")
    assert (row["state"], row["after"]["isDisabled"]) == ("DONE", True)
