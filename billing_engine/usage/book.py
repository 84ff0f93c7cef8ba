"""A company's wallet as its usages, recharges and debts change it: pure, no clock and no I/O.

What a dashboard asks first (spent this month, spent ever, owed) stands in the account's own facts and changes in the same write as the
money: it cannot be late, and needs no sum. So does everything that must be decided once, however many usages race: which
recharge is open, how many were declined, which invoice comes next.

A usage that the wallet cannot pay is *owed*, whole: its entry books it as sold and moves the company's debt, not its wallet. The next
recharge pays debts first, in its own write.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Final

from billing_engine.clock import Moment
from billing_engine.ledger.accounts import REVENUE_USAGE, gateway_of, receivable_of
from billing_engine.ledger.model import QUANTITY, Account, Entry, Movement, Transfer, post
from billing_engine.usage.model import Usage

#: Kinds of entries and transfers beside the usages'.
RECHARGE: Final = "company_recharge"
AUTO_RECHARGE: Final = "company_auto_recharge"
OWED_COLLECTED: Final = "owed_collected"
REFUND: Final = "usage_refund"

#: What these kinds are called in the company's ledger (SPEC 9).
ENTRY_TYPES: Final = {
    RECHARGE: "RECHARGE",
    AUTO_RECHARGE: "AUTO_RECHARGE",
    OWED_COLLECTED: "OWED_COLLECTED",
    REFUND: "REFUND",
}

_MINUTE_MS: Final = 60_000
#: So long nothing is charged to the saved means of payment after it was declined; after the last one, until somebody says so.
BACK_OFF_MS: Final = (5 * _MINUTE_MS, 60 * _MINUTE_MS)


@dataclass(frozen=True, slots=True)
class AutoRecharge:
    """What the company has asked for. `method_id` is a saved means of payment."""

    is_enabled: bool = False
    amount_minor: int = 0
    method_id: str | None = None


@dataclass(frozen=True, slots=True)
class OpenRecharge:
    """A recharge that the wallet has decided on and whose payment is not known to have ended. `id` is the payment's."""

    id: str
    no: int
    amount_minor: int
    method_id: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class Book:
    """The facts of a company's account, in smallest units.

    `spent_minor` is the sum of all usages, owed ones too; `month_spent_minor` of those of `day`'s month. `owed_ever_minor` only rises,
    as does `collected_minor`, what of it was paid: their difference is the debt, and whose turn it was.
    """

    day: str = ""
    spent_minor: int = 0
    month_spent_minor: int = 0
    owed_ever_minor: int = 0
    collected_minor: int = 0
    refunded_minor: int = 0
    auto: AutoRecharge = AutoRecharge()
    open: OpenRecharge | None = None
    recharges: int = 0
    declines: int = 0
    not_before_ms: int = 0
    invoices: int = 0
    #: As JSON has it: an empty one is not written, so it is a tuple in a new book only.
    thresholds: Sequence[int] = ()

    @property
    def owed_minor(self) -> int:
        """What has been used and not paid yet."""
        return self.owed_ever_minor - self.collected_minor

    @property
    def is_stopped(self) -> bool:
        """Whether the means of payment was declined so often that nothing is charged to it until somebody says so."""
        return self.declines > len(BACK_OFF_MS)

    def spent_in(self, month: str) -> int:
        """What was used in a month (YYYY-MM) that is the newest, or newer than anything used."""
        return self.month_spent_minor if self.day[:7] == month else 0


def book_of(account: Account) -> Book:
    """What the account says."""
    facts = dict(account.facts)
    auto, opened = facts.pop("auto", None), facts.pop("open", None)
    return Book(
        **facts,
        auto=AutoRecharge(**auto) if auto else AutoRecharge(),
        open=OpenRecharge(**opened) if opened else None,
    )


def with_book(account: Account, book: Book) -> Account:
    """The account with these facts. What is as in a new book is left out: it is written with every usage."""
    facts = {name: value for name in _PLAIN if (value := getattr(book, name)) != getattr(_NEW, name)}
    if book.auto != _NEW.auto:
        facts["auto"] = asdict(book.auto)
    if book.open is not None:
        facts["open"] = asdict(book.open)
    return account if facts == account.facts else account._replace(facts=facts)


_NEW: Final = Book()
_PLAIN: Final = tuple(field.name for field in fields(Book) if field.name not in ("auto", "open"))


# -- usages ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Short:
    """The wallet does not cover the usage, and a recharge is under way that may: nothing is decided about the usage yet."""

    recharge: OpenRecharge


def charge(
    account: Account,
    known: Entry | None,
    *,
    usage: Usage,
    moment: Moment,
    recharge_id: str,
    largest_recharge_minor: int,
    waits: bool = True,
) -> tuple[Account, Entry | Short]:
    """Take the usage's cost, or record it as owed, once per usage.

    Where the wallet is short and may be recharged, the same write opens the recharge (named `recharge_id`), unless one is open: one
    for each time the balance runs out. The answer is then `Short`, and the usage is tried again when that recharge has ended;
    without `waits` it is owed instead.
    """
    if known is not None:
        return account, known
    book = book_of(account)
    covered = account.spendable >= usage.cost_minor
    if not covered and waits:
        asked = open_recharge(
            book,
            recharge_id,
            need_minor=usage.cost_minor + book.owed_minor - account.spendable,
            at_ms=moment.at_ms,
            largest_minor=largest_recharge_minor,
        )
        if asked.open is not None:
            return with_book(account, asked), Short(asked.open)
    payer = account.id if covered else receivable_of(usage.company_id)
    day = max(book.day, moment.day)
    after_minor = account.spendable - usage.cost_minor
    facts: dict[str, Any] = {
        QUANTITY: usage.quantity,
        "usage": usage.id,
        "entryType": usage.entry_type,
        "type": usage.type,
        "unit": usage.unit,
        "job": usage.job_id,
        "usedAt": usage.at_ms,
        "details": dict(usage.details),
    }
    if covered:
        if crossed := [t for t in book.thresholds if account.spendable >= t > after_minor]:
            facts["crossed"] = crossed
    else:
        facts["owedUpto"] = book.owed_ever_minor + usage.cost_minor
        if book.owed_minor == 0:
            facts["owing"] = True
    movement = Movement(
        account=account.id,
        source=usage.source,
        kind=usage.kind,
        asset=account.asset,
        reference=usage.id,
        transfers=(Transfer(payer, REVENUE_USAGE, usage.cost_minor, usage.kind),),
        facts=facts,
    )
    account, entry = post(account, movement, at_ms=moment.at_ms, day=day)
    same_month = book.day[:7] == day[:7]
    return with_book(
        account,
        replace(
            book,
            day=day,
            spent_minor=book.spent_minor + usage.cost_minor,
            month_spent_minor=(book.month_spent_minor if same_month else 0) + usage.cost_minor,
            owed_ever_minor=book.owed_ever_minor + (0 if covered else usage.cost_minor),
        ),
    ), entry


def is_owed(entry: Entry) -> bool:
    """Whether the entry of a usage booked a debt, and took nothing from the wallet."""
    return "owedUpto" in entry.facts


# -- recharges -------------------------------------------------------------------------------------------------------


def open_recharge(book: Book, id_: str, *, need_minor: int, at_ms: int, largest_minor: int) -> Book:
    """The book with an open recharge, if the company wants one and none is forbidden now: the smallest multiple of its amount that
    covers the need, as far as `largest_minor` allows.
    """
    auto = book.auto
    refused = not auto.is_enabled or auto.method_id is None or book.is_stopped or at_ms < book.not_before_ms
    if book.open is not None or refused or auto.amount_minor <= 0 or auto.method_id is None:
        return book
    times = max(1, min(-(-need_minor // auto.amount_minor), largest_minor // auto.amount_minor))
    opened = OpenRecharge(id_, book.recharges + 1, times * auto.amount_minor, auto.method_id, at_ms)
    return replace(book, open=opened, recharges=opened.no)


@dataclass(frozen=True, slots=True)
class Credit:
    """A collected payment of a company. `source` is its permanent name in the ledger."""

    payment_id: str
    company_id: str
    source: str
    gateway: str
    gateway_payment_id: str
    amount_minor: int
    is_auto: bool


def credit(
    account: Account,
    known: Entry | None,
    *,
    paid: Credit,
    moment: Moment,
    next_id: str,
    largest_recharge_minor: int,
) -> tuple[Account, Entry]:
    """Add a recharge, number its invoice and pay what is owed, all in one write, once per payment. What is still owed then opens the
    next automatic recharge.
    """
    if known is not None:
        return account, known
    book = book_of(account)
    day = max(book.day, moment.day)
    kind = AUTO_RECHARGE if paid.is_auto else RECHARGE
    number = book.invoices + 1
    movement = Movement(
        account=account.id,
        source=paid.source,
        kind=kind,
        asset=account.asset,
        reference=paid.payment_id,
        transfers=(Transfer(gateway_of(paid.gateway), account.id, paid.amount_minor, kind),),
        facts={"gatewayPayment": paid.gateway_payment_id, "entryType": ENTRY_TYPES[kind], "invoice": number},
    )
    account, entry = post(account, movement, at_ms=moment.at_ms, day=day)
    book = replace(book, invoices=number)
    if book.open is not None and book.open.id == paid.payment_id:
        book = replace(book, open=None, declines=0, not_before_ms=0)
    debt = _Debt(paid.company_id, paid.source, paid.payment_id)
    account, book = _collect(account, book, debt, replace(moment, day=day))
    if book.owed_minor > 0:
        book = open_recharge(
            book,
            next_id,
            need_minor=book.owed_minor - account.spendable,
            at_ms=moment.at_ms,
            largest_minor=largest_recharge_minor,
        )
    return with_book(account, book), entry


@dataclass(frozen=True, slots=True)
class _Debt:
    """What brought the money to pay a debt from: its permanent name, and what people call it."""

    company_id: str
    source: str
    reference: str


def _collect(account: Account, book: Book, debt: _Debt, moment: Moment) -> tuple[Account, Book]:
    """Pay what is owed, oldest first, as far as there is money."""
    amount_minor = min(book.owed_minor, account.spendable)
    if amount_minor <= 0:
        return account, book
    collected = book.collected_minor + amount_minor
    movement = Movement(
        account=account.id,
        source=collection_source(debt.source),
        kind=OWED_COLLECTED,
        asset=account.asset,
        reference=debt.reference,
        transfers=(Transfer(account.id, receivable_of(debt.company_id), amount_minor, OWED_COLLECTED),),
        facts={"entryType": ENTRY_TYPES[OWED_COLLECTED], "collectedUpto": collected},
    )
    account, _ = post(account, movement, at_ms=moment.at_ms, day=moment.day)
    return account, replace(book, collected_minor=collected)


def declined(account: Account, *, payment_id: str, at_ms: int) -> tuple[Account, Book]:
    """The open recharge's payment was refused: it is closed, and nothing is charged for a while. News of another changes nothing."""
    book = book_of(account)
    if book.open is None or book.open.id != payment_id:
        return account, book
    declines = book.declines + 1
    pause_ms = BACK_OFF_MS[min(declines, len(BACK_OFF_MS)) - 1]
    book = replace(book, open=None, declines=declines, not_before_ms=at_ms + pause_ms)
    return with_book(account, book), book


def set_auto(
    account: Account, *, auto: AutoRecharge, at_ms: int, next_id: str, largest_recharge_minor: int
) -> tuple[Account, Book]:
    """What the company asks for from now on. It ends every pause after a decline; with a debt, a recharge is opened at once."""
    book = book_of(account)
    changed = replace(book, auto=auto, declines=0, not_before_ms=0)
    if changed.owed_minor > 0:
        changed = open_recharge(
            changed,
            next_id,
            need_minor=changed.owed_minor - account.spendable,
            at_ms=at_ms,
            largest_minor=largest_recharge_minor,
        )
    return with_book(account, changed), changed


def set_thresholds(account: Account, thresholds: Sequence[int]) -> tuple[Account, Book]:
    """At which balances the company wants to be told, from the highest down."""
    book = replace(book_of(account), thresholds=sorted(set(thresholds), reverse=True))
    return with_book(account, book), book


# -- giving back -----------------------------------------------------------------------------------------------------


def refund(
    account: Account,
    known: Entry | None,
    *,
    charged: Entry,
    company_id: str,
    reason: str,
    by: str,
    moment: Moment,
) -> tuple[Account, Entry]:
    """Give a usage's cost back, whole and once; what is owed is paid from it first. The entry tells how both stood right after it
    (`balance`, spendable, and `owed`), so that a repeat can be answered alike.
    """
    if known is not None:
        return account, known
    book = book_of(account)
    day = max(book.day, moment.day)
    amount_minor = charged.transfers[0].amount_minor
    spendable = account.spendable + amount_minor
    collected_minor = min(book.owed_minor, spendable)
    source = refund_source(charged.reference)
    movement = Movement(
        account=account.id,
        source=source,
        kind=REFUND,
        asset=account.asset,
        reference=charged.reference,
        transfers=(Transfer(REVENUE_USAGE, account.id, amount_minor, REFUND),),
        facts={
            "entryType": ENTRY_TYPES[REFUND],
            "reason": reason,
            "by": by,
            "balance": spendable - collected_minor,
            "owed": book.owed_minor - collected_minor,
        },
    )
    account, entry = post(account, movement, at_ms=moment.at_ms, day=day)
    book = replace(book, refunded_minor=book.refunded_minor + amount_minor)
    debt = _Debt(company_id, source, charged.reference)
    account, book = _collect(account, book, debt, replace(moment, day=day))
    return with_book(account, book), entry


def refund_source(usage_id: str) -> str:
    """The permanent name of a usage's refund."""
    return f"refund:{usage_id}"


def collection_source(source: str) -> str:
    """The permanent name of what is paid of a debt from what came in under `source`."""
    return f"collect:{source}"
