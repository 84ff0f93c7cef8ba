"""Examples of the API's bodies and answers, put together field by field from the schemas.

A name means the same wherever it stands, so it has one sample; `Model.field` is for the exceptions. A test keeps each example
valid and tells which new field still needs a sample.
"""

from collections.abc import Mapping
from typing import Any, Final

USER: Final = "019aa5e0c4b27d3c9d1f0a6b5c4d3e21"
ADMIN: Final = "019aa5d0a2c17f0e8f3b5e6d7c8b9a01"
LAWYER: Final = "019aa5df11a07e559c2b7788f0e1d2c3"
PAYOUT: Final = "019aa5f10b2c7d4e8f901a2b3c4d5e6f"
SESSION: Final = "019aa5e3807a7b0a8a51c8e0f1b2a394"
MESSAGE: Final = f"{SESSION}:000000042"
CLIENT_MESSAGE: Final = "4f9c2a36-6a0e-4d9b-9c60-2f1f6f0c7f11"
STARTED: Final = "2026-11-21T09:30:00.000Z"
LATER: Final = "2026-11-21T09:34:10.250Z"
_JWT: Final = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIuLi4ifQ.c2lnbmF0dXJl"

#: Field → sample.
SAMPLES: Final[Mapping[str, Any]] = {
    "accessToken": _JWT,
    "affordableSeconds": 1_000,
    "afterSeq": 41,
    "available": "500.00",
    "barCouncilNumber": "KAR/1234/2015",
    "bio": "Property and tenancy law since 2015.",
    "body": "Can my landlord keep the deposit?",
    "by": ADMIN,
    "clientMsgId": CLIENT_MESSAGE,
    "comment": "Clear and patient.",
    "commission": "0.00",
    "companyName": "Acme Pvt Ltd",
    "createdAt": STARTED,
    "currency": "INR",
    "currentPassword": "correct horse battery",
    "cursor": "WzE3OTUyMjY0MDAwMDUsIjAxOWFhNWUzIl0",
    "deliveredSeq": 42,
    "durationSeconds": 250,
    "elapsedSeconds": 250,
    "email": "asha@example.com",
    "expiresIn": 900,
    "forfeit": False,
    "forfeited": "0.00",
    "gross": "125.00",
    "held": "155.00",
    "id": SESSION,
    "lastSeq": 42,
    "language": "English",
    "languages": ["English", "Kannada"],
    "lawyerId": LAWYER,
    "limit": 20,
    "maxAmount": "300.00",
    "maxRate": "50.00",
    "messageId": MESSAGE,
    "minRating": "4.00",
    "name": "Asha",
    "net": "125.00",
    "newPassword": "staple of another horse",
    "nextCursor": None,
    "password": "correct horse battery",
    "keyId": "rzp_live_Sf1t8kQ2mV7n",
    "orderId": "order_Rk3xY7n0q6cE1m",
    "paymentId": "019aa5e10c6f7a3b9d2e4f60718293a4",
    "razorpayOrderId": "order_Rk3xY7n0q6cE1m",
    "razorpayPaymentId": "pay_Rk4aB8p1r7dF2n",
    "razorpaySignature": "9ef4dffbfd84f1318f6739a3ce19f9d85851857ae648f114332d8401e0949a3d",
    "pendingIds": [CLIENT_MESSAGE],
    "ratePerMinute": "30.00",
    "rating": 5,
    "reason": "The bar council has no such number.",
    "referenceId": SESSION,
    "refreshToken": "Zk3xY7n0q6cE1mA9sV5tB2wR8uJ4hL6pD0fG3kN7yQ1",
    "remainingBalance": "375.00",
    "remainingSeconds": 750,
    "requiredBalance": "50.00",
    "reviewCount": 12,
    "seenSeq": 40,
    "senderId": USER,
    "seq": 42,
    "sessionId": SESSION,
    "specialization": "Property",
    "specializations": ["Property", "Tenancy"],
    "thresholdSeconds": 120,
    "totalAmount": "125.00",
    "totalSessions": 38,
    "unreadCount": 2,
    "updated": 2,
    "uptoSeq": 42,
    "userId": USER,
    "walletBalance": "345.00",
    # --- where the same name means something else
    "AccountView.id": USER,
    "AccountView.profession": None,
    "AccountView.companyName": None,
    "AdminPayoutOut.id": PAYOUT,
    "AdminPayoutOut.amount": "18000.00",
    "AdminPayoutOut.decidedAt": LATER,
    "AdminPayoutOut.decidedBy": ADMIN,
    "AdminPayoutOut.reason": None,
    "AdminPayoutOut.reference": "UTR 612345678901",
    "AdminPayoutOut.status": "PAID",
    "AdminSessionDetailOut.lawyerNet": "112.50",
    "AdminSessionDetailOut.commission": "12.50",
    "AdminSessionDetailOut.remainingBalance": "375.00",
    "AdminSessionOut.lawyerNet": "112.50",
    "AdminSessionOut.commission": "12.50",
    "AdminUserDetailView.id": USER,
    "AdminUserDetailView.lawyer": None,
    "AdminUserView.id": USER,
    "AdminWalletView.account": f"wallet:{USER}",
    "AdminWalletView.balance": "345.00",
    "AdminWalletView.held": "155.00",
    "ApplicantView.id": LAWYER,
    "ApplicantView.name": "Adv. Rao",
    "ApplicantView.email": "rao@example.com",
    "ApplicantView.rating": None,
    "ApplicantView.reviewCount": 0,
    "ApplicantView.isVerified": False,
    "ApplicantView.verification": None,
    "AuditQuery.action": "user.disable",
    "AuditQuery.subject": USER,
    "AuditView.action": "user.disable",
    "AuditView.adminId": ADMIN,
    "AuditView.after": {"isDisabled": True, "reason": "Asked for payment outside the app.", "activeSessionId": None},
    "AuditView.asked": {"reason": "Asked for payment outside the app."},
    "AuditView.before": {"isDisabled": False, "reason": None, "activeSessionId": SESSION},
    "AuditView.code": None,
    "AuditView.reason": "Asked for payment outside the app.",
    "AuditView.requestId": "019aa5e55d2b7c43a1f09e8d7c6b5a40",
    "AuditView.state": "DONE",
    "AuditView.subject": USER,
    "BalanceOut.held": "0.00",
    "BillView.paidUntil": LATER,
    "BillView.reason": None,
    "ByeView.code": 3001,
    "ByeView.reason": "DRAIN",
    "EarningsSummaryView.totalEarnings": "48250.00",
    "EarningsSummaryView.todayEarnings": "1250.00",
    "EarningsSummaryView.monthEarnings": "18400.00",
    "EarningsSummaryView.available": "48250.00",
    "JoinAck.presence": {USER: "ONLINE", LAWYER: "ONLINE"},
    "JoinAck.stored": {CLIENT_MESSAGE: {"id": MESSAGE, "seq": 42, "createdAt": STARTED}},
    "JoinAck.hasMore": False,
    "JoinAck.watermarks": {
        USER: {"deliveredSeq": 41, "seenSeq": 40}, LAWYER: {"deliveredSeq": 42, "seenSeq": 42},
    },
    "DisableBody.reason": "Asked for payment outside the app.",
    "DisablingView.reason": "Asked for payment outside the app.",
    "EnableBody.reason": "It was a mistake.",
    "EntryView.account": f"wallet:{USER}",
    "EntryView.balanceAfter": "375.00",
    "EntryView.balanceBefore": "500.00",
    "EntryView.id": f"wallet:{USER}|consult:{SESSION}",
    "EntryView.kind": "consultation",
    "HoldView.amount": "155.00",
    "HoldView.payoutId": None,
    "FailedIn.reason": "The bank knows no such account.",
    "LawyerView.id": LAWYER,
    "LedgerLineView.account": f"wallet:{USER}",
    "LedgerLineView.balanceAfter": "375.00",
    "LedgerLineView.balanceBefore": "500.00",
    "LedgerLineView.change": "-125.00",
    "LedgerLineView.id": f"wallet:{USER}|consult:{SESSION}",
    "LedgerLineView.kind": "consultation",
    "LowBalanceView.paidUntil": LATER,
    "LowBalanceView.reason": None,
    "LawyerView.name": "Adv. Rao",
    "LawyerView.rating": "4.50",
    "LawyerView.verification": None,
    "LawyerView.isBusy": False,
    "MessageOut.id": MESSAGE,
    "MessageOut.status": "DELIVERED",
    "MessageOut.deliveredAt": LATER,
    "MessageBrief.erasedAt": None,
    "MessageOut.erasedAt": None,
    "MessageOut.seenAt": None,
    "MessageView.id": MESSAGE,
    "MessageView.deliveredAt": None,
    "MessageView.erasedAt": None,
    "MessageView.seenAt": None,
    "ForgotView.expiresIn": 1800,
    "OrderOut.amount": 50_000,
    "OrderOut.checkoutUrl": None,
    "OrderOut.gateway": "razorpay",
    "PaymentOut.amount": "500.00",
    "PaymentOut.failure": None,
    "PaymentOut.purpose": "WALLET",
    "PaymentOut.refundedAmount": "0.00",
    "PaymentOut.status": "CREATED",
    "OpenPayoutsOut.amount": "42500.00",
    "OpenPayoutsOut.count": 3,
    "PaidIn.reference": "UTR 612345678901",
    "PaymentMethodOut.paymentMethodId": "8b0c3a4d5e6f708192a3b4c5d6e7f809",
    "PaymentMethodOut.gateway": "stripe",
    "PaymentMethodOut.label": "visa •••• 4242",
    "PayoutIn.amount": "18000.00",
    "PayoutOut.amount": "18000.00",
    "PayoutOut.decidedAt": None,
    "PayoutOut.id": PAYOUT,
    "PayoutOut.reason": None,
    "PayoutOut.reference": None,
    "PayoutOut.status": "REQUESTED",
    "PayoutsQuery.status": "REQUESTED",
    "PeriodView.commission": "1930.00",
    "PeriodView.gross": "19300.00",
    "PeriodView.net": "17370.00",
    "PeriodView.period": "2026-11-21",
    "PeriodView.recharged": "24500.00",
    "PeriodView.recharges": 49,
    "PeriodView.seconds": 38600,
    "PeriodView.sessions": 112,
    "ReadyView.checks": ["clock", "locks", "storage"],
    "RegisterBody.role": "USER",
    "RegisterBody.profession": None,
    "RegisterBody.companyName": None,
    "RegisterLawyerBody.email": "rao@example.com",
    "RegisterLawyerBody.name": "Adv. Rao",
    "RechargeIn.amount": "500.00",
    "RechargeIn.saveMethod": False,
    "RechargeOut.amount": "500.00",
    "RechargeOut.walletBalance": "500.00",
    "RechargeOut.order": None,
    "RegisteredLawyerView.user": {
        "id": LAWYER, "email": "rao@example.com", "name": "Adv. Rao", "role": "LAWYER",
        "profession": None, "companyName": None,
    },
    "RevenueQuery.by": "day",
    "RevenueQuery.from": "2026-11-21",
    "RevenueQuery.to": "2026-11-21",
    "RevenueView.by": "day",
    "RevenueView.from": "2026-11-21",
    "RevenueView.timezone": "Asia/Kolkata",
    "RevenueView.to": "2026-11-21",
    "SendAck.id": MESSAGE,
    "SendAck.duplicate": False,
    "SessionOut.lastMessage": None,
    "SessionOut.maxAmount": None,
    "SessionOut.endedAt": None,
    "SessionOut.endReason": None,
    "SessionOut.timeline": None,
    "SessionOut.unreadCount": None,
    "SessionOut.remainingBalance": "345.00",
    "ResetBody.token": f"{USER}.Q1x7mB2vZ9tK4nR8pL5wC3sD6fG0hJ1yT7uV2bN8mX4",
    "SessionsQuery.reason": "WALLET_EMPTY",
    "SessionsQuery.status": "FORCE_ENDED",
    "StoredView.id": MESSAGE,
    "TimelineOut.event": "start",
    "TimelineOut.reason": None,
    "TransferView.amount": "112.50",
    "TransferView.from": f"wallet:{USER}",
    "TransferView.kind": "consultation_net",
    "TransferView.to": f"earnings:{LAWYER}",
    "TurnoverView.commission": "1930.00",
    "TurnoverView.gross": "19300.00",
    "TurnoverView.net": "17370.00",
    "TurnoverView.recharged": "24500.00",
    "TurnoverView.recharges": 49,
    "TurnoverView.seconds": 38600,
    "TurnoverView.sessions": 112,
    "UserCountsView.auditEntries": 1,
    "UserCountsView.sessions": 7,
    "UsersQuery.query": "asha",
    "UsersQuery.role": "USER",
    "SetupOut.setupId": "019aa5f30c2d7e4f8a901b2c3d4e5f60",
    "SetupOut.gateway": "stripe",
    "SetupOut.status": "PENDING",
    "SetupOut.checkoutUrl": "https://checkout.stripe.com/c/pay/cs_test_a1b2c3",
    "SetupOut.paymentMethodId": None,
    "TransactionOut.id": "payment:simulated:pay_019aa5e10c6f7a3b",
    "TransactionOut.kind": "RECHARGE",
    "TransactionOut.amount": "500.00",
    "TransactionOut.balanceBefore": "0.00",
    "TransactionOut.balanceAfter": "500.00",
    "TransactionOut.referenceId": "pay_019aa5e10c6f7a3b",
    "VerifyBody.reason": None,
    "VerifyBody.isVerified": True,
    "TotalOut.endReason": "USER_ENDED",
    "TotalOut.messageCount": 1,
    "TotalOut.status": "ENDED",
    "TranscriptOut.entries": [
        {"type": "event", "at": STARTED, "event": "start", "reason": None},
        {
            "type": "message",
            "at": STARTED,
            "seq": 1,
            "id": f"{SESSION}:000000001",
            "sender": {"id": USER, "role": "USER", "name": "Asha"},
            "body": "Can my landlord keep the deposit?",
            "status": "SEEN",
            "deliveredAt": STARTED,
            "seenAt": STARTED,
            "erasedAt": None,
        },
        {"type": "event", "at": LATER, "event": "end", "reason": "USER_ENDED"},
    ],
    "TranscriptOut.parties": [
        {"id": USER, "role": "USER", "name": "Asha"},
        {"id": LAWYER, "role": "LAWYER", "name": "Adv. Rao"},
    ],
    "TranscriptOut.timezone": "Asia/Kolkata",
}  # fmt: skip


class Samples:
    """Examples for the schemas of `components`. `missing` collects the fields that no sample is known for."""

    def __init__(self, components: Mapping[str, Any]) -> None:
        self._components = components
        self.missing: set[str] = set()

    def of(self, schema: Mapping[str, Any], *, model: str = "", field: str = "") -> Any:
        """An example of the schema, which is that of `field` in `model`."""
        for name in (f"{model}.{field}", field):
            if name in SAMPLES:
                return SAMPLES[name]
        if "$ref" in schema:
            name = schema["$ref"].rpartition("/")[2]
            return self.of(self._components[name], model=name)
        for keyword in ("const", "default"):
            if keyword in schema:
                return schema[keyword]
        for keyword in ("examples", "enum"):
            if keyword in schema:
                return schema[keyword][0]
        if "anyOf" in schema:
            return self.of(schema["anyOf"][0], model=model, field=field)
        return self._of_type(schema, model, field)

    def _of_type(self, schema: Mapping[str, Any], model: str, field: str) -> Any:
        match schema.get("type"):
            case "object" if "properties" in schema:
                made = {
                    name: self.of(part, model=model, field=name)
                    for name, part in schema["properties"].items()
                }
                required = schema.get("required", ())
                return {name: value for name, value in made.items() if value is not None or name in required}
            case "object":
                values = schema.get("additionalProperties")
                return {USER: self.of(values)} if isinstance(values, Mapping) else {}
            case "array":
                return [self.of(schema["items"], model=model)]
            case "boolean":
                return True
            case "string" if schema.get("format") == "date-time":
                return STARTED
        self.missing.add(f"{model}.{field}")
        return 1 if schema.get("type") in {"integer", "number"} else "text"
