"""Who may log in, built over one database: the part of the composition that the command line needs, too."""

import hashlib
import hmac
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from billing_engine.clock import Clock
from server.auth.accounts import Accounts
from server.auth.login_guard import LoginGuard
from server.auth.password_changes import PasswordChanges
from server.auth.passwords import Passwords
from server.auth.ports import AccountRows
from server.auth.reset_tokens import ResetTokens
from server.auth.sign_ins import SignIns
from server.auth.tokens import AccessTokens
from server.ids import new_id
from server.notifications.composer import AccountComposer
from server.notifications.log import LogNotifier
from server.notifications.outbox import Outbox
from server.notifications.ports import Notifier
from server.notifications.smtp import SmtpNotifier, SmtpOptions
from server.notifications.webhook import WebhookNotifier
from server.rate_limits.memory import MemoryBuckets
from server.rate_limits.model import Allowance, parse_allowance
from server.rate_limits.ports import Buckets
from server.rate_limits.service import Allowances, Limited, RateLimits
from server.settings import AppEnv, NotifierName, Settings
from server.storage.collection import Collections
from server.storage.repositories.notices import CollectionNotices
from server.storage.repositories.tokens import CollectionTokens
from server.storage.repositories.users import CollectionAccounts


@dataclass(frozen=True, slots=True)
class Identity:
    """Accounts, log-ins, and what guards them. The outbox is not started yet."""

    rows: AccountRows
    accounts: Accounts
    sign_ins: SignIns
    password_changes: PasswordChanges
    outbox: Outbox
    rate_limits: RateLimits


@asynccontextmanager
async def build_identity(
    settings: Settings,
    collections: Collections,
    clock: Clock,
    *,
    buckets: Buckets | None = None,
    outbox_idle_ms: int = 60_000,
) -> AsyncIterator[Identity]:
    """Who may log in. Closes the threads that hash passwords, and the notifier's connections.

    `buckets` count tries, in this process by default; `outbox_idle_ms`: how often to look for what other processes have posted.
    """
    rows = await CollectionAccounts.open(collections)
    token_rows = await CollectionTokens.open(collections)
    async with AsyncExitStack() as stack:
        passwords = Passwords(cost=settings.bcrypt_cost)
        stack.callback(passwords.close)
        sign_ins = SignIns(
            rows=token_rows,
            accounts=rows,
            access=AccessTokens(
                secret=settings.jwt_secret.get_secret_value(),
                issuer=settings.jwt_issuer,
                audience=settings.jwt_audience,
                lifetime_s=settings.access_token_minutes * 60,
                clock=clock,
            ),
            clock=clock,
            new_id=new_id,
            refresh_lifetime_ms=settings.refresh_token_days * 86_400_000,
            grace_ms=settings.refresh_grace_seconds * 1000,
        )
        await sign_ins.load()
        buckets = buckets or MemoryBuckets(clock)
        guard = LoginGuard(
            buckets,
            here=_allowed(settings, settings.rate_limit_login_failures),
            strangers=_allowed(settings, settings.rate_limit_login_strangers),
            key=_derived_key(settings, "addresses of log-ins"),
        )
        accounts = Accounts(rows=rows, passwords=passwords, clock=clock, new_id=new_id, guard=guard)
        reset_lifetime_ms = settings.reset_token_minutes * 60_000
        outbox = Outbox(
            rows=await CollectionNotices.open(collections),
            composer=AccountComposer(
                accounts=rows,
                tokens=ResetTokens(_derived_key(settings, "password resets")),
                reset_lifetime_ms=reset_lifetime_ms,
                reset_url=settings.reset_url,
            ),
            notifier=_notifier(settings, clock, stack),
            clock=clock,
            idle_ms=outbox_idle_ms,
        )
        password_changes = PasswordChanges(
            rows=rows,
            accounts=accounts,
            passwords=passwords,
            sign_ins=sign_ins,
            outbox=outbox,
            clock=clock,
            new_id=new_id,
            reset_lifetime_ms=reset_lifetime_ms,
            guard=guard,
        )
        limits = RateLimits(buckets, _allowances(settings))
        yield Identity(rows, accounts, sign_ins, password_changes, outbox, limits)


def _allowances(settings: Settings) -> Mapping[Limited, Allowances]:
    def pair(address: str, account: str) -> Allowances:
        return Allowances(_allowed(settings, address), _allowed(settings, account))

    return {
        Limited.LOGIN: pair(settings.rate_limit_login_address, "off"),
        Limited.REGISTER: pair(settings.rate_limit_register_address, settings.rate_limit_register_account),
        Limited.PASSWORD: pair(settings.rate_limit_password_address, settings.rate_limit_password_account),
        Limited.RECHARGE: pair(settings.rate_limit_recharge_address, settings.rate_limit_recharge_account),
        Limited.START: pair(settings.rate_limit_start_address, settings.rate_limit_start_account),
        Limited.WEBHOOK: pair(settings.rate_limit_webhook_address, settings.rate_limit_webhook_account),
    }


def _allowed(settings: Settings, rate: str) -> Allowance | None:
    return parse_allowance(rate) if settings.rate_limits == "on" else None


def _notifier(settings: Settings, clock: Clock, stack: AsyncExitStack) -> Notifier:
    match settings.notifier:
        case NotifierName.SMTP:
            return SmtpNotifier(
                SmtpOptions(
                    host=settings.smtp_host,
                    port=settings.smtp_port,
                    sender=settings.smtp_from,
                    user=settings.smtp_user,
                    password=settings.smtp_password.get_secret_value(),
                    security=settings.smtp_security,
                )
            )
        case NotifierName.WEBHOOK:
            secret = settings.notify_webhook_secret.get_secret_value().encode()
            webhook = WebhookNotifier(settings.notify_webhook_url, secret, clock)
            stack.push_async_callback(webhook.close)
            return webhook
        case NotifierName.LOG:
            return LogNotifier(with_text=settings.app_env is not AppEnv.PRODUCTION)


def _derived_key(settings: Settings, purpose: str) -> bytes:
    """A key of its own for each purpose, all from the one secret that all processes share."""
    secret = settings.jwt_secret.get_secret_value().encode()
    return hmac.new(secret, f"tarazu: {purpose}".encode(), hashlib.sha256).digest()
