"""How a company is billed: its time zone, and its price list since when (SPEC 9). It is usage's `Companies` port."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Final
from zoneinfo import available_timezones

from billing_engine.clock import Clock
from billing_engine.usage.ports import CompanyTerms, ListChoice
from server.auth.model import Account
from server.auth.ports import AccountRows
from server.companies.errors import CompanyNotFound
from server.companies.model import Company, CompanyRecord, PriceList
from server.companies.ports import CompanyRows
from server.errors import ValidationFailed

Change = Callable[[CompanyRecord], CompanyRecord]
#: The name of one whose owner has deleted the account.
_GONE: Final = "Deleted company"


@cache
def _zones() -> frozenset[str]:
    return frozenset(available_timezones())


class CompanyRecords:
    """Reads and changes what is stored of a company. Nothing is, until something is changed: the defaults are answered till then."""

    def __init__(self, *, rows: CompanyRows, accounts: AccountRows, clock: Clock, time_zone: str) -> None:
        """`time_zone` is where a company's months begin that has not said otherwise."""
        self._rows = rows
        self._accounts = accounts
        self._clock = clock
        self._time_zone = time_zone

    async def get(self, company_id: str) -> Company:
        """The company; one whose owner was deleted, too: its books stay. Raises `CompanyNotFound`, `StoreUnavailable`."""
        owner = await self._owner(company_id)
        return Company(company_id, owner.company_name or _GONE, await self._record(owner))

    async def terms(self, company_id: str) -> CompanyTerms:
        """As `billing_engine.usage.ports.Companies` says."""
        company = await self.get(company_id)
        return CompanyTerms(company_id, company.name, company.record.time_zone, company.record.lists)

    async def set_time_zone(self, company_id: str, time_zone: str) -> Company:
        """Months begin by this clock from now on.

        Raises:
            ValidationFailed: it is no IANA time zone; names `timeZone`.
            CompanyNotFound: there is no such company.
        """
        if time_zone not in _zones():
            raise ValidationFailed([("timeZone", "is no time zone such as Asia/Kolkata")])
        return await self._changed(company_id, lambda record: replace(record, time_zone=time_zone))

    async def set_price_list(self, company_id: str, list_name: PriceList) -> Company:
        """What is used from now on is priced by this list; the same one again changes nothing. Raises `CompanyNotFound`."""
        now_ms = self._clock.now_ms()
        return await self._changed(company_id, lambda record: record.priced_by(list_name, now_ms=now_ms))

    async def change(self, company_id: str, change: Change) -> CompanyRecord:
        """The record after `change`, which is made again from what is stored when somebody else was faster. What `change` raises
        goes through, and nothing is stored. Raises `CompanyNotFound`.
        """
        owner = await self._owner(company_id)
        while True:
            before = await self._record(owner)
            after = change(before)
            if after == before or await self._rows.put(after):
                return after

    async def put(self, record: CompanyRecord) -> bool:
        """Store a record that was read and changed, unless somebody else was faster; whether it was."""
        return await self._rows.put(record)

    async def _changed(self, company_id: str, change: Change) -> Company:
        await self.change(company_id, change)
        return await self.get(company_id)

    async def _owner(self, company_id: str) -> Account:
        account = await self._accounts.get(company_id)
        if account is None or not account.is_owner:
            raise CompanyNotFound(company=company_id)
        return account

    async def _record(self, owner: Account) -> CompanyRecord:
        return await self._rows.get(owner.id) or CompanyRecord(
            id=owner.id,
            time_zone=self._time_zone,
            lists=(ListChoice(PriceList.TOKENS.value, 0),),
            created_at_ms=owner.created_at_ms,
        )
