"""What an operator watches (`GET /metrics`, Prometheus text): is billing on time, is the store keeping up, who is refused.

Labels are few and bounded: routes of the table, names of events, codes of errors. Never a user or session id.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

#: Seconds. The goals are 0.25 for ticks and 0.05 for cut-offs: each has a bucket edge of its own.
_LATENESS_S: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0)
_LAG_S: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
_REQUEST_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
#: Seconds. A takeover is to be done within 2 s of the death, most of which is noticing it.
_TAKEOVER_S: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0)
_BATCH: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
#: How often the event loop's lag is sampled.
_SAMPLE_S: Final = 0.1

#: Where somebody asks to be let in.
_LOGINS: Final = frozenset({"POST /auth/login", "POST /auth/refresh"})

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """All series of one process. It is the engine's `Observer` too. Nothing here raises into the code that reports."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._gauges: list[tuple[str, str, Callable[[], float]]] = []
        self._totals: list[tuple[str, str, Callable[[], float]]] = []
        registry = self._registry
        self._tick = Histogram(
            "tarazu_tick_lateness_seconds",
            "From a slice's deadline to its commit",
            buckets=_LATENESS_S,
            registry=registry,
        )
        self._cut_off = Histogram(
            "tarazu_cut_off_error_seconds",
            "From the last paid instant to the durable end of a session without money",
            buckets=_LATENESS_S,
            registry=registry,
        )
        self._batch = Histogram(
            "tarazu_ledger_batch_size",
            "Changes in one commit of the ledger",
            buckets=_BATCH,
            registry=registry,
        )
        self._lag = Histogram(
            "tarazu_loop_lag_seconds",
            "How late the event loop runs what is due",
            buckets=_LAG_S,
            registry=registry,
        )
        self._requests = Histogram(
            "tarazu_http_request_seconds",
            "HTTP requests",
            ("route", "status"),
            buckets=_REQUEST_S,
            registry=registry,
        )
        self._problems = Counter(
            "tarazu_http_problems",
            "Requests refused or failed, by error code",
            ("route", "code"),
            registry=registry,
        )
        self._events = Counter(
            "tarazu_socket_events", "Events from clients, by outcome", ("event", "outcome"), registry=registry
        )
        self._logins = Counter(
            "tarazu_logins_refused", "Log-ins refused, by error code", ("code",), registry=registry
        )
        self._payments = Counter(
            "tarazu_payments_credited", "Payments collected and credited", ("gateway",), registry=registry
        )
        self._payment_trouble = Counter(
            "tarazu_payment_trouble",
            "Payments that a person has to look at; the log says which",
            registry=registry,
        )
        self._payment_differences = Gauge(
            "tarazu_payment_differences",
            "Differences in the comparisons of the last seven days' payments with the gateway's list",
            ("gateway",),
            registry=registry,
        )
        self._payments_uncompared = Gauge(
            "tarazu_payments_uncompared",
            "Days of the last seven whose payments could not be compared yet",
            ("gateway",),
            registry=registry,
        )
        self._takeovers = Counter(
            "tarazu_takeovers", "Sessions of other processes that go on here", registry=registry
        )
        self._takeover_s = Histogram(
            "tarazu_takeover_seconds",
            "From noticing that a process is gone to billing its sessions here",
            buckets=_TAKEOVER_S,
            registry=registry,
        )
        registry.register(_Sampled(self._gauges, self._totals))

    # -- what others report --------------------------------------------------------------------------------------

    def ticked(self, lateness_ms: int) -> None:
        """A slice was committed this long after its deadline."""
        self._tick.observe(lateness_ms / 1000)

    def cut_off(self, error_ms: int) -> None:
        """A session without money was closed this long after its paid-until."""
        self._cut_off.observe(error_ms / 1000)

    def took_over(self, sessions: int, after_ms: int) -> None:
        """So many sessions of a process that is gone go on here, this long after that was noticed."""
        self._takeovers.inc(sessions)
        self._takeover_s.observe(after_ms / 1000)

    def payment_credited(self, gateway: str) -> None:
        """A payment was credited."""
        self._payments.labels(gateway).inc()

    def payment_trouble(self) -> None:
        """Money came that does not fit its order."""
        self._payment_trouble.inc()

    def payments_compared(self, gateway: str, *, differences: int, uncompared: int) -> None:
        """So many things differ in the last days, and of so many days nobody knows."""
        self._payment_differences.labels(gateway).set(differences)
        self._payments_uncompared.labels(gateway).set(uncompared)

    def ledger_batch(self, size: int) -> None:
        """The ledger committed this many changes together."""
        self._batch.observe(size)

    def request(self, route: str, status: int, code: str | None, took_s: float) -> None:
        """An HTTP request was answered, with a problem's code if it was one."""
        self._requests.labels(route, status).observe(took_s)
        if code is not None:
            self._problems.labels(route, code).inc()
            if route in _LOGINS:
                self._logins.labels(code).inc()

    def event(self, name: str, outcome: str) -> None:
        """A client's event was acknowledged: `ok` or an error code."""
        self._events.labels(name, outcome).inc()

    def gauge(self, name: str, text: str, value: Callable[[], float]) -> None:
        """Ask `value` at every scrape."""
        self._gauges.append((name, text, value))

    def total(self, name: str, text: str, value: Callable[[], float]) -> None:
        """Ask `value`, which only rises, at every scrape."""
        self._totals.append((name, text, value))

    # -- what the operator reads ---------------------------------------------------------------------------------

    def render(self) -> bytes:
        """The exposition text."""
        return generate_latest(self._registry)

    @asynccontextmanager
    async def sampling(self) -> AsyncIterator[None]:
        """Watch the event loop until the block ends."""
        task = asyncio.create_task(self._sample(), name="loop-lag")
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _sample(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due_s = loop.time() + _SAMPLE_S
            await asyncio.sleep(_SAMPLE_S)
            self._lag.observe(max(0.0, loop.time() - due_s))


class _Sampled:
    """Values that somebody else keeps, asked for when scraped."""

    def __init__(
        self,
        gauges: list[tuple[str, str, Callable[[], float]]],
        totals: list[tuple[str, str, Callable[[], float]]],
    ) -> None:
        self._gauges = gauges
        self._totals = totals

    def collect(self) -> Iterable[Metric]:
        for name, text, value in self._gauges:
            yield GaugeMetricFamily(name, text, value=value())
        for name, text, value in self._totals:
            yield CounterMetricFamily(name, text, value=value())
