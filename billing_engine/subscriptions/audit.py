"""Check AI calls, cycles and upgrades against the ledger, both ways: never a credit without what it was for, or the reverse. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Mapping

from billing_engine.ledger.accounts import REVENUE_SUBSCRIPTIONS, ai_credits_of, plan_sales_of
from billing_engine.ledger.model import Account, Entry, KeyState, effect_on, key_of
from billing_engine.money import AI_CREDIT
from billing_engine.payments.model import FULFILLED, Payment, PaymentStatus, Purpose
from billing_engine.subscriptions.account import (
    ADJUSTED,
    CALL_HOLDS,
    CALLED,
    EXPIRED,
    GRANTED,
    UPGRADED,
    grant_source,
    hold_id_of,
    plan_of,
    upgrade_source,
)
from billing_engine.subscriptions.calls import row_of
from billing_engine.subscriptions.metrics import Used
from billing_engine.subscriptions.plans import SALE, upgrade_sale_of
from billing_engine.subscriptions.ports import CallRow
from billing_engine.verification import Findings

_FAMILY = "ai:"
_KINDS = frozenset({GRANTED, EXPIRED, UPGRADED, CALLED, ADJUSTED})


def audit_subscriptions(
    calls: Iterable[CallRow],
    kept_days: Mapping[str, Mapping[tuple[str, str], Used]],
    payments: Mapping[str, Payment],
    accounts: Mapping[str, Account],
    entries: Mapping[str, Entry],
) -> Findings:
    """Check every call, cycle and upgrade of one snapshot; `entries` by key, from rows and tails alike. `kept_days` are the
    sums of days that are over.
    """
    found = Findings()
    rows = {row.id: row for row in calls}
    for row in rows.values():
        _check_row(row, accounts, entries, found)
    ours: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries.values():
        if entry.account.startswith(_FAMILY):
            ours[entry.account].append(entry)
            _check_entry(entry, rows, payments, entries, found)
        elif entry.kind == SALE:
            _check_sale(entry, payments, found)
    for account in accounts.values():
        if account.id.startswith(_FAMILY):
            _check_account(account, ours[account.id], rows, found)
    upgrades = [payment for payment in payments.values() if payment.purpose is Purpose.PLAN]
    for payment in upgrades:
        _check_upgrade(payment, entries, found)
    _check_days(rows.values(), kept_days, found)
    found.counted |= {"AI calls": len(rows), "upgrades": len(upgrades)}
    return found


def _check_row(
    row: CallRow, accounts: Mapping[str, Account], entries: Mapping[str, Entry], found: Findings
) -> None:
    account_id, hold_id = ai_credits_of(row.user_id), hold_id_of(row.id)
    entry = entries.get(key_of(account_id, hold_id))
    if entry is not None:
        if row.is_open:
            found.waits(
                "a call's end is in its log", row.id, f"{entry.facts.get('creditsMilli', 0)} in the ledger"
            )
            return
        told = row_of(row, entry)
        found.require(
            row == told, "a call's log is the copy of its entry", row.id, f"{row}, it should be {told}"
        )
        return
    account = accounts.get(account_id)
    if account is not None and hold_id in account.holds:
        found.require(row.is_open, "a call that has ended holds nothing", row.id, row.outcome)
        found.waits("a call ends", row.id, f"{account.holds[hold_id].amount_minor} held")
        return
    found.require(False, "a call has its hold or its entry", row.id, row.outcome)


def _check_entry(
    entry: Entry,
    rows: Mapping[str, CallRow],
    payments: Mapping[str, Payment],
    entries: Mapping[str, Entry],
    found: Findings,
) -> None:
    source = entry.key.partition("|")[2]
    if entry.state is KeyState.VOIDED:
        return
    found.require(
        entry.kind in _KINDS and entry.asset == AI_CREDIT.code and entry.state is KeyState.POSTED,
        "AI credits are granted, used or expire",
        entry.key,
        f"{entry.kind}, {entry.asset}, {entry.state}",
    )
    match entry.kind:
        case "ai_call":
            found.require(
                source.removeprefix(CALL_HOLDS) in rows, "credits were taken for a call", entry.key, source
            )
            over = entries.get(key_of(entry.account, f"over:{source}"))
            taken = _of_kind(entry, CALLED) + (0 if over is None else _of_kind(over, ADJUSTED))
            found.require(
                taken == entry.facts.get("creditsMilli"),
                "a call takes the credits that it says",
                entry.key,
                f"{taken}, it says {entry.facts.get('creditsMilli')}",
            )
        case "ai_over":
            call = entries.get(key_of(entry.account, source.removeprefix("over:")))
            found.require(
                call is not None and call.kind == CALLED,
                "what was taken beside a hold was for a call",
                entry.key,
                source,
            )
        case "ai_upgrade":
            payment = payments.get(source.removeprefix("upgrade:"))
            found.require(
                payment is not None and payment.purpose is Purpose.PLAN and payment.collected_id is not None,
                "an upgrade was paid",
                entry.key,
                source,
            )
        case "ai_grant" if invoice := entry.facts.get("invoice"):
            sale = plan_sales_of(entry.account.removeprefix(_FAMILY))
            found.require(
                key_of(sale, f"invoice:{invoice}") in entries,
                "a paid cycle was paid",
                entry.key,
                str(invoice),
            )


def _of_kind(entry: Entry, kind: str) -> int:
    return sum(transfer.amount_minor for transfer in entry.transfers if transfer.kind == kind)


def _check_sale(entry: Entry, payments: Mapping[str, Payment], found: Findings) -> None:
    found.require(
        [transfer.credit for transfer in entry.transfers] == [REVENUE_SUBSCRIPTIONS],
        "what a subscription was sold for is revenue",
        entry.key,
        f"{entry.transfers}",
    )
    if not entry.key.partition("|")[2].startswith("payment:"):
        return
    payment = payments.get(entry.reference)
    found.require(
        payment is not None
        and payment.collected_id is not None
        and upgrade_sale_of(payment).key == entry.key,
        "what was sold was paid",
        entry.key,
        entry.reference,
    )


def _check_account(
    account: Account, entries: list[Entry], rows: Mapping[str, CallRow], found: Findings
) -> None:
    sums: dict[str, int] = defaultdict(int)
    for entry in entries:
        if entry.state is KeyState.POSTED:
            for transfer in entry.transfers:
                sums[transfer.kind] += effect_on(account.id, (transfer,))
    left = sum(sums[kind] for kind in _KINDS)
    found.require(
        left == account.posted,
        "granted - expired - used + upgrades = balance",
        account.id,
        f"{dict(sums)}, balance {account.posted}",
    )
    for hold in account.holds.values():
        row = rows.get(hold.id.removeprefix(CALL_HOLDS))
        if row is None:
            found.waits("a call that holds credits is in the log", account.id, hold.id)
    plan = plan_of(account)
    if plan.tier == "":
        return
    grant = key_of(account.id, grant_source(plan.cycle))
    found.require(
        any(entry.key == grant for entry in entries), "a cycle has its grant", account.id, plan.cycle
    )
    ended = [entry for entry in entries if entry.kind == CALLED and entry.facts.get("cycle") == plan.cycle]
    counted = tuple(
        sum(int(entry.facts[name]) for entry in ended) for name in ("requests", "quantity", "costMinor")
    )
    found.require(
        counted == (plan.requests, plan.tokens, plan.cost_minor),
        "what a cycle has used is the sum of its calls",
        account.id,
        f"{plan}, its calls say {counted}",
    )


def _check_upgrade(payment: Payment, entries: Mapping[str, Entry], found: Findings) -> None:
    if payment.collected_id is None:
        return
    for what, key in (
        ("money", upgrade_sale_of(payment).key),
        ("tier", key_of(ai_credits_of(payment.payer_id), upgrade_source(payment.id))),
    ):
        if key in entries:
            continue
        if payment.status in FULFILLED:
            found.require(False, f"a paid upgrade has its {what}", payment.id, key)
        else:
            found.waits(f"a collected upgrade has its {what}", payment.id, key)
    sale = entries.get(upgrade_sale_of(payment).key)
    if sale is not None:
        found.require(
            sale.transfers == upgrade_sale_of(payment).transfers,
            "an upgrade costs what was paid",
            payment.id,
            f"{sale.transfers}",
        )
    if payment.status is PaymentStatus.COLLECTED:
        found.waits("a collected upgrade is fulfilled", payment.id, payment.item)


def _check_days(
    rows: Iterable[CallRow], kept_days: Mapping[str, Mapping[tuple[str, str], Used]], found: Findings
) -> None:
    counted: dict[str, dict[tuple[str, str], Used]] = defaultdict(dict)
    for row in rows:
        if row.is_open or not row.tokens:
            continue
        by_model = counted[row.day]
        model = row.provider, row.model
        by_model[model] = by_model.get(model, Used()) + Used(1, row.tokens, row.cost_minor, row.credits_milli)
    for day, kept in kept_days.items():
        found.require(
            dict(kept) == counted.get(day, {}),
            "a kept day is the sum of its calls",
            day,
            f"{dict(kept)}, its calls say {counted.get(day, {})}",
        )
