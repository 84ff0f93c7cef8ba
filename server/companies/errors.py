"""What can go wrong with companies, their keys and their people."""

from billing_engine.errors import Conflict, NotFound


class CompanyNotFound(NotFound):
    """There is no such company, or it is not the caller's."""

    detail = "There is no such company."


class ApiKeyNotFound(NotFound):
    """The company has no such key."""

    detail = "There is no such API key."


class ApiKeyNameTaken(Conflict):
    """A live key of the company has this name: whoever repeats a call must not get a second key."""

    code = "API_KEY_NAME_TAKEN"
    detail = "A key with this name is in use. Revoke it first, or choose another name."


class TooManyApiKeys(Conflict):
    """The company has as many live keys as it may."""

    code = "TOO_MANY_API_KEYS"
    detail = "There are too many API keys. Revoke one first."


class MemberNotFound(NotFound):
    """The company has no such member."""

    detail = "There is no such member."


class OwnerFixed(Conflict):
    """The company is its owner's."""

    code = "COMPANY_OWNER"
    detail = "This is the company's owner, who may do everything and cannot be removed."


class TooManyMembers(Conflict):
    """The company has as many members as it may."""

    code = "TOO_MANY_MEMBERS"
    detail = "There are too many members. Remove one first."
