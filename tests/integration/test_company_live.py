"""What a company's members see at once: every change told, at most one a second, and by the real server to the right people alone."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from billing_engine.errors import Unavailable
from billing_engine.usage.ports import CompanyEvent, CompanyNews, EventKind
from chat.events import SERVER_EVENTS
from server.auth.model import Role
from server.company_news.live import EVERY_MS, LiveNews
from server.company_news.news import LETTERS
from server.notifications.company_letters import KINDS
from tests.integration.socket_world import until
from tests.support.api import Api, open_api
from tests.support.http import PASSWORD
from tests.support.letters import Letters
from tests.support.manual_clock import ManualClock, turns
from tests.support.webhook_receiver import Receiver, receiver

WEBHOOK = "/api/company/webhook"


class Members:
    """Who is in a company; fails when told to."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []
        self.failures = 0
        self.asked = 0

    async def ids(self, company_id: str) -> list[str]:
        self.asked += 1
        await asyncio.sleep(0)
        if self.failures:
            self.failures -= 1
            raise Unavailable
        return [company_id]

    def post_to_user(self, user_id: str, name: str, payload: Any) -> None:
        assert payload == {"companyId": user_id}
        self.told.append((user_id, name))

    def times(self, company_id: str) -> int:
        return self.told.count((company_id, "billing:updated"))


@pytest.fixture
async def live() -> AsyncIterator[tuple[LiveNews, Members, ManualClock]]:
    members, clock = Members(), ManualClock()
    news = LiveNews(members, members.ids, clock)  # type: ignore[arg-type]
    news.start()
    yield news, members, clock
    await news.stop()


Live = tuple[LiveNews, Members, ManualClock]


async def test_changes_are_told_at_once_then_once_a_second_and_the_last_one_always(live: Live) -> None:
    news, members, clock = live
    for n in range(100):
        news.changed("acme")
        news.changed("zeta")
        await turns()
        assert members.times("acme") == 1, n
    await clock.advance_ms(EVERY_MS - 1)
    assert members.times("acme") == 1
    await clock.advance_ms(1)
    assert (members.times("acme"), members.times("zeta")) == (2, 2)
    await clock.advance_ms(10 * EVERY_MS)
    assert members.times("acme") == 2
    assert not news._told, "nothing is remembered of who is silent"
    news.changed("acme")
    await turns()
    assert members.times("acme") == 3


async def test_a_steady_stream_of_changes_is_told_once_a_second(live: Live) -> None:
    news, members, clock = live
    for _ in range(100):
        news.changed("acme")
        await clock.advance_ms(50)
    await clock.advance_ms(EVERY_MS)
    assert members.times("acme") in {6, 7}


async def test_a_change_that_nobody_could_be_told_of_is_told_later(live: Live) -> None:
    """The store of members is away for three seconds."""
    news, members, clock = live
    members.failures = 4
    news.changed("acme")
    await clock.advance_ms(2 * EVERY_MS)
    assert members.times("acme") == 0
    await clock.advance_ms(3 * EVERY_MS)
    assert members.times("acme") == 1
    assert members.asked <= 6, "it is not asked over and over"
    await clock.advance_ms(3 * EVERY_MS)
    assert members.times("acme") == 1


async def test_the_end_of_the_process_tells_the_last_change(live: Live) -> None:
    news, members, _clock = live
    news.changed("acme")
    await turns()
    news.changed("acme")
    news.changed("zeta")
    await news.stop()
    assert (members.times("acme"), members.times("zeta")) == (2, 1)


def test_every_kind_of_event_has_its_letter_and_its_line_in_the_table_of_events() -> None:
    assert set(LETTERS) == set(EventKind)
    assert set(LETTERS.values()) == KINDS
    assert {kind.value.replace(".", ":") for kind in EventKind} <= set(SERVER_EVENTS)


# --- the whole server


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with open_api(tmp_path, company_webhooks_private="on") as the_api:
        yield the_api


@pytest.fixture
async def there() -> AsyncIterator[Receiver]:
    async with receiver() as the_receiver:
        yield the_receiver


def news_of(api: Api) -> CompanyNews:
    news: CompanyNews = api.services.company_news.news
    return news


def low(id_: str, company_id: str) -> CompanyEvent:
    facts = {"walletBalance": "18.40", "currency": "USD", "threshold": "20.00"}
    return CompanyEvent(id_, company_id, EventKind.LOW_BALANCE, 1_767_225_600_000, facts)


async def test_a_company_hears_of_its_wallet_on_all_ways_and_another_hears_nothing(
    api: Api, there: Receiver
) -> None:
    letters = Letters()
    api.services.outbox._notifier = letters
    acme, zeta = await api.register(Role.COMPANY), await api.register(Role.COMPANY)
    set_ = await acme.call("PUT", WEBHOOK, json={"url": there.url})
    assert set_.status == 200, set_.text
    one, two, other = (
        await api.connect(acme.token),
        await api.connect(acme.token),
        await api.connect(zeta.token),
    )

    await news_of(api).tell([low("e1", acme.id)])
    news_of(api).changed(acme.id)
    news_of(api).changed(zeta.id)

    for client in (one, two):
        (heard,) = await client.hears("billing:low_balance")
        SERVER_EVENTS["billing:low_balance"].payload.model_validate(heard)
        assert heard == {
            "companyId": acme.id, "eventId": "e1", "at": "2026-01-01T00:00:00.000Z",
            "walletBalance": "18.40", "currency": "USD", "threshold": "20.00",
        }  # fmt: skip
        assert await client.hears("billing:updated") == [{"companyId": acme.id}]
    assert await other.hears("billing:updated") == [{"companyId": zeta.id}]
    assert other.told("billing:low_balance") == []

    await until(lambda: len(there.taken) == 1)
    assert there.taken[0].is_signed_with(set_.json["secret"])
    await until(lambda: len(letters.taken) == 1)
    (letter,) = letters.taken
    assert letter.email == acme.email
    assert "Balance: 18.40 USD" in letter.text
    assert "Threshold: 20.00 USD" in letter.text
    await until(lambda: api.services.company_news.deliverer.done == 1)
    seen = (await acme.get(WEBHOOK)).json
    assert (seen["url"], seen["disabledAt"], seen["lastDelivery"]["status"]) == (there.url, None, "DONE")


async def test_a_webhook_is_set_seen_tried_and_taken_away(api: Api, there: Receiver) -> None:
    acme = await api.register(Role.COMPANY)
    empty = {"url": None, "createdAt": None, "disabledAt": None, "lastDelivery": None}
    assert (await acme.get(WEBHOOK)).json == empty
    for path in ("/test", "/rotate-secret"):
        missing = await acme.post(WEBHOOK + path)
        assert (missing.status, missing.code) == (404, "WEBHOOK_NOT_SET")

    first = (await acme.call("PUT", WEBHOOK, json={"url": there.url})).json
    assert first["secret"].startswith("whsec_")
    assert first["secret"] not in (await acme.get(WEBHOOK)).text
    second = (await acme.post(f"{WEBHOOK}/rotate-secret")).json
    assert second["secret"] != first["secret"]
    assert (await acme.post(f"{WEBHOOK}/test")).json == {"delivered": True, "status": 204, "failure": None}
    assert there.taken[0].is_signed_with(second["secret"])
    await acme.call("PUT", WEBHOOK, json={"url": "http://127.0.0.1:1/"})
    answer = (await acme.post(f"{WEBHOOK}/test")).json
    assert answer == {"delivered": False, "status": None, "failure": "NO_CONNECTION"}
    assert (await acme.call("DELETE", WEBHOOK)).json == empty
    assert (await acme.call("DELETE", WEBHOOK)).json == empty
    assert (await acme.get(WEBHOOK)).json == empty


async def test_deliveries_are_listed_by_page_newest_first_and_only_ones_own(
    api: Api, there: Receiver
) -> None:
    acme, zeta = await api.register(Role.COMPANY), await api.register(Role.COMPANY)
    for company in (acme, zeta):
        await company.call("PUT", WEBHOOK, json={"url": there.url})
    for n in range(5):
        await news_of(api).tell([low(f"e{n}", acme.id)])
        await api.advance(1)
    await until(lambda: api.services.company_news.deliverer.done == 5)
    seen, cursor = [], ""
    while True:
        page = (await acme.get(f"{WEBHOOK}/deliveries?limit=2{cursor}")).json
        seen += page["items"]
        if page["nextCursor"] is None:
            break
        cursor = f"&cursor={page['nextCursor']}"
    assert [item["id"] for item in seen] == ["e4", "e3", "e2", "e1", "e0"]
    assert {
        (item["status"], item["attempts"], item["lastStatus"], item["nextAttemptAt"]) for item in seen
    } == {("DONE", 1, 204, None)}
    assert (await zeta.get(f"{WEBHOOK}/deliveries")).json == {"items": [], "nextCursor": None}


async def test_a_url_that_leads_into_our_network_is_refused_by_name(tmp_path: Path) -> None:
    async with open_api(tmp_path) as api:
        acme = await api.register(Role.COMPANY)
        for url in ("http://hooks.example.com/", "https://127.0.0.1/", "https://u:p@hooks.example.com/"):
            answer = await acme.call("PUT", WEBHOOK, json={"url": url})
            assert (answer.status, answer.code, answer.fields) == (422, "WEBHOOK_URL_REFUSED", ["url"])
        assert (await acme.get(WEBHOOK)).json["url"] is None


async def test_no_secret_is_kept_for_a_repeated_request(api: Api, there: Receiver) -> None:
    """What the idempotency table keeps, it keeps for ever."""
    acme = await api.register(Role.COMPANY)
    secrets = [
        (await acme.call("PUT", WEBHOOK, json={"url": there.url}, key="k1")).json["secret"],
        (await acme.post(f"{WEBHOOK}/rotate-secret", key="k2")).json["secret"],
    ]
    rows = api.everything()
    assert all(
        secret not in str(kept)
        for name, kept in rows.items()
        if name != "c_company_webhooks"
        for secret in secrets
    )
    assert secrets[1] in str(rows["c_company_webhooks"])


async def test_a_company_that_is_deleted_leaves_no_webhook_behind(api: Api, there: Receiver) -> None:
    acme, zeta = await api.register(Role.COMPANY), await api.register(Role.COMPANY)
    for company in (acme, zeta):
        await company.call("PUT", WEBHOOK, json={"url": there.url})
    assert (await acme.call("DELETE", "/auth/me", json={"password": PASSWORD})).status == 200
    await api.idle()
    assert [row[0] for row in api.everything()["c_company_webhooks"]] == [zeta.id]


async def test_trying_a_webhook_is_limited(tmp_path: Path, there: Receiver) -> None:
    async with open_api(
        tmp_path, company_webhooks_private="on", rate_limits="on", rate_limit_webhook_account="3/minute"
    ) as api:
        acme = await api.register(Role.COMPANY)
        await acme.call("PUT", WEBHOOK, json={"url": there.url})
        answers = [(await acme.post(f"{WEBHOOK}/test")).status for _ in range(3)]
        assert answers == [200, 200, 429]
