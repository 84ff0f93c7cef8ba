"""Which adapter stands behind which port. Opens every resource, wires every service, closes in reverse order.

Three shapes of one thing: the embedded default (one process does everything), and, on a shared database, web processes that serve
and a worker that does what nobody waits for.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from aiohttp import web

from billing_engine.consultations.engine import Engine
from billing_engine.consultations.ports import Locks, NoPeers, Peers
from billing_engine.consultations.takeover import WEB, WORKER, Takeover
from billing_engine.errors import Unavailable
from billing_engine.ledger.service import Ledger
from billing_engine.payments.report import DailyReports
from chat.buckets import Limits, Pace, limits
from chat.calls.handlers import CallHandlers
from chat.calls.service import CallService
from chat.errors import Unauthenticated as NotAuthenticated
from chat.errors import Unavailable as ChatUnavailable
from chat.namespace import BYE_DISABLED, BYE_TOKEN
from chat.ports import Principal as SocketPrincipal
from chat.presence import GRACE_S
from chat.service import ChatService
from chat.token_refresh import TokenRefresh
from server.ai.setup import open_ai_providers
from server.announcer import SocketAnnouncer
from server.app import build_app
from server.attending import PresenceAttending
from server.auth.accounts import Accounts
from server.auth.model import Ended, SignOut
from server.auth.sign_ins import SignIns
from server.call_endings import CallEndings
from server.clock import SystemClock
from server.company_news.delivery import Deliverer
from server.company_news_room import open_company_news
from server.control import serve_commands
from server.errors import Unauthenticated
from server.gateways.setup import open_gateways
from server.housekeeping import Housekeeping, Job
from server.idempotency import Idempotency
from server.identity import Identity, build_identity
from server.ids import new_id
from server.locks.local import LocalLocks
from server.metrics import Metrics
from server.notifications.low_balance import LowBalanceNotices
from server.notifications.outbox import Outbox
from server.payment_reports import make_reports
from server.peers import LEAVING, SIGNED_OUT, BusPeers, hear_peers
from server.people.model import local_day
from server.periodic import Periodic
from server.rate_limits.model import parse_allowance
from server.rate_limits.ports import Buckets
from server.realtime import Realtime, SocketOptions
from server.realtime.bus import Bus
from server.realtime.consult_handlers import ConsultHandlers
from server.request_news import SocketRequestNews
from server.retention.service import ChatRetention
from server.routes import ROUTES, health, metrics
from server.routing import Route
from server.services import BillingGate, Services, Wired, rules_of, wire
from server.settings import Settings
from server.storage.backend import Storage, open_collections, open_storage
from server.storage.repositories.calls import CollectionCalls
from server.storage.repositories.idempotency import CollectionIdempotency
from server.storage.repositories.payment_reports import report_doc
from server.usage_room import UsageRoom

#: `readyz` fails when this process's clock is further from the store's (LEDGER 4); on SQLite that is the machine's.
CLOCK_TOLERANCE_MS: Final = 500
#: Whoever is gone is forgotten this much later than their session ends for it.
KEPT_LONGER_S: Final = 60
#: How often a process asks which log-ins others have ended, should it not hear so.
_SIGN_OUTS_EVERY_MS: Final = 2_000
#: How often a worker looks for letters that web processes have posted.
_LETTERS_EVERY_MS: Final = 1_000
#: The same for what goes to companies' webhooks. Who serves and delivers in one process is told at once.
_DELIVERIES_EVERY_MS: Final = 1_000
#: How often somebody looks which payments the gateways are to be asked about.
_PAYMENTS_EVERY_MS: Final = 1_000
#: How often a process looks for requests whose time is over, should nobody keep it.
_REQUESTS_EVERY_MS: Final = 5_000
#: How often somebody looks for usages that are stored and not charged.
_USAGES_EVERY_MS: Final = 1_000
#: How often somebody looks for AI calls whose credits nobody else gives back.
_CALLS_EVERY_MS: Final = 1_000
#: How often somebody looks for calls that rang for too long, and for those whose process has died.
_CALLS_LOOKED_AT_EVERY_MS: Final = 1_000
#: How often somebody looks whether a day is over that has not been compared with the gateways' lists.
_REPORTS_EVERY_MS: Final = 600_000


@dataclass(frozen=True, slots=True)
class Server:
    """A built server: its application, and how many sessions it has taken up from its predecessor."""

    app: web.Application
    services: Services
    recovered: int


@dataclass(frozen=True, slots=True)
class Between:
    """What the processes of a deployment share beside the database. Without Redis each keeps to itself."""

    locks: Locks
    peers: Peers
    buckets: Buckets | None = None
    bus: Bus | None = None
    presence: Any = None


@asynccontextmanager
async def build_accounts(settings: Settings) -> AsyncIterator[Accounts]:
    """Accounts alone, for the command line. Raises `DatabaseInUse`, `CannotOpen`."""
    async with (
        open_collections(settings) as collections,
        build_identity(settings, collections, SystemClock()) as identity,
    ):
        yield identity.accounts


@asynccontextmanager
async def build_reports(settings: Settings) -> AsyncIterator[DailyReports]:
    """The daily reports alone, for the command line. Raises `DatabaseInUse`, `CannotOpen`."""
    async with AsyncExitStack() as stack:
        process = await _Process.open(settings, stack, role=WORKER)
        yield process.wired.services.payment_reports


@asynccontextmanager
async def build(
    settings: Settings, *, on_fatal: Callable[[BaseException], None] = lambda _: None
) -> AsyncIterator[Server]:
    """Open everything, recover what a predecessor left, and hand out the application.

    Raises:
        DatabaseInUse, CannotOpen: the database cannot be had.
        StoreUnavailable: recovery could not finish; a server that cannot recover does not serve.
    """
    async with AsyncExitStack() as stack:
        process = await _Process.open(settings, stack, role=WEB, on_fatal=on_fatal)
        recovered = await process.begin()
        services, identity = process.wired.services, process.identity
        await identity.accounts.ensure_first_admin(
            email=settings.admin_email, password=settings.admin_password.get_secret_value()
        )
        app = await process.app(ROUTES)
        call_handlers = CallHandlers(services.calls)
        process.realtime.attach(
            app,
            chat=process.chat,
            authenticate=_socket_principal(identity.sign_ins),
            on_event=process.metrics.event,
            handlers={
                "auth:refresh": TokenRefresh(_renewed(identity.sign_ins)),
                **call_handlers.by_name,
                **ConsultHandlers(
                    consultations=services.consultations,
                    requests=services.requests,
                    waiting=services.waiting,
                    asset=settings.asset,
                ).by_event(),
            },
            call_of=call_handlers.rejoin,
        )
        await process.keep_requests()
        process.look_at_calls()
        _sample_sockets(process.metrics, process.realtime)
        identity.sign_ins.on_revoked(_close_sockets(process.realtime, process.between.bus))
        if settings.is_shared:
            await process.follow_sign_outs()
            process.catch_up_with_usages()
            process.settle_calls(process.wired.services.ai.calls.settle_own)
        else:
            await process.do_chores()
            commands = {
                "create-admin": _create_admin_command(identity.accounts),
                "payments-report": _payments_report_command(services.payment_reports),
            }
            await stack.enter_async_context(serve_commands(settings.sqlite_path, commands))
        if process.wired.takeover is not None:
            await process.wired.takeover.know_the_others()
        yield Server(app, services, recovered)


@asynccontextmanager
async def build_worker(settings: Settings) -> AsyncIterator[web.Application]:
    """What a worker does goes on until the block ends: letters, healing, deleting, ending what was abandoned. On a shared database.
    The application answers operators alone: is it alive, is it ready, its metrics.

    Raises:
        CannotOpen: the database cannot be had.
        StoreUnavailable: it does not answer.
    """
    async with AsyncExitStack() as stack:
        process = await _Process.open(settings, stack, role=WORKER)
        await process.begin()
        await process.do_chores()
        yield await process.app((*health.ROUTES, *metrics.ROUTES))


class _Process:
    """What every process has, in the order in which it is opened."""

    def __init__(
        self,
        settings: Settings,
        stack: AsyncExitStack,
        *,
        clock: SystemClock,
        storage: Storage,
        between: Between,
        identity: Identity,
        metrics: Metrics,
        realtime: Realtime,
        chat: ChatService,
        wired: Wired,
    ) -> None:
        self.settings = settings
        self.stack = stack
        self.clock = clock
        self.storage = storage
        self.between = between
        self.identity = identity
        self.metrics = metrics
        self.realtime = realtime
        self.chat = chat
        self.wired = wired

    @classmethod
    async def open(
        cls,
        settings: Settings,
        stack: AsyncExitStack,
        *,
        role: str,
        on_fatal: Callable[[BaseException], None] = lambda _: None,
    ) -> "_Process":
        storage = await stack.enter_async_context(open_storage(settings, on_fatal=on_fatal))
        clock = SystemClock()
        # A wall that was set back while no process ran must not put new entries before old ones (LEDGER 4).
        clock.not_before(await storage.ledger.last_instant_ms())
        between = await _open_between(settings, clock, stack)
        identity = await stack.enter_async_context(
            build_identity(
                settings,
                storage.collections,
                clock,
                buckets=between.buckets,
                outbox_idle_ms=_LETTERS_EVERY_MS if role == WORKER else 60_000,
            )
        )
        gateways = await stack.enter_async_context(open_gateways(settings))
        ai_providers = await stack.enter_async_context(open_ai_providers(settings))
        metrics = Metrics()
        await stack.enter_async_context(metrics.sampling())
        ledger = Ledger(storage.ledger, clock, lambda at_ms: local_day(at_ms, settings.zone))
        ledger.committer.on_batch = metrics.ledger_batch
        await ledger.start()
        stack.push_async_callback(ledger.stop)
        realtime = _realtime(settings, between, clock)
        gate = BillingGate()
        chat = ChatService(store=storage.messages, gate=gate, push=realtime.push, clock=clock, new_id=new_id)
        calls = CallService(
            store=await CollectionCalls.open(storage.collections),
            chat=chat,
            gate=gate,
            push=realtime.push,
            devices=realtime.transport,
            clock=clock,
            new_id=new_id,
            ice=settings.ice_rules(),
        )
        announcer = SocketAnnouncer()
        endings = CallEndings(announcer, calls)
        stack.push_async_callback(endings.stop)
        notices = LowBalanceNotices(endings, identity.outbox, realtime.presence.connected)
        stack.push_async_callback(notices.stop)

        request_news = SocketRequestNews(
            push=realtime.push,
            outbox=identity.outbox,
            is_connected=realtime.presence.connected,
            now_ms=clock.now_ms,
        )
        stack.push_async_callback(request_news.stop)

        def may_live(owner: str) -> bool:
            # As below.
            return wired.takeover is not None and wired.takeover.may_live(owner)

        async def member_ids(company_id: str) -> list[str]:
            # Asked when there is news, by when it is wired.
            return await wired.services.companies.member_ids(company_id)

        company_news = await open_company_news(
            settings,
            storage.collections,
            stack,
            clock=clock,
            push=realtime.push,
            outbox=identity.outbox,
            member_ids=member_ids,
            idle_ms=_DELIVERIES_EVERY_MS if role == WORKER else 60_000,
        )
        wired = await wire(
            settings,
            collections=storage.collections,
            clock=clock,
            identity=identity,
            ledger=ledger,
            chat=chat,
            calls=calls,
            locks=between.locks,
            peers=between.peers,
            announcer=notices,
            request_news=request_news,
            attending=PresenceAttending(realtime.presence),
            may_live=may_live,
            company_news=company_news,
            metrics=metrics,
            gateways=gateways,
            ai_providers=ai_providers,
            readiness={
                "storage": storage.ping,
                "locks": between.locks.ping,
                "clock": _clock_check(clock, storage.clock_ms),
            },
            role=role,
        )
        realtime.presence.listen(lambda session_id, _: wired.services.engine.heard_presence(session_id))
        stack.push_async_callback(wired.services.ai.calls.stop)
        stack.push_async_callback(wired.services.ai_metrics.stop)
        stack.push_async_callback(wired.services.usage.stop)
        stack.push_async_callback(wired.services.webhooks.stop)
        # A worker, too, sees lawyers become free.
        stack.push_async_callback(wired.services.requests.stop)
        stack.push_async_callback(wired.services.waiting.stop)
        gate.consultations, gate.chat = wired.services.consultations, chat
        announcer.start(realtime.push, chat)
        stack.push_async_callback(announcer.stop)
        process = cls(
            settings,
            stack,
            clock=clock,
            storage=storage,
            between=between,
            identity=identity,
            metrics=metrics,
            realtime=realtime,
            chat=chat,
            wired=wired,
        )
        process._sample()
        return process

    async def begin(self) -> int:
        """Take up what nobody takes care of; how many sessions go on here. At the end, hand over what is billed here."""
        engine, takeover = self.wired.services.engine, self.wired.takeover
        if takeover is None:
            self.stack.push_async_callback(engine.stop)
            return await self.wired.recovery.run()
        bus = self.between.bus

        async def hand_over() -> None:
            """One last write for each session, then the lease: whoever takes them up finds them billed to this instant."""
            await takeover.end()
            await engine.stop()
            await takeover.give_up()
            if bus is not None:
                bus.tell(LEAVING, {})

        self.stack.push_async_callback(hand_over)
        if bus is not None:
            hear_peers(bus, engine, self.wired.elsewhere)
            bus.on(LEAVING, lambda _facts: takeover.look_now())
        return await takeover.begin()

    async def app(self, routes: Iterable[Route]) -> web.Application:
        """The application that serves these routes."""
        settings, services, identity = self.settings, self.wired.services, self.identity
        self.stack.push_async_callback(services.companies.keys.drain)
        return build_app(
            routes,
            services=services,
            authenticate=identity.sign_ins.authenticate,
            idempotency=Idempotency(
                rows=await CollectionIdempotency.open(self.storage.collections),
                clock=self.clock,
                new_id=new_id,
                process=services.consultations.owner,
                is_alive=self.may_live,
            ),
            cors_origins=settings.cors_origins,
            asset=settings.asset,
            on_request=self.metrics.request,
            audit=services.audit,
            rate_limits=identity.rate_limits,
            trusted_proxies=settings.trusted_proxies,
            companies=services.companies.door,
        )

    def may_live(self, owner: str) -> bool:
        """Whether another process may still be at work. A SQLite file has one: nobody is."""
        takeover = self.wired.takeover
        return takeover is not None and takeover.may_live(owner)

    async def follow_sign_outs(self) -> None:
        """Close the sockets of log-ins that other processes end."""
        job = Periodic(
            "sign-outs", self.identity.sign_ins.catch_up, clock=self.clock, every_ms=_SIGN_OUTS_EVERY_MS
        )
        if self.between.bus is not None:
            self.between.bus.on(SIGNED_OUT, lambda _facts: job.run_soon())
            self.between.bus.on_resync(job.run_soon)
        job.start()
        self.stack.push_async_callback(job.stop)

    async def keep_requests(self) -> None:
        """Look after requests and waiting lists that nobody keeps the time of, now and once in a while. No worker's task: it bills
        nobody.
        """
        requests, waiting = self.wired.services.requests, self.wired.services.waiting
        self.realtime.presence.listen(requests.hint)

        async def look() -> None:
            await requests.sweep()
            await waiting.sweep()

        await look()
        job = Periodic("requests", look, clock=self.clock, every_ms=_REQUESTS_EVERY_MS)
        job.start()
        # Before the engine stops: nothing may begin after it.
        self.stack.push_async_callback(requests.stop)
        self.stack.push_async_callback(waiting.stop)
        self.stack.push_async_callback(job.stop)

    def catch_up_with_usages(self) -> None:
        """What this process could not charge it charges again, when it can: until then its companies' usages queue up behind."""
        job = Periodic(
            "usages", self.wired.services.usage.meter.catch_up, clock=self.clock, every_ms=_USAGES_EVERY_MS
        )
        job.start()
        self.stack.push_async_callback(job.stop)

    def settle_calls(self, settle: Callable[[], Awaitable[object]]) -> None:
        """Give back AI credits that nobody else gives back. Not with the gateways' chores: one that hangs would keep them held."""
        job = Periodic("ai calls", settle, clock=self.clock, every_ms=_CALLS_EVERY_MS)
        job.start()
        self.stack.push_async_callback(job.stop)

    def look_at_calls(self) -> None:
        """Every process that serves does, for all: so a dead one leaves no call that rings or runs for ever."""
        job = Periodic(
            "calls", self.wired.services.calls.look, clock=self.clock, every_ms=_CALLS_LOOKED_AT_EVERY_MS
        )
        job.start()
        self.stack.push_async_callback(job.stop)

    async def do_chores(self) -> None:
        """Letters, healing and cleaning: where there are several processes, the worker's."""
        housekeeping = self._housekeeping()
        if not self.settings.is_shared:
            # The file is ours alone: what was begun, and however lately, nobody else is about to finish.
            await self.wired.services.credits.applications.heal(abandoned_after_ms=0)
            await self.wired.services.usage.meter.drain(abandoned_after_ms=0)
            await self.wired.services.ai.calls.heal(may_live=self.may_live, abandoned_after_ms=0)
        await housekeeping.heal()
        await self.wired.services.sessions_of_accounts.sweep()
        self.identity.outbox.start()
        self.stack.push_async_callback(self.identity.outbox.stop)
        deliverer = self.wired.services.company_news.deliverer
        deliverer.start()
        self.stack.push_async_callback(deliverer.stop)
        housekeeping.start()
        self.stack.push_async_callback(housekeeping.stop)
        gateways = Periodic("payments", self._ask_gateways, clock=self.clock, every_ms=_PAYMENTS_EVERY_MS)
        gateways.start()
        self.stack.push_async_callback(gateways.stop)
        usages = Periodic(
            "usages", self.wired.services.usage.meter.drain, clock=self.clock, every_ms=_USAGES_EVERY_MS
        )
        usages.start()
        self.stack.push_async_callback(usages.stop)
        self.settle_calls(partial(self.wired.services.ai.calls.heal, may_live=self.may_live))
        reports = Periodic(
            "payment reports",
            self.wired.services.payment_reports.make_missing,
            clock=self.clock,
            every_ms=_REPORTS_EVERY_MS,
        )
        reports.start()
        self.stack.push_async_callback(reports.stop)

    async def _ask_gateways(self) -> None:
        """Payments and refunds in doubt, and events that a process which is gone has left."""
        services = self.wired.services
        await services.payments.ask_about_due()
        await services.payment_desk.refunds.look_at_due()
        await services.webhooks.work_off()
        await services.payment_methods.work_off()
        await services.ai.plans.work_off()

    def _housekeeping(self) -> Housekeeping:
        settings, identity, services = self.settings, self.identity, self.wired.services
        retention = ChatRetention(self.storage.messages, self.clock, days=settings.retention_chat_days)
        keep_ms = settings.notification_days * 86_400_000
        healers: dict[str, Job] = {
            "password changes": identity.password_changes.heal,
            "disabled and deleted accounts": services.control.heal,
            "payouts": services.payouts.heal,
            "refunds": services.refunds.heal,
            "credits": services.credits.heal,
        }
        if self.storage.redo is not None:
            healers["messages"] = self.storage.redo
        return Housekeeping(
            self.clock,
            healers=healers,
            chores={
                "sessions of shut accounts": services.sessions_of_accounts.sweep,
                "refresh tokens": identity.sign_ins.drop_expired,
                "notifications": partial(identity.outbox.drop_settled, older_than_ms=keep_ms),
                "chats": retention.round,
                "days of AI calls": services.ai_days.keep,
                "gateways' events": partial(services.webhooks.drop_settled, older_than_ms=keep_ms),
                "companies' deliveries": partial(
                    services.company_news.deliverer.drop_settled, older_than_ms=keep_ms
                ),
            },
        )

    def _sample(self) -> None:
        """Series whose values others keep."""
        metrics, engine, takeover = self.metrics, self.wired.services.engine, self.wired.takeover
        _sample_engine(metrics, engine)
        _sample_notices(metrics, self.identity.outbox)
        _sample_deliveries(metrics, self.wired.services.company_news.deliverer)
        _sample_usage(metrics, self.wired.services.usage, self.clock)
        if takeover is not None:
            _sample_leases(metrics, takeover)
        if self.between.bus is not None:
            _sample_bus(metrics, self.between.bus)
        for name, text, value in self.storage.gauges:
            metrics.gauge(name, text, value)
        for name, text, value in self.storage.totals:
            metrics.total(name, text, value)


async def _open_between(settings: Settings, clock: SystemClock, stack: AsyncExitStack) -> Between:
    lock_ttl_ms = rules_of(settings).lock_ttl_ms
    if not settings.redis_url:
        return Between(LocalLocks(clock, ttl_ms=lock_ttl_ms), NoPeers())
    # Imported here: who runs on the embedded default starts without the driver.
    from server.locks.redis import RedisLocks  # noqa: PLC0415
    from server.rate_limits.redis import RedisBuckets  # noqa: PLC0415
    from server.realtime.redis_bus import RedisBus  # noqa: PLC0415
    from server.realtime.redis_presence import RedisPresence  # noqa: PLC0415
    from server.redis_client import open_redis  # noqa: PLC0415

    redis = await stack.enter_async_context(open_redis(settings.redis_url, prefix=settings.redis_prefix))
    bus = RedisBus(redis)
    await bus.start()
    stack.push_async_callback(bus.stop)
    return Between(
        locks=RedisLocks(redis, ttl_ms=lock_ttl_ms),
        peers=BusPeers(bus),
        buckets=RedisBuckets(redis),
        bus=bus,
        presence=RedisPresence(redis, now_ms=clock.now_ms, keep_s=_keep_s(settings)),
    )


def _realtime(settings: Settings, between: Between, clock: SystemClock) -> Realtime:
    options = SocketOptions(
        cors_origins=settings.cors_origins,
        trusted_proxies=settings.trusted_proxies,
        limits=_event_limits(settings),
        # Other processes know that somebody has left before the session is to be paused for it.
        presence_grace_s=min(GRACE_S, settings.peer_grace_seconds / 2),
        presence_keep_s=_keep_s(settings),
    )
    if between.bus is None:
        return Realtime(options, now_ms=clock.now_ms, is_alone=not settings.is_shared)
    return Realtime(options, bus=between.bus, presence_store=between.presence, now_ms=clock.now_ms)


def _keep_s(settings: Settings) -> float:
    """For how long the last sign of whoever is gone may be asked for."""
    return settings.peer_gone_seconds + KEPT_LONGER_S


def _event_limits(settings: Settings) -> Limits | None:
    allowance = parse_allowance(settings.rate_limit_messages)
    if settings.rate_limits == "off" or allowance is None:
        return None
    return limits(message=Pace(allowance.count, allowance.interval_ms))


def _sample_engine(metrics: Metrics, engine: Engine) -> None:
    metrics.gauge("tarazu_sessions_live", "Sessions that this process bills", lambda: engine.live_count)
    metrics.gauge(
        "tarazu_sessions_paused",
        "Those of them that wait for a lost participant",
        lambda: engine.paused_count,
    )
    metrics.total(
        "tarazu_sessions_let_go",
        "Sessions that another process has taken from this one",
        lambda: engine.let_go,
    )


def _sample_leases(metrics: Metrics, takeover: Takeover) -> None:
    metrics.gauge("tarazu_leases_live", "Processes that live, this one included", lambda: takeover.living)


def _sample_bus(metrics: Metrics, bus: Bus) -> None:
    metrics.gauge("tarazu_bus_connected", "1 while other processes can be heard", lambda: bus.connected)
    metrics.total("tarazu_bus_dropped", "Messages to other processes that were dropped", lambda: bus.dropped)


def _sample_notices(metrics: Metrics, outbox: Outbox) -> None:
    metrics.total("tarazu_notifications_sent", "Notifications that their adapter took", lambda: outbox.sent)
    metrics.total("tarazu_notifications_failed", "Tries that failed and come again", lambda: outbox.failed)
    metrics.total("tarazu_notifications_dead", "Notifications given up for good", lambda: outbox.dead)


def _sample_deliveries(metrics: Metrics, deliverer: Deliverer) -> None:
    metrics.total(
        "tarazu_company_webhooks_done", "Events that a company's webhook took", lambda: deliverer.done
    )
    metrics.total("tarazu_company_webhooks_failed", "Attempts that it did not take", lambda: deliverer.failed)
    metrics.total("tarazu_company_webhooks_dead", "Events given up for good", lambda: deliverer.dead)


def _sample_usage(metrics: Metrics, usage: UsageRoom, clock: SystemClock) -> None:
    totals, recharges = usage.meter.totals, usage.recharges
    metrics.total(
        "tarazu_usages_recorded", "Usages of companies that were recorded here", lambda: totals.recorded
    )
    metrics.total("tarazu_usages_charged", "Usages that a wallet has paid", lambda: totals.charged)
    metrics.total("tarazu_usages_owed", "Usages that found their wallet short", lambda: totals.owed)
    metrics.gauge("tarazu_usages_queued", "Usages that wait to be charged", lambda: totals.queued)
    metrics.gauge(
        "tarazu_usages_queued_seconds",
        "For how long the oldest of them waits",
        lambda: (
            0 if totals.queued_since_ms is None else max(0, clock.now_ms() - totals.queued_since_ms) / 1000
        ),
    )
    metrics.total(
        "tarazu_auto_recharges_paid", "Automatic recharges that were credited", lambda: recharges.auto_paid
    )
    metrics.total(
        "tarazu_auto_recharges_declined",
        "Automatic recharges whose means of payment was declined, or is gone",
        lambda: recharges.auto_declined,
    )


def _sample_sockets(metrics: Metrics, realtime: Realtime) -> None:
    metrics.gauge("tarazu_sockets", "Open sockets", lambda: len(realtime))
    metrics.gauge(
        "tarazu_socket_queue_bytes", "Waiting to be sent to clients", realtime.server.eio.held_bytes
    )
    metrics.total("tarazu_sockets_cut", "Clients cut off for not reading", lambda: realtime.server.cut)
    metrics.total(
        "tarazu_sockets_flooding",
        "Clients sent away because they sent on and on what was refused",
        lambda: 0 if realtime.namespace is None else realtime.namespace.flooding,
    )


def _clock_check(
    clock: SystemClock, store_ms: Callable[[], Awaitable[int]] | None
) -> Callable[[], Awaitable[None]]:
    async def check() -> None:
        offset_ms = clock.offset_ms()
        if store_ms is not None:
            asked_ms = clock.now_ms()
            theirs_ms = await store_ms()
            # It was read somewhere between the question and the answer.
            offset_ms = (asked_ms + clock.now_ms()) // 2 - theirs_ms
        if abs(offset_ms) > CLOCK_TOLERANCE_MS:
            raise Unavailable(reason="the clock is away from the store's", offset_ms=offset_ms)

    return check


def _socket_principal(sign_ins: SignIns) -> Callable[[str], SocketPrincipal]:
    def authenticate(token: str) -> SocketPrincipal:
        try:
            principal = sign_ins.verify(token)
        except Unauthenticated as exc:
            raise NotAuthenticated from exc
        return SocketPrincipal(principal.user_id, principal.role.value, principal.family_id)

    return authenticate


def _renewed(sign_ins: SignIns) -> Callable[[str], Awaitable[tuple[SocketPrincipal, int]]]:
    async def renew(token: str) -> tuple[SocketPrincipal, int]:
        try:
            principal, expires_at_ms = await sign_ins.renew(token)
        except Unauthenticated as exc:
            raise NotAuthenticated from exc
        except Unavailable as exc:
            raise ChatUnavailable from exc
        return SocketPrincipal(principal.user_id, principal.role.value, principal.family_id), expires_at_ms

    return renew


def _close_sockets(realtime: Realtime, bus: Bus | None) -> Callable[[Ended], None]:
    def revoked(ended: Ended) -> None:
        code = BYE_DISABLED if ended.why is SignOut.ACCOUNT_DISABLED else BYE_TOKEN
        reason = ended.why.value if code == BYE_DISABLED else "TOKEN_REVOKED"
        realtime.disconnect_user(ended.user_id, family=ended.family_id, code=code, reason=reason)
        if bus is not None:
            # Their sockets are closed by now; that the token opens no new one is the others' to learn.
            bus.tell(SIGNED_OUT, {})

    return revoked


def _payments_report_command(
    reports: DailyReports,
) -> Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]:
    async def make(arguments: dict[str, Any]) -> dict[str, Any]:
        made = await make_reports(reports, arguments["day"], arguments["gateway"])
        return {"reports": [report_doc(report) for report in made]}

    return make


def _create_admin_command(accounts: Accounts) -> Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]:
    async def create(arguments: dict[str, Any]) -> dict[str, Any]:
        admin = await accounts.create_admin(
            email=arguments["email"], password=arguments["password"], name=arguments["name"]
        )
        return {"id": admin.id}

    return create
