"""Which adapter stands behind which port. Opens every resource, wires every service, closes in reverse order."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from aiohttp import web

from billing_engine.consultations.engine import Engine
from billing_engine.consultations.ports import Announcer
from billing_engine.consultations.recovery import Recovery
from billing_engine.consultations.rules import Rules
from billing_engine.consultations.service import Consultations
from billing_engine.consultations.settlement import Settlement
from billing_engine.errors import NotFound, Unavailable
from billing_engine.ledger.service import Ledger
from billing_engine.money import Asset
from billing_engine.wallets.service import WalletRules, Wallets
from chat.errors import NotFound as NoConversation
from chat.errors import Unauthenticated as NotAuthenticated
from chat.namespace import BYE_DISABLED, BYE_TOKEN
from chat.ports import Principal as SocketPrincipal
from chat.service import ChatService
from server.account_sessions import AccountStanding, SessionsOfAccounts
from server.admin.audit import AuditLog
from server.admin.revenue import Revenue
from server.admin.service import AdminDesk
from server.announcer import SocketAnnouncer
from server.api_docs.site import ApiDocs, build_docs
from server.app import build_app
from server.auth.accounts import Accounts
from server.auth.control import AccountControl
from server.auth.model import Ended, SignOut
from server.auth.password_changes import PasswordChanges
from server.auth.sign_ins import SignIns
from server.clock import SystemClock
from server.control import serve_commands
from server.errors import Unauthenticated
from server.gateways.simulated import SimulatedGateway
from server.housekeeping import Housekeeping
from server.idempotency import Idempotency
from server.identity import Identity, build_identity
from server.ids import new_id
from server.ledger_earnings import LedgerEarnings
from server.ledger_funds import LedgerFunds
from server.locks.local import LocalLocks
from server.metrics import Metrics
from server.notifications.low_balance import LowBalanceNotices
from server.notifications.outbox import Outbox
from server.people.earnings import EarningsService
from server.people.listing import Listing
from server.people.model import local_day
from server.people.ratings import Ratings
from server.people.reviews import ReviewService
from server.people.service import LawyerService
from server.realtime import Realtime, SocketOptions
from server.retention.service import ChatRetention
from server.routes import ROUTES
from server.session_views import billing_state
from server.settings import Settings
from server.storage.repositories.audit import CollectionAudit
from server.storage.repositories.claims import CollectionClaims
from server.storage.repositories.directory import CollectionDirectory
from server.storage.repositories.idempotency import CollectionIdempotency
from server.storage.repositories.lawyers import CollectionLawyers
from server.storage.repositories.reviews import CollectionReviews
from server.storage.repositories.sessions import CollectionSessions
from server.storage.repositories.timeline import CollectionTimeline
from server.storage.sqlite.collection import SqliteCollections
from server.storage.sqlite.engine import Lane, SqliteDatabase, SqliteOptions, open_database
from server.storage.sqlite.ledger import SqliteLedgerStore
from server.storage.sqlite.messages import open_message_store
from server.transcripts.service import Transcripts

#: `readyz` fails when this process's clock is further from the store's (LEDGER 4); on SQLite that is the machine's.
CLOCK_TOLERANCE_MS: Final = 500


@dataclass(frozen=True, slots=True)
class Services:
    """What routes call. One instance a process."""

    asset: Asset
    accounts: Accounts
    sign_ins: SignIns
    password_changes: PasswordChanges
    control: AccountControl
    sessions_of_accounts: SessionsOfAccounts
    outbox: Outbox
    wallets: Wallets
    consultations: Consultations
    engine: Engine
    chat: ChatService
    lawyers: LawyerService
    reviews: ReviewService
    earnings: EarningsService
    audit: AuditLog
    admin: AdminDesk
    revenue: Revenue
    transcripts: Transcripts
    metrics: Metrics
    docs: ApiDocs
    readiness: dict[str, Callable[[], Awaitable[None]]]


@dataclass(frozen=True, slots=True)
class Server:
    """A built server: its application, and how many sessions it has taken up from its predecessor."""

    app: web.Application
    services: Services
    recovered: int


class BillingGate:
    """Chat's question to billing. The answerer is set once both are built."""

    def __init__(self) -> None:
        self.consultations: Consultations | None = None
        self.chat: ChatService | None = None

    def is_open(self, session_id: str) -> bool:
        return self.consultations is not None and self.consultations.is_open(session_id)

    async def state(self, session_id: str, viewer_id: str) -> dict[str, Any]:
        """The bill as `viewer_id` may see it, for the join acknowledgement."""
        if self.consultations is None or self.chat is None:
            raise NoConversation(session_id=session_id)
        try:
            view = await self.consultations.get(session_id, caller_id=viewer_id)
        except NotFound as exc:
            raise NoConversation(session_id=session_id) from exc
        return billing_state(view, viewer_id, last_seq=await self.chat.last_seq(session_id))


@asynccontextmanager
async def build_accounts(settings: Settings, db: SqliteDatabase) -> AsyncIterator[Accounts]:
    """Accounts alone, for the command line."""
    async with build_identity(settings, SqliteCollections(db), SystemClock()) as identity:
        yield identity.accounts


def rules_of(settings: Settings) -> Rules:
    """What consultations are billed by."""
    return Rules(
        asset=settings.asset,
        tick_ms=settings.tick_seconds * 1000,
        lead_ms=settings.lead_seconds * 1000,
        min_balance_minor=settings.min_balance_minor,
        min_seconds=settings.min_seconds,
        commission_bp=settings.commission_bp,
        abandon_ms=settings.abandon_seconds * 1000,
        store_timeout_ms=settings.store_timeout_ms,
    )


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
        options = SqliteOptions(synchronous=settings.sqlite_synchronous, on_fatal=on_fatal)
        settings.sqlite_path.parent.mkdir(parents=True, exist_ok=True)
        db = await stack.enter_async_context(open_database(settings.sqlite_path, options))
        store = SqliteLedgerStore(db)
        await store.prepare()
        clock = SystemClock()
        # A wall that was set back while no process ran must not put new entries before old ones (LEDGER 4).
        clock.not_before(await store.last_instant_ms())
        identity = await stack.enter_async_context(build_identity(settings, SqliteCollections(db), clock))
        metrics = Metrics()
        await stack.enter_async_context(metrics.sampling())
        ledger = Ledger(store, clock, lambda at_ms: local_day(at_ms, settings.zone))
        ledger.committer.on_batch = metrics.ledger_batch
        await ledger.start()
        stack.push_async_callback(ledger.stop)
        realtime = Realtime(
            SocketOptions(cors_origins=settings.cors_origins, trusted_proxies=settings.trusted_proxies)
        )
        gate = BillingGate()
        messages = await open_message_store(db)
        chat = ChatService(store=messages, gate=gate, push=realtime.push, clock=clock, new_id=new_id)
        announcer = SocketAnnouncer()
        notices = LowBalanceNotices(announcer, identity.outbox, realtime.push.watching)
        stack.push_async_callback(notices.stop)
        services, recovery = await _wire(
            settings,
            db,
            clock=clock,
            identity=identity,
            ledger=ledger,
            chat=chat,
            announcer=notices,
            metrics=metrics,
        )
        gate.consultations, gate.chat = services.consultations, chat
        announcer.start(realtime.push, chat)
        stack.push_async_callback(announcer.stop)
        stack.push_async_callback(services.engine.stop)
        recovered = await recovery.run()
        retention = ChatRetention(messages, clock, days=settings.retention_chat_days)
        housekeeping = _housekeeping(settings, identity, services, clock, retention)
        await housekeeping.heal()
        await services.sessions_of_accounts.sweep()
        await identity.accounts.ensure_first_admin(
            email=settings.admin_email, password=settings.admin_password.get_secret_value()
        )
        app = build_app(
            ROUTES,
            services=services,
            authenticate=identity.sign_ins.authenticate,
            idempotency=Idempotency(
                rows=await CollectionIdempotency.open(SqliteCollections(db)),
                clock=clock,
                new_id=new_id,
                alone=True,  # an SQLite file has one process
            ),
            cors_origins=settings.cors_origins,
            asset=settings.asset,
            on_request=metrics.request,
            audit=services.audit,
            rate_limits=identity.rate_limits,
            trusted_proxies=settings.trusted_proxies,
        )
        realtime.attach(
            app, chat=chat, authenticate=_socket_principal(identity.sign_ins), on_event=metrics.event
        )
        _sample(metrics, services.engine, db, realtime)
        _sample_notices(metrics, identity.outbox)
        identity.sign_ins.on_revoked(_close_sockets(realtime))
        identity.outbox.start()
        stack.push_async_callback(identity.outbox.stop)
        housekeeping.start()
        stack.push_async_callback(housekeeping.stop)
        await stack.enter_async_context(
            serve_commands(settings.sqlite_path, {"create-admin": _create_admin_command(identity.accounts)})
        )
        yield Server(app, services, recovered)


async def _wire(
    settings: Settings,
    db: SqliteDatabase,
    *,
    clock: SystemClock,
    identity: Identity,
    ledger: Ledger,
    chat: ChatService,
    announcer: Announcer,
    metrics: Metrics,
) -> tuple[Services, Recovery]:
    rules = rules_of(settings)
    collections = SqliteCollections(db)
    sessions = await CollectionSessions.open(collections)
    claims = await CollectionClaims.open(collections)
    timeline = await CollectionTimeline.open(collections)
    profiles = await CollectionLawyers.open(collections)
    reviews = await CollectionReviews.open(collections)
    locks = LocalLocks(clock, ttl_ms=rules.lock_ttl_ms)
    ratings = Ratings(profiles=profiles, reviews=reviews)
    lawyers = LawyerService(
        profiles=profiles,
        ratings=ratings,
        accounts=identity.accounts,
        busy=claims,
        clock=clock,
    )
    settlement = Settlement(sessions, timeline, chat, claims, locks)
    engine = Engine(
        ledger=ledger,
        clock=clock,
        rules=rules,
        timeline=timeline,
        locks=locks,
        settlement=settlement,
        announcer=announcer,
        observer=metrics,
    )
    consultations = Consultations(
        ledger=ledger,
        clock=clock,
        rules=rules,
        sessions=sessions,
        claims=claims,
        timeline=timeline,
        locks=locks,
        lawyers=lawyers,
        rooms=chat,
        engine=engine,
        settlement=settlement,
        standing=AccountStanding(identity.rows),
    )
    recovery = Recovery(
        ledger=ledger,
        clock=clock,
        rules=rules,
        sessions=sessions,
        timeline=timeline,
        rooms=chat,
        locks=locks,
        engine=engine,
        consultations=consultations,
    )
    wallets = Wallets(
        ledger=ledger,
        gateway=SimulatedGateway(),
        rules=WalletRules(settings.asset, settings.recharge_min_minor, settings.recharge_max_minor),
        on_recharged=consultations.recharged,
    )
    sessions_of_accounts = SessionsOfAccounts(consultations, claims, identity.rows)
    control = AccountControl(
        rows=identity.rows,
        accounts=identity.accounts,
        sign_ins=identity.sign_ins,
        sessions=sessions_of_accounts,
        lawyers=Listing(profiles),
        funds=LedgerFunds(ledger, settings.asset),
        outbox=identity.outbox,
        clock=clock,
        new_id=new_id,
    )
    audit = AuditLog(await CollectionAudit.open(collections), clock)
    services = Services(
        asset=settings.asset,
        accounts=identity.accounts,
        sign_ins=identity.sign_ins,
        password_changes=identity.password_changes,
        control=control,
        sessions_of_accounts=sessions_of_accounts,
        outbox=identity.outbox,
        wallets=wallets,
        consultations=consultations,
        engine=engine,
        chat=chat,
        lawyers=lawyers,
        reviews=ReviewService(reviews=reviews, ratings=ratings, sessions=sessions, clock=clock),
        earnings=EarningsService(
            earnings=LedgerEarnings(ledger, settings.asset), clock=clock, zone=settings.zone
        ),
        audit=audit,
        admin=AdminDesk(
            directory=await CollectionDirectory.open(collections),
            sessions=sessions,
            consultations=consultations,
            lawyers=lawyers,
            books=ledger,
            audit=audit,
            asset=settings.asset,
        ),
        revenue=Revenue(books=ledger, clock=clock, asset=settings.asset, zone=settings.zone),
        transcripts=Transcripts(
            consultations=consultations, chat=chat, accounts=identity.accounts, zone=settings.zone
        ),
        metrics=metrics,
        docs=build_docs(ROUTES, asset=settings.asset),
        readiness={"storage": db.ping, "locks": locks.ping, "clock": _clock_check(clock)},
    )
    return services, recovery


def _sample_notices(metrics: Metrics, outbox: Outbox) -> None:
    metrics.total("tarazu_notifications_sent", "Notifications that their adapter took", lambda: outbox.sent)
    metrics.total("tarazu_notifications_failed", "Tries that failed and come again", lambda: outbox.failed)
    metrics.total("tarazu_notifications_dead", "Notifications given up for good", lambda: outbox.dead)


def _sample(metrics: Metrics, engine: Engine, db: SqliteDatabase, realtime: Realtime) -> None:
    """Series whose values others keep."""
    metrics.gauge("tarazu_sessions_live", "Sessions that this process bills", lambda: engine.live_count)
    metrics.gauge("tarazu_sockets", "Open sockets", lambda: len(realtime))
    metrics.gauge(
        "tarazu_socket_queue_bytes", "Waiting to be sent to clients", realtime.server.eio.held_bytes
    )
    metrics.total("tarazu_sockets_cut", "Clients cut off for not reading", lambda: realtime.server.cut)
    metrics.total("tarazu_store_commits", "Transactions of the store", lambda: db.stats.commits)
    metrics.total("tarazu_store_items", "Writes in those", lambda: db.stats.committed_items)
    metrics.total(
        "tarazu_store_lost_batches", "Transactions that failed as a whole", lambda: db.stats.lost_batches
    )
    for lane in Lane:
        metrics.gauge(
            f"tarazu_store_queue_{lane.value}", "Writes that wait in this lane", partial(db.depth, lane)
        )


def _clock_check(clock: SystemClock) -> Callable[[], Awaitable[None]]:
    async def check() -> None:
        offset_ms = clock.offset_ms()
        if abs(offset_ms) > CLOCK_TOLERANCE_MS:
            raise Unavailable(reason="the clock is away from the wall's", offset_ms=offset_ms)

    return check


def _socket_principal(sign_ins: SignIns) -> Callable[[str], SocketPrincipal]:
    def authenticate(token: str) -> SocketPrincipal:
        try:
            principal = sign_ins.verify(token)
        except Unauthenticated as exc:
            raise NotAuthenticated from exc
        return SocketPrincipal(principal.user_id, principal.role.value, principal.family_id)

    return authenticate


def _close_sockets(realtime: Realtime) -> Callable[[Ended], None]:
    def revoked(ended: Ended) -> None:
        code = BYE_DISABLED if ended.why is SignOut.ACCOUNT_DISABLED else BYE_TOKEN
        reason = ended.why.value if code == BYE_DISABLED else "TOKEN_REVOKED"
        realtime.disconnect_user(ended.user_id, family=ended.family_id, code=code, reason=reason)

    return revoked


def _housekeeping(
    settings: Settings,
    identity: Identity,
    services: Services,
    clock: SystemClock,
    retention: ChatRetention,
) -> Housekeeping:
    keep_ms = settings.notification_days * 86_400_000
    return Housekeeping(
        clock,
        healers={
            "password changes": identity.password_changes.heal,
            "disabled and deleted accounts": services.control.heal,
        },
        chores={
            "sessions of shut accounts": services.sessions_of_accounts.sweep,
            "refresh tokens": identity.sign_ins.drop_expired,
            "notifications": partial(identity.outbox.drop_settled, older_than_ms=keep_ms),
            "chats": retention.round,
        },
    )


def _create_admin_command(accounts: Accounts) -> Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]:
    async def create(arguments: dict[str, Any]) -> dict[str, Any]:
        admin = await accounts.create_admin(
            email=arguments["email"], password=arguments["password"], name=arguments["name"]
        )
        return {"id": admin.id}

    return create
