"""A company's own administration: how it is billed, its API keys, its people (SPEC 9)."""

from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, StringConstraints

from server.auth.errors import EmailTaken
from server.auth.model import CompanyRight, MemberAccess, Role, email_key
from server.companies.errors import (
    ApiKeyNameTaken,
    ApiKeyNotFound,
    CompanyNotFound,
    MemberNotFound,
    OwnerFixed,
    TooManyApiKeys,
    TooManyMembers,
)
from server.companies.keys import MadeKey
from server.companies.members import Member
from server.companies.model import ApiKey, Company, PriceList, Scope
from server.companies_room import CompaniesRoom
from server.rate_limits.service import Limited, RateLimit
from server.routes.company_calls import company_of
from server.routing import Audited, Call, Route, company, only
from server.wire import (
    Email,
    FromValue,
    Id,
    Instant,
    Name,
    Page,
    PageQuery,
    WireModel,
    encode_cursor,
    time_place,
)


def room_of(call: Call[Any, Any]) -> CompaniesRoom:
    """The companies' room."""
    room: CompaniesRoom = call.services.companies
    return room


class CompanyQuery(WireModel):
    """Which company; a company's own people and keys may leave it out, admins may not."""

    company_id: Id | None = None


class CompanyOut(WireModel):
    """A company, and how it is billed: its months begin by the clocks of `timeZone`, its usages cost what `priceList` says."""

    company_id: str
    name: str
    time_zone: str
    price_list: str
    price_list_since: Instant
    created_at: Instant

    @classmethod
    def of(cls, found: Company) -> Self:
        return cls(
            company_id=found.id,
            name=found.name,
            time_zone=found.record.time_zone,
            price_list=found.price_list,
            price_list_since=found.price_list_since_ms,
            created_at=found.record.created_at_ms,
        )


class CompanyIn(WireModel):
    """By which clocks the company's months begin: an IANA time zone."""

    time_zone: Annotated[str, StringConstraints(min_length=1, max_length=64)]


class PriceListIn(WireModel):
    """By which list the company pays from now on."""

    price_list: Annotated[PriceList, FromValue]


class ApiKeyIn(WireModel):
    """What a key is called, and what it is for: to report usages, to read, or both."""

    name: Name
    scopes: Annotated[list[Annotated[Scope, FromValue]], Field(min_length=1, max_length=2)]


class ApiKeyMadeOut(WireModel):
    """A new key. `key` is shown here and never again."""

    key_id: str
    name: str
    scopes: list[Scope]
    key: str
    created_at: Instant

    @classmethod
    def of(cls, made: MadeKey) -> Self:
        return cls(
            key_id=made.key.id,
            name=made.key.name,
            scopes=list(made.key.scopes),
            key=made.text,
            created_at=made.key.created_at_ms,
        )


class ApiKeyOut(WireModel):
    """A key without its text. `lastUsedAt` is right to the minute; a key with `revokedAt` does not work any more."""

    key_id: str
    name: str
    scopes: list[Scope]
    created_by: str
    created_at: Instant
    last_used_at: Instant | None
    revoked_at: Instant | None

    @classmethod
    def of(cls, key: ApiKey) -> Self:
        return cls(
            key_id=key.id,
            name=key.name,
            scopes=list(key.scopes),
            created_by=key.created_by,
            created_at=key.created_at_ms,
            last_used_at=key.last_used_at_ms,
            revoked_at=key.revoked_at_ms,
        )


class InviteIn(WireModel):
    """Whom to invite, and what they may do: VIEWER reads, MANAGER does everything that the owner may do here."""

    email: Email
    name: Name
    access: Annotated[MemberAccess, FromValue]


class MemberAccessIn(WireModel):
    """What a member may do from now on."""

    access: Annotated[MemberAccess, FromValue]


class MemberOut(WireModel):
    """Somebody of the company. INVITED until they have chosen a password; DISABLED by an admin."""

    user_id: str
    email: str
    name: str
    access: Literal["OWNER", "MANAGER", "VIEWER"]
    status: Literal["ACTIVE", "INVITED", "DISABLED"]
    created_at: Instant

    @classmethod
    def of(cls, member: Member) -> Self:
        account = member.account
        status: Literal["ACTIVE", "INVITED", "DISABLED"] = "INVITED" if member.is_invited else "ACTIVE"
        return cls(
            user_id=account.id,
            email=account.email,
            name=account.name,
            access=member.access.value if member.access is not None else "OWNER",
            status="DISABLED" if account.is_disabled else status,
            created_at=account.created_at_ms,
        )


class RemovedOut(WireModel):
    """The member is none any more."""

    ok: Literal[True] = True
    user_id: str


# --- the company


async def show(call: Call[None, CompanyQuery]) -> CompanyOut:
    return CompanyOut.of(await room_of(call).records.get(company_of(call, call.query.company_id)))


async def change(call: Call[CompanyIn, None]) -> CompanyOut:
    return CompanyOut.of(await room_of(call).records.set_time_zone(company_of(call), call.body.time_zone))


async def set_price_list(call: Call[PriceListIn, None]) -> CompanyOut:
    records = room_of(call).records
    return CompanyOut.of(await records.set_price_list(call.path["company_id"], call.body.price_list))


async def price_list_now(call: Call[Any, None]) -> dict[str, Any]:
    """What a new list changes, for the audit log. Raises `CompanyNotFound`."""
    return {"priceList": (await room_of(call).records.get(call.path["company_id"])).price_list}


# --- its keys


async def make_key(call: Call[ApiKeyIn, None]) -> ApiKeyMadeOut:
    made = await room_of(call).keys.make(
        company_of(call), name=call.body.name, scopes=call.body.scopes, by=call.caller.user_id
    )
    return ApiKeyMadeOut.of(made)


async def list_keys(call: Call[None, PageQuery]) -> Page[ApiKeyOut]:
    keys, place = await room_of(call).keys.listed(
        company_of(call), limit=call.query.limit, before=time_place(call.query.cursor)
    )
    return Page[ApiKeyOut](items=[ApiKeyOut.of(key) for key in keys], next_cursor=_cursor(place))


async def revoke_key(call: Call[None, None]) -> ApiKeyOut:
    return ApiKeyOut.of(await room_of(call).keys.revoke(company_of(call), call.path["key_id"]))


# --- its people


async def invite(call: Call[InviteIn, None]) -> MemberOut:
    member = await room_of(call).members.invite(
        company_of(call),
        email=call.body.email,
        name=call.body.name,
        access=call.body.access,
        operation_id=call.operation_id,
    )
    return MemberOut.of(member)


async def list_members(call: Call[None, PageQuery]) -> Page[MemberOut]:
    members, place = await room_of(call).members.listed(
        company_of(call), limit=call.query.limit, after=time_place(call.query.cursor)
    )
    return Page[MemberOut](items=[MemberOut.of(member) for member in members], next_cursor=_cursor(place))


async def set_access(call: Call[MemberAccessIn, None]) -> MemberOut:
    member = await room_of(call).members.set_access(company_of(call), call.path["user_id"], call.body.access)
    return MemberOut.of(member)


async def remove(call: Call[None, None]) -> RemovedOut:
    await room_of(call).members.remove(company_of(call), call.path["user_id"])
    return RemovedOut(user_id=call.path["user_id"])


def _cursor(place: tuple[int, str] | None) -> str | None:
    return encode_cursor(*place) if place is not None else None


def _invited_email(call: Call[InviteIn, None]) -> str:
    return email_key(call.body.email)


_READ: Final = company(CompanyRight.READ)
_MANAGE: Final = company(CompanyRight.MANAGE)
_TAGS: Final = ("companies",)
ROUTES: Final = (
    Route(
        method="GET",
        path="/api/company",
        handler=show,
        summary="My company, and how it is billed",
        access=company(CompanyRight.READ, admins=True),
        query=CompanyQuery,
        response=CompanyOut,
        errors=(CompanyNotFound,),
        tags=_TAGS,
    ),
    Route(
        method="PUT",
        path="/api/company",
        handler=change,
        summary="Set by which clocks the company's months begin",
        access=_MANAGE,
        body=CompanyIn,
        response=CompanyOut,
        tags=_TAGS,
    ),
    Route(
        method="POST",
        path="/api/company/api-keys",
        handler=make_key,
        summary="Make an API key; it is shown once. A repeat is refused by the name, and makes no second key",
        access=_MANAGE,
        body=ApiKeyIn,
        response=ApiKeyMadeOut,
        status=201,
        errors=(ApiKeyNameTaken, TooManyApiKeys),
        tags=_TAGS,
    ),
    Route(
        method="GET",
        path="/api/company/api-keys",
        handler=list_keys,
        summary="The company's API keys, newest first, revoked ones too",
        access=_MANAGE,
        query=PageQuery,
        response=Page[ApiKeyOut],
        tags=_TAGS,
    ),
    Route(
        method="DELETE",
        path="/api/company/api-keys/{key_id}",
        handler=revoke_key,
        summary="Revoke an API key: the next call with it is refused. Repeated, the same answer",
        access=_MANAGE,
        response=ApiKeyOut,
        errors=(ApiKeyNotFound,),
        tags=_TAGS,
    ),
    Route(
        method="POST",
        path="/api/company/members",
        handler=invite,
        summary="Invite somebody: a letter lets them choose a password",
        access=_MANAGE,
        body=InviteIn,
        response=MemberOut,
        status=201,
        errors=(EmailTaken, TooManyMembers),
        idempotent=True,
        tags=_TAGS,
        # It opens an account and writes to an address, as a registration does.
        rate=RateLimit(Limited.REGISTER, account=_invited_email),
    ),
    Route(
        method="GET",
        path="/api/company/members",
        handler=list_members,
        summary="The company's people: the owner, then the members, the earliest first",
        access=_READ,
        query=PageQuery,
        response=Page[MemberOut],
        tags=_TAGS,
    ),
    Route(
        method="PATCH",
        path="/api/company/members/{user_id}",
        handler=set_access,
        summary="Set what a member may do, from the next call on",
        access=_MANAGE,
        body=MemberAccessIn,
        response=MemberOut,
        errors=(MemberNotFound, OwnerFixed),
        tags=_TAGS,
    ),
    Route(
        method="DELETE",
        path="/api/company/members/{user_id}",
        handler=remove,
        summary="Remove a member: their log-ins end, their account is deleted. Repeated, the same answer",
        access=_MANAGE,
        response=RemovedOut,
        errors=(MemberNotFound, OwnerFixed),
        tags=_TAGS,
    ),
    Route(
        method="PUT",
        path="/admin/companies/{company_id}/price-list",
        handler=set_price_list,
        summary="Choose a company's price list, from now on; what it has used keeps its price",
        access=only(Role.ADMIN),
        body=PriceListIn,
        response=CompanyOut,
        errors=(CompanyNotFound,),
        audit=Audited("company.price_list", "company_id", price_list_now),
        tags=_TAGS,
    ),
)
