"""What routes call, wired over the ports: the use cases of one process. Which adapter stands behind a port is `composition`'s."""

import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from billing_engine.clock import Clock
from billing_engine.consultations.engine import Engine
from billing_engine.consultations.ports import Announcer, Attending, Locks, Peers, RequestNews
from billing_engine.consultations.recovery import Recovery
from billing_engine.consultations.requests import Requests
from billing_engine.consultations.rules import Rules
from billing_engine.consultations.served import ServedElsewhere
from billing_engine.consultations.service import Consultations
from billing_engine.consultations.settlement import Settlement
from billing_engine.consultations.takeover import WEB, Takeover
from billing_engine.consultations.waiting import WaitingLists
from billing_engine.credits.purchases import sale_of
from billing_engine.errors import NotFound, Unavailable
from billing_engine.ledger.service import Ledger
from billing_engine.money import USD, Asset
from billing_engine.payments.methods import PaymentMethods
from billing_engine.payments.model import Purpose
from billing_engine.payments.ports import Gateway
from billing_engine.payments.report import DailyReports
from billing_engine.payments.service import PaymentService
from billing_engine.payments.webhooks import Webhooks
from billing_engine.payouts.service import PayoutRules, Payouts
from billing_engine.refunds.service import Refunds
from billing_engine.subscriptions.model import Provider
from billing_engine.subscriptions.plans import upgrade_sale_of
from billing_engine.subscriptions.ports import AiProvider
from billing_engine.usage.prices import PriceBook
from billing_engine.usage.recharges import RechargeRules
from billing_engine.usage.recharges import recharge_of as company_recharge_of
from billing_engine.wallets.service import WalletRules, Wallets, recharge_of
from chat.calls.service import CallService
from chat.errors import NotFound as NoConversation
from chat.service import ChatService
from server.account_sessions import AccountStanding, SessionsOfAccounts
from server.admin.ai_metrics import AiMetrics
from server.admin.audit import AuditLog
from server.admin.revenue import Revenue
from server.admin.service import AdminDesk
from server.ai_room import AiRoom, open_ai
from server.api_docs.site import DocsOnDemand
from server.auth.accounts import Accounts
from server.auth.control import AccountControl
from server.auth.password_changes import PasswordChanges
from server.auth.sign_ins import SignIns
from server.companies_room import CompaniesRoom, companies_room, open_company_keys
from server.company_news_room import CompanyNewsRoom
from server.credits_room import CreditsRoom, open_credits
from server.gateways.setup import open_subscriptions
from server.identity import Identity
from server.ids import new_id
from server.ledger_earnings import LedgerEarnings
from server.ledger_funds import LedgerFunds, UsageFunds
from server.metrics import Metrics
from server.no_subscriptions import NoSubscriptions
from server.notifications.money import MoneyNews
from server.notifications.outbox import Outbox
from server.notifications.plan_letters import PlanLetters
from server.payment_desk import PaymentDesk, open_payment_desk
from server.payment_news import PaymentNews
from server.payment_reports import PaymentReportNews, day_bounds
from server.people.earnings import EarningsService
from server.people.listing import Listing
from server.people.ratings import Ratings
from server.people.reviews import ReviewService
from server.people.service import LawyerService
from server.people.statements import Statements
from server.price_room import open_prices
from server.routes import ROUTES
from server.session_views import billing_state
from server.settings import Settings
from server.storage.collection import Collections
from server.storage.errors import StoreUnavailable
from server.storage.repositories.ai_days import CollectionDays
from server.storage.repositories.audit import CollectionAudit
from server.storage.repositories.claims import CollectionClaims
from server.storage.repositories.directory import CollectionDirectory
from server.storage.repositories.gateway_events import CollectionInbox
from server.storage.repositories.headcount import CollectionHeadcount
from server.storage.repositories.lawyers import CollectionLawyers
from server.storage.repositories.leases import CollectionLeases
from server.storage.repositories.payment_methods import CollectionMethods
from server.storage.repositories.payment_reports import CollectionReports
from server.storage.repositories.payments import CollectionPayments
from server.storage.repositories.payouts import CollectionPayouts
from server.storage.repositories.refunds import CollectionRefundBooks, CollectionRefundRequests
from server.storage.repositories.reviews import CollectionReviews
from server.storage.repositories.sessions import CollectionSessions
from server.storage.repositories.timeline import CollectionTimeline
from server.storage.repositories.waiting import CollectionWaiting
from server.transcripts.service import Transcripts
from server.usage_room import UsageRoom, open_usage


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
    gateways: Mapping[str, Gateway]
    payments: PaymentService
    payment_desk: PaymentDesk
    payment_methods: PaymentMethods
    payment_reports: DailyReports
    webhooks: Webhooks
    wallets: Wallets
    consultations: Consultations
    requests: Requests
    waiting: WaitingLists
    engine: Engine
    chat: ChatService
    calls: CallService
    lawyers: LawyerService
    reviews: ReviewService
    earnings: EarningsService
    statements: Statements
    payouts: Payouts
    refunds: Refunds
    credits: CreditsRoom
    prices: PriceBook
    company_news: CompanyNewsRoom
    usage: UsageRoom
    ai: AiRoom
    companies: CompaniesRoom
    audit: AuditLog
    admin: AdminDesk
    revenue: Revenue
    ai_metrics: AiMetrics
    ai_days: CollectionDays
    transcripts: Transcripts
    metrics: Metrics
    docs: DocsOnDemand
    readiness: dict[str, Callable[[], Awaitable[None]]]


class BillingGate:
    """Chat's question to billing. The answerer is set once both are built."""

    def __init__(self) -> None:
        self.consultations: Consultations | None = None
        self.chat: ChatService | None = None

    def is_open(self, session_id: str) -> bool | None:
        return self.consultations is not None and self.consultations.is_open(session_id)

    async def look(self, session_id: str) -> bool:
        try:
            return self.consultations is not None and await self.consultations.look(session_id)
        except Unavailable as exc:
            raise StoreUnavailable(**exc.facts) from exc

    def is_paused(self, session_id: str) -> bool:
        return self.consultations is not None and self.consultations.is_paused(session_id)

    async def state(self, session_id: str, viewer_id: str) -> dict[str, Any]:
        """The bill as `viewer_id` may see it, for the join acknowledgement."""
        if self.consultations is None or self.chat is None:
            raise NoConversation(session_id=session_id)
        try:
            view = await self.consultations.get(session_id, caller_id=viewer_id)
        except NotFound as exc:
            raise NoConversation(session_id=session_id) from exc
        return billing_state(view, viewer_id, last_seq=await self.chat.last_seq(session_id))


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
        peer_grace_ms=settings.peer_grace_seconds * 1000,
        peer_gone_ms=settings.peer_gone_seconds * 1000,
        store_timeout_ms=settings.store_timeout_ms,
        lease_ms=settings.lease_ms,
        ring_ms=settings.ring_seconds * 1000,
        join_ms=settings.join_seconds * 1000,
        turn_ms=settings.turn_seconds * 1000,
        queue_limit=settings.queue_limit,
    )


@dataclass(frozen=True, slots=True)
class Wired:
    """The use cases, and what only a process's start and end need. `takeover` is None where there is no other process."""

    services: Services
    recovery: Recovery
    elsewhere: ServedElsewhere | None
    takeover: Takeover | None


async def wire(
    settings: Settings,
    *,
    collections: Collections,
    clock: Clock,
    identity: Identity,
    ledger: Ledger,
    chat: ChatService,
    calls: CallService,
    locks: Locks,
    peers: Peers,
    announcer: Announcer,
    request_news: RequestNews,
    attending: Attending,
    may_live: Callable[[str], bool],
    company_news: CompanyNewsRoom,
    metrics: Metrics,
    gateways: Mapping[str, Gateway],
    ai_providers: Mapping[Provider, AiProvider],
    readiness: dict[str, Callable[[], Awaitable[None]]],
    role: str = WEB,
) -> Wired:
    """Build every use case of one process."""
    rules = rules_of(settings)
    sessions = await CollectionSessions.open(collections)
    claims = await CollectionClaims.open(collections)
    timeline = await CollectionTimeline.open(collections)
    profiles = await CollectionLawyers.open(collections)
    reviews = await CollectionReviews.open(collections)
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
        peers=peers,
        # Without it no session is paused because somebody is lost.
        attending=attending if settings.fair_metering == "on" else None,
    )
    elsewhere = ServedElsewhere(ledger=ledger, sessions=sessions, clock=clock) if settings.is_shared else None
    owner = secrets.token_hex(8)
    standing = AccountStanding(identity.rows)
    requests = Requests(
        ledger=ledger,
        clock=clock,
        rules=rules,
        sessions=sessions,
        locks=locks,
        lawyers=lawyers,
        engine=engine,
        settlement=settlement,
        news=request_news,
        owner=owner,
        attending=attending,
        standing=standing,
        may_live=may_live,
    )
    waiting = WaitingLists(
        rows=await CollectionWaiting.open(collections),
        sessions=sessions,
        claims=claims,
        lawyers=lawyers,
        clock=clock,
        rules=rules,
        news=request_news,
        owner=owner,
        new_id=new_id,
        may_live=may_live,
    )
    settlement.on_freed.append(waiting.look)
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
        owner=owner,
        standing=standing,
        elsewhere=elsewhere,
        requests=requests,
        waiting=waiting,
    )
    recovery = Recovery(
        ledger=ledger,
        clock=clock,
        rules=rules,
        sessions=sessions,
        rooms=chat,
        locks=locks,
        engine=engine,
        consultations=consultations,
        serves=role == WEB,
    )
    takeover = None
    if settings.is_shared:
        takeover = Takeover(
            owner=consultations.owner,
            role=role,
            leases=await CollectionLeases.open(collections),
            ledger=ledger,
            sessions=sessions,
            engine=engine,
            recovery=recovery,
            clock=clock,
            rules=rules,
            observer=metrics,
        )
    payment_rows = await CollectionPayments.open(collections)
    payment_news = PaymentNews(consultations, metrics)
    payments = PaymentService(
        ledger=ledger,
        clock=clock,
        payments=payment_rows,
        gateways=gateways,
        movements={
            Purpose.WALLET: recharge_of,
            Purpose.CREDITS: sale_of,
            Purpose.COMPANY: company_recharge_of,
            Purpose.PLAN: upgrade_sale_of,
        },
        observer=payment_news,
    )
    payment_methods = PaymentMethods(
        rows=await CollectionMethods.open(collections), payments=payment_rows, service=payments, clock=clock
    )
    wallets = Wallets(
        ledger=ledger,
        payments=payments,
        gateway=settings.payment_gateway,
        rules=WalletRules(settings.asset, settings.recharge_min_minor, settings.recharge_max_minor),
    )
    payment_desk = await open_payment_desk(
        collections,
        ledger=ledger,
        clock=clock,
        payments=payments,
        store=payment_rows,
        observer=payment_news,
        outbox=identity.outbox,
    )
    ai = await open_ai(
        collections,
        ledger=ledger,
        clock=clock,
        payments=payments,
        gateway=await open_subscriptions(settings, gateways, collections, clock) or NoSubscriptions(),
        providers=ai_providers,
        tiers=settings.tiers(),
        prices=settings.model_prices(),
        news=PlanLetters(identity.outbox),
        asset=USD,
        owner=consultations.owner,
    )
    webhooks = Webhooks(
        payments=payments,
        inbox=await CollectionInbox.open(collections),
        clock=clock,
        on_refund=payment_desk.refunds.take,
        on_dispute=payment_desk.disputes.take,
        on_method=payment_methods.hear,
        on_subscription=ai.plans.hear,
    )
    money_news = MoneyNews(identity.outbox)
    credits_room = await open_credits(
        settings,
        collections,
        ledger=ledger,
        clock=clock,
        payments=payments,
        unpaid=payment_rows,
        standing=AccountStanding(identity.rows),
        news=money_news,
    )
    prices = await open_prices(settings, collections, clock=clock)
    sessions_of_accounts = SessionsOfAccounts(consultations, claims, identity.rows)
    company_records, api_keys = await open_company_keys(
        settings, collections, accounts=identity.rows, clock=clock
    )
    usage = await open_usage(
        collections,
        ledger=ledger,
        clock=clock,
        payments=payments,
        methods=payment_methods,
        companies=company_records,
        prices=prices,
        news=company_news.news,
        rules=RechargeRules(
            settings.company_asset,
            settings.company_recharge_min_minor,
            settings.company_recharge_max_minor,
            settings.company_gateway_name,
        ),
    )
    control = AccountControl(
        rows=identity.rows,
        accounts=identity.accounts,
        sign_ins=identity.sign_ins,
        sessions=sessions_of_accounts,
        lawyers=Listing(profiles),
        funds=LedgerFunds(ledger, settings.asset),
        methods=payment_methods,
        outbox=identity.outbox,
        clock=clock,
        new_id=new_id,
        projects=credits_room.projects,
        company_keys=api_keys,
        hooks=company_news.webhooks,
        company_funds=UsageFunds(usage),
    )
    companies = companies_room(
        company_records,
        api_keys,
        rows=identity.rows,
        accounts=identity.accounts,
        removal=control,
        outbox=identity.outbox,
    )
    refunds = Refunds(
        ledger=ledger,
        sessions=sessions,
        books=await CollectionRefundBooks.opened(collections),
        requests=await CollectionRefundRequests.open(collections),
        news=money_news,
        clock=clock,
        on_credited=consultations.recharged,
    )
    payouts = Payouts(
        ledger=ledger,
        rows=await CollectionPayouts.open(collections),
        news=money_news,
        clock=clock,
        rules=PayoutRules(settings.asset, settings.payout_min_minor),
    )
    directory = await CollectionDirectory.open(collections)
    payment_reports = DailyReports(
        ledger=ledger,
        service=payments,
        payments=payment_rows,
        refunds=payment_desk.refunds,
        rows=await CollectionReports.open(collections),
        gateways=gateways,
        clock=clock,
        bounds=partial(day_bounds, zone=settings.zone),
        news=PaymentReportNews(outbox=identity.outbox, directory=directory, metrics=metrics),
    )
    audit = AuditLog(await CollectionAudit.open(collections), clock)
    ai_days = await CollectionDays.open(
        collections, ai.rows, clock, day_of=ledger.day_of, bounds=partial(day_bounds, zone=settings.zone)
    )
    services = Services(
        asset=settings.asset,
        accounts=identity.accounts,
        sign_ins=identity.sign_ins,
        password_changes=identity.password_changes,
        control=control,
        sessions_of_accounts=sessions_of_accounts,
        outbox=identity.outbox,
        gateways=gateways,
        payments=payments,
        payment_desk=payment_desk,
        payment_methods=payment_methods,
        payment_reports=payment_reports,
        webhooks=webhooks,
        wallets=wallets,
        consultations=consultations,
        requests=requests,
        waiting=waiting,
        engine=engine,
        chat=chat,
        calls=calls,
        lawyers=lawyers,
        reviews=ReviewService(reviews=reviews, ratings=ratings, sessions=sessions, clock=clock),
        earnings=EarningsService(
            earnings=LedgerEarnings(ledger, settings.asset), refunded=refunds, clock=clock, zone=settings.zone
        ),
        statements=Statements(books=ledger, asset=settings.asset, zone=settings.zone),
        payouts=payouts,
        refunds=refunds,
        credits=credits_room,
        prices=prices,
        usage=usage,
        ai=ai,
        company_news=company_news,
        companies=companies,
        audit=audit,
        admin=AdminDesk(
            directory=directory,
            sessions=sessions,
            consultations=consultations,
            lawyers=lawyers,
            books=ledger,
            audit=audit,
            asset=settings.asset,
            company_asset=settings.company_asset,
        ),
        revenue=Revenue(books=ledger, clock=clock, asset=settings.asset, zone=settings.zone),
        ai_days=ai_days,
        ai_metrics=AiMetrics(
            calls=ai_days,
            changes=ai.changes,
            subscriptions=ai.subscriptions,
            heads=await CollectionHeadcount.open(collections),
            sales=ledger,
            clock=clock,
            day_of=ledger.day_of,
            bounds=partial(day_bounds, zone=settings.zone),
            rules=settings.metric_rules(),
            targets=settings.targets(),
            asset=USD,
            timezone=settings.timezone,
        ),
        transcripts=Transcripts(
            consultations=consultations, chat=chat, accounts=identity.accounts, zone=settings.zone
        ),
        metrics=metrics,
        docs=DocsOnDemand(ROUTES, asset=settings.asset),
        readiness=readiness,
    )
    return Wired(services, recovery, elsewhere, takeover)
