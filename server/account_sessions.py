"""Billing's answers about accounts: who is in a consultation, and the end of one whose account is shut."""

from billing_engine.consultations.ports import Claims
from billing_engine.consultations.service import Consultations
from server.auth.ports import AccountRows


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
