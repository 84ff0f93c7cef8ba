"""A login that one process ends must end at all: a stolen phone's socket may be open to another one."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from server.auth.model import Account, Disabling, Ended, Role, SignOut
from server.auth.sign_ins import SignIns
from server.auth.tokens import AccessTokens
from server.errors import Unauthenticated
from server.ids import new_id
from server.storage.repositories.tokens import CollectionTokens
from server.storage.repositories.users import CollectionAccounts
from server.storage.sqlite.collection import SqliteCollections
from server.storage.sqlite.engine import SqliteOptions, open_database
from tests.support.http import SECRET
from tests.support.manual_clock import ManualClock


class Process:
    """The logins as one process knows them, and what it has heard of their ends."""

    def __init__(self, sign_ins: SignIns, accounts: CollectionAccounts, clock: ManualClock) -> None:
        self.sign_ins = sign_ins
        self.accounts = accounts
        self.clock = clock
        self.heard: list[Ended] = []
        sign_ins.on_revoked(self.heard.append)


@pytest.fixture
async def two(tmp_path: Path) -> AsyncIterator[tuple[Process, Process]]:
    async with open_database(tmp_path / "edge.db", SqliteOptions(synchronous="OFF")) as db:
        collections = SqliteCollections(db)
        accounts = await CollectionAccounts.open(collections)

        async def process() -> Process:
            clock = ManualClock()
            sign_ins = SignIns(
                rows=await CollectionTokens.open(collections),
                accounts=accounts,
                access=AccessTokens(
                    secret=SECRET, issuer="tarazu", audience="tarazu", lifetime_s=900, clock=clock
                ),
                clock=clock,
                new_id=new_id,
                refresh_lifetime_ms=30 * 86_400_000,
                grace_ms=10_000,
            )
            await sign_ins.load()
            return Process(sign_ins, accounts, clock)

        yield await process(), await process()


async def an_account(process: Process) -> Account:
    account = Account(
        id=new_id(),
        email="asha@example.com",
        name="Asha",
        role=Role.USER,
        password_hash="x",
        created_at_ms=process.clock.now_ms(),
    )
    await process.accounts.add(account)
    return account


async def test_what_another_process_ended_is_learnt_once_and_its_token_refused(two) -> None:
    first, second = two
    account = await an_account(first)
    pair = await first.sign_ins.open(account)
    principal = second.sign_ins.verify(pair.access_token)
    await first.sign_ins.end(principal)
    assert second.sign_ins.verify(pair.access_token) == principal, "nobody has told it yet"
    assert await second.sign_ins.catch_up() == 1
    with pytest.raises(Unauthenticated):
        second.sign_ins.verify(pair.access_token)
    assert second.heard == [Ended(account.id, principal.family_id, SignOut.LOGGED_OUT)]
    assert await second.sign_ins.catch_up() == 0
    assert len(second.heard) == 1
    # What it ended itself is no news to the first one.
    assert await first.sign_ins.catch_up() == 0
    assert len(first.heard) == 1


async def test_clocks_that_differ_hide_no_log_out(two) -> None:
    """The one who ends it may be some seconds behind the one who asks what has ended since its last question."""
    first, second = two
    account = await an_account(first)
    pair = await first.sign_ins.open(account)
    second.clock.jump_ms(5_000)
    assert await second.sign_ins.catch_up() == 0
    await first.sign_ins.end(first.sign_ins.verify(pair.access_token))
    second.clock.jump_ms(2_000)
    assert await second.sign_ins.catch_up() == 1


async def test_a_disabled_accounts_sockets_are_told_why(two) -> None:
    first, second = two
    account = await an_account(first)
    await first.sign_ins.open(account)
    await first.sign_ins.open(account)
    why = Disabling(by="admin", at_ms=first.clock.now_ms(), reason="For the test.")
    await first.accounts.disable(account.id, why, due="d")
    await first.sign_ins.end_all(account.id, SignOut.ACCOUNT_DISABLED)
    assert await second.sign_ins.catch_up() == 2
    assert {ended.why for ended in second.heard} == {SignOut.ACCOUNT_DISABLED}
