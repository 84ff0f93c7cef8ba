"""News of a session's bill: never waits, never raises, keeps its order, and carries `lastSeq` when it can be
known.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

import chat.news
from chat.errors import Unavailable
from chat.news import SessionNews


class Store:
    def __init__(self) -> None:
        self.seq = 7
        self.asked = 0
        self.error: Exception | None = None
        self.stuck = False

    async def last_seq(self, _session_id: str) -> int:
        self.asked += 1
        if self.stuck:
            await asyncio.Event().wait()
        await asyncio.sleep(0)
        if self.error:
            raise self.error
        return self.seq


class Listener:
    def __init__(self) -> None:
        self.heard: list[tuple[str, str, Mapping[str, Any]]] = []
        self.here = {"usr", "law"}

    def watching(self, user_id: str) -> bool:
        return user_id in self.here

    def post_to_user(self, user_id: str, event: str, payload: Mapping[str, Any]) -> None:
        self.heard.append((user_id, event, payload))


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def listener() -> Listener:
    return Listener()


@pytest.fixture
def news(store: Store, listener: Listener) -> SessionNews:
    return SessionNews(store=store, push=listener)  # type: ignore[arg-type]


async def test_each_person_gets_their_own_payload_in_order(news: SessionNews, listener: Listener) -> None:
    for k in range(450):
        news.tell("ses_1", "session:tick", {"usr": {"k": k, "walletBalance": "1.00"}, "law": {"k": k}})
    assert listener.heard == [], "telling does not wait"
    await news.flush()

    assert [payload["k"] for person, _, payload in listener.heard if person == "law"] == list(range(450))
    assert listener.heard[0] == ("usr", "session:tick", {"k": 0, "walletBalance": "1.00", "lastSeq": 7})
    assert listener.heard[1] == ("law", "session:tick", {"k": 0, "lastSeq": 7})


@pytest.mark.parametrize("error", [Unavailable(), RuntimeError()])
async def test_without_an_answer_from_the_store_the_news_still_go_out(
    news: SessionNews, store: Store, listener: Listener, error: Exception
) -> None:
    """Unknown is not zero: a lastSeq of 0 would tell the client that its messages are gone."""
    store.error = error
    news.tell("ses_1", "session:ended", {"usr": {}})
    await news.flush()

    assert listener.heard == [("usr", "session:ended", {})]


async def test_a_stuck_store_delays_news_for_a_moment_only(
    news: SessionNews, store: Store, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat.news, "PATIENCE_S", 0.01)
    store.stuck = True
    news.tell("ses_1", "session:ended", {"usr": {}})

    await asyncio.wait_for(news.flush(), 1)

    assert listener.heard == [("usr", "session:ended", {})]


async def test_nobody_is_asked_for_a_session_that_nobody_watches(
    news: SessionNews, store: Store, listener: Listener
) -> None:
    """50,000 sessions tick; most phones are in a pocket."""
    listener.here = set()
    news.tell("ses_1", "session:tick", {"usr": {}, "law": {}})
    await news.flush()

    assert store.asked == 0
