"""Whose company a call is about."""

from typing import Any

from server.auth.model import Role
from server.companies.errors import CompanyNotFound
from server.errors import ValidationFailed
from server.routing import Call


def company_of(call: Call[Any, Any], asked: str | None = None) -> str:
    """The caller's company; for an admin, the one that is asked for.

    Raises:
        CompanyNotFound: a company that is not the caller's is asked for.
        ValidationFailed: an admin asks for none; names `companyId`.
    """
    if call.caller.role is Role.ADMIN:
        if asked is None:
            raise ValidationFailed([("companyId", "is needed: an admin has no company")])
        return asked
    company = call.caller.company
    if company is None or asked not in (None, company.company_id):
        raise CompanyNotFound
    return str(company.company_id)
