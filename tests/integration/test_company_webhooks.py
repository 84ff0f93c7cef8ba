"""Events on their way to a company's webhook, over a real store and real HTTP: signed, at least once, and nobody waits for another."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from billing_engine.usage.ports import CompanyEvent, EventKind
from server.company_news.delivery import AT_ONCE_COMPANY, LEASE_MS, Deliverer
from server.company_news.errors import WebhookNotSet
from server.company_news.http import WebhookHttp
from server.company_news.live import LiveNews
from server.company_news.model import OVERLAP_MS, PAUSES_MS, Answer, DeliveryState, Failure, Webhook
from server.company_news.news import CompanyTeller
from server.company_news.service import CompanyWebhooks
from server.notifications.model import Kind, Notice, Notification
from server.notifications.outbox import Outbox
from server.storage.collection import Collections
from server.storage.errors import StoreUnavailable
from server.storage.mongo.client import MongoOptions, open_mongo
from server.storage.mongo.collection import MongoCollections
from server.storage.repositories.company_webhooks import CollectionDeliveries, CollectionWebhooks
from server.storage.repositories.notices import CollectionNotices
from server.storage.sqlite.collection import SqliteCollections
from server.storage.sqlite.engine import SqliteOptions, open_database
from tests.integration.socket_world import until
from tests.support.letters import Letters
from tests.support.manual_clock import ManualClock
from tests.support.mongo_server import PATIENT_MS
from tests.support.webhook_receiver import Receiver, receiver

DAY_MS = 86_400_000


class EchoComposer:
    """Writes a letter for every notice."""

    async def compose(self, notice: Notice) -> Notification:
        return Notification(notice.id, notice.kind, notice.user_id or "", "a@b.c", "S", "T", notice.facts, 0)


@dataclass
class Sockets:
    """`Push` that remembers."""

    told: list[tuple[str, str, Any]] = field(default_factory=list)

    def post_to_user(self, user_id: str, event: str, payload: Any) -> None:
        self.told.append((user_id, event, payload))


@dataclass
class World:
    """One process. `members` are whom sockets are told for."""

    news: CompanyTeller
    webhooks: CompanyWebhooks
    deliverer: Deliverer
    rows: CollectionDeliveries
    settings: CollectionWebhooks
    http: WebhookHttp
    outbox: Outbox
    letters: Letters
    sockets: Sockets
    clock: ManualClock

    async def set(self, company_id: str, url: str) -> Webhook:
        webhook = await self.webhooks.set_webhook(company_id, url)
        assert webhook is not None
        return webhook

    async def states(self, company_id: str) -> list[tuple[str, DeliveryState, int, int | None]]:
        """(event, state, attempts, last status), newest first."""
        found = await self.webhooks.deliveries(company_id, limit=100, before=None)
        return [(row.event_id, row.state, row.attempts, row.last_status) for row in found]

    def another_process(self) -> Deliverer:
        return Deliverer(
            webhooks=self.settings,
            deliveries=self.rows,
            poster=self.http,
            clock=self.clock,
            jitter=lambda: 0.0,
        )


def event(
    id_: str = "e1", company_id: str = "acme", kind: EventKind = EventKind.LOW_BALANCE, **facts: Any
) -> CompanyEvent:
    facts = facts or {"walletBalance": "18.40", "currency": "USD", "threshold": "20.00"}
    return CompanyEvent(id_, company_id, kind, 1_767_225_600_000, facts)


@asynccontextmanager
async def a_world(collections: Collections, *, timeout_s: float = 5.0) -> AsyncIterator[World]:
    clock, letters, sockets = ManualClock(), Letters(), Sockets()
    settings, rows = await CollectionWebhooks.open(collections), await CollectionDeliveries.open(collections)
    outbox = Outbox(
        rows=await CollectionNotices.open(collections), composer=EchoComposer(), notifier=letters, clock=clock
    )
    http = WebhookHttp(allow_private=True, timeout_s=timeout_s)
    deliverer = Deliverer(webhooks=settings, deliveries=rows, poster=http, clock=clock, jitter=lambda: 0.0)

    async def members(company_id: str) -> list[str]:
        return [company_id, f"{company_id}-accountant"]

    live = LiveNews(sockets, members, clock)  # type: ignore[arg-type]
    news = CompanyTeller(
        webhooks=settings,
        deliveries=rows,
        outbox=outbox,
        live=live,
        clock=clock,
        on_stored=deliverer.look_now,
    )
    webhooks = CompanyWebhooks(
        webhooks=settings, deliveries=rows, poster=http, clock=clock, allow_private=True
    )
    try:
        yield World(news, webhooks, deliverer, rows, settings, http, outbox, letters, sockets, clock)
    finally:
        await deliverer.stop()
        await http.close()


@pytest.fixture
async def collections(tmp_path: Path) -> AsyncIterator[Collections]:
    async with open_database(tmp_path / "news.db", SqliteOptions(synchronous="OFF")) as db:
        yield SqliteCollections(db)


@pytest.fixture
async def w(collections: Collections) -> AsyncIterator[World]:
    async with a_world(collections) as world:
        yield world


@pytest.fixture
async def there() -> AsyncIterator[Receiver]:
    async with receiver() as the_receiver:
        yield the_receiver


# --- what arrives


async def test_an_event_arrives_once_signed_and_as_documented(w: World, there: Receiver) -> None:
    webhook = await w.set("acme", there.url)
    await w.news.tell([event()])
    assert await w.deliverer.send_due() == 1
    w.clock.jump_ms(DAY_MS)
    assert await w.deliverer.send_due() == 0

    (taken,) = there.taken
    assert taken.json == {
        "id": "e1",
        "type": "billing.low_balance",
        "createdAt": "2026-01-01T00:00:00.000Z",
        "data": {"walletBalance": "18.40", "currency": "USD", "threshold": "20.00", "companyId": "acme"},
    }
    assert taken.headers["webhook-id"] == "e1"
    assert taken.headers["content-type"] == "application/json"
    assert int(taken.headers["webhook-timestamp"]) == 1_767_225_600
    assert taken.is_signed_with(webhook.secret)
    assert not taken.is_signed_with("whsec_" + "A" * 43 + "=")
    assert await w.states("acme") == [("e1", DeliveryState.DONE, 1, 204)]


async def test_what_is_told_again_is_delivered_mailed_and_shown_once(w: World, there: Receiver) -> None:
    await w.set("acme", there.url)
    for _ in range(2):
        await w.news.tell([event(), event("e2", kind=EventKind.RECHARGED)])
        await w.deliverer.send_due()
        await w.outbox.send_due()

    assert sorted(taken.json["id"] for taken in there.taken) == ["e1", "e2"]
    assert [letter.kind for letter in w.letters.taken] == [Kind.COMPANY_LOW_BALANCE, Kind.COMPANY_RECHARGED]
    assert [(who, name) for who, name, _ in w.sockets.told] == [
        ("acme", "billing:low_balance"), ("acme-accountant", "billing:low_balance"),
        ("acme", "billing:recharged"), ("acme-accountant", "billing:recharged"),
    ]  # fmt: skip
    assert w.sockets.told[0][2] == {
        "companyId": "acme", "eventId": "e1", "at": "2026-01-01T00:00:00.000Z",
        "walletBalance": "18.40", "currency": "USD", "threshold": "20.00",
    }  # fmt: skip


async def test_two_companies_events_of_one_name_are_two(w: World, there: Receiver) -> None:
    await w.set("acme", there.url)
    await w.set("zeta", there.url)
    await w.news.tell([event(), event(company_id="zeta")])
    await w.deliverer.send_due()
    assert sorted(taken.json["data"]["companyId"] for taken in there.taken) == ["acme", "zeta"]


async def test_without_a_webhook_nothing_waits_for_one(w: World, there: Receiver) -> None:
    await w.news.tell([event()])
    await w.set("acme", there.url)
    assert await w.deliverer.send_due() == 0
    await w.outbox.send_due()
    assert len(w.letters.taken) == 1


async def test_a_store_that_fails_half_way_is_told_again_and_nothing_is_twice(
    w: World, there: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    await w.set("acme", there.url)

    async def fails(_delivery: Any) -> None:
        raise StoreUnavailable

    with monkeypatch.context() as broken:
        broken.setattr(w.rows, "add", fails)
        with pytest.raises(StoreUnavailable):
            await w.news.tell([event()])
    assert w.sockets.told == []
    await w.news.tell([event()])
    await w.deliverer.send_due()
    await w.outbox.send_due()
    assert (len(there.taken), len(w.letters.taken), len(w.sockets.told)) == (1, 1, 2)


# --- what does not


async def test_a_failure_is_tried_again_later_and_later_for_about_a_day(w: World, there: Receiver) -> None:
    await w.set("acme", there.url)
    there.answers = [web.Response(status=500) for _ in range(9)]
    await w.news.tell([event()])
    assert await w.deliverer.send_due() == 1
    for pause in PAUSES_MS:
        w.clock.jump_ms(pause - 1)
        assert await w.deliverer.send_due() == 0
        w.clock.jump_ms(1)
        assert await w.deliverer.send_due() == 1
    w.clock.jump_ms(10 * DAY_MS)
    assert await w.deliverer.send_due() == 0

    assert await w.states("acme") == [("e1", DeliveryState.DEAD, 7, 500)]
    assert len({taken.body for taken in there.taken}) == 1, "the same bytes each time"
    assert len({taken.headers["webhook-timestamp"] for taken in there.taken}) == 7, "signed anew"


async def test_after_a_failure_and_a_success_there_is_no_more(w: World, there: Receiver) -> None:
    await w.set("acme", there.url)
    there.answers = [web.Response(status=503)]
    await w.news.tell([event()])
    for _ in range(4):
        await w.deliverer.send_due()
        w.clock.jump_ms(DAY_MS)
    assert len(there.taken) == 2
    assert await w.states("acme") == [("e1", DeliveryState.DONE, 2, 204)]


async def test_a_timeout_is_tried_again(collections: Collections, there: Receiver) -> None:
    async with a_world(collections, timeout_s=0.2) as w:
        await w.set("acme", there.url)
        there.gate.clear()
        await w.news.tell([event()])
        await w.deliverer.send_due()
        (row,) = await w.webhooks.deliveries("acme", limit=9, before=None)
        assert (row.state, row.last_status, row.failure) == (DeliveryState.PENDING, None, Failure.TIMEOUT)
        there.gate.set()
        w.clock.jump_ms(PAUSES_MS[0])
        await w.deliverer.send_due()
        assert await w.states("acme") == [("e1", DeliveryState.DONE, 2, 204)]


async def test_a_redirect_is_not_followed(w: World, there: Receiver) -> None:
    """It would take what is said about a company's money, signed, to whoever the endpoint names."""
    await w.set("acme", there.url)
    there.answers = [
        web.Response(status=code, headers={"Location": f"{there.url}/elsewhere"}) for code in (302, 307)
    ]
    await w.news.tell([event()])
    await w.deliverer.send_due()
    w.clock.jump_ms(PAUSES_MS[0])
    await w.deliverer.send_due()
    assert [taken.path for taken in there.taken] == ["/hook", "/hook"]
    assert await w.states("acme") == [("e1", DeliveryState.PENDING, 2, 307)]


async def test_who_says_gone_is_asked_no_more_until_it_is_set_anew(w: World, there: Receiver) -> None:
    await w.set("acme", there.url)
    there.answers = [web.Response(status=500), web.Response(status=410)]
    await w.news.tell([event()])
    await w.deliverer.send_due()
    await w.news.tell([event("e2")])
    await w.deliverer.send_due()
    webhook = await w.webhooks.webhook("acme")
    assert webhook is not None
    assert webhook.disabled_at_ms == w.clock.now_ms()
    w.clock.jump_ms(DAY_MS)
    await w.news.tell([event("e3")])
    await w.deliverer.send_due()
    assert len(there.taken) == 2
    assert {(id_, state) for id_, state, *_ in await w.states("acme")} == {
        ("e1", DeliveryState.DEAD), ("e2", DeliveryState.DEAD),
    }  # fmt: skip

    await w.set("acme", there.url)
    await w.news.tell([event("e4")])
    await w.deliverer.send_due()
    assert there.taken[-1].json["id"] == "e4"


async def test_a_late_gone_does_not_disable_what_was_set_meanwhile(w: World, there: Receiver) -> None:
    await w.set("acme", there.url)
    there.answers = [web.Response(status=410)]
    there.gate.clear()
    await w.news.tell([event()])
    sending = asyncio.create_task(w.deliverer.send_due())
    await there.arrived.wait()
    await w.set("acme", f"{there.url}/new")
    there.gate.set()
    await sending
    webhook = await w.webhooks.webhook("acme")
    assert webhook is not None
    assert (webhook.url, webhook.disabled_at_ms) == (f"{there.url}/new", None)


async def test_a_webhook_that_is_taken_away_is_not_sent_what_was_on_its_way(
    w: World, there: Receiver
) -> None:
    await w.set("acme", there.url)
    await w.news.tell([event()])
    await w.webhooks.set_webhook("acme", None)
    await w.deliverer.send_due()
    assert there.taken == []
    assert await w.states("acme") == [("e1", DeliveryState.DEAD, 1, None)]


@pytest.mark.parametrize(
    "garbage",
    [b"", b"HTTP/1.1 999999 x\r\n\r\n", b"SSH-2.0-x\r\n", b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100_000],
)
async def test_whatever_an_endpoint_says_is_survived(w: World, garbage: bytes) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(garbage)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        await w.set("acme", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
        await w.news.tell([event()])
        await w.deliverer.send_due()
        (row,) = await w.webhooks.deliveries("acme", limit=9, before=None)
    assert (row.state, row.last_status) == (DeliveryState.PENDING, None)
    assert row.failure in {Failure.BAD_ANSWER, Failure.NO_CONNECTION}


async def test_an_endless_answer_is_not_read(w: World) -> None:
    """A status is all that counts. Who reads what a stranger sends runs out of memory one day."""
    written = 0
    closed = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        try:
            while True:
                writer.write(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
                await writer.drain()
                written += 0x10000
        except ConnectionError:
            closed.set()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server, asyncio.timeout(5):
        await w.set("acme", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
        await w.news.tell([event()])
        await w.deliverer.send_due()
        await closed.wait()
    assert await w.states("acme") == [("e1", DeliveryState.DONE, 1, 200)]
    assert written < 16 * 1024 * 1024, "no more than what the kernel's buffers took"


# --- processes


async def test_an_attempt_that_died_half_way_is_made_again_after_its_lease(w: World, there: Receiver) -> None:
    """The process was killed between the claim and the request, or between the answer and our note of it."""
    await w.set("acme", there.url)
    await w.news.tell([event()])
    now_ms = w.clock.now_ms()
    (row,) = await w.rows.due(now_ms, limit=9, after=None)
    assert await w.rows.begin(row, now_ms=now_ms, until_ms=now_ms + LEASE_MS)

    w.clock.jump_ms(LEASE_MS - 1)
    assert await w.deliverer.send_due() == 0
    w.clock.jump_ms(1)
    assert await w.deliverer.send_due() == 1
    assert [taken.headers["webhook-id"] for taken in there.taken] == ["e1"]


async def test_two_processes_do_not_send_the_same_one(w: World, there: Receiver) -> None:
    for n in range(15):
        await w.set(f"c{n}", there.url)
        await w.news.tell([event(f"e{n}", f"c{n}"), event(f"f{n}", f"c{n}")])
    await asyncio.gather(
        w.deliverer.send_due(), w.another_process().send_due(), w.another_process().send_due()
    )
    await w.deliverer.send_due()

    ids = sorted(taken.headers["webhook-id"] for taken in there.taken)
    assert ids == sorted([f"e{n}" for n in range(15)] + [f"f{n}" for n in range(15)])


async def test_an_attempt_that_was_overtaken_writes_nothing(w: World, there: Receiver) -> None:
    """A process that slept through its lease must not bury what another one delivers."""
    await w.set("acme", there.url)
    await w.news.tell([event()])
    now_ms = w.clock.now_ms()
    (row,) = await w.rows.due(now_ms, limit=9, after=None)
    slept = await w.rows.begin(row, now_ms=now_ms, until_ms=now_ms)
    assert slept is not None
    there.answers = [web.Response(status=500)]
    await w.another_process().send_due()
    await w.deliverer._attempt(slept, await w.webhooks.webhook("acme"))
    assert await w.states("acme") == [("e1", DeliveryState.PENDING, 2, 500)]


async def test_two_processes_on_mongodb_share_the_work(mongo_url: str, there: Receiver) -> None:
    options = MongoOptions(mongo_url, timeout_ms=PATIENT_MS)
    async with (
        open_mongo(options) as one,
        open_mongo(options) as two,
        a_world(MongoCollections(one)) as here,
        a_world(MongoCollections(two)) as elsewhere,
    ):
        there.answers = [web.Response(status=500)]
        for n in range(6):
            await here.set(f"c{n}", there.url)
            await asyncio.gather(*(w.news.tell([event(f"e{n}", f"c{n}")]) for w in (here, elsewhere)))
        await asyncio.gather(here.deliverer.send_due(), elsewhere.deliverer.send_due())
        ids = [taken.headers["webhook-id"] for taken in there.taken]
        assert sorted(ids) == [f"e{n}" for n in range(6)]

        for w in (here, elsewhere):
            w.clock.jump_ms(PAUSES_MS[0])
        await asyncio.gather(here.deliverer.send_due(), elsewhere.deliverer.send_due())
        assert there.taken[-1].headers["webhook-id"] == ids[0]
        assert len(there.taken) == 7
        last = await here.webhooks.last_delivery(f"c{ids[0][1:]}")
        assert last is not None
        assert (last.state, last.attempts, last.last_status) == (DeliveryState.DONE, 2, 204)
        assert await here.deliverer.drop_settled(older_than_ms=-1) == 6


# --- nobody waits for another


async def test_a_company_whose_endpoint_hangs_holds_up_nobody_else(w: World, there: Receiver) -> None:
    """A's backlog is older and longer than a page; its endpoint never answers. B's event goes out all the same."""
    there.gate.clear()
    await w.set("slow", there.url)
    await w.news.tell([event(f"s{n:03}", "slow") for n in range(150)])
    w.deliverer.start()
    await there.arrived.wait()
    w.clock.jump_ms(1)
    async with receiver() as quick:
        await w.set("quick", quick.url)
        await w.news.tell([event("q1", "quick")])
        await until(lambda: len(quick.taken) == 1)
        await until(lambda: w.deliverer.done == 1)
    assert len(there.taken) == AT_ONCE_COMPANY
    assert there.most_at_once == AT_ONCE_COMPANY

    there.gate.set()
    await until(lambda: len(there.taken) == 150)
    await until(lambda: w.deliverer.done == 151)
    assert there.most_at_once == AT_ONCE_COMPANY


async def test_the_deliverer_wakes_by_itself(w: World, there: Receiver) -> None:
    """For the next attempt, and for what another process has stored."""
    await w.set("acme", there.url)
    there.answers = [web.Response(status=500)]
    w.deliverer.start()
    await w.news.tell([event()])
    await until(lambda: w.deliverer.failed == 1)

    async def rest() -> None:
        for _ in range(200):
            await asyncio.sleep(0.001)
            if len(there.taken) == 2:
                break

    await w.clock.advance_ms(PAUSES_MS[0], idle=rest)
    await until(lambda: w.deliverer.done == 1)


# --- settings


async def test_a_secret_is_exchanged_without_a_gap(w: World, there: Receiver) -> None:
    first = await w.set("acme", there.url)
    second = await w.webhooks.rotate_secret("acme")
    assert first.secret != second.secret
    for n, (at_ms, old_signs) in enumerate([(0, True), (OVERLAP_MS - 1, True), (1, False)]):
        w.clock.jump_ms(at_ms)
        await w.news.tell([event(f"e{n}")])
        await w.deliverer.send_due()
        assert there.taken[-1].is_signed_with(second.secret)
        assert there.taken[-1].is_signed_with(first.secret) is old_signs


async def test_secrets_exchanged_at_the_same_time_are_exchanged_one_after_the_other(
    w: World, there: Receiver
) -> None:
    await w.set("acme", there.url)
    made = await asyncio.gather(*(w.webhooks.rotate_secret("acme") for _ in range(5)))
    now = await w.webhooks.webhook("acme")
    assert now is not None
    assert now.secret in {webhook.secret for webhook in made}
    assert now.previous_secret in {webhook.secret for webhook in made}
    assert now.secret not in repr(now)


async def test_a_test_event_is_sent_once_and_not_kept(w: World, there: Receiver) -> None:
    webhook = await w.set("acme", there.url)
    there.answers = [web.Response(status=418, text="teapot")]
    assert await w.webhooks.test("acme") == Answer(status=418)
    (taken,) = there.taken
    assert taken.json["type"] == "webhook.test"
    assert taken.json["data"] == {"companyId": "acme"}
    assert taken.is_signed_with(webhook.secret)
    assert await w.states("acme") == []
    with pytest.raises(WebhookNotSet):
        await w.webhooks.test("zeta")


async def test_what_is_over_is_forgotten_and_what_is_not_is_kept(w: World, there: Receiver) -> None:
    await w.set("acme", there.url)
    there.answers = [web.Response(status=204), web.Response(status=500)]
    await w.news.tell([event("old")])
    await w.deliverer.send_due()
    await w.news.tell([event("waits")])
    await w.deliverer.send_due()
    w.clock.jump_ms(DAY_MS)
    assert await w.deliverer.drop_settled(older_than_ms=DAY_MS) == 0
    w.clock.jump_ms(1)
    assert await w.deliverer.drop_settled(older_than_ms=DAY_MS) == 1
    assert [id_ for id_, *_ in await w.states("acme")] == ["waits"]


# --- foreign input


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "rebound.example.com",
        "mixed.example.com",
    ],
)
async def test_no_connection_is_made_to_an_address_that_is_not_public(host: str) -> None:
    """Whatever the URL said when it was set: the name is resolved again at each attempt, and somebody else owns it."""
    connections = 0

    async def count(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        writer.close()

    async def lookup(name: str, port: int) -> list[tuple[int, str]]:
        if name == "mixed.example.com":
            return [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET, "93.184.216.34")]
        if name == "rebound.example.com":
            return [(socket.AF_INET6, "::ffff:127.0.0.1")]
        return [
            (socket.AF_INET, address[0]) for *_, address in socket.getaddrinfo(name, port, socket.AF_INET)
        ]

    server = await asyncio.start_server(count, "127.0.0.1", 0)
    http = WebhookHttp(allow_private=False, lookup=lookup)
    async with server:
        port = server.sockets[0].getsockname()[1]
        answer = await http.post(f"https://{host}:{port}/", b"{}", {})
    await http.close()
    assert answer == Answer(failure=Failure.ADDRESS_REFUSED)
    assert connections == 0


async def test_what_was_allowed_when_it_was_set_is_looked_at_again() -> None:
    """The setting was switched off: what is said of a company's money goes nowhere in plain text."""

    async def lookup(_name: str, _port: int) -> list[tuple[int, str]]:
        raise AssertionError("nobody should ask")

    http = WebhookHttp(allow_private=False, lookup=lookup)
    answer = await http.post("http://hooks.example.com/", b"{}", {})
    await http.close()
    assert answer == Answer(failure=Failure.ADDRESS_REFUSED)


@pytest.mark.parametrize("address", ["127.0.0.1", "::ffff:127.0.0.1"])
async def test_the_socket_itself_refuses_when_every_check_before_it_is_walked_around(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A literal address never meets the resolver, and a parser may be fooled. The socket sees what is connected to."""
    connections = 0

    async def count(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        writer.close()

    monkeypatch.setattr("server.company_news.http.check_url", lambda url, **_: url)
    server = await asyncio.start_server(count, "127.0.0.1", 0)
    http = WebhookHttp(allow_private=False)
    async with server:
        host = f"[{address}]" if ":" in address else address
        answer = await http.post(f"http://{host}:{server.sockets[0].getsockname()[1]}/", b"{}", {})
    await http.close()
    assert answer == Answer(failure=Failure.ADDRESS_REFUSED)
    assert connections == 0


async def test_a_name_that_is_none_is_a_failure_like_another(w: World) -> None:
    await w.set("acme", "https://nothing.invalid/")
    assert await w.webhooks.test("acme") == Answer(failure=Failure.NO_CONNECTION)
