"""The edge's question: who acts for which company, and what may they do there? Asked at each request, and nothing is remembered."""

from server.auth.model import RIGHTS_OF, CompanyAccess, CompanyRight, Principal, Role
from server.auth.ports import AccountRows
from server.companies.key_text import PREFIX
from server.companies.keys import ApiKeys
from server.errors import Unauthenticated


class CompanyGate:
    """`server.http.edge.CompanyDoor`. A company whose owner is disabled or deleted is shut: for its keys and its members, too."""

    def __init__(self, *, keys: ApiKeys, accounts: AccountRows) -> None:
        self._keys = keys
        self._accounts = accounts

    def is_key(self, token: str) -> bool:
        return token.startswith(PREFIX)

    async def of_key(self, key: str) -> Principal:
        known = await self._keys.authenticate(key)
        if not await self._is_open(known.company_id):
            raise Unauthenticated(presented=True)
        self._keys.note_use(known)
        return Principal(
            user_id=f"key:{known.id}",
            role=Role.COMPANY,
            family_id="",
            company=CompanyAccess(known.company_id, known.rights, known.id),
        )

    async def access_of(self, user_id: str) -> CompanyAccess | None:
        account = await self._accounts.get(user_id)
        if account is None or account.is_disabled or account.role is not Role.COMPANY:
            return None
        if account.company_id is None:
            return CompanyAccess(account.id, frozenset(CompanyRight))
        if account.company_access is None or not await self._is_open(account.company_id):
            return None
        return CompanyAccess(account.company_id, RIGHTS_OF[account.company_access])

    async def _is_open(self, company_id: str) -> bool:
        owner = await self._accounts.get(company_id)
        return owner is not None and owner.is_owner and not owner.is_disabled
