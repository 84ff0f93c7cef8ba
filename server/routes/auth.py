"""Identity: register, log in, refresh, log out, who am I; new passwords, and the end of an account (SPEC 2, 14)."""

from typing import Annotated, Any, Final, Literal

from pydantic import StringConstraints

from billing_engine.money import Asset, format_minor
from server.auth.accounts import Accounts
from server.auth.control import AccountControl
from server.auth.errors import (
    AccountDisabled,
    CompanyUnsettled,
    CreditsLeft,
    DebtLeft,
    EmailTaken,
    InSession,
    LastAdmin,
    MoneyLeft,
    PasswordsBusy,
    RefreshRefused,
    ResetRefused,
    WrongCredentials,
    WrongPassword,
)
from server.auth.model import Account, Profession, Role, TokenPair, email_key
from server.auth.password_changes import PasswordChanges
from server.auth.sign_ins import SignIns
from server.errors import Unauthenticated, ValidationFailed
from server.rate_limits.service import Limited, RateLimit
from server.routing import PUBLIC, SIGNED_IN, Call, Route
from server.wire import Email, FromValue, MoneyOut, Name, NewPassword, WireModel

#: Longer than any password can be, so that a wrong one is refused as wrong and not as long.
_Tried = Annotated[str, StringConstraints(max_length=1_024)]


class RegisterBody(WireModel):
    """A new account. FREELANCER takes `profession`, COMPANY takes `companyName`."""

    email: Email
    password: NewPassword
    name: Name
    role: Annotated[Role, FromValue] = Role.USER
    profession: Annotated[Profession, FromValue] | None = None
    company_name: Name | None = None


class LoginBody(WireModel):
    """What proves who somebody is."""

    email: Annotated[str, StringConstraints(max_length=254)]
    password: _Tried


class RefreshBody(WireModel):
    """The refresh token, as it was given."""

    refresh_token: Annotated[str, StringConstraints(min_length=1, max_length=512)]


class PasswordBody(WireModel):
    """A new password, and the one that it replaces."""

    current_password: _Tried
    new_password: NewPassword


class ForgotBody(WireModel):
    """Whose password is forgotten."""

    email: Annotated[str, StringConstraints(min_length=1, max_length=254)]


class ResetBody(WireModel):
    """The one-time token, as the letter has it, and a new password."""

    token: Annotated[str, StringConstraints(min_length=1, max_length=256)]
    new_password: NewPassword


class DeleteBody(WireModel):
    """The password, once more. `forfeit` gives up what money there is."""

    password: _Tried
    forfeit: bool = False


class LogoutBody(WireModel):
    """`everywhere` ends every log-in of the caller."""

    everywhere: bool = False


class AccountView(WireModel):
    """An account, to its owner."""

    id: str
    email: str
    name: str
    role: Role
    profession: Profession | None = None
    company_name: str | None = None
    #: The company that a COMPANY user owns, or is a member of.
    company_id: str | None = None

    @classmethod
    def of(cls, account: Account) -> "AccountView":
        return cls(
            id=account.id,
            email=account.email,
            name=account.name,
            role=account.role,
            profession=account.profession,
            company_name=account.company_name,
            company_id=account.acts_for,
        )


class TokensView(WireModel):
    """An access token, its lifetime in seconds, and the refresh token that follows the one used."""

    access_token: str
    refresh_token: str
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105 (the name of the scheme)
    expires_in: int

    @classmethod
    def of(cls, pair: TokenPair) -> "TokensView":
        return cls(
            access_token=pair.access_token, refresh_token=pair.refresh_token, expires_in=pair.expires_in_s
        )


class SignedInView(TokensView):
    """The account with its first tokens."""

    user: AccountView

    @classmethod
    def beside(cls, account: Account, pair: TokenPair) -> "SignedInView":
        return cls(
            user=AccountView.of(account),
            access_token=pair.access_token,
            refresh_token=pair.refresh_token,
            expires_in=pair.expires_in_s,
        )


class LogoutView(WireModel):
    """What was ended."""

    ok: Literal[True] = True
    everywhere: bool


class DoneView(WireModel):
    """It is done."""

    ok: Literal[True] = True


class ForgotView(WireModel):
    """The same for every address: if it is an account's, a letter is on its way."""

    ok: Literal[True] = True
    expires_in: int


class DeletedView(WireModel):
    """The account is gone; `forfeited` is the money that its owner gave up, `forfeitedCredits` the application credits."""

    ok: Literal[True] = True
    forfeited: MoneyOut
    forfeited_credits: int
    currency: str


def _accounts(call: Call[Any, Any]) -> Accounts:
    accounts: Accounts = call.services.accounts
    return accounts


def _sign_ins(call: Call[Any, Any]) -> SignIns:
    sign_ins: SignIns = call.services.sign_ins
    return sign_ins


async def register(call: Call[RegisterBody, None]) -> SignedInView:
    """Open an account and log in to it."""
    body = call.body
    if body.role is Role.LAWYER:
        raise ValidationFailed([("role", "lawyers register at POST /lawyer/register")])
    if body.role is Role.ADMIN:
        raise ValidationFailed([("role", "must be USER, FREELANCER or COMPANY")])
    account = await _accounts(call).create(
        email=body.email,
        password=body.password,
        name=body.name,
        role=body.role,
        profession=body.profession,
        company_name=body.company_name,
    )
    return SignedInView.beside(account, await _sign_ins(call).open(account))


async def login(call: Call[LoginBody, None]) -> SignedInView:
    """Tokens for an address and its password."""
    account = await _accounts(call).log_in(
        email=call.body.email, password=call.body.password, address=call.remote
    )
    return SignedInView.beside(account, await _sign_ins(call).open(account))


async def refresh(call: Call[RefreshBody, None]) -> TokensView:
    """The next pair for a refresh token."""
    return TokensView.of(await _sign_ins(call).refresh(call.body.refresh_token))


async def logout(call: Call[LogoutBody, None]) -> LogoutView:
    """End this log-in, or all of the caller's."""
    if call.body.everywhere:
        await _sign_ins(call).end_all(call.caller.user_id)
    else:
        await _sign_ins(call).end(call.caller)
    return LogoutView(everywhere=call.body.everywhere)


async def me(call: Call[None, None]) -> AccountView:
    """The caller's account."""
    account = await _accounts(call).get(call.caller.user_id)
    if account is None:
        raise Unauthenticated(presented=True)
    return AccountView.of(account)


async def change_password(call: Call[PasswordBody, None]) -> DoneView:
    """A new password; the caller's other log-ins end."""
    await _passwords(call).change(call.caller, current=call.body.current_password, new=call.body.new_password)
    return DoneView()


async def forgot(call: Call[ForgotBody, None]) -> ForgotView:
    """Send a one-time token to the address, if it is an account's."""
    await _passwords(call).forget(call.body.email)
    return ForgotView(expires_in=_passwords(call).reset_lifetime_s)


async def reset(call: Call[ResetBody, None]) -> DoneView:
    """A new password for the bearer of a one-time token; all log-ins end."""
    await _passwords(call).reset(call.body.token, call.body.new_password)
    return DoneView()


async def delete(call: Call[DeleteBody, None]) -> DeletedView:
    """The end of the caller's account."""
    control: AccountControl = call.services.control
    deletion = await control.delete(
        call.caller.user_id, password=call.body.password, forfeit=call.body.forfeit
    )
    asset: Asset = deletion.asset or call.services.asset
    return DeletedView(
        forfeited=format_minor(deletion.forfeited_minor, asset),
        forfeited_credits=deletion.forfeited_credits,
        currency=asset.code,
    )


def _passwords(call: Call[Any, Any]) -> PasswordChanges:
    passwords: PasswordChanges = call.services.password_changes
    return passwords


def _caller(call: Call[Any, None]) -> str:
    return call.caller.user_id


def _named_email(call: Call[Any, None]) -> str:
    return email_key(call.body.email)


_TAGS: Final = ("identity",)
#: Also for the lawyers' own door.
REGISTRATION: Final = RateLimit(Limited.REGISTER, account=_named_email)
ROUTES: Final = (
    Route(
        method="POST",
        path="/auth/register",
        handler=register,
        summary="Open an account",
        access=PUBLIC,
        body=RegisterBody,
        response=SignedInView,
        status=201,
        errors=(EmailTaken, PasswordsBusy),
        tags=_TAGS,
        rate=REGISTRATION,
    ),
    Route(
        method="POST",
        path="/auth/login",
        handler=login,
        summary="Log in",
        access=PUBLIC,
        body=LoginBody,
        response=SignedInView,
        errors=(WrongCredentials, AccountDisabled, PasswordsBusy),
        tags=_TAGS,
        # Wrong passwords are counted by account, too, where it is known that they are wrong (`Accounts.log_in`).
        rate=RateLimit(Limited.LOGIN),
    ),
    Route(
        method="POST",
        path="/auth/refresh",
        handler=refresh,
        summary="Continue a log-in",
        access=PUBLIC,
        body=RefreshBody,
        response=TokensView,
        errors=(RefreshRefused,),
        tags=_TAGS,
    ),
    Route(
        method="POST",
        path="/auth/logout",
        handler=logout,
        summary="Log out",
        access=SIGNED_IN,
        body=LogoutBody,
        response=LogoutView,
        tags=_TAGS,
    ),
    Route(
        method="GET",
        path="/auth/me",
        handler=me,
        summary="Who am I",
        access=SIGNED_IN,
        response=AccountView,
        tags=_TAGS,
    ),
    Route(
        method="DELETE",
        path="/auth/me",
        handler=delete,
        summary="Delete my account; the books keep amounts, nothing keeps who I was",
        access=SIGNED_IN,
        body=DeleteBody,
        response=DeletedView,
        errors=(
            WrongPassword,
            InSession,
            LastAdmin,
            DebtLeft,
            CompanyUnsettled,
            MoneyLeft,
            CreditsLeft,
            PasswordsBusy,
        ),
        tags=_TAGS,
        rate=RateLimit(Limited.PASSWORD, account=_caller),
    ),
    Route(
        method="POST",
        path="/auth/password",
        handler=change_password,
        summary="Change my password; my other log-ins end",
        access=SIGNED_IN,
        body=PasswordBody,
        response=DoneView,
        errors=(WrongPassword, PasswordsBusy),
        tags=_TAGS,
        rate=RateLimit(Limited.PASSWORD, account=_caller),
    ),
    Route(
        method="POST",
        path="/auth/forgot",
        handler=forgot,
        summary="Have a one-time token sent to an address",
        access=PUBLIC,
        body=ForgotBody,
        response=ForgotView,
        status=202,
        tags=_TAGS,
        rate=RateLimit(Limited.PASSWORD, account=_named_email),
    ),
    Route(
        method="POST",
        path="/auth/reset",
        handler=reset,
        summary="Set a new password with a one-time token; all log-ins end",
        access=PUBLIC,
        body=ResetBody,
        response=DoneView,
        errors=(ResetRefused, PasswordsBusy),
        tags=_TAGS,
        # By address only: a token is not to be guessed, and a stranger must not use up the owner's tries.
        rate=RateLimit(Limited.PASSWORD),
    ),
)
