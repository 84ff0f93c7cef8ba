"""Billing and accounts: who is in a consultation, whose account is shut, and the end of a session whose account is."""

from typing import Final

from billing_engine.consultations.ports import Claims
from billing_engine.consultations.service import Consultations
from server.auth.ports import AccountRows

_BATCH: Final = 500


class AccountStanding:
    """Billing's `Standing` port: its question to identity."""

    def __init__(self, accounts: AccountRows) -> None:
        self._accounts = accounts

    async def any_shut(self, person_ids: tuple[str, ...]) -> bool:
        return any(account.is_disabled for account in (await self._accounts.get_many(person_ids)).values())


class SessionsOfAccounts:
    """`RunningSessions` of `AccountControl`, and its sweep: nobody with a shut account is in a consultation."""

    def __init__(self, consultations: Consultations, claims: Claims, accounts: AccountRows) -> None:
        self._consultations = consultations
        self._claims = claims
        self._accounts = accounts

    async def is_busy(self, person_id: str) -> bool:
        return bool(await self._claims.held([f"user:{person_id}", f"lawyer:{person_id}"]))

    async def end_for_account(self, person_id: str) -> None:
        await self._consultations.end_for_account(person_id)

    async def sweep(self) -> int:
        """End the sessions of shut accounts; always 0, for once is enough.

        A process that died between starting a session and looking at its accounts leaves one, if ever.
        """
        people = sorted({claim.partition(":")[2] for claim in await self._claims.everyone()})
        for first in range(0, len(people), _BATCH):
            accounts = await self._accounts.get_many(people[first : first + _BATCH])
            for account in accounts.values():
                if account.is_disabled:
                    await self._consultations.end_for_account(account.id)
        return 0
