"""A cluster as its clients reach it: a door for each web process, and a proxy that shuts the door of a process that does not answer.

Clients hold on to a process until their connection breaks, and then go to any that is open.
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, TypeVar

import aiohttp

from tests.e2e.chaos import GONE, ConnectionGone
from tests.e2e.people import Answer, Api, Device, Json, World
from tests.support.cluster import Cluster
from tests.support.server_process import ServerProcess

T = TypeVar("T")

#: Answers that say: not now, or nobody knows.
UNSURE: Final = frozenset({"STORAGE_UNAVAILABLE", "STORAGE_BUSY", "IDEMPOTENCY_IN_PROGRESS", "NOT_READY"})
#: Nothing waited for takes so long; it only ends a campaign that would hang. The machine may be busy.
PATIENCE_S: Final = 60.0


class Door:
    """One web process, and everybody who has come in there."""

    def __init__(self, process: ServerProcess) -> None:
        self.process = process
        self.is_open = True
        self._cut = asyncio.Event()
        self._devices: set[Device] = set()

    @property
    def url(self) -> str:
        return self.process.url

    def shut(self) -> None:
        """Let nobody in any more, and cut off whoever is inside or waits for an answer."""
        self.is_open = False
        self._cut.set()
        for device in self._devices:
            device.cut_off()
        self._devices.clear()

    def close(self) -> None:
        """Let nobody in any more; who is inside stays until the process says goodbye."""
        self.is_open = False

    def open(self) -> None:
        self._cut = asyncio.Event()
        self.is_open = True

    async def through(self, work: Coroutine[Any, Any, T]) -> T:
        """What `work` answers. Raises `ConnectionGone` when the door is shut before it does."""
        task = asyncio.ensure_future(work)
        cut = asyncio.ensure_future(self._cut.wait())
        try:
            await asyncio.wait({task, cut}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            raise ConnectionGone
        finally:
            for waiting in (task, cut):
                waiting.cancel()
            await asyncio.gather(task, cut, return_exceptions=True)

    async def device(self, token: str) -> Device:
        """One more connection."""
        cut = self._cut
        device = await self.through(Device.connect(self.url, token, patience_s=PATIENCE_S))
        self._devices.add(device)
        if cut.is_set():
            device.cut_off()
        return device


class Doors:
    """All web processes of a cluster."""

    def __init__(self, cluster: Cluster, rng: random.Random) -> None:
        self._rng = rng
        self.all = [Door(web) for web in cluster.webs]

    def of(self, process: ServerProcess) -> Door:
        return next(door for door in self.all if door.process is process)

    def any(self) -> Door:
        """An open one. Raises `ConnectionGone` when there is none."""
        inviting = [door for door in self.all if door.is_open]
        if not inviting:
            raise ConnectionGone
        return self._rng.choice(inviting)


class RoamingApi(Api):
    """HTTP as one person, each call at whichever process is open."""

    def __init__(self, http: aiohttp.ClientSession, doors: Doors, token: str | None = None) -> None:
        super().__init__(http, lambda: doors.any().url, token)
        self._doors = doors

    def as_(self, token: str | None) -> "RoamingApi":
        return RoamingApi(self._http, self._doors, token)

    async def call(self, method: str, path: str, body: Json = None, *, key: str | None = None) -> Answer:
        door = self._doors.any()
        return await door.through(self.call_at(door.url, method, path, body, key=key))

    async def ok(self, method: str, path: str, body: Json = None, *, key: str | None = None) -> Json:
        """The answer, however often it takes to ask: for times when everything works, but the machine may be busy."""
        deadline_s = time.monotonic() + PATIENCE_S
        while True:
            answer: Answer | None = None
            with suppress(*GONE):
                answer = await self.call(method, path, body, key=key)
            if answer is not None and answer.status in (200, 201):
                return answer.json
            sure = answer is not None and answer.code not in UNSURE
            assert not sure, f"{method} {path}: {answer}"
            assert time.monotonic() < deadline_s, f"{method} {path}: {answer}"
            await asyncio.sleep(0.1)


class RoamingWorld(World):
    """The people of a cluster."""

    def __init__(self, cluster: Cluster, http: aiohttp.ClientSession, doors: Doors) -> None:
        super().__init__(cluster.webs[0], http)
        self.doors = doors
        self.anyone = RoamingApi(http, doors)

    async def connect(self, token: str) -> Device:
        device = await self.doors.any().device(token)
        self.devices.append(device)
        return device

    async def forget(self, device: Device) -> None:
        """As an app whose network is gone: nothing is said, nothing waited for."""
        if device in self.devices:
            self.devices.remove(device)
        await drop(device)


@asynccontextmanager
async def people_of_cluster(cluster: Cluster, rng: random.Random) -> AsyncIterator[RoamingWorld]:
    """People who may call any web process; their connections are broken off at the end."""
    timeout = aiohttp.ClientTimeout(total=PATIENCE_S)
    async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as http:
        world = RoamingWorld(cluster, http, Doors(cluster, rng))
        try:
            yield world
        finally:
            await asyncio.gather(*(drop(device) for device in world.devices), return_exceptions=True)


async def drop(device: Device) -> None:
    """Break the connection off; the process at the other end may be frozen and would never say goodbye."""
    device.cut_off()
    websocket = device.sio.eio.ws
    response = getattr(websocket, "_response", None)
    connection = getattr(response, "connection", None)
    if connection is not None and connection.transport is not None:
        connection.transport.abort()
    with suppress(*GONE, TimeoutError):
        async with asyncio.timeout(2):
            await device.close()
