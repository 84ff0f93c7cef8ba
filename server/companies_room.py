"""The companies' room, wired: how they are billed, their keys, their people."""

from dataclasses import dataclass

from billing_engine.clock import Clock
from server.auth.accounts import Accounts
from server.auth.ports import AccountRows
from server.companies.door import CompanyGate
from server.companies.keys import ApiKeys
from server.companies.members import Members, Removal
from server.companies.records import CompanyRecords
from server.ids import new_id
from server.notifications.outbox import Outbox
from server.settings import Settings
from server.storage.collection import Collections
from server.storage.repositories.companies import CollectionApiKeys, CollectionCompanies


@dataclass(frozen=True, slots=True)
class CompaniesRoom:
    """The room's use cases. One instance a process. `records` is usage's `Companies` port, `door` is the edge's."""

    records: CompanyRecords
    keys: ApiKeys
    members: Members
    door: CompanyGate

    async def member_ids(self, company_id: str) -> list[str]:
        """The accounts that may see the company, its owner among them; none if it is shut."""
        return await self.members.ids(company_id)


async def open_company_keys(
    settings: Settings, collections: Collections, *, accounts: AccountRows, clock: Clock
) -> tuple[CompanyRecords, ApiKeys]:
    """What identity needs to end a company, before the rest of the room can be built."""
    records = CompanyRecords(
        rows=await CollectionCompanies.open(collections),
        accounts=accounts,
        clock=clock,
        time_zone=settings.timezone,
    )
    keys = ApiKeys(
        rows=await CollectionApiKeys.open(collections), records=records, clock=clock, new_id=new_id
    )
    return records, keys


def companies_room(
    records: CompanyRecords,
    keys: ApiKeys,
    *,
    rows: AccountRows,
    accounts: Accounts,
    removal: Removal,
    outbox: Outbox,
) -> CompaniesRoom:
    """The room."""
    return CompaniesRoom(
        records=records,
        keys=keys,
        members=Members(rows=rows, accounts=accounts, removal=removal, outbox=outbox),
        door=CompanyGate(keys=keys, accounts=rows),
    )
