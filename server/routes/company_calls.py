"""Whose company a call is about."""

from typing import Any

from server.auth.model import Role
from server.companies.errors import CompanyNotFound
from server.errors import Forbidden, ValidationFailed
from server.routing import Call


def company_of(call: Call[Any, Any], asked: str | None = None) -> str:
    """The id of the company that a call is about: the caller's own, or the one that an admin names with `companyId`.

    Raises:
        CompanyNotFound: somebody of a company asks for another one.
        ValidationFailed: an admin names none.
    """
    caller = call.caller
    if caller.company is not None:
        if asked not in (None, caller.company.company_id):
            raise CompanyNotFound(company=asked)
        return caller.company.company_id
    if caller.role is not Role.ADMIN:
        raise Forbidden(role=caller.role)
    if asked is None:
        raise ValidationFailed([("companyId", "is required for the role ADMIN")])
    return asked
