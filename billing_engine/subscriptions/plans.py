"""Subscribing, upgrading, downgrading, cancelling; and what the gateway makes of it (SPEC 10, 13).

A gateway's event is a hint: the gateway is asked how the subscription stands and which of its invoices are paid, and what it says is
applied. So events may come in any order, twice, late or not at all. What is paid begins a cycle, once for each period: first the
money's entry (by the invoice), then the credits' (by the period), then the record. Who dies in between is followed by the event's next
reading, or by the record's next look.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from billing_engine.clock import Clock, Moment
from billing_engine.errors import BillingError, InvariantBroken, Unavailable
from billing_engine.ledger.accounts import (
    REVENUE_SUBSCRIPTIONS,
    ai_credits_of,
    gateway_of,
    plan_sales_of,
)
from billing_engine.ledger.model import Account, Entry, Movement, Transfer
from billing_engine.ledger.service import Ledger
from billing_engine.money import AI_CREDIT, Asset
from billing_engine.payments.errors import GatewayRefused, PaymentNotFound
from billing_engine.payments.model import Payment, Purpose, SubscriptionNews
from billing_engine.payments.service import Due, PaymentService
from billing_engine.subscriptions.account import (
    GRACE_MS,
    PaidCycle,
    Plan,
    Upgrade,
    apply_upgrade,
    begin_paid,
    end_with_cycle,
    grant_source,
    plan_of,
    rolled,
    upgrade_cycle,
    upgrade_source,
)
from billing_engine.subscriptions.catalogue import Tiers
from billing_engine.subscriptions.errors import (
    AlreadySubscribed,
    CycleOver,
    NotSubscribed,
    NoUpgrade,
    TierUnknown,
)
from billing_engine.subscriptions.model import CYCLE_MS, FREE, Tier
from billing_engine.subscriptions.ports import (
    LIVE,
    GatewayInvoice,
    GatewaySubscription,
    PlanNews,
    Quotes,
    StoredQuote,
    Subscription,
    SubscriptionGateway,
    Subscriptions,
    SubscriptionStatus,
    SubscriptionWish,
    TierChange,
    TierChanges,
)
from billing_engine.subscriptions.upgrades import quote, quote_reset

log = logging.getLogger(__name__)

_ASSET: Final = AI_CREDIT.code
#: Kind of the entries that book what subscriptions and upgrades were sold for.
SALE: Final = "subscription_sale"
#: So long a quote holds (SPEC 10).
QUOTE_MS: Final = 10 * 60_000
#: A page that nobody pays at is looked at this often, for this long; a running subscription around its cycle's end.
_LOOK_AGAIN_MS: Final = 60_000
_PAGE_OPEN_MS: Final = 25 * 3_600_000
#: Every reading goes through all invoices there ever were. The news of an old one may have been forgotten where such are kept, and
#: would be told anew: so it is told again for a day only, which is enough to follow whoever died in between.
_TOLD_FOR_MS: Final = 86_400_000
_ATTEMPTS: Final = 20
_PER_ROUND: Final = 100


@dataclass(frozen=True, slots=True)
class PlanView:
    """A user's credits, cycle and subscription of one moment."""

    plan: Plan
    tier: Tier
    remaining_milli: int
    subscription: Subscription | None


def upgrade_sale_of(payment: Payment) -> Movement:
    """The money of an upgrade. Raises `InvariantBroken` for a payment that is not collected."""
    if payment.collected_id is None:
        raise InvariantBroken(rule="only what is collected is credited", payment=payment.id)
    return Movement(
        account=payment.account,
        source=f"payment:{payment.gateway}:{payment.collected_id}",
        kind=SALE,
        asset=payment.currency,
        reference=payment.id,
        transfers=(Transfer(gateway_of(payment.gateway), REVENUE_SUBSCRIPTIONS, payment.amount_minor, SALE),),
        facts={"gatewayPayment": payment.collected_id, "upgrade": payment.item},
    )


class Plans:
    """The use cases."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        clock: Clock,
        tiers: Tiers,
        gateway: SubscriptionGateway,
        payments: PaymentService,
        rows: Subscriptions,
        changes: TierChanges,
        quotes: Quotes,
        news: PlanNews,
        asset: Asset,
        new_id: Callable[[], str],
    ) -> None:
        self._ledger = ledger
        self._clock = clock
        self.tiers = tiers
        self._gateway = gateway
        self._payments = payments
        self._rows = rows
        self._changes = changes
        self._quotes = quotes
        self._news = news
        self.asset = asset
        self._new_id = new_id
        payments.fulfil[Purpose.PLAN] = self.fulfil

    # -- looking -----------------------------------------------------------------------------------------------------

    async def view(self, user_id: str) -> PlanView:
        """The user's plan, in the cycle of now. Raises `Unavailable`: unknown is never 0."""
        account = await self._rolled(user_id)
        plan = plan_of(account)
        return PlanView(plan, self.tiers.get(plan.tier), account.spendable, await self._rows.get(user_id))

    async def _rolled(self, user_id: str) -> Account:
        def change(account: Account, _known: Entry | None) -> tuple[Account, Account]:
            after = rolled(account, self.tiers, self._moment())
            return after, after

        account: Account = await self._ledger.change(ai_credits_of(user_id), _ASSET, change)
        await self._note_change(user_id, plan_of(account).cycle)
        return account

    async def _note_change(self, user_id: str, cycle: str) -> None:
        """Into the metrics' log, if the cycle began with another tier than the one before."""
        entry = await self._ledger.entry(ai_credits_of(user_id), grant_source(cycle))
        await self._note_entry(user_id, entry)

    async def _note_entry(self, user_id: str, entry: Entry | None) -> None:
        if entry is None or "tier" not in entry.facts:
            return
        # Whoever subscribes before their first call has been on the free tier all the same.
        was = entry.facts.get("was") or FREE
        if was == entry.facts["tier"]:
            return
        change = TierChange(
            id=entry.key,
            user_id=user_id,
            was=was,
            tier=entry.facts["tier"],
            at_ms=entry.at_ms,
            day=entry.day,
        )
        await self._changes.add(change)

    # -- subscribing -------------------------------------------------------------------------------------------------

    async def checkout(self, *, user_id: str, email: str, tier: str, operation_id: str) -> Subscription:
        """A page to subscribe at; the same one for the same operation. With the simulated gateway it comes back ACTIVE.

        Raises:
            TierUnknown: no such tier, or the free one.
            AlreadySubscribed: there is a subscription.
            GatewayRefused: the gateway will not.
            Unavailable: nobody knows; a repeat finds what there is.
        """
        wanted = self._paid_tier(tier)
        known = await self._rows.get(user_id)
        if known is not None and known.status in LIVE and known.reference != operation_id:
            raise AlreadySubscribed(tier=known.tier)
        if known is None or known.reference != operation_id:
            now_ms = self._clock.now_ms()
            fresh = Subscription(
                user_id,
                operation_id,
                wanted.name,
                SubscriptionStatus.PENDING,
                now_ms,
                check_at_ms=now_ms + _LOOK_AGAIN_MS,
                revision=0 if known is None else known.revision + 1,
            )
            if not await self._rows.put(fresh, expect_revision=None if known is None else known.revision):
                raise Unavailable(reason="the subscription is being changed by others", user=user_id)
            known = fresh
        if known.checkout_id is None:
            page = await self._gateway.checkout(
                SubscriptionWish(
                    reference=operation_id,
                    user_id=user_id,
                    email=email,
                    tier=wanted.name,
                    amount_minor=wanted.price_minor,
                    currency=self.asset.code,
                )
            )
            known = await self._move(
                user_id,
                lambda now: (
                    replace(now, checkout_id=page.id, checkout_url=page.url)
                    if now.reference == operation_id
                    else None
                ),
            )
        if known.checkout_url is None:
            # Nothing to pay at: it is paid.
            await self._look(known)
            known = await self._existing(user_id)
        return known

    def _paid_tier(self, name: str) -> Tier:
        found = self.tiers.named(name)
        if found is None or found.name == FREE:
            raise TierUnknown(field="tier", problem="is no tier that can be subscribed to")
        return found

    async def cancel(self, user_id: str, *, cancels: bool = True) -> Subscription:
        """End the subscription with its cycle, or let it go on after all. Repeating harms nobody.

        Raises:
            NotSubscribed: there is nothing to cancel.
        """
        known = await self._live(user_id)
        await self._gateway.set_cancels(str(known.subscription_id), cancels)
        await self._look(known)
        return await self._existing(user_id)

    async def downgrade(self, user_id: str, tier: str, *, operation_id: str) -> Subscription:
        """Another tier from the next cycle on.

        Raises:
            TierUnknown: no such tier, or not a lower one than now.
            NotSubscribed: there is no subscription.
        """
        wanted = self._paid_tier(tier)
        known = await self._live(user_id)
        if wanted.rank >= self.tiers.get(known.tier).rank:
            raise TierUnknown(field="tier", problem="is no lower tier than yours")
        await self._want(
            user_id, wanted.name, key=operation_id, cycle_ends_ms=None, at_ms=self._clock.now_ms()
        )
        await self._sync(await self._existing(user_id))
        return await self._existing(user_id)

    async def _live(self, user_id: str) -> Subscription:
        known = await self._rows.get(user_id)
        if known is None or known.status not in LIVE or known.subscription_id is None:
            raise NotSubscribed(user=user_id)
        return known

    async def _existing(self, user_id: str) -> Subscription:
        known = await self._rows.get(user_id)
        if known is None:
            raise InvariantBroken(rule="a subscription's record is never deleted", user=user_id)
        return known

    # -- upgrading ---------------------------------------------------------------------------------------------------

    async def preview(self, user_id: str, tier: str, *, resets: bool) -> StoredQuote:
        """What the upgrade costs and brings, good for ten minutes.

        Raises:
            TierUnknown, NoUpgrade: no such tier; no higher one.
            NotSubscribed: there is no subscription: it is bought by `checkout`.
            CycleOver: the running cycle is not paid (yet), so there is nothing to prorate.
        """
        new = self._paid_tier(tier)
        view = await self._upgradable(user_id, new)
        now_ms = self._clock.now_ms()
        left_ms = view.plan.end_ms - now_ms
        if resets:
            found = quote_reset(view.tier, new, remaining_ms=left_ms, unused_milli=view.remaining_milli)
        else:
            found = quote(view.tier, new, remaining_ms=left_ms)
        stored = StoredQuote(
            id=self._new_id(),
            user_id=user_id,
            was=view.tier.name,
            tier=new.name,
            amount_minor=found.amount_minor,
            credits_milli=found.credits_milli,
            resets=resets,
            # Of the next cycle it says nothing.
            expires_at_ms=min(now_ms + QUOTE_MS, view.plan.end_ms),
        )
        await self._quotes.add(stored)
        return stored

    async def _upgradable(self, user_id: str, new: Tier) -> PlanView:
        """What is upgraded. Raises what `preview` raises."""
        await self._live(user_id)
        view = await self.view(user_id)
        if not view.plan.is_paid or view.plan.end_ms <= self._clock.now_ms():
            raise CycleOver(tier=view.tier.name)
        if new.rank <= view.tier.rank:
            raise NoUpgrade(tier=view.tier.name)
        return view

    async def upgrade(
        self, *, user_id: str, email: str, tier: str, resets: bool, operation_id: str
    ) -> tuple[Payment, StoredQuote]:
        """Ask to be paid for the upgrade at the price of the quote that holds, or of now. Nothing changes before it is paid.

        Raises what `preview` raises, and what `PaymentService.begin` raises.
        """
        try:
            known = await self._payments.own(operation_id, payer_id=user_id)
            quoted = await self._quote(known.item)
        except PaymentNotFound:
            view = await self._upgradable(user_id, self._paid_tier(tier))
            latest = await self._quotes.latest(user_id, tier, resets=resets, at_ms=self._clock.now_ms())
            # Another upgrade may have been paid since.
            is_good = latest is not None and latest.was == view.tier.name
            quoted = latest if latest and is_good else await self.preview(user_id, tier, resets=resets)
        due = Due(
            purpose=Purpose.PLAN,
            payer_id=user_id,
            payer_email=email,
            account=plan_sales_of(user_id),
            amount_minor=quoted.amount_minor,
            currency=self.asset.code,
            description=f"Upgrade to {quoted.tier}",
            item=quoted.id,
        )
        payment = await self._payments.begin(due, gateway=self._gateway.name, operation_id=operation_id)
        return payment, quoted

    async def _quote(self, quote_id: str) -> StoredQuote:
        found = await self._quotes.get(quote_id)
        if found is None:
            raise InvariantBroken(rule="a quote is never deleted", quote=quote_id)
        return found

    async def fulfil(self, payment: Payment) -> None:
        """What a paid upgrade brings, each step once: the tier and the credits, then word to the gateway of the next invoice's price.
        `PaymentService.fulfil`.
        """
        quoted = await self._quote(payment.item)
        user_id = payment.payer_id
        upgrade = Upgrade(payment.id, quoted.tier, quoted.credits_milli, quoted.resets)

        def change(account: Account, known: Entry | None) -> tuple[Account, tuple[Entry, Plan]]:
            moment = self._moment()
            account = rolled(account, self.tiers, moment)
            after, entry = apply_upgrade(account, known, upgrade=upgrade, tiers=self.tiers, moment=moment)
            return after, (entry, plan_of(after))

        entry, plan = await self._ledger.change(
            ai_credits_of(user_id), _ASSET, change, source=upgrade_source(upgrade.id)
        )
        if quoted.resets:
            # The new cycle's own entry tells the change; two would be counted twice.
            await self._note_change(user_id, upgrade_cycle(upgrade.id))
        else:
            await self._note_entry(user_id, entry)
        await self._want(
            user_id,
            quoted.tier,
            key=payment.id,
            cycle_ends_ms=entry.at_ms + CYCLE_MS if quoted.resets else None,
            at_ms=entry.at_ms,
            tier_now=plan.tier if plan.is_paid else None,
        )
        await self._news.upgraded(f"upgraded-{payment.id}", user_id, tier=quoted.tier)
        # The record is asked about until the gateway knows: here it is only tried.
        try:
            await self._sync(await self._existing(user_id))
        except (Unavailable, GatewayRefused) as exc:
            log.warning("the gateway hears of an upgrade later: %r", exc, extra={"payment": payment.id})

    # -- what the gateway says ---------------------------------------------------------------------------------------

    async def hear(self, gateway: str, news: SubscriptionNews) -> bool:
        """A gateway's event about a subscription. `Webhooks.on_subscription`."""
        return gateway == self._gateway.name and await self.take(news.subscription_id)

    async def take(self, subscription_id: str) -> bool:
        """Something happened to a subscription: how it stands now, applied. Whether it is one of ours. Raises `Unavailable`."""
        found = await self._gateway.subscription(subscription_id)
        if found is None:
            return False
        await self._apply(found)
        return True

    async def work_off(self) -> int:
        """Look at what is due; how many there were. One that cannot be looked at now is looked at later."""
        due = await self._rows.due(self._clock.now_ms(), limit=_PER_ROUND)
        for known in due:
            try:
                # Written first: a look that hangs must not be repeated at once by everybody.
                await self._move(known.user_id, self._looked)
                await self._look(known)
                await self._sync(await self._existing(known.user_id))
                await self._rolled(known.user_id)
            except Unavailable as exc:
                log.warning("a subscription is looked at later: %r", exc, extra={"user": known.user_id})
            except BillingError as exc:
                log.error("a subscription cannot be settled: %r", exc, extra={"user": known.user_id})  # noqa: TRY400
        return len(due)

    def _looked(self, known: Subscription) -> Subscription:
        """Before anything is known: soon again. What is found says when it really is due."""
        is_past = known.status is SubscriptionStatus.PENDING and self._is_shut(known)
        is_past = is_past or (known.status is SubscriptionStatus.ENDED and known.wanted_tier is None)
        return replace(known, check_at_ms=None if is_past else self._clock.now_ms() + _LOOK_AGAIN_MS)

    def _is_shut(self, known: Subscription) -> bool:
        """Whether nobody can pay at its page any more."""
        return self._clock.now_ms() >= known.created_at_ms + _PAGE_OPEN_MS

    async def _look(self, known: Subscription) -> None:
        subscription_id = known.subscription_id
        if subscription_id is None and known.checkout_id is not None:
            subscription_id = await self._gateway.subscription_of(known.checkout_id)
        if subscription_id is not None:
            await self.take(subscription_id)

    async def _apply(self, found: GatewaySubscription) -> None:
        invoices = await self._gateway.invoices(found.id)
        for invoice in invoices:
            if invoice.is_paid:
                await self._paid(found, invoice)
        known = await self._record(found)
        if known.subscription_id != found.id:
            return
        is_over = found.status is SubscriptionStatus.ENDED
        await self._set_end(found, is_over)
        plan = plan_of(await self._rolled(found.user_id))
        await self._move(found.user_id, lambda now: self._as_paid(now, plan))
        if found.status is SubscriptionStatus.PAST_DUE:
            await self._news.payment_failed(
                f"past-due-{found.id}-{found.period_start_ms}",
                found.user_id,
                tier=found.tier,
                grace_ends_ms=found.period_start_ms + GRACE_MS,
            )
        if is_over:
            await self._news.ended(f"ended-{found.id}", found.user_id, tier=found.tier)

    def _as_paid(self, known: Subscription, plan: Plan) -> Subscription:
        """With the tier that is paid for, as the gateway's word is about the next invoice; and when it is to be looked at again."""
        tier = plan.tier if plan.is_paid and known.status in LIVE else known.tier
        return replace(known, tier=tier, check_at_ms=_next_look_ms(known, plan, self._clock.now_ms()))

    async def _paid(self, found: GatewaySubscription, invoice: GatewayInvoice) -> None:
        sales = plan_sales_of(found.user_id)
        if invoice.amount_minor > 0:
            await self._ledger.post(
                Movement(
                    account=sales,
                    source=f"invoice:{self._gateway.name}:{invoice.id}",
                    kind=SALE,
                    asset=invoice.currency,
                    reference=invoice.id,
                    transfers=(
                        Transfer(
                            gateway_of(self._gateway.name), REVENUE_SUBSCRIPTIONS, invoice.amount_minor, SALE
                        ),
                    ),
                    facts={"subscription": found.id, "tier": invoice.tier},
                )
            )
        paid = PaidCycle(
            f"{found.id}-{invoice.period_start_ms}",
            invoice.tier,
            invoice.period_start_ms,
            invoice.period_end_ms,
            f"{self._gateway.name}:{invoice.id}" if invoice.amount_minor > 0 else "",
        )

        def change(account: Account, known: Entry | None) -> tuple[Account, Entry | None]:
            return begin_paid(account, known, paid=paid, tiers=self.tiers, moment=self._moment())

        entry = await self._ledger.change(
            ai_credits_of(found.user_id), _ASSET, change, source=grant_source(paid.name)
        )
        await self._note_entry(found.user_id, entry)
        if entry is not None and self._clock.now_ms() < entry.at_ms + _TOLD_FOR_MS:
            await self._news.began(
                f"began-{paid.name}",
                found.user_id,
                tier=invoice.tier,
                ends_at_ms=paid.end_ms,
                invoice_id=invoice.id,
                amount_minor=invoice.amount_minor,
                currency=invoice.currency,
            )

    async def _set_end(self, found: GatewaySubscription, is_over: bool) -> None:
        def change(account: Account, _known: Entry | None) -> tuple[Account, None]:
            after = end_with_cycle(
                account,
                ends=found.cancels or is_over,
                # A cycle that was paid by itself goes on to its end.
                at_once=is_over and plan_of(account).cycle.startswith(f"{found.id}-"),
                moment=self._moment(),
                tiers=self.tiers,
            )
            return after, None

        await self._ledger.change(ai_credits_of(found.user_id), _ASSET, change)

    async def _record(self, found: GatewaySubscription) -> Subscription:
        """What we know of it. Of two that run, the newer one is kept, whichever is heard of first; the other ends with its cycle:
        nobody wants to pay twice.
        """
        known = await self._rows.get(found.user_id)
        if known is None:
            fresh = Subscription(
                found.user_id,
                found.id,
                found.tier,
                found.status,
                found.created_at_ms,
                subscription_id=found.id,
            )
            await self._rows.put(self._as(fresh, found), expect_revision=None)
            return await self._existing(found.user_id)
        if known.subscription_id is None and found.status not in LIVE and _is_before(found, known):
            # Late news of an earlier one, while somebody looks at a new page.
            return known
        if known.subscription_id in (None, found.id):
            return await self._move(found.user_id, lambda now: self._as(now, found))
        if found.status not in LIVE:
            return known
        other = await self._gateway.subscription(known.subscription_id)
        if other is None or other.status not in LIVE:
            return await self._move(found.user_id, lambda now: self._as(now, found))
        older, newer = sorted((found, other), key=lambda one: (one.created_at_ms, one.id))
        log.error(
            "a second subscription of one user", extra={"user": found.user_id, "subscription": newer.id}
        )
        if not older.cancels:
            await self._gateway.set_cancels(older.id, True)
        return await self._move(found.user_id, lambda now: self._as(now, newer))

    def _as(self, known: Subscription, found: GatewaySubscription) -> Subscription:
        is_another = known.subscription_id not in (None, found.id)
        changed = replace(
            known,
            subscription_id=found.id,
            status=found.status,
            period_end_ms=found.period_end_ms,
            cancels=found.cancels,
            checkout_url=None if found.status in LIVE else known.checkout_url,
            # Until it is known what is paid: soon.
            check_at_ms=self._clock.now_ms() + _LOOK_AGAIN_MS,
        )
        if is_another:
            # What was wanted of the other one.
            changed = replace(changed, wanted_tier=None, wanted_cycle_ends_ms=None)
        return replace(changed, next_tier=found.tier if changed.wanted_tier is None else changed.wanted_tier)

    # -- telling the gateway -----------------------------------------------------------------------------------------

    async def _want(
        self,
        user_id: str,
        tier: str,
        *,
        key: str,
        cycle_ends_ms: int | None,
        at_ms: int,
        tier_now: str | None = None,
    ) -> None:
        """What the next invoice is to be for, as of `at_ms`: a repeat of an older wish does not undo a newer one."""

        def change(now: Subscription) -> Subscription | None:
            if now.wanted_key == key or at_ms < now.wanted_at_ms:
                return None
            return replace(
                now,
                tier=now.tier if tier_now is None else tier_now,
                wanted_tier=tier,
                wanted_key=key,
                wanted_at_ms=at_ms,
                wanted_cycle_ends_ms=cycle_ends_ms,
                next_tier=tier,
                check_at_ms=self._clock.now_ms(),
            )

        await self._move(user_id, change)

    async def _sync(self, known: Subscription) -> None:
        """Tell the gateway which tier the next invoice is for, if it does not know. One that has ended has no next invoice."""
        if known.wanted_tier is None or known.subscription_id is None:
            return
        if known.status is not SubscriptionStatus.ENDED:
            await self._tell(known, known.subscription_id, self.tiers.get(known.wanted_tier))
        await self._move(
            known.user_id,
            lambda now: (
                replace(now, wanted_tier=None, wanted_cycle_ends_ms=None)
                if now.wanted_key == known.wanted_key
                else None
            ),
        )

    async def _tell(self, known: Subscription, subscription_id: str, wanted: Tier) -> None:
        ends_ms = known.wanted_cycle_ends_ms
        await self._gateway.change_tier(
            subscription_id,
            tier=wanted.name,
            amount_minor=wanted.price_minor,
            currency=self.asset.code,
            # Told so late that it has passed, it cannot be moved there any more.
            cycle_ends_ms=ends_ms if ends_ms is not None and ends_ms > self._clock.now_ms() else None,
            key=known.wanted_key,
        )

    # -- writing -----------------------------------------------------------------------------------------------------

    async def _move(
        self, user_id: str, change: Callable[[Subscription], Subscription | None]
    ) -> Subscription:
        for _ in range(_ATTEMPTS):
            known = await self._existing(user_id)
            changed = change(known)
            if changed is None or changed == known:
                return known
            changed = replace(changed, revision=known.revision + 1)
            if await self._rows.put(changed, expect_revision=known.revision):
                return changed
        raise Unavailable(reason="the subscription is being changed by others", user=user_id)

    def _moment(self) -> Moment:
        at_ms = self._clock.now_ms()
        return Moment(at_ms, self._ledger.day_of(at_ms))


def _is_before(found: GatewaySubscription, known: Subscription) -> bool:
    """Whether it was there before the page was asked for. Gateways tell whole seconds."""
    return found.created_at_ms + 1_000 <= known.created_at_ms


def _next_look_ms(known: Subscription, plan: Plan, now_ms: int) -> int | None:
    """A page that may be paid: every minute for a day. A running one: at its paid cycle's end, and then each hour until the next one
    is paid: the gateway begins it before it is, and its word that it is may be lost.
    """
    if known.wanted_tier is not None:
        return now_ms + _LOOK_AGAIN_MS
    match known.status:
        case SubscriptionStatus.PENDING:
            return now_ms + _LOOK_AGAIN_MS if now_ms < known.created_at_ms + _PAGE_OPEN_MS else None
        case SubscriptionStatus.ACTIVE | SubscriptionStatus.PAST_DUE:
            is_paid = plan.is_paid and now_ms < plan.end_ms
            return plan.end_ms + _LOOK_AGAIN_MS if is_paid else now_ms + 60 * _LOOK_AGAIN_MS
        case SubscriptionStatus.ENDED:
            return None
