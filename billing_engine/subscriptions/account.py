"""A subscriber's credits as cycles, calls and upgrades change them: pure, no clock and no I/O.

Which tier it is, which cycle, and what was used in it stand in the account's own facts and change in the same write as the credits. So
the document's four checks and the hold are one write that the store refuses or keeps: parallel calls cannot pass a limit together.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final

from billing_engine.clock import Moment
from billing_engine.ledger.accounts import ISSUED_AI_CREDITS
from billing_engine.ledger.model import (
    QUANTITY,
    Account,
    Entry,
    Hold,
    Movement,
    Transfer,
    close_hold,
    open_hold,
    post,
)
from billing_engine.money import AI_CREDIT, format_minor
from billing_engine.subscriptions.catalogue import Tiers
from billing_engine.subscriptions.errors import (
    LimitExceeded,
    ModelNotAvailable,
    NotEnoughCredits,
    ProviderNotAvailable,
    TooManyCalls,
)
from billing_engine.subscriptions.model import CYCLE_MS, FREE, Cost, ModelPrice, Tier, Tokens, cost_of

#: Kinds of entries and transfers.
GRANTED: Final = "ai_grant"
EXPIRED: Final = "ai_expire"
UPGRADED: Final = "ai_upgrade"
CALLED: Final = "ai_call"
ADJUSTED: Final = "ai_over"

#: So long a paid tier goes on after its cycle's end while the payment of the next one is tried again.
GRACE_MS: Final = 3 * 86_400_000
#: From this part of a limit on the answers warn.
WARN_FROM_PERCENT: Final = 80

_CALL: Final = "aicall:"


@dataclass(frozen=True, slots=True)
class Plan:
    """The facts of a subscriber's account: credits in thousandths, `cost_minor` in smallest units of USD, instants in milliseconds.

    `cycle` names the billing cycle and is part of its entries' keys. `tokens`, `requests` and `cost_minor` are what was used in it.
    `ends`: no payment is expected for the next one.
    """

    tier: str = ""
    cycle: str = ""
    start_ms: int = 0
    end_ms: int = 0
    allowance_milli: int = 0
    tokens: int = 0
    requests: int = 0
    cost_minor: int = 0
    ends: bool = False

    @property
    def is_paid(self) -> bool:
        return self.tier not in ("", FREE)


_NAMES: Final = tuple(field.name for field in fields(Plan))


def plan_of(account: Account) -> Plan:
    """What the account says."""
    return Plan(**account.facts)


def _with_plan(account: Account, plan: Plan) -> Account:
    facts = {name: getattr(plan, name) for name in _NAMES}
    return account if facts == account.facts else account._replace(facts=facts)


# -- cycles ----------------------------------------------------------------------------------------------------------


def rolled(account: Account, tiers: Tiers, moment: Moment) -> Account:
    """The account in the cycle of this instant: a cycle that is over is ended, and the next one that nobody pays for begun.

    Paid cycles begin with their payment (`begin_paid`). Where it does not come, the old one goes on for a grace; then the free tier
    begins where the paid cycle ended. However many boundaries have passed, credits are reset once.
    """
    plan = plan_of(account)
    now_ms = moment.at_ms
    if plan.tier == "":
        return _begun(account, tiers.free, _free_cycle(account, now_ms), moment)
    if now_ms < plan.end_ms + (GRACE_MS if plan.is_paid and not plan.ends else 0):
        return account
    start_ms = plan.end_ms + (now_ms - plan.end_ms) // CYCLE_MS * CYCLE_MS
    return _begun(account, tiers.free, _free_cycle(account, start_ms), moment)


def _free_cycle(account: Account, start_ms: int) -> "_Cycle":
    """Named by the account's count of entries, too: two free cycles may begin at one instant, and no key is used twice."""
    return _Cycle(f"free-{start_ms}-{account.seq}", start_ms, start_ms + CYCLE_MS)


@dataclass(frozen=True, slots=True)
class PaidCycle:
    """A period of a subscription that is paid. `name` is its permanent name: the subscription's and the period's. `invoice` names what
    was paid for it; empty where it cost nothing.
    """

    name: str
    tier: str
    start_ms: int
    end_ms: int
    invoice: str = ""


def grant_source(cycle: str) -> str:
    """The permanent name of a cycle's grant."""
    return f"grant:{cycle}"


def begin_paid(
    account: Account, known: Entry | None, *, paid: PaidCycle, tiers: Tiers, moment: Moment
) -> tuple[Account, Entry | None]:
    """Begin a cycle that is paid: once, and never one that is older than the cycle there is, however late its news."""
    if known is not None:
        return account, known
    plan = plan_of(account)
    is_over = paid.end_ms <= moment.at_ms and paid.start_ms <= plan.start_ms
    if is_over or (plan.is_paid and paid.start_ms <= plan.start_ms):
        return account, None
    tier = tiers.get(paid.tier)
    cycle = _Cycle(paid.name, paid.start_ms, paid.end_ms, paid.invoice)
    account = _begun(account, tier, cycle, moment)
    return account, account.tail[-1]


def end_with_cycle(account: Account, *, ends: bool, at_once: bool, moment: Moment, tiers: Tiers) -> Account:
    """Whether a payment is expected for the next cycle; `at_once` ends this one now, as a gateway does that has given up."""
    plan = plan_of(account)
    if not plan.is_paid:
        return account
    if at_once and moment.at_ms < plan.end_ms:
        plan = replace(plan, end_ms=moment.at_ms)
    return rolled(_with_plan(account, replace(plan, ends=ends)), tiers, moment)


@dataclass(frozen=True, slots=True)
class _Cycle:
    """A billing cycle: its permanent name, when it begins and ends, and by what it was paid, if it was."""

    name: str
    start_ms: int
    end_ms: int
    invoice: str = ""


def _begun(account: Account, tier: Tier, cycle: _Cycle, moment: Moment) -> Account:
    """What is left expires, the allowance is granted, the counters begin anew. What open calls hold is settled by their close."""
    left, was = account.spendable, plan_of(account).tier
    if left > 0:
        gone = Transfer(account.id, ISSUED_AI_CREDITS, left, EXPIRED)
        account = _posted(account, f"expire:{cycle.name}", EXPIRED, (gone,), moment)
    # Also where there is nothing to grant: a repeat is known by this entry.
    grant = Transfer(ISSUED_AI_CREDITS, account.id, tier.credits_milli, GRANTED)
    transfers = (grant,) if tier.credits_milli else ()
    source = grant_source(cycle.name)
    facts = {"tier": tier.name, "was": was, "invoice": cycle.invoice}
    account = _posted(account, source, GRANTED, transfers, moment, **facts)
    plan = Plan(tier.name, cycle.name, cycle.start_ms, cycle.end_ms, tier.credits_milli)
    return _with_plan(account, plan)


def _posted(
    account: Account, source: str, kind: str, transfers: tuple[Transfer, ...], moment: Moment, **facts: Any
) -> Account:
    movement = Movement(account.id, source, kind, account.asset, source, transfers, facts=facts)
    return post(account, movement, at_ms=moment.at_ms, day=moment.day)[0]


# -- upgrades --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Upgrade:
    """A paid upgrade: another tier at once, and so many credits more. `resets`: a whole new cycle begins instead."""

    id: str
    tier: str
    credits_milli: int
    resets: bool


def upgrade_source(upgrade_id: str) -> str:
    """The permanent name of an upgrade's credits."""
    return f"upgrade:{upgrade_id}"


def upgrade_cycle(upgrade_id: str) -> str:
    """The name of the cycle that an upgrade with `resets` begins."""
    return f"upgrade-{upgrade_id}"


def apply_upgrade(
    account: Account, known: Entry | None, *, upgrade: Upgrade, tiers: Tiers, moment: Moment
) -> tuple[Account, Entry]:
    """The higher tier's limits at once and its share of credits; what was used stays used, the cycle's end does not move."""
    if known is not None:
        return account, known
    tier, was = tiers.get(upgrade.tier), plan_of(account).tier
    if upgrade.resets:
        cycle = _Cycle(upgrade_cycle(upgrade.id), moment.at_ms, moment.at_ms + CYCLE_MS)
        account = _begun(account, tier, cycle, moment)
        # The key that a repeat is known by. The change of tier is the grant's: it is counted once.
        facts = {"tier": tier.name, "was": tier.name}
        account = _posted(account, upgrade_source(upgrade.id), UPGRADED, (), moment, **facts)
        return account, account.tail[-1]
    transfers = (
        (Transfer(ISSUED_AI_CREDITS, account.id, upgrade.credits_milli, UPGRADED),)
        if upgrade.credits_milli
        else ()
    )
    plan = plan_of(account)
    if tiers.get(plan.tier).rank < tier.rank:
        plan = replace(plan, tier=tier.name)
    account = _posted(
        account, upgrade_source(upgrade.id), UPGRADED, transfers, moment, tier=plan.tier, was=was
    )
    # Where the subscription has ended meanwhile, the free cycle has the tier to its end, and nobody is waited for then.
    ends = plan.ends or was == FREE
    plan = replace(plan, allowance_milli=plan.allowance_milli + upgrade.credits_milli, ends=ends)
    return _with_plan(account, plan), account.tail[-1]


# -- calls -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Wanted:
    """A call that somebody wants to make: the most that it can need, by which price. `owner` is the process that makes it."""

    call_id: str
    owner: str
    price: ModelPrice
    most: Tokens


def hold_id_of(call_id: str) -> str:
    """The permanent name of a call's hold and of its outcome."""
    return f"{_CALL}{call_id}"


#: What the ids of calls' holds begin with.
CALL_HOLDS: Final = _CALL


def begin_call(
    account: Account, known: Entry | None, *, wanted: Wanted, tiers: Tiers, moment: Moment
) -> tuple[Account, Hold]:
    """The document's checks in its order, then the hold: one write.

    Raises:
        NotEnoughCredits: none left, or fewer than the call can cost; nothing was changed.
        LimitExceeded, TooManyCalls: a limit of the tier.
        ProviderNotAvailable, ModelNotAvailable: the tier does not have it.
    """
    del known
    account = rolled(account, tiers, moment)
    plan = plan_of(account)
    tier = tiers.get(plan.tier)
    if account.spendable <= 0:
        raise _short(1, account.spendable)
    calls = [hold for hold in account.holds.values() if hold.facts.get("cycle") == plan.cycle]
    _check_limits(plan, tier, tiers, calls, wanted.most, moment.at_ms)
    if len(account.holds) >= tier.parallel_calls:
        raise TooManyCalls(limit=tier.parallel_calls, retry_after_s=1)
    price = wanted.price
    if price.provider not in tier.providers:
        better = tiers.next_with(tier, lambda other: price.provider in other.providers)
        raise ProviderNotAvailable(tier=tier.name, upgrade=_name(better))
    if not tier.may_use(price.provider, price.model):
        better = tiers.next_with(
            tier,
            lambda other: price.provider in other.providers and other.may_use(price.provider, price.model),
        )
        raise ModelNotAvailable(tier=tier.name, upgrade=_name(better))
    cost = cost_of(wanted.most, price, tier.credit_markup)
    if account.spendable < cost.credits_milli:
        raise _short(cost.credits_milli, account.spendable)
    return open_hold(
        account,
        hold_id=hold_id_of(wanted.call_id),
        amount_minor=cost.credits_milli,
        owner=wanted.owner,
        facts={
            "cycle": plan.cycle,
            "tier": tier.name,
            "tokens": wanted.most.total,
            "provider": price.provider.value,
            "model": price.model,
            "startedAt": moment.at_ms,
            "evidenceAt": moment.at_ms,
            "markup": str(tier.credit_markup),
            "inputPrice": str(price.input_per_1k),
            "outputPrice": str(price.output_per_1k),
            "seen": [0, 0],
        },
    )


def _check_limits(  # noqa: PLR0917  what is checked, and against what
    plan: Plan, tier: Tier, tiers: Tiers, calls: list[Hold], most: Tokens, now_ms: int
) -> None:
    reserved = sum(int(hold.facts["tokens"]) for hold in calls)
    requests, tokens = plan.requests + len(calls), plan.tokens + reserved
    if requests + 1 > tier.monthly_requests:
        better = tiers.next_with(tier, lambda other: other.monthly_requests > tier.monthly_requests)
        raise _limited("requests", requests, tier.monthly_requests, plan, better, now_ms)
    if tokens + most.total > tier.monthly_tokens:
        better = tiers.next_with(tier, lambda other: other.monthly_tokens > tier.monthly_tokens)
        raise _limited("tokens", tokens, tier.monthly_tokens, plan, better, now_ms)


def _limited(  # noqa: PLR0917  the facts of one answer
    name: str, used: int, allowed: int, plan: Plan, better: Tier | None, now_ms: int
) -> LimitExceeded:
    return LimitExceeded(
        limit=name,
        used=used,
        allowed=allowed,
        tier=plan.tier,
        upgrade=_name(better),
        resets_at_ms=plan.end_ms,
        retry_after_s=max(1, -(-(plan.end_ms - now_ms) // 1000)),
    )


def _name(tier: Tier | None) -> str | None:
    return None if tier is None else tier.name


def _short(required_milli: int, available_milli: int) -> NotEnoughCredits:
    return NotEnoughCredits(
        required=format_minor(required_milli, AI_CREDIT),
        available=format_minor(max(0, available_milli), AI_CREDIT),
    )


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a call ended. `tokens` None: nothing is charged. `facts` are what its log tells beside. Not `is_counted`: they are an
    estimate of ours, for which no more is taken than was held.
    """

    tokens: Tokens | None
    facts: Mapping[str, Any]
    is_counted: bool = True


def end_call(
    account: Account,
    known: Entry | None,
    *,
    hold: Hold,
    outcome: Outcome,
    price: ModelPrice,
    markup: Any,
    moment: Moment,
) -> tuple[Account, Entry]:
    """Take what the call really cost from its hold, give the rest back: one write, once.

    What a provider counts above the most that was reckoned is taken from what else there is; what is not there is the platform's loss,
    and stands in the entry. Of a call that began in another cycle the rest expires with it.
    """
    if known is not None:
        return account, known
    plan = plan_of(account)
    cost = Cost(0, 0) if outcome.tokens is None else cost_of(outcome.tokens, price, markup)
    taken = min(cost.credits_milli, hold.amount_minor)
    over = min(cost.credits_milli - taken, account.spendable) if outcome.is_counted else 0
    transfers = [Transfer(account.id, ISSUED_AI_CREDITS, taken, CALLED)] if taken else []
    is_of_now = hold.facts.get("cycle") == plan.cycle
    if not is_of_now and hold.amount_minor > taken:
        transfers.append(Transfer(account.id, ISSUED_AI_CREDITS, hold.amount_minor - taken, EXPIRED))
    tokens = outcome.tokens or Tokens(0, 0)
    facts = {
        QUANTITY: tokens.total,
        "input": tokens.input,
        "output": tokens.output,
        "costMinor": cost.usd_minor,
        "creditsMilli": taken + over,
        "lossMilli": cost.credits_milli - taken - over,
        "requests": 0 if outcome.tokens is None else 1,
        "cycle": hold.facts["cycle"],
        "tier": hold.facts["tier"],
        "provider": hold.facts["provider"],
        "model": hold.facts["model"],
        "startedAt": hold.facts["startedAt"],
        **outcome.facts,
    }
    account, entry = close_hold(
        account,
        hold,
        kind=CALLED,
        transfers=tuple(transfers),
        facts=facts,
        at_ms=moment.at_ms,
        day=moment.day,
    )
    if over > 0:
        more = (Transfer(account.id, ISSUED_AI_CREDITS, over, ADJUSTED),)
        account = _posted(account, f"over:{hold.id}", ADJUSTED, more, moment)
    if is_of_now and outcome.tokens is not None:
        plan = replace(
            plan,
            tokens=plan.tokens + tokens.total,
            requests=plan.requests + 1,
            cost_minor=plan.cost_minor + cost.usd_minor,
        )
        account = _with_plan(account, plan)
    return account, entry
