"""The outbox and its ways out, over a real store and real sockets: nothing is lost, little comes twice, no link leaks."""

import asyncio
import base64
import hashlib
import hmac
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from aiohttp import web
from aiosmtpd.smtp import SMTP

from server.notifications.log import LogNotifier
from server.notifications.model import Kind, Notice, Notification, pause_ms
from server.notifications.options import SmtpSecurity
from server.notifications.outbox import LEASE_MS, LIFETIME_MS, Outbox
from server.notifications.ports import NotDelivered
from server.notifications.smtp import SmtpNotifier, SmtpOptions
from server.notifications.webhook import NOTIFICATION_ID, SIGNATURE, WebhookNotifier
from server.storage.errors import StoreUnavailable
from server.storage.repositories.notices import NOTICES, CollectionNotices
from server.storage.sqlite.collection import SqliteCollections
from server.storage.sqlite.engine import SqliteOptions, open_database
from tests.support.letters import Letters
from tests.support.manual_clock import ManualClock

LETTER = Notification(
    id="n1",
    kind=Kind.PASSWORD_RESET,
    user_id="u1",
    email="asha@example.com",
    subject="Choose a new password",
    text="Hello Ashå,\n\nhttps://app.example.com/reset#secret-token\n",
    facts={"token": "secret-token"},
    created_at_ms=1_767_225_600_000,
)


class EchoComposer:
    """Writes a letter for every notice, but for those about nobody."""

    async def compose(self, notice: Notice) -> Notification | None:
        if notice.user_id == "nobody":
            return None
        return Notification(
            notice.id, notice.kind, notice.user_id or "", "a@example.com", "S", "T", notice.facts, 0
        )


@dataclass
class World:
    outbox: Outbox
    rows: CollectionNotices
    letters: Letters
    clock: ManualClock
    collections: SqliteCollections

    async def docs(self) -> list[dict]:
        return await (await self.collections.open(NOTICES)).find({})

    async def post(self, id_: str = "n1", **more) -> None:
        await self.outbox.post(Kind.PASSWORD_CHANGED, id_=id_, user_id=more.pop("user_id", "u1"), **more)


@pytest.fixture
async def world(tmp_path):
    async with open_database(tmp_path / "outbox.db", SqliteOptions(synchronous="OFF")) as db:
        collections, clock, letters = SqliteCollections(db), ManualClock(), Letters()
        rows = await CollectionNotices.open(collections)
        outbox = Outbox(rows=rows, composer=EchoComposer(), notifier=letters, clock=clock)
        yield World(outbox, rows, letters, clock, collections)
        await outbox.stop()


async def test_what_is_posted_goes_out_once(world):
    await world.post()
    await world.post()
    assert await world.outbox.send_due() == 1
    assert await world.outbox.send_due() == 0
    assert [letter.id for letter in world.letters.taken] == ["n1"]


async def test_what_a_dead_process_left_is_sent_by_the_next(world):
    """Stored and not sent: the crash is between the two."""
    await world.post()
    successor = Outbox(rows=world.rows, composer=EchoComposer(), notifier=world.letters, clock=world.clock)
    await successor.send_due()
    assert len(world.letters.taken) == 1


async def test_an_attempt_that_died_half_way_is_made_again_after_its_lease(world):
    """The process died between the mail server's yes and our note of it: twice is better than never."""
    await world.post()
    [notice] = await world.rows.due(world.clock.now_ms(), limit=9)
    await world.rows.begin(notice, until_ms=world.clock.now_ms() + LEASE_MS)
    assert await world.outbox.send_due() == 0
    world.clock.jump_ms(LEASE_MS)
    assert await world.outbox.send_due() == 1


async def test_two_processes_do_not_send_the_same_one(world):
    for n in range(20):
        await world.post(f"n{n:02}")
    other = Outbox(rows=world.rows, composer=EchoComposer(), notifier=world.letters, clock=world.clock)
    await asyncio.gather(world.outbox.send_due(), other.send_due(), world.outbox.send_due())

    assert sorted(letter.id for letter in world.letters.taken) == [f"n{n:02}" for n in range(20)]


async def test_failures_are_tried_again_later_and_later(world):
    world.letters.failures = [NotDelivered("busy") for _ in range(3)]
    await world.post()
    await world.outbox.send_due()
    for attempt in (1, 2, 3):
        world.clock.jump_ms(pause_ms(attempt) - 1)
        assert await world.outbox.send_due() == 0
        world.clock.jump_ms(1)
        assert await world.outbox.send_due() == 1
    assert len(world.letters.taken) == 1
    assert [pause_ms(n) for n in (1, 2, 3)] == [2_000, 10_000, 60_000]
    assert pause_ms(1_000) == 3_600_000


async def test_a_hopeless_one_and_a_late_one_are_given_up_and_forget_their_person(world):
    world.letters.failures = [NotDelivered("no such mailbox", for_good=True)]
    await world.post("hopeless", email="asha@example.com", facts={"nonce": "n"})
    await world.outbox.send_due()
    await world.post("late", email="asha@example.com", lifetime_ms=1_000)
    world.clock.jump_ms(1_000)
    await world.outbox.send_due()

    assert [(doc["_id"], doc["state"], doc["problem"]) for doc in await world.docs()] == [
        ("hopeless", "DEAD", "no such mailbox"),
        ("late", "DEAD", "too late"),
    ]
    assert all(doc["email"] is None and doc["facts"] == {} for doc in await world.docs())
    assert world.letters.taken == []
    assert world.outbox.dead == 2


async def test_what_is_sent_forgets_its_person_and_goes_after_a_while(world):
    await world.post(email="asha@example.com", facts={"nonce": "n"})
    await world.outbox.send_due()
    [doc] = await world.docs()
    assert (doc["state"], doc["email"], doc["facts"]) == ("SENT", None, {})
    await world.post("pending")

    world.clock.jump_ms(1_000)
    assert await world.outbox.drop_settled(older_than_ms=1_001) == 0
    assert await world.outbox.drop_settled(older_than_ms=999) == 1
    assert [doc["_id"] for doc in await world.docs()] == ["pending"]


async def test_what_concerns_nobody_any_more_leaves_no_row(world):
    await world.post(user_id="nobody")
    await world.outbox.send_due()
    assert await world.docs() == []


async def test_one_that_breaks_does_not_keep_the_others_back(world, monkeypatch):
    async def compose(notice):
        if notice.id == "bad":
            raise ZeroDivisionError
        return await EchoComposer().compose(notice)

    monkeypatch.setattr(world.outbox._composer, "compose", compose)
    for id_ in ("a", "bad", "c"):
        await world.post(id_)
    await world.outbox.send_due()
    assert sorted(letter.id for letter in world.letters.taken) == ["a", "c"]


async def test_the_task_sends_at_once_and_tries_again_by_the_clock(world, monkeypatch):
    idle_at = world.clock.now_ms()
    world.outbox.start()
    world.letters.failures = [NotDelivered("busy")]
    await world.post()
    while not world.outbox.failed:
        await asyncio.to_thread(lambda: None)
    for _ in range(200):
        await world.clock.advance_ms(100)
        if world.letters.taken:
            break
        await asyncio.to_thread(lambda: None)
    assert len(world.letters.taken) == 1
    assert 2_000 <= world.clock.now_ms() - idle_at < LIFETIME_MS


async def test_the_task_outlives_a_store_that_is_away(world, monkeypatch):
    real, broken = world.rows.due, {"calls": 0}

    async def due(*args, **more):
        if broken["calls"] < 3:
            broken["calls"] += 1
            raise StoreUnavailable
        return await real(*args, **more)

    monkeypatch.setattr(world.rows, "due", due)
    await world.post()
    world.outbox.start()
    for _ in range(200):
        await world.clock.advance_ms(500)
        if world.letters.taken:
            break
        await asyncio.to_thread(lambda: None)
    assert len(world.letters.taken) == 1


# --- the log


async def test_the_log_shows_a_link_to_developers_only(capsys):
    """Everybody who reads production's log could take over any account."""
    await LogNotifier(with_text=False).notify(LETTER)
    assert "secret-token" not in capsys.readouterr().out
    await LogNotifier(with_text=True).notify(LETTER)
    assert "secret-token" in capsys.readouterr().out


# --- mail


class Mailbox:
    """What a mail server hears; `answers` come first."""

    def __init__(self) -> None:
        self.mails: list = []
        self.answers: list[str] = []

    async def handle_DATA(self, _server, _session, envelope):  # noqa: N802 (aiosmtpd's name)
        if self.answers:
            return self.answers.pop(0)
        self.mails.append(envelope)
        return "250 OK"

    async def handle_RCPT(self, _server, _session, envelope, address, _options):  # noqa: N802
        if address.startswith("gone@"):
            return "550 no such mailbox"
        envelope.rcpt_tos.append(address)
        return "250 OK"


@pytest.fixture
async def mailbox():
    box = Mailbox()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: SMTP(box, hostname="mail.example.com", loop=loop), "127.0.0.1", 0
    )
    box.port = server.sockets[0].getsockname()[1]
    yield box
    server.close()
    await server.wait_closed()


def _smtp(port: int, security: SmtpSecurity = SmtpSecurity.NONE) -> SmtpNotifier:
    return SmtpNotifier(
        SmtpOptions(host="127.0.0.1", port=port, sender="Tarazu <no-reply@example.com>", security=security)
    )


async def test_mail_arrives_whole(mailbox):
    await _smtp(mailbox.port).notify(LETTER)
    [envelope] = mailbox.mails
    text = envelope.content.decode()

    assert (envelope.mail_from, envelope.rcpt_tos) == ("no-reply@example.com", ["asha@example.com"])
    assert "Subject: Choose a new password" in text
    assert "Message-ID: <n1@example.com>" in text
    assert "Auto-Submitted: auto-generated" in text


async def test_a_mailbox_that_is_none_is_hopeless_and_a_busy_server_is_not(mailbox):
    with pytest.raises(NotDelivered) as gone:
        await _smtp(mailbox.port).notify(Notification(**{**_fields(LETTER), "email": "gone@example.com"}))
    assert gone.value.for_good
    mailbox.answers = ["451 later"]
    with pytest.raises(NotDelivered) as busy:
        await _smtp(mailbox.port).notify(LETTER)
    assert not busy.value.for_good


async def test_mail_never_falls_back_to_plain_text(mailbox):
    """A link sent in the clear is read on the way."""
    with pytest.raises(NotDelivered):
        await _smtp(mailbox.port, SmtpSecurity.STARTTLS).notify(LETTER)
    assert mailbox.mails == []


async def test_no_mail_server_is_no_catastrophe():
    with pytest.raises(NotDelivered) as away:
        await _smtp(1).notify(LETTER)
    assert not away.value.for_good


def _fields(letter: Notification) -> dict:
    return {name: getattr(letter, name) for name in Notification.__slots__}


# --- the webhook


@dataclass
class Receiver:
    """Somebody's server; each answer is a status, or a hang-up after the body was read."""

    url: str = ""
    answers: list = field(default_factory=list)
    heard: list = field(default_factory=list)


@asynccontextmanager
async def a_receiver():
    receiver = Receiver()

    async def take(request: web.Request) -> web.Response:
        receiver.heard.append((dict(request.headers), await request.read()))
        answer = receiver.answers.pop(0) if receiver.answers else 204
        if answer == "hang up":
            request.transport.abort()
            return web.Response()
        headers = {"Location": "/elsewhere"} if answer == 307 else {}
        return web.Response(status=answer, headers=headers)

    app = web.Application()
    app.router.add_post("/{tail:.*}", take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    yield receiver
    await runner.cleanup()


SECRET = b"a secret that is long enough for it"


@pytest.fixture
async def hook():
    clock = ManualClock()
    async with a_receiver() as receiver:
        notifier = WebhookNotifier(receiver.url, SECRET, clock)
        yield receiver, notifier, clock
        await notifier.close()


async def test_a_webhook_is_signed_as_documented(hook):
    receiver, notifier, clock = hook
    await notifier.notify(LETTER)
    [(headers, body)] = receiver.heard
    at_s, _, mac = headers[SIGNATURE].removeprefix("t=").partition(",v1=")

    assert int(at_s) == clock.now_ms() // 1000
    assert hmac.new(SECRET, f"{at_s}.".encode() + body, hashlib.sha256).hexdigest() == mac
    assert headers[NOTIFICATION_ID] == "n1"
    # And as companies' webhooks are.
    signed = f"n1.{headers['webhook-timestamp']}.".encode() + body
    standard = base64.b64encode(hmac.new(SECRET, signed, hashlib.sha256).digest()).decode()
    assert (headers["webhook-id"], headers["webhook-signature"]) == ("n1", f"v1,{standard}")
    assert json.loads(body) == {
        "id": "n1",
        "kind": "PASSWORD_RESET",
        "userId": "u1",
        "email": "asha@example.com",
        "subject": LETTER.subject,
        "text": LETTER.text,
        "facts": {"token": "secret-token"},
        "createdAt": "2026-01-01T00:00:00.000Z",
    }


@pytest.mark.parametrize("answer", [500, 404, 307, 410, "hang up"])
async def test_what_is_no_yes_is_not_delivered(hook, answer):
    receiver, notifier, _ = hook
    receiver.answers = [answer]
    with pytest.raises(NotDelivered) as refused:
        await notifier.notify(LETTER)
    assert refused.value.for_good is (answer == 410)
    # Not even a redirect is followed: the letter holds a link.
    assert len(receiver.heard) == 1
    await notifier.notify(LETTER)


async def test_a_lost_reply_comes_again_under_the_same_id(world, hook):
    receiver, notifier, _ = hook
    receiver.answers = ["hang up", 503]
    outbox = Outbox(rows=world.rows, composer=EchoComposer(), notifier=notifier, clock=world.clock)
    await world.post()
    for _ in range(3):
        await outbox.send_due()
        world.clock.jump_ms(60_000)
    assert [headers[NOTIFICATION_ID] for headers, _ in receiver.heard] == ["n1"] * 3
    [doc] = await world.docs()
    assert (doc["state"], doc["attempts"]) == ("SENT", 3)
