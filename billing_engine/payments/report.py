"""The daily report: what the gateway says it collected and sent back on a local day, against what the ledger says.

A payment of the gateway is looked up here by its order and its ids, and an entry of the ledger is looked up there by the gateway's id:
so nothing depends on which side of midnight either happened. What only got lost on the way is handed to those who learn it anyway, and
is reported as healed. Disputes are in neither list.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Final, Protocol

from billing_engine.clock import Clock
from billing_engine.errors import BillingError, Unavailable
from billing_engine.ledger.accounts import gateway_of
from billing_engine.ledger.model import Entry, KeyState
from billing_engine.ledger.ports import Line
from billing_engine.ledger.service import Ledger
from billing_engine.payments.errors import GatewayRefused
from billing_engine.payments.model import (
    Attempt,
    AttemptStatus,
    GatewayRefund,
    Payment,
    PaymentStatus,
    RefundStatus,
)
from billing_engine.payments.ports import Gateway, Payments
from billing_engine.payments.refund_model import REFUND_PREFIX, refund_outside, second_payment
from billing_engine.payments.report_model import (
    Amount,
    Difference,
    DifferenceKind,
    Foreign,
    Report,
    ReportStatus,
)
from billing_engine.payments.returns import PAYER_REFUND
from billing_engine.payments.service import PaymentService

log = logging.getLogger(__name__)

#: What the gateway's clock and ours may differ by, and how long a payment may be on its way.
SLACK_MS: Final = 15 * 60_000
#: For how many days back a report that is missing is made by itself.
DAYS_BACK: Final = 7
#: What did not answer is asked again after this time.
AGAIN_MS: Final = 15 * 60_000
_PAGE: Final = 500
_FOREIGN_SHOWN: Final = 500
_DONE: Final = frozenset({PaymentStatus.COLLECTED, PaymentStatus.PAID, PaymentStatus.REFUNDED})


class ReportRows(Protocol):
    """The stored reports. All methods raise `Unavailable`."""

    async def put(self, report: Report) -> None:
        """In the place of the day's earlier one."""
        ...

    async def get(self, gateway: str, day: str) -> Report | None: ...


class RefundTaker(Protocol):
    """Learns of refunds."""

    async def take(self, gateway: str, news: GatewayRefund) -> bool:
        """Take note of what the gateway says; repeating it changes nothing."""
        ...


class ReportNews(Protocol):
    """Hears of a report, of one that is made again too. Raises `Unavailable`: it is not stored then, and told again."""

    async def made(self, report: Report) -> None: ...

    def standing(self, gateway: str, reports: Sequence[Report]) -> None:
        """How the gateway's last days stand now; told again and again."""
        ...


class DailyReports:
    """The use cases. `bounds` gives the instants at which a local day begins and ends."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        service: PaymentService,
        payments: Payments,
        refunds: RefundTaker,
        rows: ReportRows,
        gateways: Mapping[str, Gateway],
        clock: Clock,
        bounds: Callable[[str], tuple[int, int]],
        news: ReportNews,
    ) -> None:
        self._ledger = ledger
        self._service = service
        self._payments = payments
        self._refunds = refunds
        self._rows = rows
        self._gateways = gateways
        self._clock = clock
        self._bounds = bounds
        self._news = news

    @property
    def gateways(self) -> list[str]:
        """Those of this deployment."""
        return sorted(self._gateways)

    @property
    def today(self) -> str:
        """The local day."""
        return self._ledger.day_of(self._clock.now_ms())

    async def of(self, gateway: str, day: str) -> Report | None:
        """The stored report of a day."""
        return await self._rows.get(gateway, day)

    async def make(self, gateway: str, day: str) -> Report:
        """Compare the day, heal what can be healed, and keep the report in the place of an earlier one.

        What does not answer makes it `UNAVAILABLE`. Raises `Unavailable` when not even that can be stored.
        """
        found = _Comparison(
            gateway,
            day,
            self._clock.now_ms(),
            *self._bounds(day),
            self._ledger,
            self._service,
            self._payments,
        )
        try:
            await found.compare(self._refunds)
            report = found.report()
        except (Unavailable, GatewayRefused) as exc:
            log.warning(
                "a day's payments cannot be compared: %r", exc, extra={"gateway": gateway, "day": day}
            )
            report = found.unavailable(exc)
        # Told first: what is stored is not made again.
        await self._news.made(report)
        await self._rows.put(report)
        return report

    async def make_missing(self) -> int:
        """Make the reports of the last days that there are none of, or that did not get an answer; how many were made. For gateways
        that keep books: the simulated one does not.
        """
        made = 0
        now_ms = self._clock.now_ms()
        for name, gateway in self._gateways.items():
            if gateway.is_instant:
                continue
            standing: list[Report] = []
            for day in self._past_days(now_ms):
                known = await self._rows.get(name, day)
                if known is None or (
                    known.status is ReportStatus.UNAVAILABLE and now_ms - known.made_at_ms >= AGAIN_MS
                ):
                    known = await self.make(name, day)
                    made += 1
                standing.append(known)
            self._news.standing(name, standing)
        return made

    def _past_days(self, now_ms: int) -> list[str]:
        """Days that are over, and whose last payments have had the time to arrive."""
        last = date.fromisoformat(self._ledger.day_of(now_ms - SLACK_MS))
        return [(last - timedelta(days=back)).isoformat() for back in range(DAYS_BACK, 0, -1)]


@dataclass(slots=True)
class _Comparison:
    """One comparison under way."""

    name: str
    day: str
    made_at_ms: int
    from_ms: int
    to_ms: int
    ledger: Ledger
    service: PaymentService
    payments: Payments
    differences: list[Difference] = field(default_factory=list)
    healed: list[Difference] = field(default_factory=list)
    foreign: list[Foreign] = field(default_factory=list)
    collected: int = 0
    credited: int = 0
    refunded: int = 0
    attempts: dict[str, Attempt] = field(default_factory=dict)
    refunds: dict[str, GatewayRefund] = field(default_factory=dict)
    #: The gateway's payments that have been looked at.
    seen: set[str] = field(default_factory=set)

    # -- the outcome

    def report(self) -> Report:
        return Report(
            gateway=self.name,
            day=self.day,
            made_at_ms=self.made_at_ms,
            status=ReportStatus.DIFFERENCES if self.differences else ReportStatus.CLEAN,
            collected=self.collected,
            credited=self.credited,
            refunded=self.refunded,
            foreign=len(self.foreign),
            differences=tuple(self.differences),
            healed=tuple(self.healed),
            not_ours=tuple(self.foreign[:_FOREIGN_SHOWN]),
        )

    def unavailable(self, exc: BillingError) -> Report:
        """What was healed until then is healed; of the rest nobody knows."""
        return Report(
            gateway=self.name,
            day=self.day,
            made_at_ms=self.made_at_ms,
            status=ReportStatus.UNAVAILABLE,
            healed=tuple(self.healed),
            problem=f"{exc.code}: {exc.facts.get('reason') or exc.facts.get('why') or 'no answer'}",
        )

    def differs(
        self,
        kind: DifferenceKind,
        *,
        our_id: str | None,
        gateway_id: str | None,
        ours: Amount | None,
        theirs: Amount | None,
        is_healed: bool = False,
    ) -> None:
        found = Difference(kind, our_id, gateway_id, ours, theirs)
        (self.healed if is_healed else self.differences).append(found)

    # -- the four ways to look

    async def compare(self, taker: RefundTaker) -> None:
        gateway = self.service.gateway(self.name)
        # Wider than the day: what we wrote just after midnight may have come just before it.
        window = (self.from_ms - SLACK_MS, self.to_ms + SLACK_MS)
        self.attempts = {one.id: one for one in await gateway.attempts_between(*window)}
        self.refunds = {one.id: one for one in await gateway.refunds_between(*window)}
        for attempt in self.attempts.values():
            if self.is_today(attempt.at_ms) and attempt.status is AttemptStatus.COLLECTED:
                await self.theirs(gateway, attempt)
        for refund in self.refunds.values():
            if self.is_today(refund.at_ms):
                await self.their_refund(gateway, refund, taker)
        await self.entries(gateway, taker)
        await self.records(gateway)

    def is_today(self, at_ms: int) -> bool:
        return self.from_ms <= at_ms < self.to_ms

    async def theirs(self, gateway: Gateway, attempt: Attempt) -> None:
        """A payment that the gateway has collected."""
        self.seen.add(attempt.id)
        theirs = Amount(attempt.amount_minor, attempt.currency)
        payment = await self.service.find(self.name, attempt)
        if payment is None:
            if attempt.reference is None:
                self.foreign.append(Foreign(attempt.id, theirs, is_refund=False))
            else:
                self.differs(
                    DifferenceKind.UNKNOWN_PAYMENT,
                    our_id=attempt.reference,
                    gateway_id=attempt.id,
                    ours=None,
                    theirs=theirs,
                )
            return
        self.collected += 1
        if payment.collected_id not in (None, attempt.id):
            await self.second(gateway, payment, attempt)
            return
        if await self.agrees(payment, attempt):
            return
        ours = Amount(payment.amount_minor, payment.currency)
        if ours != theirs:
            self.differs(
                DifferenceKind.AMOUNT_DIFFERS,
                our_id=payment.id,
                gateway_id=attempt.id,
                ours=ours,
                theirs=theirs,
            )
            return
        # What is not credited may have got lost on the way: whoever learns of payments is told once more.
        await self.service.learn(payment, attempt)
        is_healed = await self.credit(payment, attempt.id) is not None
        if is_healed and self.made_at_ms - attempt.at_ms < SLACK_MS:
            # It was on its way, no more.
            return
        self.differs(
            DifferenceKind.NOT_CREDITED,
            our_id=payment.id,
            gateway_id=attempt.id,
            ours=None,
            theirs=theirs,
            is_healed=is_healed,
        )

    async def agrees(self, payment: Payment, attempt: Attempt) -> bool:
        """Whether the ledger has credited this payment; with another amount is a difference, and named here."""
        entry = await self.credit(payment, attempt.id)
        if entry is None:
            return False
        ours, theirs = self.came_in(entry), Amount(attempt.amount_minor, attempt.currency)
        if ours != theirs:
            self.differs(
                DifferenceKind.AMOUNT_DIFFERS,
                our_id=payment.id,
                gateway_id=attempt.id,
                ours=ours,
                theirs=theirs,
            )
        return True

    async def credit(self, payment: Payment, attempt_id: str) -> Entry | None:
        entry = await self.service.credit_of(payment, attempt_id)
        return entry if entry is not None and entry.state is KeyState.POSTED else None

    def came_in(self, entry: Entry) -> Amount:
        """What an entry took from the gateway's account."""
        there = gateway_of(self.name)
        minor = sum(one.amount_minor for one in entry.transfers if one.debit == there)
        return Amount(minor, entry.asset)

    async def second(self, gateway: Gateway, payment: Payment, attempt: Attempt) -> None:
        """An order paid twice: its second money goes back, and then all is well."""
        if await self.has_gone_back(gateway, attempt):
            return
        await self.service.learn(payment, attempt)
        self.differs(
            DifferenceKind.PAID_TWICE,
            our_id=payment.id,
            gateway_id=attempt.id,
            ours=None,
            theirs=Amount(attempt.amount_minor - attempt.refunded_minor, attempt.currency),
            is_healed=await self.has_gone_back(gateway, attempt),
        )

    async def has_gone_back(self, gateway: Gateway, attempt: Attempt) -> bool:
        if attempt.refunded_minor >= attempt.amount_minor:
            return True
        sent = [one for one in await gateway.refunds(attempt.id) if one.status is not RefundStatus.FAILED]
        return sum(one.amount_minor for one in sent) >= attempt.amount_minor

    # -- ours

    async def entries(self, gateway: Gateway, taker: RefundTaker) -> None:
        """Every entry of the day that touches the gateway's account."""
        credit = f"payment:{self.name}:"
        for line in await self.lines():
            source = line.key.partition("|")[2]
            if line.change_minor < 0 and source.startswith(credit):
                await self.our_credit(gateway, line, source.removeprefix(credit))
            elif line.change_minor > 0 and line.kind == PAYER_REFUND:
                await self.our_refund(gateway, line, source.removeprefix(REFUND_PREFIX), taker)

    async def lines(self) -> list[Line]:
        found: list[Line] = []
        before: tuple[int, str] | None = (self.to_ms, "")
        while before is not None:
            page = await self.ledger.lines(gateway_of(self.name), limit=_PAGE, before=before)
            found += [line for line in page if line.at_ms >= self.from_ms]
            is_last = len(page) < _PAGE or page[-1].at_ms < self.from_ms
            before = None if is_last else (page[-1].at_ms, page[-1].key)
        return [line for line in found if line.state is KeyState.POSTED]

    async def our_credit(self, gateway: Gateway, line: Line, attempt_id: str) -> None:
        self.credited += 1
        if attempt_id in self.seen:
            return
        self.seen.add(attempt_id)
        ours = self.came_in((await self.ledger.copied_out([line.key]))[line.key].entry)
        attempt = await self.attempt(gateway, attempt_id)
        is_there = attempt is not None and attempt.status is AttemptStatus.COLLECTED
        theirs = Amount(attempt.amount_minor, attempt.currency) if attempt is not None and is_there else None
        if ours != theirs:
            kind = DifferenceKind.AMOUNT_DIFFERS if is_there else DifferenceKind.NOT_COLLECTED
            self.differs(kind, our_id=line.reference, gateway_id=attempt_id, ours=ours, theirs=theirs)

    async def attempt(self, gateway: Gateway, attempt_id: str) -> Attempt | None:
        """As the gateway has it; None: it knows no such one."""
        if attempt_id in self.attempts:
            return self.attempts[attempt_id]
        try:
            return await gateway.attempt(attempt_id)
        except GatewayRefused:
            return None

    async def records(self, gateway: Gateway) -> None:
        """Records of the day that say more than the ledger does."""
        for payment in await self.payments.between(self.name, self.from_ms, self.to_ms):
            attempt_id = payment.collected_id
            if payment.status not in _DONE or attempt_id is None or attempt_id in self.seen:
                continue
            if await self.credit(payment, attempt_id) is not None:
                continue
            attempt = await self.attempt(gateway, attempt_id)
            if attempt is not None and attempt.status is AttemptStatus.COLLECTED:
                # It was begun on this day, and collected on another one.
                await self.theirs(gateway, attempt)
                continue
            self.differs(
                DifferenceKind.RECORD_ALONE,
                our_id=payment.id,
                gateway_id=attempt_id,
                ours=Amount(payment.amount_minor, payment.currency),
                theirs=None,
            )

    # -- refunds

    async def their_refund(self, gateway: Gateway, refund: GatewayRefund, taker: RefundTaker) -> None:
        """A refund that the gateway has made, or failed to."""
        payment = await self.payments.of_attempt(self.name, refund.payment_id)
        if payment is None:
            attempt = await self.attempt(gateway, refund.payment_id)
            if attempt is None or await self.service.find(self.name, attempt) is None:
                self.foreign.append(
                    Foreign(refund.id, Amount(refund.amount_minor, refund.currency), is_refund=True)
                )
            # Else it is of an order's second payment, which was never ours.
            return
        if refund.reference == second_payment(refund.payment_id):
            return
        self.refunded += refund.status is not RefundStatus.FAILED
        if await self.is_booked(payment, refund):
            return
        # As it is named before it is healed: what failed loses its place in the payment.
        our_id = _ours_of(self.name, refund, payment)
        await taker.take(self.name, refund)
        payment = await self.payments.get(payment.id) or payment
        is_healed = await self.is_booked(payment, refund)
        if is_healed and self.made_at_ms - refund.at_ms < SLACK_MS:
            return
        ours = self.promised(payment, refund)
        theirs = Amount(refund.amount_minor, refund.currency)
        kind = DifferenceKind.REFUND_NOT_BOOKED
        if refund.status is RefundStatus.FAILED:
            kind = DifferenceKind.REFUND_NOT_SENT
        elif ours is not None and ours != theirs:
            kind = DifferenceKind.REFUND_AMOUNT_DIFFERS
        self.differs(
            kind,
            our_id=our_id or _ours_of(self.name, refund, payment) or payment.id,
            gateway_id=refund.id,
            ours=ours,
            theirs=theirs,
            is_healed=is_healed,
        )

    def promised(self, payment: Payment, refund: GatewayRefund) -> Amount | None:
        """What our books have promised back under this refund's name."""
        id_ = _ours_of(self.name, refund, payment)
        return None if id_ is None else Amount(payment.refunds[id_], payment.currency)

    async def is_booked(self, payment: Payment, refund: GatewayRefund) -> bool:
        """Whether our books say of the refund what the gateway says."""
        id_ = _ours_of(self.name, refund, payment)
        taken = None if id_ is None else await self.ledger.entry(payment.account, f"{REFUND_PREFIX}{id_}")
        is_taken = taken is not None and taken.state is KeyState.POSTED and taken.kind == PAYER_REFUND
        if refund.status is RefundStatus.FAILED:
            if not is_taken:
                return True
            returned = await self.ledger.entry(payment.account, f"{REFUND_PREFIX}{id_}:returned")
            return returned is not None
        if self.promised(payment, refund) != Amount(refund.amount_minor, refund.currency):
            return False
        # One that is on its way is held; one that is done is taken.
        return is_taken or refund.status is RefundStatus.PENDING

    async def our_refund(self, gateway: Gateway, line: Line, refund_id: str, taker: RefundTaker) -> None:
        """A refund that the ledger has taken."""
        payment = await self.payments.get(line.facts.get("paymentId", ""))
        sent = None if payment is None else await self.sent(gateway, payment, refund_id)
        if sent is not None and (sent.id in self.refunds and self.is_today(sent.at_ms)):
            # Compared already.
            return
        if payment is not None and sent is not None and await self.is_booked(payment, sent):
            return
        if sent is not None:
            await taker.take(self.name, sent)
            payment = await self.payments.get(line.facts.get("paymentId", ""))
        asset = (await self.ledger.copied_out([line.key]))[line.key].entry.asset
        self.differs(
            DifferenceKind.REFUND_NOT_SENT,
            our_id=refund_id,
            gateway_id=None if sent is None else sent.id,
            ours=Amount(line.change_minor, asset),
            theirs=None if sent is None else Amount(sent.amount_minor, sent.currency),
            is_healed=payment is not None and sent is not None and await self.is_booked(payment, sent),
        )

    async def sent(self, gateway: Gateway, payment: Payment, refund_id: str) -> GatewayRefund | None:
        """The gateway's refund of our name, from the day's list or asked for."""
        for refund in self.refunds.values():
            if refund_id in (refund.reference, refund_outside(self.name, refund.id)):
                return refund
        if payment.collected_id is None:
            return None
        try:
            known = await gateway.refunds(payment.collected_id)
        except GatewayRefused:
            return None
        for refund in known:
            if refund_id in (refund.reference, refund_outside(self.name, refund.id)):
                return refund
        return None


def _ours_of(gateway: str, refund: GatewayRefund, payment: Payment) -> str | None:
    """Our id of the gateway's refund: among those that are promised back of the payment."""
    for id_ in (refund.reference, refund_outside(gateway, refund.id)):
        if id_ is not None and payment.refunds.get(id_):
            return id_
    return None
