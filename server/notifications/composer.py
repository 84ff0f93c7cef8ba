"""`Composer`: looks the person up, and writes what concerns them now."""

from typing import Any, Final

from server.auth.model import Account, email_key
from server.auth.ports import AccountRows
from server.auth.reset_tokens import ResetTokens
from server.notifications import letters
from server.notifications.company_letters import KINDS as COMPANY_KINDS
from server.notifications.company_letters import company_letter
from server.notifications.consult_letters import KINDS as CONSULT_KINDS
from server.notifications.consult_letters import consult_letter
from server.notifications.model import Kind, Notice, Notification
from server.notifications.payment_letters import KINDS, payment_letter
from server.notifications.plan_letters import KINDS as PLAN_KINDS
from server.notifications.plan_letters import plan_letter
from server.wire import rfc3339

#: In the template of the app's page for new passwords.
PLACEHOLDER: Final = "{token}"
#: Kinds whose letters are rows of a table, and who reads it.
_TABLED: Final = (
    dict.fromkeys(KINDS, payment_letter)
    | dict.fromkeys(COMPANY_KINDS, company_letter)
    | dict.fromkeys(PLAN_KINDS, plan_letter)
    | dict.fromkeys(CONSULT_KINDS, consult_letter)
)
#: How long an invitation's token works: people are away, and somebody waits for nothing meanwhile.
INVITATION_MS: Final = 7 * 86_400_000


class AccountComposer:
    """Letters about accounts. `reset_url` is the app's page with `{token}` in it; empty, letters carry the bare token."""

    def __init__(
        self, *, accounts: AccountRows, tokens: ResetTokens, reset_lifetime_ms: int, reset_url: str = ""
    ) -> None:
        self._accounts = accounts
        self._tokens = tokens
        self._reset_lifetime_ms = reset_lifetime_ms
        self._reset_url = reset_url

    async def compose(self, notice: Notice) -> Notification | None:
        if notice.kind is Kind.PASSWORD_RESET:
            return await self._reset(notice)
        if notice.kind is Kind.ACCOUNT_DELETED:
            # The account has no address any more; the notice brought it along.
            write = letters.member_deleted_letter if notice.facts.get("wasMember") else letters.deleted_letter
            letter = write(str(notice.facts.get("name", "")))
            return self._letter(notice, notice.user_id or "", notice.email or "", letter, {})
        account = await self._accounts.get(notice.user_id or "")
        if account is None or account.deleted_at_ms is not None:
            return None
        if notice.kind is Kind.COMPANY_INVITATION:
            return await self._invitation(notice, account)
        return self._about(notice, account)

    def _about(self, notice: Notice, account: Account) -> Notification | None:
        match notice.kind:
            case Kind.PASSWORD_CHANGED:
                letter = letters.password_changed_letter(account, at_ms=notice.created_at_ms)
            case Kind.ACCOUNT_DISABLED:
                letter = letters.disabled_letter(account, reason=str(notice.facts.get("reason", "")))
            case Kind.ACCOUNT_ENABLED:
                letter = letters.enabled_letter(account)
            case Kind.LOW_BALANCE:
                letter = letters.low_balance_letter(account, seconds=int(notice.facts["remainingSeconds"]))
            case Kind.PAYMENT_DIFFERENCES:
                letter = letters.payment_differences_letter(account, notice.facts)
            case Kind.PAYOUT_PAID | Kind.PAYOUT_FAILED:
                letter = letters.payout_letter(account, notice.facts)
            case kind if kind in _TABLED:
                letter = _TABLED[kind](kind, account, notice.facts)
            case Kind.CONSULTATION_REFUNDED:
                letter = letters.refunded_letter(account, notice.facts)
            case Kind.REFUND_REJECTED:
                letter = letters.refund_rejected_letter(account, reason=str(notice.facts["reason"]))
            case _:
                return None
        return self._letter(notice, account.id, account.email, letter, dict(notice.facts))

    async def _reset(self, notice: Notice) -> Notification | None:
        """The token becomes the account's only one as the letter is written. None without such an account, or with a newer
        request: nobody but this letter's reader ever learns which.
        """
        account = await self._accounts.of_email(email_key(notice.email or ""))
        if account is None or account.is_disabled:
            return None
        facts = await self._one_time(notice, account, self._reset_lifetime_ms)
        if facts is None:
            return None
        minutes = self._reset_lifetime_ms // 60_000
        letter = letters.reset_letter(account, token=facts["token"], link=facts["link"], minutes=minutes)
        return self._letter(notice, account.id, account.email, letter, facts)

    async def _invitation(self, notice: Notice, account: Account) -> Notification | None:
        """None once the member has a password, or has asked for a newer token."""
        if account.is_disabled or account.password_hash:
            return None
        facts = await self._one_time(notice, account, INVITATION_MS)
        if facts is None:
            return None
        owner = await self._accounts.get(account.company_id or "")
        company = (owner.company_name if owner is not None else None) or "the company"
        days = INVITATION_MS // 86_400_000
        letter = letters.invitation_letter(
            account, company=company, token=facts["token"], link=facts["link"], days=days
        )
        facts |= {"companyId": account.company_id or "", "companyName": company}
        return self._letter(notice, account.id, account.email, letter, facts)

    async def _one_time(self, notice: Notice, account: Account, lifetime_ms: int) -> dict[str, Any] | None:
        """The token, which becomes the account's only one, and what goes with it; None where a newer one was asked for."""
        token = self._tokens.token(account.id, str(notice.facts["nonce"]))
        until_ms = notice.created_at_ms + lifetime_ms
        if not await self._accounts.put_reset(
            account.id, reset_id=notice.id, digest=self._tokens.digest(token), until_ms=until_ms
        ):
            return None
        link = self._reset_url.replace(PLACEHOLDER, token)
        return {"token": token, "link": link, "expiresAt": rfc3339(until_ms)}

    def _letter(
        self, notice: Notice, user_id: str, email: str, letter: tuple[str, str], facts: dict[str, Any]
    ) -> Notification | None:
        if not email:
            return None
        subject, text = letter
        return Notification(
            id=notice.id,
            kind=notice.kind,
            user_id=user_id,
            email=email,
            subject=subject,
            text=text,
            facts=facts,
            created_at_ms=notice.created_at_ms,
        )
