"""Messages both ways, through real clients at a real cluster, while connections are torn, processes die and Redis restarts.

At the end everybody has the same conversation: positions 1..N without a gap, nothing lost, nothing doubled, each sender's words in
the order in which they were said.
"""

import asyncio
import hashlib
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from tarazu_client import Chat, Client, Draft, Refused, Sent
from tarazu_client.backoff import Backoff
from tarazu_client.wire import MessageView
from tests.e2e.people import Person, World, assert_bill, people_of
from tests.support.client_apps import tear
from tests.support.cluster import Cluster
from tests.support.typescript_client import NodeApp, node_app

#: Sender, clientMsgId, and what stands for the body.
Heard = tuple[str, str, str]

ALPHABET: Final = "aäऄ€😀\n\\\"'\u2028 "
#: People type on while they are offline, but not for ever.
_MOST_WAITING: Final = 100
#: Connections live for a random number of messages.
_LONGEST_FUSE: Final = 600
#: Messages of a long conversation that are read over HTTP in one go.
_WINDOW: Final = 2_000
#: What breaks, and how often of ten.
_WEATHER: Final = (
    *("kill web",) * 4,
    *("restart redis",) * 3,
    "deploy web",
    "redis away",
    "freeze redis",
)


@dataclass
class Story:
    """What a storm was like, and what was found when it was over."""

    seed: int
    messages: int
    seconds: float = 0.0
    connections: int = 0
    torn: int = 0
    faults: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        faults = ", ".join(f"{count} times {kind}" for kind, count in sorted(self.faults.items()))
        rate = self.messages / self.seconds if self.seconds else 0
        return (
            f"seed {self.seed}: {self.messages} messages in {self.seconds:.0f} s ({rate:.0f}/s), "
            f"{self.connections} connections, {self.torn} torn, {faults}"
        )


class Pace:
    """Talk waits for the weather: without it the last strikes would find nobody talking."""

    def __init__(self) -> None:
        self._part = 0.0
        self._further = asyncio.Event()

    def to(self, part: float) -> None:
        self._part = part
        self._further.set()
        self._further = asyncio.Event()

    async def until(self, part: float) -> None:
        while part > self._part:
            await self._further.wait()


class Device(Protocol):
    """What a side talks with, whichever client that is."""

    async def say(self, client_msg_id: str, body: str) -> None: ...

    def tear(self) -> None:
        """Lose the connection: nothing is said, nothing is flushed."""
        ...

    def seen(self) -> None: ...


class Side:
    """One person, and what their device was given and was told."""

    def __init__(self, person: Person, rng: random.Random) -> None:
        self.person = person
        self.rng = rng
        self.device: Device
        self.heard: list[Heard] = []
        self.said: list[Heard] = []
        #: By clientMsgId: where an acknowledgement said that it is.
        self.positions: dict[str, int] = {}
        self.connections = 0
        self.torn = 0
        self._fuse = self._new_fuse()
        self._news = asyncio.Event()
        self._broken: str | None = None

    # -- what the device tells -------------------------------------------------------------------------------------

    def took(self, message: MessageView) -> None:
        if message["seq"] != len(self.heard) + 1:
            self.broke(f"message {message['seq']} was given after {len(self.heard)}")
        self.heard.append((message["senderId"], message["clientMsgId"], _digest(message["body"])))
        self._fuse -= 1
        if self._fuse <= 0:
            # In the middle of whatever comes next.
            self._fuse = self._new_fuse()
            self.torn += 1
            asyncio.get_running_loop().call_later(self.rng.random() * 0.02, self.device.tear)
        if len(self.heard) % 20 == 0:
            self.device.seen()
        self._news.set()

    def stored(self, client_msg_id: str, seq: int) -> None:
        if client_msg_id in self.positions:
            self.broke(f"{client_msg_id} was told twice")
        self.positions[client_msg_id] = seq
        self._news.set()

    def broke(self, what: str) -> None:
        """Said by a client's handler, where nobody would hear an exception."""
        self._broken = self._broken or what
        self._news.set()

    def _new_fuse(self) -> int:
        return self.rng.randrange(1, 8 if self.rng.random() < 0.1 else _LONGEST_FUSE)

    # -- what the person does --------------------------------------------------------------------------------------

    async def talk(self, count: int, pace: Pace) -> None:
        """Say `count` messages, no faster than the pace; return when all of them are known to be stored."""
        for k in range(count):
            await pace.until(k / count)
            client_msg_id, body = f"{self.person.id[-4:]}-{k}", body_of(self.rng)
            self.said.append((self.person.id, client_msg_id, _digest(body)))
            await self.device.say(client_msg_id, body)
            await self._until(lambda: len(self.said) - len(self.positions) < _MOST_WAITING)
            if k % 50 == 0:
                await asyncio.sleep(0)
        await self._until(lambda: len(self.positions) == count)

    async def has(self, seq: int) -> None:
        await self._until(lambda: len(self.heard) >= seq)

    async def _until(self, true: Callable[[], bool]) -> None:
        while not true():
            assert self._broken is None, f"{self.person.name}: {self._broken}"
            self._news.clear()
            await self._news.wait()
        assert self._broken is None, f"{self.person.name}: {self._broken}"


class PythonDevice:
    """On `tarazu_client`."""

    def __init__(self, client: Client, chat: Chat, side: Side) -> None:
        self._client, self._chat, self._side = client, chat, side
        self._waiting: set[asyncio.Task[None]] = set()

    @classmethod
    @asynccontextmanager
    async def of(cls, side: Side, cluster: Cluster, session_id: str) -> AsyncIterator["PythonDevice"]:
        def url() -> str:
            return side.rng.choice(_living(cluster))

        async def token() -> str:
            side.connections += 1
            return side.person.api.token or ""

        def failed(draft: Draft, error: Refused) -> None:
            side.broke(f"{draft.client_msg_id} was refused for good: {error}")

        backoff = Backoff(0.05, 1.0, side.rng.random)
        async with Client(url, token=token, user_id=side.person.id, backoff=backoff) as client:
            chat = await client.open(session_id, on_message=side.took, on_failed=failed)
            yield cls(client, chat, side)

    async def say(self, client_msg_id: str, body: str) -> None:
        sent = await self._chat.send(body, client_msg_id=client_msg_id)
        task = asyncio.create_task(self._hear_of(sent))
        self._waiting.add(task)
        task.add_done_callback(self._waiting.discard)

    async def _hear_of(self, sent: Sent) -> None:
        self._side.stored(sent.client_msg_id, await sent)

    def tear(self) -> None:
        tear(self._client)

    def seen(self) -> None:
        self._chat.seen()


class TypeScriptDevice:
    """On `@tarazu/client`, in a process of Node."""

    def __init__(self, app: NodeApp, cluster: Cluster) -> None:
        self._app = app
        self._cluster = cluster

    @classmethod
    @asynccontextmanager
    async def of(cls, side: Side, cluster: Cluster, session_id: str) -> AsyncIterator["TypeScriptDevice"]:
        def told(facts: Any) -> None:
            match facts["told"]:
                case "message":
                    side.took(facts["message"])
                case "stored":
                    side.stored(facts["id"], facts["seq"])
                case "token":
                    side.connections += 1
                    device.look_around()
                case "failed" | "kept out" | "stopped":
                    side.broke(str(facts))

        async with node_app(
            urls=_living(cluster),
            tokens=[side.person.api.token or ""],
            user_id=side.person.id,
            session_id=session_id,
            on_told=told,
            remembers=False,
        ) as app:
            device = cls(app, cluster)
            yield device

    def look_around(self) -> None:
        """A process that was started again has another address."""
        self._app.do("urls", urls=_living(self._cluster))

    async def say(self, client_msg_id: str, body: str) -> None:
        self._app.do("send", id=client_msg_id, body=body)

    def tear(self) -> None:
        self._app.do("tear")

    def seen(self) -> None:
        self._app.do("seen")


def _living(cluster: Cluster) -> list[str]:
    return [web.url for web in cluster.webs if web.is_running]


def body_of(rng: random.Random) -> str:
    """Mostly a line, sometimes a page, in all widths of UTF-8."""
    length = rng.choice((1, 5, 20, 80)) if rng.random() > 0.01 else rng.randint(1_000, 8_000)
    return "x" + "".join(rng.choices(ALPHABET, k=length - 1))


def _digest(body: str) -> str:
    return hashlib.blake2b(body.encode(), digest_size=8).hexdigest()


# -- the storm ---------------------------------------------------------------------------------------------------------


@dataclass
class Talk:
    """One consultation, and its two sides."""

    session_id: str
    user: Side
    lawyer: Side

    @property
    def sides(self) -> tuple[Side, Side]:
        return (self.user, self.lawyer)


class Weather:
    """Breaks the cluster, at least one web process always left; everything stands again when a fault is over."""

    def __init__(self, cluster: Cluster, rng: random.Random, story: Story) -> None:
        self._cluster = cluster
        self._rng = rng
        self._story = story
        for web in cluster.processes:
            # Without Redis a process is not ready, and says so.
            web.tolerated = lambda event: event.get("path") == "/readyz"

    async def strike(self) -> None:
        kind = self._rng.choice(_WEATHER)
        web = self._rng.choice(self._cluster.webs)
        redis = self._cluster.redis
        self._story.faults[kind] = self._story.faults.get(kind, 0) + 1
        match kind:
            case "kill web":
                await asyncio.to_thread(web.kill)
                await asyncio.to_thread(web.start)
            case "deploy web":
                assert await asyncio.to_thread(web.stop) == 0
                await asyncio.to_thread(web.start)
            case "restart redis":
                await asyncio.to_thread(redis.restart)
            case "redis away":
                await asyncio.to_thread(redis.kill)
                await asyncio.sleep(self._rng.random())
                await asyncio.to_thread(redis.start)
            case "freeze redis":
                redis.stop()
                await asyncio.sleep(self._rng.random())
                redis.cont()


async def storm(
    cluster: Cluster,
    *,
    messages: int,
    pairs: int,
    seed: int,
    strikes: int,
    with_node: bool,
    tell: Callable[[str], None] = lambda _text: None,
) -> Story:
    """`messages` in `pairs` conversations while the cluster is struck `strikes` times; `with_node`: the user of the first one is on
    the TypeScript client. Raises `AssertionError`.
    """
    rng = random.Random(seed)
    story = Story(seed, messages)
    each = messages // (2 * pairs)

    async with AsyncExitStack() as stack:
        worlds = [await stack.enter_async_context(people_of(web)) for web in cluster.webs]
        talks = [
            await _begin(
                stack, cluster, worlds[number % len(worlds)], rng, with_node=with_node and number == 0
            )
            for number in range(pairs)
        ]
        began_s = time.monotonic()
        weather, pace = Weather(cluster, rng, story), Pace()

        async def strike_now_and_then() -> None:
            for number in range(strikes):
                # Half of a strike's share is said before it, the other half while it strikes.
                pace.to((number + 0.5) / strikes)
                await talks[0].user.has(int(2 * each * (number + 0.4) / strikes))
                pace.to((number + 1) / strikes)
                await weather.strike()
                tell(f"{number + 1} of {strikes} strikes, {len(talks[0].user.heard)} of {2 * each}")
            pace.to(1.0)

        async with asyncio.TaskGroup() as group:
            group.create_task(strike_now_and_then())
            for talk in talks:
                for side in talk.sides:
                    group.create_task(_talk_and_listen(side, each, pace))
        story.seconds = time.monotonic() - began_s
        for talk in talks:
            await _check(talk, each, rng.choice(worlds))
            tell(f"both sides have the same {2 * each} messages, each once, in order")
            story.connections += sum(side.connections for side in talk.sides)
            story.torn += sum(side.torn for side in talk.sides)
    return story


async def _begin(
    stack: AsyncExitStack, cluster: Cluster, world: World, rng: random.Random, *, with_node: bool
) -> Talk:
    user, lawyer = await world.pair("100000.00", rate="1.00")
    session_id = (await user.start(lawyer))["sessionId"]
    sides = [Side(person, random.Random(rng.getrandbits(64))) for person in (user, lawyer)]
    clients = (TypeScriptDevice if with_node else PythonDevice, PythonDevice)
    for side, client in zip(sides, clients, strict=True):
        side.device = await stack.enter_async_context(client.of(side, cluster, session_id))
    return Talk(session_id, *sides)


async def _talk_and_listen(side: Side, each: int, pace: Pace) -> None:
    await side.talk(each, pace)
    await side.has(2 * each)


async def _check(talk: Talk, each: int, world: World) -> None:
    """The two sides and the history are one; nothing lost, doubled or swapped; every acknowledgement told the truth."""
    first, second = talk.user.heard, talk.lawyer.heard
    assert len(first) == len(second) == 2 * each
    assert first == second, next(k for k in range(2 * each) if first[k] != second[k])
    assert len({(sender, client_msg_id) for sender, client_msg_id, _ in first}) == 2 * each, "doubled"
    for side in talk.sides:
        person = side.person
        assert [heard for heard in first if heard[0] == person.id] == side.said, "lost or swapped"
        assert side.positions == {c: k for k, (who, c, _) in enumerate(first, 1) if who == person.id}
    user = talk.user.person
    api = world.anyone.as_(user.api.token)
    reader = Person(user.id, user.email, user.name, api, user.refresh_token, world)
    # Of a long one the ends and the middle: the stand-in reads a page the slower the more messages there are.
    starts = {0, each - _WINDOW // 2, 2 * each - _WINDOW} if 2 * each > 3 * _WINDOW else {0}
    for start in starts:
        most = _WINDOW if len(starts) > 1 else 2 * each
        history = await reader.history(talk.session_id, after_seq=start, most=most)
        assert [m["seq"] for m in history] == list(range(start + 1, start + most + 1))
        read = [(m["senderId"], m["clientMsgId"], _digest(m["body"])) for m in history]
        assert read == first[start : start + most]
    await reader.end(talk.session_id)
    assert_bill(await reader.session(talk.session_id))
