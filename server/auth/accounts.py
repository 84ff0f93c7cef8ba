"""Accounts: open one, find one, check its password (SPEC 2)."""

import unicodedata
from collections.abc import Callable, Sequence

import structlog

from billing_engine.clock import Clock
from server.auth.errors import AccountDisabled, EmailTaken, WrongCredentials
from server.auth.login_guard import Attempt, LoginGuard
from server.auth.model import (
    Account,
    MemberAccess,
    Profession,
    Role,
    email_key,
    email_problem,
    password_problem,
)
from server.auth.passwords import Passwords
from server.auth.ports import AccountRows
from server.errors import ValidationFailed

_log = structlog.get_logger(__name__)
_NAME_LENGTH = range(1, 121)
#: Networks that an account is known to log in from: home, work, a phone's, and some to spare.
_KNOWN_ADDRESSES = 8


class Accounts:
    """Who may log in. It is the people room's `Accounts` port too."""

    def __init__(
        self,
        *,
        rows: AccountRows,
        passwords: Passwords,
        clock: Clock,
        new_id: Callable[[], str],
        guard: LoginGuard | None = None,
    ) -> None:
        """`guard` counts wrong passwords; without one they are free."""
        self._rows = rows
        self._passwords = passwords
        self._clock = clock
        self._new_id = new_id
        self._guard = guard

    async def create(
        self,
        *,
        email: str,
        password: str,
        name: str,
        role: Role,
        profession: Profession | None = None,
        company_name: str | None = None,
        account_id: str | None = None,
    ) -> Account:
        """Open an account. It exists from the moment its address is claimed.

        Raises:
            ValidationFailed: names every field that is not valid.
            EmailTaken: another account has the address, in any case of its letters; there is no new account.
            PasswordsBusy: nothing was done.
            StoreUnavailable: the account may exist; registering again then says `EmailTaken`, and logging in works.
        """
        email, name = email.strip(), name.strip()
        _check(
            email=email,
            password=password,
            name=name,
            role=role,
            profession=profession,
            company_name=company_name,
        )
        key = email_key(email)
        if await self._rows.of_email(key) is not None:
            raise EmailTaken
        account = Account(
            id=account_id or self._new_id(),
            email=email,
            name=name,
            role=role,
            password_hash=await self._passwords.hash(password),
            created_at_ms=self._clock.now_ms(),
            profession=profession,
            company_name=company_name,
        )
        await self._open(account)
        return account

    async def invite(
        self, *, account_id: str, email: str, name: str, company_id: str, access: MemberAccess
    ) -> Account:
        """Open the account of a company's member, with a password that nobody has: the owner of the address sets one by a reset.
        The same `account_id` again finds what an earlier call has made.

        Raises:
            ValidationFailed: names every field that is not valid.
            EmailTaken: another account has the address.
            StoreUnavailable: call it again with the same id.
        """
        email, name = email.strip(), name.strip()
        _refuse([("email", email_problem(email)), ("name", _name_problem(name))])
        known = await self._rows.of_email(email_key(email))
        if known is not None and known.id == account_id:
            return known
        if known is not None:
            raise EmailTaken
        account = await self._rows.get(account_id)
        is_new = account is None
        account = account or Account(
            id=account_id,
            email=email,
            name=name,
            role=Role.COMPANY,
            password_hash="",
            created_at_ms=self._clock.now_ms(),
            company_id=company_id,
            company_access=access,
        )
        await self._open(account, is_new=is_new)
        return account

    async def _open(self, account: Account, *, is_new: bool = True) -> None:
        # The claim comes second, so that it never points at nobody. A crash between the two leaves an account without an
        # address: nobody can log in to it, and registering again with the same address works.
        if is_new:
            await self._rows.add(account)
        if not await self._rows.claim_email(email_key(account.email), account.id):
            await self._rows.drop(account.id)
            raise EmailTaken

    async def create_lawyer(self, *, lawyer_id: str, email: str, password: str, name: str) -> None:
        """Open the account with the role LAWYER under this id. Raises what `create` raises."""
        await self.create(email=email, password=password, name=name, role=Role.LAWYER, account_id=lawyer_id)

    async def create_admin(self, *, email: str, password: str, name: str) -> Account:
        """Open an admin's account, for the command line. Raises what `create` raises."""
        return await self.create(email=email, password=password, name=name, role=Role.ADMIN)

    async def ensure_first_admin(self, *, email: str, password: str) -> Account | None:
        """At start-up: make the first admin where there is none yet; None if nothing was to do. Safe in many processes at once.

        Raises:
            ValidationFailed: the configured address or password is not valid.
        """
        if not email or await self._rows.has_admin():
            return None
        try:
            admin = await self.create_admin(email=email, password=password, name="Admin")
        except EmailTaken:
            known = await self._rows.of_email(email_key(email))
            if known is None or known.role is not Role.ADMIN:
                _log.warning("ADMIN_EMAIL belongs to an account that is no admin; there is no admin yet")
            return None
        _log.info("first admin made", user_id=admin.id)
        return admin

    async def log_in(self, *, email: str, password: str, address: str = "") -> Account:
        """The account with this address and password. Takes the same time whichever of the two is wrong.

        Raises:
            WrongCredentials: no such address, or not its password.
            RateLimited: too many wrong passwords from `address`, or from all that the account does not know.
            AccountDisabled: both are right.
            PasswordsBusy: nothing was checked.
        """
        key = email_key(email)
        account = await self._rows.of_email(key)
        attempt = await self._begin(key, address, account)
        try:
            # An invited member has no hash yet.
            hashed = (account.password_hash or None) if account else None
            right = await self._passwords.matches(password, hashed)
        except BaseException:
            await self._forgive(attempt)
            raise
        if not right or account is None:
            raise WrongCredentials
        await self._forgive(attempt)
        if account.is_disabled:
            raise AccountDisabled
        await self._remember(account, address)
        return account

    async def check_password(self, account_id: str, password: str) -> Account:
        """The account, whose owner has just proved to know its password.

        Raises:
            WrongCredentials: not its password, or there is no such account.
            PasswordsBusy: nothing was checked.
        """
        account = await self._rows.get(account_id)
        hashed = (account.password_hash or None) if account else None
        if not await self._passwords.matches(password, hashed) or account is None:
            raise WrongCredentials
        return account

    async def _begin(self, key: str, address: str, account: Account | None) -> Attempt | None:
        if self._guard is None:
            return None
        return await self._guard.begin(key, address, account.known_addresses if account else ())

    async def _forgive(self, attempt: Attempt | None) -> None:
        if self._guard is not None and attempt is not None:
            await self._guard.forgive(attempt)

    async def _remember(self, account: Account, address: str) -> None:
        if self._guard is None or not address:
            return
        mark = self._guard.mark_of(address)
        if mark not in account.known_addresses:
            await self._rows.remember_address(account.id, mark, keep=_KNOWN_ADDRESSES)

    async def get(self, account_id: str) -> Account | None:
        """The account, disabled or not."""
        return await self._rows.get(account_id)

    async def get_many(self, ids: Sequence[str]) -> dict[str, Account]:
        """The accounts that exist, by id."""
        return {account.id: account for account in (await self._rows.get_many(ids)).values()}

    async def emails(self, ids: Sequence[str]) -> dict[str, str]:
        """The address by id, for those ids that have an account which was not deleted."""
        found = await self._rows.get_many(ids)
        return {id_: account.email for id_, account in found.items() if account.deleted_at_ms is None}


def _check(
    *,
    email: str,
    password: str,
    name: str,
    role: Role,
    profession: Profession | None,
    company_name: str | None,
) -> None:
    problems = [
        ("email", email_problem(email)),
        ("password", password_problem(password)),
        ("name", _name_problem(name)),
        ("profession", _only_for(Role.FREELANCER, role, profession)),
        ("companyName", _only_for(Role.COMPANY, role, company_name)),
    ]
    _refuse(problems)


def _refuse(problems: Sequence[tuple[str, str | None]]) -> None:
    found = [(field, problem) for field, problem in problems if problem is not None]
    if found:
        raise ValidationFailed(found)


def _name_problem(name: str) -> str | None:
    """Control characters only are refused: Indian scripts join letters with characters that print nothing by themselves."""
    if len(name) not in _NAME_LENGTH:
        return "must be 1 to 120 characters"
    if any(unicodedata.category(char) in {"Cc", "Cs"} for char in name):
        return "must not contain control characters"
    return None


def _only_for(owner: Role, role: Role, value: object) -> str | None:
    if role is owner and value is None:
        return f"is required for the role {owner}"
    if role is not owner and value is not None:
        return f"is only for the role {owner}"
    return None
