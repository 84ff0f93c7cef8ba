"""What an account owns, by the ledger's word."""

from billing_engine.ledger.accounts import application_credits_of, earnings_of, wallet_of
from billing_engine.ledger.service import Ledger
from billing_engine.money import APPLICATION_CREDIT, Asset


class LedgerFunds:
    """`Funds` of `server.auth.control`."""

    def __init__(self, ledger: Ledger, asset: Asset) -> None:
        self._ledger = ledger
        self._asset = asset

    async def owned_minor(self, person_id: str) -> int:
        """What is in the wallet, and earnings that were not paid out, also what is set aside of both (a payout that is on its way, a
        refund in doubt); what is owed to us does not count against it.
        """
        wallet = await self._ledger.account(wallet_of(person_id), self._asset.code)
        earnings = await self._ledger.account(earnings_of(person_id), self._asset.code)
        return max(0, wallet.posted) + max(0, earnings.posted)

    async def owned_credits(self, person_id: str) -> int:
        """Application credits that were not used."""
        account = await self._ledger.account(application_credits_of(person_id), APPLICATION_CREDIT.code)
        return account.posted
