"""The books' own audit: what it must not take for broken."""

from billing_engine.ledger.audit import audit_ledger
from billing_engine.ledger.model import Account, Entry, KeyState, Transfer
from billing_engine.ledger.ports import Row, Versioned
from billing_engine.verification import Verdict


def recharged(
    account: str, asset: str, amount_minor: int, *, gateway: str = "gateway:simulated"
) -> tuple[Versioned, Row]:
    entry = Entry(
        key=f"{account}|r",
        account=account,
        seq=1,
        state=KeyState.POSTED,
        kind="recharge",
        asset=asset,
        reference="r",
        transfers=(Transfer(gateway, account, amount_minor, "recharge"),),
        posted_before=0,
        posted_after=amount_minor,
        at_ms=1,
        day="2026-01-01",
    )
    return Versioned("v", Account(account, asset, posted=amount_minor, seq=1)), Row(entry, True, {})


def audited(*made: tuple[Versioned, Row]) -> tuple[Verdict, list[str]]:
    reported = {document.account.id: row.entry.transfers[0].amount_minor for document, row in made}
    found = audit_ledger(
        [document for document, _ in made], [row for _, row in made], reported_credits=reported, now_ms=2
    )
    return found.verdict, list(map(str, found.broken))


def test_one_gateway_takes_several_currencies() -> None:
    """Wallets are recharged in rupees and companies in dollars, through the same Stripe."""
    verdict, broken = audited(recharged("wallet:u", "INR", 500), recharged("company:c", "USD", 7_000_000))
    assert verdict is Verdict.CLEAN, broken


def test_each_currency_sums_to_zero_by_itself() -> None:
    dollars, row = recharged("company:c", "USD", 500)
    more = Versioned("v", dollars.account._replace(posted=600))
    verdict, broken = audited(recharged("wallet:u", "INR", 500), (more, row))
    assert verdict is Verdict.BROKEN
    assert any("sums to zero" in line and "USD" in line for line in broken), broken
    assert not any("INR" in line for line in broken), broken


def test_a_persons_account_has_one_asset() -> None:
    mine, row = recharged("wallet:u", "INR", 500)
    verdict, broken = audited((mine, row), recharged("wallet:v", "USD", 5, gateway="wallet:u"))
    assert verdict is Verdict.BROKEN
    assert any("one asset" in line for line in broken), broken
