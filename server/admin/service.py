"""What admins look at: people, their money, sessions (SPEC 4, 5, 14). Reads only; their writes are others' use cases."""

from typing import Final

from billing_engine.consultations.billing import hold_id_of
from billing_engine.consultations.model import ASKED, LIVE, VISIBLE, Session, SessionView
from billing_engine.ledger.accounts import company_wallet_of, earnings_of, wallet_of
from billing_engine.ledger.model import key_of
from billing_engine.ledger.ports import Line, Row
from billing_engine.money import Asset
from server.admin.errors import AccountNotFound, NoWallet
from server.admin.model import (
    SessionFilter,
    SessionPage,
    UserDetail,
    UserFilter,
    UserPage,
    Wallet,
    place_of,
)
from server.admin.ports import AuditCount, Books, Consultations, Directory, Lawyers, SessionIndex
from server.auth.model import Account, Role
from server.people.errors import LawyerNotFound
from server.people.model import LawyerCard

#: How many records are looked at for one page when the index knows only some of what is asked for.
_BATCH: Final = 200
_ROUNDS: Final = 10
#: Who has an account in the ledger, and which. A company's is its owner's.
_ACCOUNT_OF: Final = {Role.USER: wallet_of, Role.LAWYER: earnings_of, Role.COMPANY: company_wallet_of}


class AdminDesk:
    """The admins' view over every room."""

    def __init__(
        self,
        *,
        directory: Directory,
        sessions: SessionIndex,
        consultations: Consultations,
        lawyers: Lawyers,
        books: Books,
        audit: AuditCount,
        asset: Asset,
        company_asset: Asset,
    ) -> None:
        self._directory = directory
        self._sessions = sessions
        self._consultations = consultations
        self._lawyers = lawyers
        self._books = books
        self._audit = audit
        self._asset = asset
        self._company_asset = company_asset

    # -- people

    async def newest_users(
        self, wanted: UserFilter, *, limit: int, after: tuple[int, str] | None
    ) -> UserPage:
        """Accounts, newest first."""
        return await self._directory.newest(wanted, limit=limit, after=after)

    async def find_users(self, wanted: UserFilter, *, limit: int, after: tuple[str, str] | None) -> UserPage:
        """Accounts by `wanted.query`: the one with this id, else those whose address or name has words that begin so."""
        if after is None and wanted.query is not None:
            exact = await self._directory.get(wanted.query.strip())
            if (
                exact is not None
                and wanted.role in (None, exact.role)
                and wanted.is_disabled in (None, exact.is_disabled)
            ):
                return UserPage([exact], None)
        return await self._directory.search(wanted, limit=limit, after=after)

    async def account(self, user_id: str) -> Account:
        """Raises `AccountNotFound`."""
        account = await self._directory.get(user_id)
        if account is None:
            raise AccountNotFound(user=user_id)
        return account

    async def user(self, user_id: str, *, admin_id: str) -> UserDetail:
        """Raises `AccountNotFound`."""
        account = await self.account(user_id)
        return UserDetail(
            account=account,
            lawyer=await self._card(account, admin_id),
            wallet=await self.wallet(account) if has_wallet(account) else None,
            active=await self._consultations.active_of(user_id),
            sessions=await self._sessions.count_of(user_id),
            acts=await self._audit.count_about(user_id),
        )

    async def _card(self, account: Account, admin_id: str) -> LawyerCard | None:
        if account.role is not Role.LAWYER:
            return None
        try:
            return await self._lawyers.look_up(account.id, viewer_id=admin_id, viewer_is_admin=True)
        except LawyerNotFound:
            return None

    # -- their money

    async def wallet(self, account: Account) -> Wallet:
        """What the account has in the ledger. Raises `NoWallet`."""
        asset = self._company_asset if account.role is Role.COMPANY else self._asset
        found = await self._books.account(ledger_account_of(account), asset.code)
        return Wallet(found.id, asset, found.spendable, found.held, tuple(found.holds.values()))

    async def ledger(
        self, account: Account, *, limit: int, before: tuple[int, str] | None
    ) -> list[tuple[Line, Row]]:
        """The account's lines, newest first, each with its whole entry. Raises `NoWallet`."""
        lines = await self._books.lines(ledger_account_of(account), limit=limit, before=before)
        rows = await self._books.copied_out([line.key for line in lines])
        return [(line, rows[line.key]) for line in lines]

    # -- sessions

    async def sessions(
        self, wanted: SessionFilter, *, limit: int, before: tuple[int, str] | None, admin_id: str
    ) -> SessionPage:
        """Sessions that match, newest first, each with its bill as of now."""
        views: list[SessionView] = []
        for round_ in range(_ROUNDS):
            # Usually all match; only who is picky makes us look at more.
            size = _BATCH if round_ else limit + 1
            batch = await self._sessions.newest(wanted, limit=size, before=before)
            for seen, session in enumerate(batch, start=1):
                before = place_of(session)
                view = await self._match(session, wanted, admin_id)
                if view is not None:
                    views.append(view)
                if len(views) == limit:
                    is_last = seen == len(batch) < size
                    return SessionPage(views, None if is_last else before)
            if len(batch) < size:
                return SessionPage(views, None)
        return SessionPage(views, before)

    async def _match(self, session: Session, wanted: SessionFilter, admin_id: str) -> SessionView | None:
        fits = (
            session.status in VISIBLE
            and wanted.user_id in (None, session.user_id)
            and wanted.lawyer_id in (None, session.lawyer_id)
            and wanted.reason in (None, session.end_reason)
            # Of a live one only the bill knows whether it is paused.
            and (
                wanted.status in (None, session.status)
                or {wanted.status, session.status} <= LIVE
                # One whose people are on their way is shown as requested, too.
                or {wanted.status, session.status} <= ASKED
            )
        )
        if not fits:
            return None
        view = await self._consultations.get(session.id, caller_id=admin_id, is_admin=True)
        # It may have ended between the two reads.
        return view if wanted.status in (None, view.status) else None

    async def closing_entry(self, session: Session) -> Row | None:
        """The ledger's entry that ended the session; None while it runs."""
        key = key_of(wallet_of(session.user_id), hold_id_of(session.id))
        return (await self._books.copied_out([key])).get(key)


def has_wallet(account: Account) -> bool:
    """Whether the person has an account in the ledger: a company's members share their owner's, and have none."""
    return account.role in _ACCOUNT_OF and account.company_id is None


def ledger_account_of(account: Account) -> str:
    """The ledger's name for a user's or a company's wallet, or a lawyer's earnings. Raises `NoWallet`."""
    if not has_wallet(account):
        raise NoWallet(user=account.id)
    return _ACCOUNT_OF[account.role](account.id)
