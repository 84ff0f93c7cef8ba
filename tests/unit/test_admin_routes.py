"""What the route table says of admins' writes, and what their queries read."""

from datetime import date

import pytest
from pydantic import ValidationError

from server.admin.wire import AuditQuery, RevenueQuery
from server.auth.model import Role
from server.routes import ROUTES
from server.routing import Route


@pytest.mark.parametrize(
    "route", [route for route in ROUTES if route.method != "GET"], ids=lambda route: route.name
)
def test_whatever_an_admin_may_change_is_written_down(route: Route) -> None:
    """If it fails: give the route its `audit=Audited(…)`. What everybody may do to their own account is no admin's act."""
    may_all = route.access.roles == frozenset(Role)
    if Role.ADMIN in route.access.roles and not may_all:
        assert route.audit is not None, route.name
    if route.audit is not None:
        in_path = "{" + route.audit.subject + "}" in route.path
        in_body = route.body is not None and route.audit.subject in route.body.model_fields
        # Where there is nothing to name, it is the only one of its kind.
        assert in_path or in_body or "{" not in route.path
        assert Role.ADMIN in route.access.roles


def test_no_two_routes_are_written_down_under_one_name() -> None:
    actions = [route.audit.action for route in ROUTES if route.audit is not None]
    assert len(actions) == len(set(actions)) > 0


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("2026-01-01T00:00:00Z", 1_767_225_600_000),
        ("2026-01-01T05:30:00+05:30", 1_767_225_600_000),
        ("2025-12-31T19:00:00.0019-05:00", 1_767_225_600_001),
        ("2026-01-01T00:00:00.999999999Z", 1_767_225_600_999),
    ],
)
def test_instants_are_read_to_the_millisecond(text: str, ms: int) -> None:
    assert AuditQuery.model_validate_strings({"from": text}).from_ == ms


@pytest.mark.parametrize(
    "text",
    [
        *("", "2026-01-01", "2026-01-01T00:00:00", "2026-13-01T00:00:00Z", "2026-01-01T24:00:00Z"),
        *("2026-01-01 00:00:00Z", "2026-01-01T00:00:00Z\n", "1767225600", "2026-01-01T00:00:00+99:99"),
        *("२०२६-०१-०१T००:००:००Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"),
    ],
)
def test_what_is_no_instant(text: str) -> None:
    with pytest.raises(ValidationError):
        AuditQuery.model_validate_strings({"to": text})


def test_days_are_days_and_nothing_else() -> None:
    assert RevenueQuery.model_validate_strings({"from": "2026-02-28"}).from_ == date(2026, 2, 28)
    for text in (
        "2026-02-29",
        "20260228",
        "2026-2-8",
        "1999-12-31",
        "2026-02-28T00:00:00Z",
        "today",
        "1767225600",
    ):
        with pytest.raises(ValidationError):
            RevenueQuery.model_validate_strings({"from": text})
