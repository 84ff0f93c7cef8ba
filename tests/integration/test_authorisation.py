"""Who may do what: every route and every socket event, for everybody who may ask. A row that is missing fails.

Columns: `nobody` is whoever has no valid access token, in every way one can have none. `user` and `lawyer` are the two parties
of the running and of the ended consultation; `user2` (with money) and `lawyer2` (verified, online, free) are strangers to it.
`company` owns a company; `manager` and `viewer` are members of it, `key_usage` and `key_read` its API keys, one with each scope.
A cell is a status, or `status:CODE` where the code is not the status's usual one.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import jwt
import pytest
import socketio
from socketio.exceptions import ConnectionError as ConnectionRefused

from chat.event_types import SessionPayload
from chat.events import CLIENT_EVENTS
from server.auth.model import Role
from server.ids import new_id
from server.routes import ROUTES
from server.settings import DEVELOPMENT_SECRET
from tests.integration.socket_world import PATIENCE_S, until
from tests.support.api import Api, Person, open_api
from tests.support.companies import a_key, a_member, invited
from tests.support.http import PASSWORD, Answer, Client

CALLERS: Final = ("user", "lawyer", "user2", "lawyer2", "freelancer", "company", "admin")
#: Who acts for `company` and is not its owner. Most rows leave their cells out: see `_of_company`.
DELEGATES: Final = ("key_usage", "key_read", "viewer", "manager")
#: Reading it keeps a quote for as long as it holds.
QUOTES: Final = "GET /api/credits/upgrade/preview"
#: Reading these adds up the days that are over, and keeps the sums.
METRICS = "GET /admin/metrics"
CODES: Final = {401: "UNAUTHENTICATED", 403: "FORBIDDEN", 404: "NOT_FOUND"}


@dataclass(frozen=True)
class Row:
    """One call and what each caller hears. `ids` puts the world's ids into the path's parameters, by their names."""

    route: str
    cells: Mapping[str, str]
    body: Any = None
    query: str = ""
    ids: Mapping[str, str] | None = None

    def __str__(self) -> str:
        named = "".join(f" {id_}" for id_ in (self.ids or {}).values())
        return f"{self.route}{named}{self.query and ' ' + self.query}"


def row(route: str, cells: str, *, body: Any = None, query: str = "", **ids: str) -> Row:
    told = cells.split()
    if len(told) == 1 + len(CALLERS):
        told += _of_company(told)
    return Row(route, dict(zip(("nobody", *CALLERS, *DELEGATES), told, strict=True)), body, query, ids)


def _of_company(told: list[str]) -> list[str]:
    """What the delegates hear where a company's rights are not asked about: keys may do nothing, members what every role may."""
    company = told[1 + CALLERS.index("company")]
    if told[0] != "401":
        # Nobody's token is looked at.
        return [company] * 4
    for_all = "403" not in told
    return ["403", "403", company, company] if for_all else ["403"] * 4


REGISTRATION: Final = {"email": "{fresh}", "password": PASSWORD, "name": "Somebody"}
PAPERS: Final = {"ratePerMinute": "10", "barCouncilNumber": "X/1"}

# fmt: off
CALLS: Final = (
    #                                 nobody  user  lawyer user2 lawyer2 freelancer company admin
    row("GET /healthz",               "200    200   200    200   200     200        200     200"),
    row("GET /readyz",                "200    200   200    200   200     200        200     200"),
    row("GET /metrics",               "200    200   200    200   200     200        200     200"),
    row("GET /openapi.json",          "200    200   200    200   200     200        200     200"),
    row("GET /asyncapi.json",         "200    200   200    200   200     200        200     200"),
    row("GET /docs",                  "200    200   200    200   200     200        200     200"),
    row("GET /docs/{page}",           "404    404   404    404   404     404        404     404", page="unknown"),
    row("GET /docs/assets/{name}",    "404    404   404    404   404     404        404     404", name="unknown"),
    # --- identity
    row("POST /auth/register",        "201    201   201    201   201     201        201     201", body=REGISTRATION),
    row("POST /auth/login",           "200    200   200    200   200     200        200     200",
        body={"email": "{user2.email}", "password": PASSWORD}),
    row("POST /auth/login",           "401:INVALID_CREDENTIALS " * 8, body={"email": "{user2.email}", "password": "something else"}),
    row("POST /auth/login",           "403:ACCOUNT_DISABLED " * 8, body={"email": "{disabled.email}", "password": PASSWORD}),
    # What counts is who has the refresh token.
    row("POST /auth/refresh",         "200    200   200    200   200     200        200     200",
        body={"refreshToken": "{user2.refresh_token}"}),
    row("POST /auth/refresh",         "401:INVALID_REFRESH_TOKEN " * 8, body={"refreshToken": "{disabled.refresh_token}"}),
    row("POST /auth/logout",          "401    200   200    200   200     200        200     200"),
    row("POST /auth/logout",          "401    200   200    200   200     200        200     200", body={"everywhere": True}),
    row("GET /auth/me",               "401    200   200    200   200     200        200     200"),
    # The admin's password is another one.
    row("POST /auth/password",        "401    200   200    200   200     200        200     403:WRONG_PASSWORD",
        body={"currentPassword": PASSWORD, "newPassword": "another horse"}),
    row("POST /auth/password",        "401 " + "403:WRONG_PASSWORD " * 7,
        body={"currentPassword": "something else", "newPassword": "another horse"}),
    row("POST /auth/forgot",          "202    202   202    202   202     202        202     202", body={"email": "{user2.email}"}),
    row("POST /auth/forgot",          "202    202   202    202   202     202        202     202", body={"email": "{fresh}"}),
    row("POST /auth/reset",           "422:INVALID_RESET_TOKEN " * 8,
        body={"token": "{user2}.guessed", "newPassword": "another horse"}),
    row("DELETE /auth/me",            "401 409:IN_SESSION 409:IN_SESSION 409:BALANCE_NOT_EMPTY 200 409:BALANCE_NOT_EMPTY"
                                      " 409:BALANCE_NOT_EMPTY 403:WRONG_PASSWORD 403 403 200 200",
        body={"password": PASSWORD}),
    row("DELETE /auth/me",            "401 409:IN_SESSION 409:IN_SESSION 200 200 200   200     403:WRONG_PASSWORD",
        body={"password": PASSWORD, "forfeit": True}),
    # --- wallet
    row("POST /wallet/recharge",      "401    201   403    201   403     403        403     403", body={"amount": "10.00"}),
    row("GET /wallet/balance",        "401    200   403    200   403     403        403     403"),
    row("GET /wallet/transactions",   "401    200   403    200   403     403        403     403"),
    row("POST /wallet/recharge/verify", "401  400:SIGNATURE_INVALID 403 404:PAYMENT_NOT_FOUND 403 403 403 403",
        body={"razorpayOrderId": "{order}", "razorpayPaymentId": "pay_1", "razorpaySignature": "0"}),
    row("GET /payments",              "401    200   403    200   403     403        403     403"),
    row("GET /payments/{payment_id}", "401    200   403    404:PAYMENT_NOT_FOUND 403 403 403 403", payment_id="payment"),
    row("GET /payments/{payment_id}", "401    404:PAYMENT_NOT_FOUND 403 404:PAYMENT_NOT_FOUND 403 403 403 403",
        payment_id="unknown"),
    # No gateway is set up here: there is nobody whose events could be admitted.
    row("POST /webhooks/razorpay",    "404    404   404    404   404     404        404     404"),
    row("POST /webhooks/stripe",      "404    404   404    404   404     404        404     404"),
    row("GET /payment-methods",       "401    200   403    200   403     403        403     403"),
    row("POST /payment-methods/setup",
                                      "401    201   403    201   403     403        403     403"),
    row("DELETE /payment-methods/{payment_method_id}",
                                      "401    200   403    404   403     403        403     403", payment_method_id="card"),
    row("DELETE /payment-methods/{payment_method_id}",
                                      "401    404   403    404   403     403        403     403", payment_method_id="unknown"),
    # --- lawyers
    row("POST /lawyer/register",      "201    201   201    201   201     201        201     201", body=REGISTRATION | PAPERS),
    row("PATCH /lawyer/availability", "401    403   200    403   200     403        403     403", body={"isOnline": False}),
    row("GET /lawyer/profile",        "401    403   200    403   200     403        403     403"),
    row("PATCH /lawyer/profile",      "401    403   200    403   200     403        403     403", body={"bio": "New"}),
    row("GET /lawyers",               "401    200   200    200   200     200        200     200"),
    row("GET /lawyer/{lawyer_id}",    "401    200   200    200   200     200        200     200", lawyer_id="lawyer"),
    row("GET /lawyer/{lawyer_id}",    "401    404   404    404   404     404        404     200", lawyer_id="unverified"),
    row("GET /lawyer/{lawyer_id}",    "401    404   404    404   404     404        404     404", lawyer_id="user2"),
    row("GET /lawyer/{lawyer_id}",    "401    404   404    404   404     404        404     404", lawyer_id="unknown"),
    row("GET /lawyer/{lawyer_id}/reviews",
                                      "401    200   200    200   200     200        200     200", lawyer_id="lawyer"),
    row("GET /lawyer/{lawyer_id}/reviews",
                                      "401    404   404    404   404     404        404     200", lawyer_id="unverified"),
    row("GET /lawyer/{lawyer_id}/reviews",
                                      "401    404   404    404   404     404        404     404", lawyer_id="unknown"),
    row("GET /lawyer/earnings/summary",
                                      "401    403   200    403   200     403        403     403"),
    row("GET /lawyer/earnings",       "401    403   200    403   200     403        403     403"),
    row("GET /lawyer/statements",     "401    403   200    403   200     403        403     403", query="?month=2026-01"),
    row("GET /lawyer/statements",     "401    403   200    403   200     403        403     403", query="?month=2026-01&format=csv"),
    row("POST /lawyer/payouts",       "401    403   201    403   402:INSUFFICIENT_BALANCE 403 403 403", body={"amount": "1.00"}),
    row("GET /lawyer/payouts",        "401    403   200    403   200     403        403     403"),
    row("GET /admin/payouts",         "401    403   403    403   403     403        403     200", query="?status=REQUESTED"),
    row("POST /admin/payouts/{payout_id}/paid",
                                      "401    403   403    403   403     403        403     200",
        body={"reference": "UTR 1"}, payout_id="payout"),
    row("POST /admin/payouts/{payout_id}/paid",
                                      "401    403   403    403   403     403        403     404",
        body={"reference": "UTR 1"}, payout_id="unknown"),
    row("POST /admin/payouts/{payout_id}/failed",
                                      "401    403   403    403   403     403        403     200",
        body={"reason": "No such account."}, payout_id="payout"),
    row("POST /admin/payouts/{payout_id}/failed",
                                      "401    403   403    403   403     403        403     404",
        body={"reason": "No such account."}, payout_id="unknown"),
    row("GET /admin/payments",        "401    403   403    403   403     403        403     200"),
    row("GET /admin/payments",        "401    403   403    403   403     403        403     200", query="?status=PAID&userId={user}"),
    row("GET /admin/payments/{payment_id}",
                                      "401    403   403    403   403     403        403     200", payment_id="payment"),
    row("GET /admin/payments/{payment_id}",
                                      "401    403   403    403   403     403        403     404:PAYMENT_NOT_FOUND", payment_id="unknown"),
    row("POST /admin/payments/{payment_id}/refund",
                                      "401    403   403    403   403     403        403     201",
        body={"amount": "1.00", "reason": "Asked for."}, payment_id="payment"),
    row("POST /admin/payments/{payment_id}/refund",
                                      "401    403   403    403   403     403        403     404:PAYMENT_NOT_FOUND",
        body={"amount": "1.00", "reason": "Asked for."}, payment_id="unknown"),
    row("GET /admin/disputes",        "401    403   403    403   403     403        403     200", query="?status=OPEN"),
    row("GET /admin/lawyers",         "401    403   403    403   403     403        403     200", query="?verified=false"),
    row("PATCH /lawyer/{lawyer_id}/verify",
                                      "401    403   403    403   403     403        403     200", lawyer_id="unverified"),
    row("PATCH /lawyer/{lawyer_id}/verify",
                                      "401    403   403    403   403     403        403     404", lawyer_id="user2"),
    row("PATCH /lawyer/{lawyer_id}/verify",
                                      "401    403   403    403   403     403        403     404", lawyer_id="unknown"),
    # --- the admins' desk
    row("GET /admin/users",
                                      "401    403   403    403   403     403        403     200"),
    row("GET /admin/users",
                                      "401    403   403    403   403     403        403     200", query="?query=user&role=USER&disabled=false"),
    row("GET /admin/users/{user_id}",
                                      "401    403   403    403   403     403        403     200", user_id="user"),
    row("GET /admin/users/{user_id}",
                                      "401    403   403    403   403     403        403     200", user_id="lawyer"),
    row("GET /admin/users/{user_id}",
                                      "401    403   403    403   403     403        403     200", user_id="admin"),
    row("GET /admin/users/{user_id}",
                                      "401    403   403    403   403     403        403     404", user_id="unknown"),
    row("GET /admin/users/{user_id}/wallet",
                                      "401    403   403    403   403     403        403     200", user_id="user"),
    row("GET /admin/users/{user_id}/ledger",
                                      "401    403   403    403   403     403        403     200", user_id="user"),
    row("GET /admin/users/{user_id}/wallet",
                                      "401    403   403    403   403     403        403     200", user_id="lawyer"),
    row("GET /admin/users/{user_id}/ledger",
                                      "401    403   403    403   403     403        403     200", user_id="lawyer"),
    row("GET /admin/users/{user_id}/wallet",
                                      "401    403   403    403   403     403        403     404", user_id="unknown"),
    row("GET /admin/users/{user_id}/ledger",
                                      "401    403   403    403   403     403        403     404", user_id="unknown"),
    row("POST /admin/users/{user_id}/disable",
                                      "401    403   403    403   403     403        403     200",
        body={"reason": "Fraud."}, user_id="user"),
    row("POST /admin/users/{user_id}/enable",
                                      "401    403   403    403   403     403        403     200", user_id="user"),
    row("POST /admin/users/{user_id}/disable",
                                      "401    403   403    403   403     403        403     200",
        body={"reason": "Fraud."}, user_id="lawyer"),
    row("POST /admin/users/{user_id}/enable",
                                      "401    403   403    403   403     403        403     200", user_id="lawyer"),
    row("POST /admin/users/{user_id}/disable",
                                      "401    403   403    403   403     403        403     200",
        body={"reason": "Fraud."}, user_id="disabled"),
    row("POST /admin/users/{user_id}/enable",
                                      "401    403   403    403   403     403        403     200", user_id="disabled"),
    row("POST /admin/users/{user_id}/disable",
                                      "401    403   403    403   403     403        403     404",
        body={"reason": "Fraud."}, user_id="unknown"),
    row("POST /admin/users/{user_id}/enable",
                                      "401    403   403    403   403     403        403     404", user_id="unknown"),
    row("GET /admin/sessions",
                                      "401    403   403    403   403     403        403     200"),
    row("GET /admin/sessions",
                                      "401    403   403    403   403     403        403     200", query="?status=ACTIVE&userId={user}&lawyerId={lawyer}"),
    row("GET /admin/sessions/{session_id}",
                                      "401    403   403    403   403     403        403     200", session_id="running"),
    row("GET /admin/sessions/{session_id}",
                                      "401    403   403    403   403     403        403     200", session_id="ended"),
    row("GET /admin/sessions/{session_id}",
                                      "401    403   403    403   403     403        403     404", session_id="unknown"),
    row("GET /admin/revenue",
                                      "401    403   403    403   403     403        403     200"),
    row("GET /admin/metrics",         "401    403   403    403   403     403        403     200"),
    row("GET /admin/payments/report", "401    403   403    403   403     403        403     200", query="?day=2026-01-01"),
    row("POST /admin/payments/report/{day}",
                                      "401    403   403    403   403     403        403     200", body={}, day="yesterday"),
    row("POST /admin/payments/report/{day}",
                                      "401    403   403    403   403     403        403     404", body={}, day="unknown"),
    row("GET /admin/audit",
                                      "401    403   403    403   403     403        403     200"),
    # --- consultations
    row("POST /consult/start",        "401    409:USER_BUSY 403 201 403  403        403     403", body={"lawyerId": "{lawyer2}"}),
    row("POST /consult/start",        "401    409:USER_BUSY 403 409:LAWYER_BUSY 403 403 403 403", body={"lawyerId": "{lawyer}"}),
    row("POST /consult/start",        "401    404   403    404   403     403        403     403", body={"lawyerId": "{unknown}"}),
    row("POST /consult/start",        "401    404   403    404   403     403        403     403", body={"lawyerId": "{user}"}),
    row("GET /consult/quote",         "401    200   403    200   403     403        403     403", query="?lawyerId={lawyer2}"),
    row("GET /consult/quote",         "401    404   403    404   403     403        403     403", query="?lawyerId={unknown}"),
    row("GET /consult/active",        "401    200   200    200   200     403        403     403"),
    row("GET /consult",               "401    200   200    200   200     403        403     403"),
    row("GET /consult/{session_id}",  "401    200   200    404   404     403        403     200", session_id="running"),
    row("GET /consult/{session_id}",  "401    200   200    404   404     403        403     200", session_id="ended"),
    row("GET /consult/{session_id}",  "401    404   404    404   404     403        403     404", session_id="unknown"),
    row("POST /consult/{session_id}/end",
                                      "401    200   200    404   404     403        403     200", session_id="running"),
    row("POST /consult/{session_id}/end",
                                      "401    200   200    404   404     403        403     200", session_id="ended"),
    row("POST /consult/{session_id}/end",
                                      "401    404   404    404   404     403        403     404", session_id="unknown"),
    # --- requests: one was declined, the other accepted and then cancelled; `user2` waits for `lawyer`
    row("GET /consult/request",       "401    200   200    200   200     403        403     403"),
    row("POST /consult/{session_id}/accept",
                                      "401    403   200    403   404     403        403     403", session_id="cancelled"),
    row("POST /consult/{session_id}/accept",
                                      "401    403   409:REQUEST_CLOSED 403 404 403  403     403", session_id="declined"),
    row("POST /consult/{session_id}/accept",
                                      "401    403   404    403   404     403        403     403", session_id="running"),
    row("POST /consult/{session_id}/decline",
                                      "401    403   200    403   404     403        403     403", session_id="declined"),
    row("POST /consult/{session_id}/decline",
                                      "401    403   409:REQUEST_CLOSED 403 404 403  403     403", session_id="cancelled"),
    row("POST /consult/{session_id}/decline",
                                      "401    403   404    403   404     403        403     403", session_id="unknown"),
    row("POST /consult/{session_id}/cancel",
                                      "401    200   403    404   403     403        403     403", session_id="cancelled"),
    row("POST /consult/{session_id}/cancel",
                                      "401    409:REQUEST_CLOSED 403 404 403 403    403     403", session_id="declined"),
    row("POST /consult/{session_id}/cancel",
                                      "401    404   403    404   403     403        403     403", session_id="unknown"),
    row("GET /consult/{session_id}",  "401    200   200    404   404     403        403     200", session_id="declined"),
    row("POST /consult/{session_id}/end",
                                      "401    200   200    404   404     403        403     200", session_id="declined"),
    row("GET /admin/sessions/{session_id}",
                                      "401    403   403    403   403     403        403     200", session_id="declined"),
    row("POST /consult/queue",        "401    409:USER_BUSY 403 200   403     403        403     403", body={"lawyerId": "{lawyer}"}),
    row("POST /consult/queue",        "401    409:WAITING_LIST_CLOSED 403 409:WAITING_LIST_CLOSED 403 403 403 403",
        body={"lawyerId": "{lawyer2}"}),
    row("POST /consult/queue",        "401    404   403    404   403     403        403     403", body={"lawyerId": "{unknown}"}),
    row("GET /consult/queue",         "401    200   403    200   403     403        403     403"),
    row("DELETE /consult/queue/{lawyer_id}",
                                      "401    404   403    200   403     403        403     403", lawyer_id="lawyer"),
    row("DELETE /consult/queue/{lawyer_id}",
                                      "401    404   403    404   403     403        403     403", lawyer_id="unknown"),
    row("GET /lawyer/queue",          "401    403   200    403   200     403        403     403"),
    # --- refunds
    row("POST /admin/consult/{session_id}/refund",
                                      "401    403   403    403   403     403        403     201",
        body={"amount": "1.00", "reason": "Bad line."}, session_id="ended"),
    row("POST /admin/consult/{session_id}/refund",
                                      "401    403   403    403   403     403        403     404",
        body={"amount": "1.00", "reason": "Bad line."}, session_id="unknown"),
    row("POST /consult/{session_id}/refund-request",
                                      "401    201   403    404   403     403        403     403",
        body={"reason": "No sound."}, session_id="ended2"),
    row("POST /consult/{session_id}/refund-request",
                                      "401    409:REFUND_REQUEST_OPEN 403 404 403 403  403     403",
        body={"reason": "No sound."}, session_id="ended"),
    row("POST /consult/{session_id}/refund-request",
                                      "401    409:SESSION_NOT_ENDED 403 404 403 403    403     403",
        body={"reason": "No sound."}, session_id="running"),
    row("POST /consult/{session_id}/refund-request",
                                      "401    404   403    404   403     403        403     403",
        body={"reason": "No sound."}, session_id="unknown"),
    row("GET /refund-requests",       "401    200   403    200   403     403        403     403"),
    row("GET /admin/refund-requests", "401    403   403    403   403     403        403     200", query="?status=OPEN"),
    row("POST /admin/refund-requests/{request_id}/approve",
                                      "401    403   403    403   403     403        403     200", request_id="request"),
    row("POST /admin/refund-requests/{request_id}/approve",
                                      "401    403   403    403   403     403        403     404", request_id="unknown"),
    row("POST /admin/refund-requests/{request_id}/reject",
                                      "401    403   403    403   403     403        403     200",
        body={"reason": "It was fine."}, request_id="request"),
    row("POST /admin/refund-requests/{request_id}/reject",
                                      "401    403   403    403   403     403        403     404",
        body={"reason": "It was fine."}, request_id="unknown"),
    # --- chat, reviews
    row("GET /chat/{session_id}",     "401    200   200    404   404     403        403     403", session_id="running"),
    row("GET /chat/{session_id}",     "401    200   200    404   404     403        403     403", session_id="ended"),
    row("GET /chat/{session_id}",     "401    404   404    404   404     403        403     403", session_id="unknown"),
    row("GET /chat/{session_id}/transcript",
                                      "401    200   200    404   404     403        403     403", session_id="running"),
    row("GET /chat/{session_id}/transcript",
                                      "401    200   200    404   404     403        403     403", query="?format=text", session_id="ended"),
    row("GET /chat/{session_id}/transcript",
                                      "401    404   404    404   404     403        403     403", session_id="unknown"),
    row("GET /consult/{session_id}/ice",
                                      "401    200   200    404   404     403        403     403", session_id="running"),
    row("GET /consult/{session_id}/ice",
                                      "401 409:SESSION_NOT_ACTIVE 409:SESSION_NOT_ACTIVE 404 404 403 403 403", session_id="ended"),
    row("GET /consult/{session_id}/ice",
                                      "401    404   404    404   404     403        403     403", session_id="unknown"),
    row("POST /review",               "401    201   403    404   403     403        403     403",
        body={"sessionId": "{ended}", "rating": 5}),
    row("POST /review",               "401    409:SESSION_NOT_ENDED 403 404 403 403 403     403",
        body={"sessionId": "{running}", "rating": 5}),
    row("POST /review",               "401    404   403    404   403     403        403     403",
        body={"sessionId": "{unknown}", "rating": 5}),
    # --- credits: `freelancer` has some, and an application for `project`; what ends with 2 is of strangers
    row("GET /credits/packages",      "401    403   403    403   403     200        403     403"),
    row("POST /credits/initiate-purchase",
                                      "401    403   403    403   403     201        403     403", body={"package_id": 1}),
    row("POST /credits/initiate-purchase",
                                      "401    403   403    403   403     404:PACKAGE_NOT_FOUND 403 403", body={"package_id": 9}),
    row("POST /credits/verify-payment",
                                      "401    403   403    403   403     404:PAYMENT_NOT_FOUND 403 403",
        body={"razorpay_order_id": "order_1", "razorpay_payment_id": "pay_1", "razorpay_signature": "00"}),
    row("GET /credits/purchases",     "401    403   403    403   403     200        403     403"),
    row("GET /credits/purchases/{payment_id}",
                                      "401    403   403    403   403     200        403     403", payment_id="purchase"),
    row("GET /credits/purchases/{payment_id}",
                                      "401    403   403    403   403     404:PAYMENT_NOT_FOUND 403 403", payment_id="purchase2"),
    row("GET /credits/purchases/{payment_id}",
                                      "401    403   403    403   403     404:PAYMENT_NOT_FOUND 403 403", payment_id="unknown"),
    row("GET /credits/balance",       "401    403   403    403   403     200        403     403"),
    row("GET /credits/history",       "401    403   403    403   403     200        403     403", query="?page=1&limit=10&type=used"),
    row("POST /projects",             "401    403   403    403   403     403        201     403",
        body={"title": "A film", "description": "Two days."}),
    row("GET /projects",              "401    403   403    403   403     200        200     403"),
    row("GET /projects/{project_id}", "401    403   403    403   403     200        200     403", project_id="project"),
    row("GET /projects/{project_id}", "401    403   403    403   403     200        404     403", project_id="project2"),
    row("GET /projects/{project_id}", "401    403   403    403   403     404        404     403", project_id="unknown"),
    row("POST /projects/{project_id}/close",
                                      "401    403   403    403   403     403        200     403", project_id="project"),
    row("POST /projects/{project_id}/close",
                                      "401    403   403    403   403     403        404     403", project_id="project2"),
    row("POST /projects/{project_id}/close",
                                      "401    403   403    403   403     403        404     403", project_id="unknown"),
    row("GET /projects/{project_id}/applications",
                                      "401    403   403    403   403     403        200     403", project_id="project"),
    row("GET /projects/{project_id}/applications",
                                      "401    403   403    403   403     403        404     403", project_id="project2"),
    row("GET /projects/{project_id}/applications",
                                      "401    403   403    403   403     403        404     403", project_id="unknown"),
    row("POST /applied-projects",     "401    403   403    403   403     201        403     403", body={"project_id": "{project2}"}),
    row("POST /applied-projects",     "401    403   403    403   403     409:ALREADY_APPLIED 403 403", body={"project_id": "{project}"}),
    row("POST /applied-projects",     "401    403   403    403   403     409:PROJECT_CLOSED 403  403", body={"project_id": "{closed}"}),
    row("POST /applied-projects",     "401    403   403    403   403     404        403     403", body={"project_id": "{unknown}"}),
    row("GET /applied-projects",      "401    403   403    403   403     200        403     403"),
    row("GET /credits/refund-eligibility/{app_id}",
                                      "401    403   403    403   403     200        403     403", app_id="application"),
    row("GET /credits/refund-eligibility/{app_id}",
                                      "401    403   403    403   403     404        403     403", app_id="application2"),
    row("GET /credits/refund-eligibility/{app_id}",
                                      "401    403   403    403   403     404        403     403", app_id="unknown"),
    row("POST /applied-projects/{app_id}/withdraw",
                                      "401    403   403    403   403     200        403     403", app_id="application"),
    row("POST /applied-projects/{app_id}/withdraw",
                                      "401    403   403    403   403     409:NOT_ELIGIBLE 403  403", app_id="withdrawn"),
    row("POST /applied-projects/{app_id}/withdraw",
                                      "401    403   403    403   403     404        403     403", app_id="application2"),
    row("POST /applied-projects/{app_id}/withdraw",
                                      "401    403   403    403   403     404        403     403", app_id="unknown"),
    # --- companies: nothing leads out of here, so a URL of this machine is refused
    row("GET /api/company/webhook",   "401    403   403    403   403     403        200     403   403       403      403    200"),
    row("PUT /api/company/webhook",   "401    403   403    403   403     403        200     403   403       403      403    200",
        body={"url": "https://hooks.example.com/"}),
    row("PUT /api/company/webhook",   "401 403 403 403 403 403 422:WEBHOOK_URL_REFUSED 403 403 403 403 422:WEBHOOK_URL_REFUSED",
        body={"url": "https://127.0.0.1/"}),
    row("DELETE /api/company/webhook", "401   403   403    403   403     403        200     403   403       403      403    200"),
    row("POST /api/company/webhook/rotate-secret",
                                      "401 403 403 403 403 403 404:WEBHOOK_NOT_SET 403 403 403 403 404:WEBHOOK_NOT_SET"),
    row("POST /api/company/webhook/test",
                                      "401 403 403 403 403 403 404:WEBHOOK_NOT_SET 403 403 403 403 404:WEBHOOK_NOT_SET"),
    row("GET /api/company/webhook/deliveries",
                                      "401    403   403    403   403     403        200     403   403       403      403    200"),
    row("GET /admin/credits/user/{user_id}",
                                      "401    403   403    403   403     403        403     200", user_id="freelancer"),
    row("GET /admin/credits/user/{user_id}",
                                      "401    403   403    403   403     403        403     404", user_id="unknown"),
    row("POST /admin/credits/adjust", "401    403   403    403   403     403        403     200",
        body={"user_id": "{freelancer}", "amount": 1, "reason": "Compensation"}),
    row("POST /admin/credits/adjust", "401    403   403    403   403     403        403     404",
        body={"user_id": "{unknown}", "amount": 1, "reason": "Compensation"}),
    # --- companies: what ends with 2 is another company's.
    #                                 nobody  user  lawyer user2 lawyer2 freelancer company admin key_usage key_read viewer manager
    row("GET /api/company",           "401    403   403    403   403     403        200     422:VALIDATION_FAILED 403 200 200 200"),
    row("GET /api/company",           "401    403   403    403   403     403        200     200   403       200      200    200",
        query="?companyId={company}"),
    row("GET /api/company",           "401    403   403    403   403     403        404     200   403       404      404    404",
        query="?companyId={company2}"),
    row("GET /api/company",           "401    403   403    403   403     403        404     404   403       404      404    404",
        query="?companyId={user}"),
    row("PUT /api/company",           "401    403   403    403   403     403        200     403   403       403      403    200",
        body={"timeZone": "Europe/Paris"}),
    row("POST /api/company/api-keys", "401    403   403    403   403     403        201     403   403       403      403    201",
        body={"name": "{fresh}", "scopes": ["usage"]}),
    row("GET /api/company/api-keys",  "401    403   403    403   403     403        200     403   403       403      403    200"),
    row("DELETE /api/company/api-keys/{key_id}",
                                      "401    403   403    403   403     403        200     403   403       403      403    200", key_id="key"),
    row("DELETE /api/company/api-keys/{key_id}",
                                      "401    403   403    403   403     403        404     403   403       403      403    404", key_id="key2"),
    row("DELETE /api/company/api-keys/{key_id}",
                                      "401    403   403    403   403     403        404     403   403       403      403    404", key_id="unknown"),
    row("POST /api/company/members",  "401    403   403    403   403     403        201     403   403       403      403    201",
        body={"email": "{fresh}", "name": "Ravi", "access": "VIEWER"}),
    row("POST /api/company/members",  "401 403 403 403 403 403 409:EMAIL_TAKEN 403 403      403      403    409:EMAIL_TAKEN",
        body={"email": "{user2.email}", "name": "Ravi", "access": "VIEWER"}),
    row("GET /api/company/members",   "401    403   403    403   403     403        200     403   403       200      200    200"),
    row("PATCH /api/company/members/{user_id}",
                                      "401    403   403    403   403     403        200     403   403       403      403    200",
        body={"access": "VIEWER"}, user_id="member"),
    row("PATCH /api/company/members/{user_id}",
                                      "401    403   403    403   403     403        404     403   403       403      403    404",
        body={"access": "VIEWER"}, user_id="member2"),
    row("PATCH /api/company/members/{user_id}",
                                      "401    403   403    403   403     403        404     403   403       403      403    404",
        body={"access": "VIEWER"}, user_id="unknown"),
    row("PATCH /api/company/members/{user_id}",
                                      "401 403 403 403 403 403 409:COMPANY_OWNER 403 403      403      403    409:COMPANY_OWNER",
        body={"access": "VIEWER"}, user_id="company"),
    row("DELETE /api/company/members/{user_id}",
                                      "401    403   403    403   403     403        200     403   403       403      403    200", user_id="member"),
    row("DELETE /api/company/members/{user_id}",
                                      "401    403   403    403   403     403        404     403   403       403      403    404", user_id="member2"),
    row("DELETE /api/company/members/{user_id}",
                                      "401    403   403    403   403     403        404     403   403       403      403    404", user_id="company2"),
    row("DELETE /api/company/members/{user_id}",
                                      "401 403 403 403 403 403 409:COMPANY_OWNER 403 403      403      403    409:COMPANY_OWNER",
        user_id="company"),
    row("PUT /admin/companies/{company_id}/price-list",
                                      "401    403   403    403   403     403        403     200   403       403      403    403",
        body={"priceList": "questions"}, company_id="company"),
    row("PUT /admin/companies/{company_id}/price-list",
                                      "401    403   403    403   403     403        403     404   403       403      403    403",
        body={"priceList": "questions"}, company_id="member"),
    row("GET /admin/credits/settings",
                                      "401    403   403    403   403     403        403     200"),
    row("PUT /admin/credits/settings",
                                      "401    403   403    403   403     403        403     200", body={"price_per_credit": "60.00"}),
    # --- metered usage
    row("POST /admin/usage/{usage_id}/refund",
                                      "401    403   403    403   403     403        403     201   403       403      403    403",
        body={"reason": "It was our fault."}, usage_id="charged"),
    row("POST /admin/usage/{usage_id}/refund",
                                      "401    403   403    403   403     403        403     404:USAGE_NOT_FOUND 403       403      403    403",
        body={"reason": "It was our fault."}, usage_id="unknown"),
    row("GET /api/prices",            "401    403   403    403   403     403        200     200   403       200      200    200"),
    row("GET /admin/usage-prices",    "401    403   403    403   403     403        403     200"),
    row("PUT /admin/usage-prices",    "401    403   403    403   403     403        403     200",
        body={"list": "tokens", "type": "cv-parsing", "price": "0.60", "reason": "A better model"}),
    # --- what companies use and pay: keys of the scope `usage` report, those of `read` and every member look
    *(row(f"POST /api/usage/{path}",  "401    403   403    403   403     403        201     403   201       403      403    201", body=body)
      for path, body in (
          ("cv-parsing", {"eventId": "{fresh}"}),
          ("question-generation", {"eventId": "{fresh}", "questionCount": 3}),
          ("video-interview", {"eventId": "{fresh}", "interviewId": "i", "durationMinutes": 3}),
      )),
    row("POST /api/usage/batch",      "401    403   403    403   403     403        200     403   200       403      403    200",
        body={"events": [{"type": "cv-parsing", "eventId": "{fresh}"}]}),
    row("POST /api/usage/{type}",     "401    403   403    403   403     403        201     403   201       403      403    201",
        body={"quantity": 1}, type="pages"),
    row("POST /api/usage/{type}",     "401 403 403 403 403 403 422:USAGE_TYPE_UNKNOWN 403 422:USAGE_TYPE_UNKNOWN 403 403 422:USAGE_TYPE_UNKNOWN",
        body={"quantity": 1}, type="unknown"),
    row("POST /api/jobs/{job_id}/publish",
                                      "401    403   403    403   403     403        200     403   200       403      403    200", job_id="job"),
    *(row("POST /api/jobs/{job_id}/publish",
                                      "401 403 403 403 403 403 404:JOB_NOT_FOUND 403 404:JOB_NOT_FOUND 403 403 404:JOB_NOT_FOUND", job_id=which)
      for which in ("job2", "unknown")),
    row("GET /api/usage/{usage_id}",  "401    403   403    403   403     403        200     403   403       200      200    200", usage_id="usage"),
    *(row("GET /api/usage/{usage_id}",
                                      "401 403 403 403 403 403 404:USAGE_NOT_FOUND 403 403 404:USAGE_NOT_FOUND 404:USAGE_NOT_FOUND 404:USAGE_NOT_FOUND",
          usage_id=which) for which in ("usage2", "unknown")),
    *(one
      for path in ("/api/usage", "/api/billing/status", "/api/billing/usage", "/api/billing/ledger", "/api/billing/invoices")
      for one in (
          row(f"GET {path}",          "401    403   403    403   403     403        200     422:VALIDATION_FAILED 403 200 200 200"),
          row(f"GET {path}",          "401    403   403    403   403     403        200     200   403       200      200    200",
              query="?companyId={company}"),
          row(f"GET {path}",          "401    403   403    403   403     403        404     200   403       404      404    404",
              query="?companyId={company2}"),
          row(f"GET {path}",          "401    403   403    403   403     403        404     404   403       404      404    404",
              query="?companyId={user}"),
      )),
    row("GET /api/billing/ledger",    "401    403   403    403   403     403        200     200   403       200      200    200",
        query="?companyId={company}&format=csv"),
    row("POST /api/billing/recharge", "401    403   403    403   403     403        201     403   403       403      403    201", body={"amount": "10.00"}),
    row("POST /api/billing/recharge", "401    403   403    403   403     403        201     403   403       403      403    201",
        body={"amount": "10.00", "paymentMethodId": "{method}"}),
    *(one
      for which in ("method2", "card", "unknown")
      for one in (
          row("POST /api/billing/recharge",
                                      "401    403   403    403   403     403        404     403   403       403      403    404",
              body={"amount": "10.00", "paymentMethodId": "{" + which + "}"}),
          row("PUT /api/billing/auto-recharge",
                                      "401    403   403    403   403     403        404     403   403       403      403    404",
              body={"enabled": True, "paymentMethodId": "{" + which + "}"}),
          row("DELETE /api/billing/payment-methods/{payment_method_id}",
                                      "401    403   403    403   403     403        404     403   403       403      403    404",
              payment_method_id=which),
      )),
    row("PUT /api/billing/auto-recharge",
                                      "401    403   403    403   403     403        200     403   403       403      403    200",
        body={"enabled": True, "paymentMethodId": "{method}"}),
    row("PUT /api/billing/alerts",    "401    403   403    403   403     403        200     403   403       403      403    200", body={"thresholds": ["20.00"]}),
    *(one
      for path in ("/api/billing/invoices/{invoice_id}", "/api/billing/invoices/{invoice_id}/page")
      for one in (
          row(f"GET {path}",          "401    403   403    403   403     403        200     403   403       200      200    200", invoice_id="invoice"),
          *(row(f"GET {path}",        "401 403 403 403 403 403 404:PAYMENT_NOT_FOUND 403 403 404:PAYMENT_NOT_FOUND 404:PAYMENT_NOT_FOUND 404:PAYMENT_NOT_FOUND",
                invoice_id=which) for which in ("invoice2", "payment", "unknown")),
      )),
    row("GET /api/billing/payment-methods",
                                      "401    403   403    403   403     403        200     403   403       200      200    200"),
    row("POST /api/billing/payment-methods/setup",
                                      "401    403   403    403   403     403        201     403   403       403      403    201"),
    row("DELETE /api/billing/payment-methods/{payment_method_id}",
                                      "401    403   403    403   403     403        200     403   403       403      403    200", payment_method_id="method"),
    # --- subscriptions and AI calls: `user2` is subscribed to the starter tier. No provider has a key here.
    row("GET /api/subscriptions/tiers", "401  200   200    200   200     200        200     200"),
    row("POST /api/subscriptions/checkout",
                                      "401    201   403    409:ALREADY_SUBSCRIBED 403 403 403 403", body={"tier": "starter"}),
    row("POST /api/subscriptions/checkout",
                                      "401 422:TIER_UNKNOWN 403 422:TIER_UNKNOWN 403 403  403     403", body={"tier": "free"}),
    row("POST /api/subscriptions/cancel",
                                      "401 409:NOT_SUBSCRIBED 403 200   403     403        403     403"),
    row("POST /api/subscriptions/downgrade",
                                      "401 409:NOT_SUBSCRIBED 403 422:TIER_UNKNOWN 403 403 403    403", body={"tier": "starter"}),
    row("GET /api/credits",           "401    200   403    200   403     403        403     403"),
    row("GET /api/credits/usage",     "401    200   403    200   403     403        403     403"),
    row("GET /api/credits/usage",     "401    200   403    200   403     403        403     403", query="?format=csv"),
    row("GET /api/credits/upgrade/preview",
                                      "401 409:NOT_SUBSCRIBED 403 200   403     403        403     403", query="?tier=professional"),
    row("POST /api/credits/upgrade",  "401 409:NOT_SUBSCRIBED 403 201   403     403        403     403", body={"tier": "professional"}),
    row("POST /api/ai/{provider}",    "401 404:PROVIDER_UNKNOWN 403 404:PROVIDER_UNKNOWN 403 403 403 403",
        body={"model": "gpt-4o-mini", "messages": []}, provider="unknown"),
)


@dataclass(frozen=True)
class EventRow:
    """One event and what each caller's acknowledgement says: `ok` or the error's code."""

    event: str
    payload: Mapping[str, Any]
    session: str
    cells: Mapping[str, str]

    def __str__(self) -> str:
        return f"{self.event} {self.session}"


def event(name: str, session: str, cells: str, **payload: Any) -> EventRow:
    return EventRow(name, payload, session, dict(zip(CALLERS, cells.split(), strict=True)))


EVENTS: Final = (
    #                                     user      lawyer    user2     lawyer2   freelancer company admin
    event("join_session", "running",      "ok        ok        NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND"),
    event("join_session", "ended",        "ok        ok        NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND"),
    event("join_session", "unknown",      "NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND"),
    event("send_message", "running",      "ok        ok        NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND", body="Hello"),
    event("send_message", "ended",        "SESSION_NOT_ACTIVE SESSION_NOT_ACTIVE NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND",
          body="Hello"),
    event("send_message", "unknown",      "NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND", body="Hello"),
    event("message_delivered", "running", "ok        ok        NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND", uptoSeq=9),
    event("message_delivered", "ended",   "ok        ok        NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND", uptoSeq=9),
    event("message_delivered", "unknown", "NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND", uptoSeq=9),
    event("mark_seen", "running",         "ok        ok        NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND"),
    event("mark_seen", "ended",           "ok        ok        NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND"),
    event("mark_seen", "unknown",         "NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND"),
    # Whoever has not joined with this socket: a party is told to, everybody else that there is nothing.
    event("typing", "running",            "NOT_JOINED NOT_JOINED NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND", isTyping=True),
    event("typing", "ended",              "NOT_JOINED NOT_JOINED NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND", isTyping=True),
    event("typing", "unknown",            "NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND", isTyping=True),
    event("leave_session", "running",     "ok        ok        NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND"),
    event("leave_session", "ended",       "ok        ok        NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND"),
    event("leave_session", "unknown",     "NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND"),
    # Roles before objects; none of these sessions is a request, and nobody is the lawyer.
    *(
        event(name, "none", "NOT_FOUND FORBIDDEN NOT_FOUND FORBIDDEN FORBIDDEN FORBIDDEN FORBIDDEN", lawyerId="nobody")
        for name in ("consult:request", "consult:queue", "consult:unqueue")
    ),
    *(
        event(name, session, cells)
        for session in ("running", "ended", "unknown")
        for cells, names in (
            ("NOT_FOUND FORBIDDEN NOT_FOUND FORBIDDEN FORBIDDEN FORBIDDEN FORBIDDEN", ("consult:cancel",)),
            ("FORBIDDEN NOT_FOUND FORBIDDEN NOT_FOUND FORBIDDEN FORBIDDEN FORBIDDEN",
             ("consult:accept", "consult:decline")),
        )
        for name in names
    ),
    # No session's: whoever is connected refreshes their own log-in, with their own token alone.
    event("auth:refresh", "none",         "ok        OTHER_PERSON OTHER_PERSON OTHER_PERSON OTHER_PERSON OTHER_PERSON OTHER_PERSON",
          token="{user.token}"),
    # --- calls: whoever is second has been called by the first
    event("rtc:invite", "running",        "ok        ok        NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND", partyId="p", media="audio"),
    event("rtc:invite", "ended",          "SESSION_NOT_ACTIVE SESSION_NOT_ACTIVE NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND",
          partyId="p", media="audio"),
    event("rtc:invite", "unknown",        "NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND", partyId="p", media="audio"),
    event("rtc:accept", "running",        "CALL_NOT_FOUND CALL_NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND", callId="c", partyId="p"),
    event("rtc:accept", "ended",          "SESSION_NOT_ACTIVE SESSION_NOT_ACTIVE NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND",
          callId="c", partyId="p"),
    event("rtc:accept", "unknown",        "NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND", callId="c", partyId="p"),
    event("rtc:reject", "running",        "CALL_NOT_FOUND CALL_NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND", callId="c"),
    event("rtc:reject", "ended",          "CALL_NOT_FOUND CALL_NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND", callId="c"),
    event("rtc:reject", "unknown",        "NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND", callId="c"),
    event("rtc:hangup", "running",        "CALL_NOT_FOUND CALL_NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND", callId="c"),
    event("rtc:hangup", "ended",          "CALL_NOT_FOUND CALL_NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND", callId="c"),
    event("rtc:hangup", "unknown",        "NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND", callId="c"),
    event("rtc:signal", "running",        "CALL_NOT_FOUND CALL_NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND",
          callId="c", n=1, kind="offer", sdp="v=0"),
    event("rtc:signal", "ended",          "SESSION_NOT_ACTIVE SESSION_NOT_ACTIVE NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND",
          callId="c", n=1, kind="offer", sdp="v=0"),
    event("rtc:signal", "unknown",        "NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND",
          callId="c", n=1, kind="offer", sdp="v=0"),
    event("rtc:ice_config", "running",    "ok        ok        NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND"),
    event("rtc:ice_config", "ended",      "SESSION_NOT_ACTIVE SESSION_NOT_ACTIVE NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND"),
    event("rtc:ice_config", "unknown",    "NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND"),
)
# fmt: on


@dataclass
class Town:
    """Everybody of the table, one consultation that runs and one that has ended."""

    api: Api
    people: Mapping[str, Person]
    #: Every way to have no valid token, by name, as Authorization headers.
    nobodies: Mapping[str, str | None]
    ids: Mapping[str, str]
    #: API keys of `company`, by their names in the table.
    keys: Mapping[str, Client]

    def clients(self, caller: str) -> list[tuple[str, Client]]:
        if caller in self.keys:
            return [(caller, self.keys[caller])]
        if caller != "nobody":
            return [(caller, self.people[caller])]
        return [(name, self.api.anonymous) for name in self.nobodies]

    async def call(self, row: Row, name: str, client: Client, **other_ids: str) -> Answer:
        ids = {**self.ids, **other_ids}
        method, path = row.route.split()
        path = path.format(**{param: ids[which] for param, which in (row.ids or {}).items()})
        headers = {}
        if (header := self.nobodies.get(name)) is not None:
            headers["Authorization"] = header
        body = None if row.body is None else json.loads(self._filled(json.dumps(row.body), ids))
        query = self._filled(row.query, ids)
        return await client.call(method, path + query, json=body, headers=headers)

    def _filled(self, text: str, ids: Mapping[str, str]) -> str:
        def value(match: re.Match[str]) -> str:
            name, _, attribute = match[1].partition(".")
            if name == "fresh":
                return f"{new_id()}@example.com"
            return str(getattr(self.people[name], attribute)) if attribute else ids[name]

        return re.sub(r"\{([a-z0-9_.]+)\}", value, text)


@asynccontextmanager
async def a_town(directory: Path) -> AsyncIterator[Town]:
    async with open_api(directory, payout_min="1.00") as api:
        late = await api.register()
        await api.advance(15 * 60)
        people = {
            "user": await api.a_user("500.00"),
            "user2": await api.a_user("500.00"),
            "lawyer": await api.a_lawyer(),
            "lawyer2": await api.a_lawyer(),
            "freelancer": await api.register(Role.FREELANCER),
            "company": await api.register(Role.COMPANY),
            "admin": await api.admin(),
            "unverified": await api.a_lawyer(verified=False),
            "disabled": await api.register(),
        }
        user, lawyer = people["user"], people["lawyer"]
        ended = await user.start(lawyer.id)
        await api.advance(5)
        await user.end(ended)
        ended2 = await user.start(lawyer.id)
        await api.advance(1)
        await user.end(ended2)
        requests = await _requests(user, lawyer)
        running = await user.start(lawyer.id)
        left = await api.log_in(user.email)
        assert (await left.post("/auth/logout")).status == 200
        await api.disable(people["disabled"])
        claims = jwt.decode(str(user.token), options={"verify_signature": False})
        nobodies = {
            "no header": None,
            "an empty header": "",
            "another scheme": "Basic dXNlcjpwYXNz",
            "no token": "Bearer ",
            "no JWT": "Bearer a-bad-token",
            "a forged token": f"Bearer {jwt.encode(claims, 's' * 32, algorithm='HS256')}",
            "an unsigned token": f"Bearer {jwt.encode(claims, None, algorithm='none')}",
            "a token that makes itself an admin's": f"Bearer {_promoted(str(user.token))}",
            "a token of an unknown log-in": f"Bearer {jwt.encode(claims | {'fam': 'f1'}, DEVELOPMENT_SECRET)}",
            "a refresh token": f"Bearer {user.refresh_token}",
            "an expired token": f"Bearer {late.token}",
            "a token after its log-out": f"Bearer {left.token}",
            "a disabled account's token": f"Bearer {people['disabled'].token}",
        }
        company, company2 = people["company"], await api.register(Role.COMPANY)
        for access in ("viewer", "manager"):
            people[access] = await a_member(api, company, access.upper())
        keys = {f"key_{scope}": await a_key(company, scope, [scope]) for scope in ("usage", "read")}
        revoked = (await company.post("/api/company/api-keys", {"name": "lost", "scopes": ["read"]})).json
        assert (await company.call("DELETE", f"/api/company/api-keys/{revoked['keyId']}")).status == 200
        some_key = str(keys["key_read"].token)
        nobodies |= {
            "a revoked key": f"Bearer {revoked['key']}",
            "a key with another secret": f"Bearer {some_key[:-4]}AAAA",
            "a key without its secret": f"Bearer {some_key.rpartition('_')[0]}",
            "an unknown key": f"Bearer tzk_{new_id()}_{'A' * 43}",
        }
        ids = {name: person.id for name, person in people.items()}
        ids |= {"company2": company2.id}
        for name, whose in (("member", company), ("member2", company2)):
            ids[name] = (await invited(whose, "VIEWER")).json["userId"]
        for name, whose in (("key", company), ("key2", company2)):
            made = await whose.post("/api/company/api-keys", {"name": "some", "scopes": ["usage", "read"]})
            ids[name] = made.json["keyId"]
        ids |= await _usage(api, company, company2)
        ids |= {"running": running, "ended": ended, "unknown": new_id()} | requests
        assert (await lawyer.patch("/lawyer/profile", {"waitingList": True})).status == 200
        assert (await people["user2"].post("/consult/queue", {"lawyerId": lawyer.id})).status == 200
        ids["yesterday"] = "2025-12-31"
        ids["card"] = (await user.post("/payment-methods/setup")).json["paymentMethodId"]
        ids["ended2"] = ended2
        ids["payment"] = (await user.post("/wallet/recharge", {"amount": "10.00"})).json["paymentId"]
        ids["order"] = f"simorder_{ids['payment']}_1000_INR"
        asked = await user.post(f"/consult/{ended}/refund-request", {"reason": "No sound."})
        ids["request"] = asked.json["id"]
        ids |= await _credits(people["freelancer"], people["company"], await _strangers(api))
        body = {"eventId": "charged", "interviewId": "i", "durationMinutes": 1}
        ids["charged"] = (await company2.post("/api/usage/video-interview", body)).json["usageId"]
        ids["payout"] = (await lawyer.post("/lawyer/payouts", {"amount": "1.00"})).json["id"]
        assert (await people["user2"].post("/api/subscriptions/checkout", {"tier": "starter"})).status == 201
        # A cycle begins with its first look: reading changes nothing any more.
        for subscriber in (user, people["user2"]):
            assert (await subscriber.get("/api/credits")).status == 200
        # Their first use in a minute is written down: it has happened, and reading changes nothing.
        for client in keys.values():
            await client.get("/api/company")
        # The receipts go out meanwhile.
        await api.idle()
        yield Town(api, people, nobodies, ids, keys)


async def _requests(user: Person, lawyer: Person) -> dict[str, str]:
    """One that the lawyer declined, and one that they accepted and the user then cancelled."""
    assert (await lawyer.patch("/lawyer/profile", {"autoAccept": False})).status == 200
    declined = await user.start(lawyer.id)
    assert (await lawyer.post(f"/consult/{declined}/decline")).status == 200
    cancelled = await user.start(lawyer.id)
    assert (await lawyer.post(f"/consult/{cancelled}/accept")).status == 200
    assert (await user.post(f"/consult/{cancelled}/cancel")).status == 200
    assert (await lawyer.patch("/lawyer/profile", {"autoAccept": True})).status == 200
    return {"declined": declined, "cancelled": cancelled}


async def _usage(api: Api, company: Person, company2: Person) -> dict[str, str]:
    """What two companies have used and paid, by its names in the table; a type of usage that an admin has added."""
    pages = {
        "list": "tokens",
        "type": "pages",
        "unit": "page",
        "entryType": "PAGES",
        "price": "0.10",
        "reason": "New",
    }
    added = await (await api.admin()).call("PUT", "/admin/usage-prices", json=pages)
    assert added.status == 200, added.text
    await api.advance(10)
    ids = {"pages": "pages"}
    for number, whose in (("", company), ("2", company2)):
        paid = await whose.post("/api/billing/recharge", {"amount": "100.00"})
        ids["invoice" + number] = paid.json["invoiceId"]
        ids["method" + number] = (await whose.post("/api/billing/payment-methods/setup")).json[
            "paymentMethodId"
        ]
        ids["job" + number] = new_id()
        used = await whose.post("/api/usage/cv-parsing", {"jobId": ids["job" + number]})
        assert used.json["status"] == "CHARGED", used.text
        ids["usage" + number] = used.json["usageId"]
    return ids


async def _strangers(api: Api) -> tuple[Person, Person]:
    return await api.register(Role.FREELANCER), await api.register(Role.COMPANY)


async def _credits(freelancer: Person, company: Person, strangers: tuple[Person, Person]) -> dict[str, str]:
    """Projects, purchases and applications of both, by their names in the table."""
    ids: dict[str, str] = {}
    other, other_company = strangers
    for name, whose in (
        ("project", company),
        ("project2", other_company),
        ("closed", company),
        ("left", company),
    ):
        ids[name] = (await whose.post("/projects", {"title": "A film", "description": "x"})).json["id"]
    assert (await company.post(f"/projects/{ids['closed']}/close")).status == 200
    for name, whose in (("purchase", freelancer), ("purchase2", other)):
        bought = await whose.post("/credits/initiate-purchase", {"package_id": 1})
        ids[name] = bought.json["payment_id"]
    for name, whose, project in (
        ("application", freelancer, "project"),
        ("application2", other, "project"),
        ("withdrawn", freelancer, "left"),
    ):
        applied = await whose.post("/applied-projects", {"project_id": ids[project]})
        assert applied.status == 201, applied.text
        ids[name] = applied.json["id"]
    withdrawn = await freelancer.post(f"/applied-projects/{ids['withdrawn']}/withdraw")
    assert withdrawn.status == 200, withdrawn.text
    return ids


def _promoted(token: str) -> str:
    """The token with another payload under its old signature."""
    head, _, signature = token.split(".")
    claims = jwt.decode(token, options={"verify_signature": False})
    return f"{head}.{jwt.encode(claims | {'role': 'ADMIN'}, 's' * 32).split('.')[1]}.{signature}"


@pytest.fixture
async def town(tmp_path: Path) -> AsyncIterator[Town]:
    async with a_town(tmp_path) as town:
        yield town


def test_every_route_has_its_rows() -> None:
    assert {row.route for row in CALLS} == {route.name for route in ROUTES}


def test_every_event_has_its_rows() -> None:
    assert {(row.event, row.session) for row in EVENTS} == {
        (name, session)
        for name, event in CLIENT_EVENTS.items()
        for session in (
            ("running", "ended", "unknown") if issubclass(event.payload, SessionPayload) else ("none",)
        )
    }


def test_the_table_says_of_every_role_what_the_routes_say() -> None:
    """A role that gets 403 in one row of a route gets it in all: roles are looked at before objects."""
    for route in ROUTES:
        rows = [row for row in CALLS if row.route == route.name]
        for caller in (*CALLERS, *DELEGATES):
            refused = {row.cells[caller] == "403" for row in rows}
            assert len(refused) == 1, (route.name, caller)


async def _check(town: Town, row: Row) -> list[str]:
    """What is not as the row says. Refused calls come first, so that they cannot profit from what was granted; the owner of the
    company comes last, whose members go with them.
    """
    wrong: list[str] = []
    for caller, cell in sorted(row.cells.items(), key=lambda item: (item[1] < "400", item[0] == "company")):
        status, _, code = cell.partition(":")
        for name, client in town.clients(caller):
            before = town.api.everything()
            answer = await town.call(row, name, client)
            said = f"{row}: {name} hears {answer.status} {answer.text[:200]}"
            if answer.status != int(status):
                wrong.append(said)
                continue
            if answer.status < 400:
                if (
                    row.route.startswith("GET")
                    and row.route not in (QUOTES, METRICS)
                    and town.api.everything() != before
                ):
                    wrong.append(f"{row}: {name} changed something by reading")
                continue
            if answer.code != (code or CODES[answer.status]) or answer.json["status"] != answer.status:
                wrong.append(said)
            if answer.status == 401 and "Bearer" not in answer.headers["WWW-Authenticate"]:
                wrong.append(f"{row}: {name} is not told how to authenticate")
            if town.api.everything() != before:
                wrong.append(f"{row}: {name} was refused and changed something")
            if answer.status == 404:
                ids = {which: new_id() for which in town.ids}
                unknown = await town.call(row, name, client, **ids)
                if _without_ids(answer) != _without_ids(unknown):
                    wrong.append(f"{row}: {name} can tell somebody else's from none: {answer.text}")
    return wrong


def _without_ids(answer: Answer) -> tuple[int, Any, set[str]]:
    # An application's id is made of its person's, its project's and a number.
    text = re.sub(r"\b[0-9a-f]{32}(:[0-9a-f]{32}:\d+)?\b", "ID", answer.text)
    return answer.status, json.loads(text), set(answer.headers)


async def test_who_may_read_what(town: Town) -> None:
    """All reading rows in one town: reading changes nothing."""
    wrong = [problem for row in CALLS if row.route.startswith("GET") for problem in await _check(town, row)]
    assert wrong == []


@pytest.mark.parametrize("row", [row for row in CALLS if not row.route.startswith("GET")], ids=str)
async def test_who_may_do_what(town: Town, row: Row) -> None:
    assert await _check(town, row) == []


async def test_head_is_refused_to_whoever_may_not_get(town: Town) -> None:
    wrong = []
    for row in CALLS:
        if row.route.startswith("GET"):
            head = Row(row.route.replace("GET", "HEAD"), row.cells, row.body, row.query, row.ids)
            for caller, cell in row.cells.items():
                for name, client in town.clients(caller):
                    answer = await town.call(head, name, client)
                    if str(answer.status) != cell.partition(":")[0] or answer.text:
                        wrong.append(f"{head}: {name} hears {answer.status} {answer.text}")
    assert wrong == []


async def test_who_may_say_what_on_a_socket(town: Town) -> None:
    """Each event on a connection of its own, so that nobody profits from an earlier join."""
    wrong: list[str] = []
    presence = town.api.services.engine._attending._presence  # type: ignore[union-attr]
    for row in EVENTS:
        for caller, cell in sorted(row.cells.items(), key=lambda item: item[1] == "ok"):
            # Who came and went before is part of a running session's bill.
            await until(lambda: not presence._sockets)
            await town.api.idle()
            socket = await town.api.connect(town.people[caller].token)
            before = town.api.everything()
            about = {} if row.session == "none" else {"sessionId": town.ids[row.session]}
            payload = json.loads(town._filled(json.dumps(row.payload), town.ids))
            ack = await socket.call(row.event, {**payload, **about})
            heard = "ok" if ack["ok"] else ack["error"]["code"]
            if heard != cell:
                wrong.append(f"{row}: {caller} hears {ack}")
            if cell != "ok" and town.api.everything() != before:
                wrong.append(f"{row}: {caller} was refused and changed something")
            if cell == "NOT_FOUND":
                unknown = await socket.call(row.event, {**row.payload, "sessionId": new_id()})
                if unknown != ack:
                    wrong.append(f"{row}: {caller} can tell somebody else's from none: {ack} {unknown}")
            await socket.sio.disconnect()
    assert wrong == []


async def test_nobody_connects_without_a_valid_token(town: Town) -> None:
    """As for requests, except that a socket's token is checked without asking the store whether its log-in is known."""
    for name, header in town.nobodies.items():
        if name == "a token of an unknown log-in":
            continue
        client = socketio.AsyncClient(reconnection=False)
        reasons: list[Any] = []
        client.on("connect_error", reasons.append)
        auth = None if header is None else {"token": header.removeprefix("Bearer ")}
        with pytest.raises(ConnectionRefused):
            await client.connect(town.api.base_url, auth=auth, transports=["websocket"])
        assert [reason["data"]["code"] for reason in reasons] == ["UNAUTHENTICATED"], name
        assert reasons[0]["data"]["retryable"] is False


async def test_an_api_key_opens_no_socket(town: Town) -> None:
    for key in town.keys.values():
        client = socketio.AsyncClient(reconnection=False)
        with pytest.raises(ConnectionRefused):
            await client.connect(town.api.base_url, auth={"token": key.token}, transports=["websocket"])


async def test_a_log_out_and_a_disabled_account_close_their_sockets(town: Town) -> None:
    user, stranger = town.people["user"], town.people["user2"]
    second = await town.api.log_in(user.email)
    first_socket = await town.api.connect(user.token)
    second_socket = await town.api.connect(second.token)
    other_socket = await town.api.connect(stranger.token)

    await second.post("/auth/logout")
    await second_socket.hears("server:bye")
    async with asyncio.timeout(PATIENCE_S):
        await second_socket.gone.wait()
    assert second_socket.told("server:bye")[0]["reconnect"] is False
    assert (await first_socket.call("join_session", {"sessionId": town.ids["running"]}))["ok"]

    await town.api.disable(user)
    async with asyncio.timeout(PATIENCE_S):
        await first_socket.gone.wait()
    assert (await other_socket.call("join_session", {"sessionId": town.ids["running"]}))["ok"] is False


async def test_a_socket_outlives_its_access_token_and_a_request_does_not(town: Town) -> None:
    """A paid conversation must not break off every quarter of an hour."""
    user, session_id = town.people["user"], town.ids["running"]
    socket = await town.api.connect(user.token)
    await town.api.advance(16 * 60)
    assert (await user.get("/auth/me")).status == 401
    # The 500.00 were used up long ago; reading goes on.
    assert (await socket.call("join_session", {"sessionId": session_id}))["ok"]
    await user.log_in_again()
    assert (await user.get("/auth/me")).status == 200
