"""Check companies' usages, wallets and recharges against the ledger, both ways, and the sums that dashboards read. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from billing_engine.ledger.accounts import REVENUE_USAGE, company_wallet_of, receivable_of
from billing_engine.ledger.model import QUANTITY, Account, Entry, KeyState, Transfer, key_of
from billing_engine.payments.model import FULFILLED, Payment, PaymentStatus, Purpose
from billing_engine.usage.book import (
    AUTO_RECHARGE,
    OWED_COLLECTED,
    RECHARGE,
    REFUND,
    Book,
    book_of,
    collection_source,
    is_owed,
    refund_source,
)
from billing_engine.usage.model import Price, Usage, UsageStatus, cost_of, is_usage_kind
from billing_engine.usage.recharges import recharge_of
from billing_engine.usage.rollups import Counter, added, scopes_of
from billing_engine.usage.series import Series
from billing_engine.usage.service import settled_by
from billing_engine.verification import Findings

_WALLET: Final = company_wallet_of("")
_RECEIVABLE: Final = receivable_of("")
_RECHARGES: Final = frozenset({RECHARGE, AUTO_RECHARGE})
#: So long a recharge that the wallet has opened may be without its payment: the write of the one follows that of the other.
_BEGUN_MS: Final = 60_000
_NOT_CHARGED: Final = frozenset({UsageStatus.DRAFT, UsageStatus.FREE})


@dataclass(frozen=True, slots=True)
class UsageRecords:
    """What is stored beside the ledger. `counted`: by company, up to which entry every counter counts."""

    usages: Iterable[Usage] = ()
    counters: Iterable[Counter] = ()
    counted: Mapping[str, int] | None = None


def audit_usage(
    records: UsageRecords,
    payments: Mapping[str, Payment],
    accounts: Mapping[str, Account],
    entries: Mapping[str, Entry],
    *,
    now_ms: int,
) -> Findings:
    """Check every company of one snapshot; `entries` by key, from rows and tails alike."""
    found = Findings()
    usages = {usage.id: usage for usage in records.usages}
    for usage in usages.values():
        _check_usage(usage, entries, found, now_ms)
    paid = {payment.id: payment for payment in payments.values() if payment.purpose is Purpose.COMPANY}
    for payment in paid.values():
        _check_recharge(payment, entries, found)
    ledgers, debts = _by_company(entries)
    companies = {name.removeprefix(_WALLET) for name in accounts if name.startswith(_WALLET)}
    for company_id in sorted(companies | ledgers.keys()):
        mine = ledgers[company_id]
        _check_entries(mine, usages, paid, entries, found)
        account = accounts.get(company_wallet_of(company_id))
        if account is not None and (book := _book_of(account, found)) is not None:
            _check_book(company_id, book, mine, debts[company_id], found)
            _check_open(account, book, paid, found, now_ms)
    counters = list(records.counters)
    _check_counters(counters, records.counted or {}, ledgers, found)
    found.counted |= {"usages": len(usages), "company recharges": len(paid), "usage counters": len(counters)}
    return found


def _by_company(entries: Mapping[str, Entry]) -> tuple[defaultdict[str, list[Entry]], defaultdict[str, int]]:
    """The entries of each company's wallet in their order, and the balance of what is receivable of it, whoever moved it."""
    ledgers: defaultdict[str, list[Entry]] = defaultdict(list)
    debts: defaultdict[str, int] = defaultdict(int)
    for entry in sorted(entries.values(), key=lambda entry: entry.seq):
        if entry.account.startswith(_WALLET):
            ledgers[entry.account.removeprefix(_WALLET)].append(entry)
        if entry.state is KeyState.POSTED:
            for transfer in entry.transfers:
                for name, sign in ((transfer.debit, -1), (transfer.credit, 1)):
                    if name.startswith(_RECEIVABLE):
                        debts[name.removeprefix(_RECEIVABLE)] += sign * transfer.amount_minor
    return ledgers, debts


# -- usages ----------------------------------------------------------------------------------------------------------


def _check_usage(usage: Usage, entries: Mapping[str, Entry], found: Findings, now_ms: int) -> None:
    price = _price_of(usage)
    found.require(
        price is None or usage.cost_minor == cost_of(usage.quantity, price),
        "a usage costs its quantity at its price",
        usage.id,
        f"{usage.cost_minor} for {usage.quantity} at {usage.details.get('priceMinor')} per {usage.details.get('per')}",
    )
    found.require(
        (usage.cost_minor == 0) == (usage.status is UsageStatus.FREE),
        "a usage is free if it costs nothing",
        usage.id,
        f"{usage.status}, {usage.cost_minor}",
    )
    entry = entries.get(key_of(company_wallet_of(usage.company_id), usage.source))
    if usage.status in _NOT_CHARGED:
        found.require(
            entry is None, "a draft or a free usage is not charged", usage.id, f"{usage.status}, has an entry"
        )
    elif entry is None:
        age_s = (now_ms - usage.created_at_ms) // 1000
        if usage.status is UsageStatus.QUEUED:
            found.waits("a usage is charged", usage.id, f"recorded {age_s} s ago, still QUEUED")
        else:
            found.require(False, "a charged usage has its entry", usage.id, usage.status)
    else:
        _check_charge(usage, entry, found)
        if usage.status is UsageStatus.QUEUED:
            age_s = (now_ms - entry.at_ms) // 1000
            found.waits(
                "a charged usage is marked", usage.id, f"charged {age_s} s ago, its record says QUEUED"
            )
        else:
            found.require(
                usage == settled_by(usage, entry),
                "a charged usage is the copy of its entry",
                usage.id,
                f"{usage.status}, the ledger says {settled_by(usage, entry).status}",
            )


def _price_of(usage: Usage) -> Price | None:
    """What its record says that it was reckoned by; None where it does not say."""
    price_minor, per = usage.details.get("priceMinor"), usage.details.get("per")
    if price_minor is None or per is None:
        return None
    return Price(usage.list_name, usage.type, usage.entry_type, usage.unit, price_minor, per, 0)


def _check_charge(usage: Usage, entry: Entry, found: Findings) -> None:
    """The entry is of this very usage: what it was, how much, and who pays."""
    payer = receivable_of(usage.company_id) if is_owed(entry) else entry.account
    facts = entry.facts
    told = (
        *(entry.state, entry.kind, entry.reference, entry.transfers, facts.get(QUANTITY)),
        *(facts.get("usage"), facts.get("entryType"), facts.get("type"), facts.get("unit"), facts.get("job")),
    )
    wanted = (
        *(KeyState.POSTED, usage.kind, usage.id),
        (Transfer(payer, REVENUE_USAGE, usage.cost_minor, usage.kind),),
        *(usage.quantity, usage.id, usage.entry_type, usage.type, usage.unit, usage.job_id),
    )
    found.require(
        told == wanted, "a usage's entry is of its cost, type, job and quantity", usage.id, entry.key
    )


# -- recharges -------------------------------------------------------------------------------------------------------


def _check_recharge(payment: Payment, entries: Mapping[str, Entry], found: Findings) -> None:
    if payment.collected_id is None:
        return
    movement = recharge_of(payment)
    entry = entries.get(movement.key)
    if entry is not None:
        found.require(
            payment.account == company_wallet_of(payment.payer_id)
            and (entry.state, entry.kind, entry.transfers, entry.reference)
            == (KeyState.POSTED, movement.kind, movement.transfers, movement.reference),
            "a company's recharge credits its amount",
            payment.id,
            entry.key,
        )
    elif payment.status in FULFILLED:
        found.require(False, "a paid recharge of a company has its entry", payment.id, movement.key)
    if payment.status is PaymentStatus.COLLECTED:
        found.waits("a collected recharge of a company is credited", payment.id, movement.key)


def _check_open(
    account: Account, book: Book, payments: Mapping[str, Payment], found: Findings, now_ms: int
) -> None:
    """What the wallet has decided on is carried out. A charge that the gateway has not decided is no unfinished work of ours."""
    opened = book.open
    if opened is None:
        return
    payment = payments.get(opened.id)
    age_s = (now_ms - opened.at_ms) // 1000
    if payment is None:
        if now_ms - opened.at_ms >= _BEGUN_MS:
            found.waits(
                "an open recharge has its payment", opened.id, f"opened {age_s} s ago on {account.id}"
            )
        return
    found.require(
        (payment.account, payment.amount_minor) == (account.id, opened.amount_minor),
        "an open recharge is of its payment's amount",
        opened.id,
        f"{opened.amount_minor}, its payment {payment.amount_minor}",
    )
    found.require(
        payment.status not in FULFILLED,
        "a paid recharge is not open any more",
        opened.id,
        f"its payment is {payment.status}",
    )
    if payment.status in (PaymentStatus.FAILED, PaymentStatus.EXPIRED):
        found.waits("a recharge that failed is closed", opened.id, f"{payment.status}, opened {age_s} s ago")


# -- a company's ledger ----------------------------------------------------------------------------------------------


def _check_entries(
    mine: Sequence[Entry],
    usages: Mapping[str, Usage],
    payments: Mapping[str, Payment],
    entries: Mapping[str, Entry],
    found: Findings,
) -> None:
    previous: Entry | None = None
    for entry in mine:
        _check_line(entry, previous, found)
        _check_entry(entry, usages, payments, entries, found)
        if entry.kind == OWED_COLLECTED:
            _check_collection(entry, previous, found)
        previous = entry


def _check_line(entry: Entry, previous: Entry | None, found: Findings) -> None:
    """Nothing but its own entries moves a company's wallet, so what people read is a chain."""
    after = 0 if previous is None else previous.posted_after
    found.require(
        entry.posted_before == after,
        "a company's ledger line begins where the last one ended",
        entry.key,
        f"begins at {entry.posted_before}, the last one ended at {after}",
    )


def _check_entry(
    entry: Entry,
    usages: Mapping[str, Usage],
    payments: Mapping[str, Payment],
    entries: Mapping[str, Entry],
    found: Findings,
) -> None:
    if is_usage_kind(entry.kind):
        usage = usages.get(entry.reference)
        found.require(
            usage is not None and entry.key == key_of(company_wallet_of(usage.company_id), usage.source),
            "a usage's entry has its record",
            entry.reference,
            entry.key,
        )
    elif entry.kind in _RECHARGES:
        payment = payments.get(entry.reference)
        found.require(
            payment is not None
            and payment.collected_id is not None
            and recharge_of(payment).key == entry.key
            and entry.facts.get("gatewayPayment") == payment.collected_id,
            "a company's recharge was paid",
            entry.key,
            entry.reference,
        )
    elif entry.kind == REFUND:
        charged = entries.get(key_of(entry.account, f"usage:{entry.reference}"))
        found.require(
            charged is not None
            and charged.state is KeyState.POSTED
            and entry.key == key_of(entry.account, refund_source(entry.reference))
            and entry.transfers
            == (Transfer(REVENUE_USAGE, entry.account, charged.transfers[0].amount_minor, REFUND),),
            "a refund gives back what its usage cost, once",
            entry.reference,
            entry.key,
        )


def _check_collection(entry: Entry, previous: Entry | None, found: Findings) -> None:
    came_in = previous is not None and (previous.kind == REFUND or previous.kind in _RECHARGES)
    source = "" if previous is None else previous.key.partition("|")[2]
    found.require(
        came_in and entry.key == key_of(entry.account, collection_source(source)),
        "a debt is paid in the write of what came in",
        entry.key,
        f"follows {'nothing' if previous is None else previous.key}",
    )


def _book_of(account: Account, found: Findings) -> Book | None:
    try:
        return book_of(account)
    except TypeError as exc:
        found.require(False, "a company's totals can be read", account.id, repr(exc))
        return None


@dataclass(slots=True)
class _Sums:
    """What a book must say, by the entries alone."""

    day: str = ""
    spent_minor: int = 0
    month_spent_minor: int = 0
    owed_ever_minor: int = 0
    collected_minor: int = 0
    refunded_minor: int = 0
    invoices: int = 0


def _check_book(company_id: str, book: Book, mine: Sequence[Entry], debt_minor: int, found: Findings) -> None:
    sums = _Sums()
    auto = 0
    for entry in mine:
        if entry.state is KeyState.POSTED:
            _add(sums, entry, found)
            auto += entry.kind == AUTO_RECHARGE
    for name in _Sums.__slots__:
        told, is_ = getattr(book, name), getattr(sums, name)
        found.require(
            told == is_,
            "a company's totals are the sums of its entries",
            company_id,
            f"{name}: {told}, its entries {is_}",
        )
    found.require(
        -debt_minor == book.owed_minor and book.owed_minor >= 0,
        "a company's debt is what is receivable of it",
        company_id,
        f"owed {book.owed_minor}, receivable {-debt_minor}",
    )
    found.require(
        auto <= book.recharges, "an automatic recharge was opened", company_id, f"{auto} of {book.recharges}"
    )


def _add(sums: _Sums, entry: Entry, found: Findings) -> None:
    amount_minor = sum(transfer.amount_minor for transfer in entry.transfers)
    if is_usage_kind(entry.kind):
        if entry.day[:7] != sums.day[:7]:
            sums.month_spent_minor = 0
        sums.day = entry.day
        sums.spent_minor += amount_minor
        sums.month_spent_minor += amount_minor
        if is_owed(entry):
            sums.owed_ever_minor += amount_minor
            _check_upto(entry, "owedUpto", sums.owed_ever_minor, found)
    elif entry.kind == OWED_COLLECTED:
        sums.collected_minor += amount_minor
        _check_upto(entry, "collectedUpto", sums.collected_minor, found)
    elif entry.kind == REFUND:
        sums.refunded_minor += amount_minor
    elif entry.kind in _RECHARGES:
        sums.invoices += 1
        number = entry.facts.get("invoice")
        found.require(
            number == sums.invoices,
            "invoices are numbered without a gap",
            entry.key,
            f"{number}, it should be {sums.invoices}",
        )


def _check_upto(entry: Entry, fact: str, wanted: int, found: Findings) -> None:
    """By it one tells which usages are paid: the oldest first."""
    told = entry.facts.get(fact)
    found.require(
        told == wanted, "a debt has its place in the order", entry.key, f"{fact} {told}, not {wanted}"
    )


# -- rollups ---------------------------------------------------------------------------------------------------------


def _check_counters(
    counters: Sequence[Counter],
    counted: Mapping[str, int],
    ledgers: Mapping[str, Sequence[Entry]],
    found: Findings,
) -> None:
    by_scope: dict[str, defaultdict[tuple[str, str], list[Entry]]] = {}
    for company_id in ledgers.keys() | counted.keys() | {counter.company_id for counter in counters}:
        scopes = by_scope[company_id] = defaultdict(list)
        for entry in ledgers.get(company_id, ()):
            for scope in scopes_of(entry):
                scopes[entry.day[:7], scope].append(entry)
    seqs: dict[tuple[str, str, str], int] = {}
    for counter in counters:
        subject = f"{counter.company_id} {counter.month} {counter.scope}".rstrip()
        seqs[counter.company_id, counter.month, counter.scope] = counter.seq
        mine = by_scope[counter.company_id][counter.month, counter.scope]
        sums = added({}, [entry for entry in mine if entry.seq <= counter.seq])
        for kind in sorted(sums.keys() | counter.series.keys()):
            told, is_ = counter.series.get(kind, Series()), sums.get(kind, Series())
            found.require(
                told == is_,
                "a counter is the sum of its entries",
                subject,
                f"{kind.type} in {kind.unit}: {told}, its entries {is_}",
            )
    for company_id, upto in counted.items():
        last = max((entry.seq for entry in ledgers.get(company_id, ())), default=0)
        found.require(
            upto <= last,
            "only entries are counted",
            company_id,
            f"counted up to {upto}, the last one is {last}",
        )
        for (month, scope), mine in by_scope[company_id].items():
            needed = max((entry.seq for entry in mine if entry.seq <= upto), default=0)
            found.require(
                seqs.get((company_id, month, scope), 0) >= needed,
                "what is counted is in every counter",
                f"{company_id} {month} {scope}".rstrip(),
                f"has entries up to {seqs.get((company_id, month, scope), 0)}, counted up to {upto}",
            )
