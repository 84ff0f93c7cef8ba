"""What an account owns, by the ledger's word."""

from billing_engine.ledger.accounts import application_credits_of, earnings_of, wallet_of
from billing_engine.ledger.service import Ledger
from billing_engine.money import APPLICATION_CREDIT, Asset
from billing_engine.usage.book import book_of
from billing_engine.usage.model import UsageStatus
from billing_engine.usage.ports import UsageFilter
from server.auth.control import CompanyStanding
from server.usage_room import UsageRoom


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


class UsageFunds:
    """`CompanyFunds` of `server.auth.control`: what a company owns and owes for metered usage."""

    def __init__(self, usage: UsageRoom) -> None:
        self._usage = usage

    async def standing(self, company_id: str) -> CompanyStanding:
        """Also what is set aside (a refund to the payer, a dispute) is the company's. A recharge that was left open is carried out."""
        usage = self._usage
        queued = await usage.meter.list_for(
            company_id, UsageFilter(status=UsageStatus.QUEUED), limit=1, before=None
        )
        account = await usage.recharges.account(company_id)
        if book_of(account).open is not None:
            await usage.recharges.pursue(company_id)
            account = await usage.recharges.account(company_id)
        book = book_of(account)
        return CompanyStanding(
            asset=usage.asset,
            owned_minor=account.posted,
            owed_minor=book.owed_minor,
            is_settled=not queued and book.open is None,
        )
