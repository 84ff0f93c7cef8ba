"""The ledger over SQLite passes the contract, in one transaction and in MongoDB's steps."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from server.storage.sqlite.engine import SqliteOptions, open_database
from server.storage.sqlite.ledger import SqliteLedgerStore, all_accounts
from tests.contract.ledger_contract import E, LedgerContract, V, W, process
from tests.support.ledger_books import read_books
from tests.support.ledger_moves import INR, close, open_, payment, recharge


class SqliteLedgerContract(LedgerContract):
    """On a file; after each test its books are audited by code that shares nothing with the ledger's."""

    atomic: bool
    #: Tests that leave a defect in the books on purpose.
    broken_on_purpose = ("cannot be copied out", "a_neighbour_failed", "one_asset")

    @pytest.fixture
    async def store(self, tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[SqliteLedgerStore]:
        path = tmp_path / "ledger.db"
        async with open_database(path, SqliteOptions(synchronous="OFF")) as db:
            store = SqliteLedgerStore(db, atomic=self.atomic)
            await store.prepare()
            yield store
        if not any(name in request.node.name for name in self.broken_on_purpose):
            assert read_books(path).problems(at_rest=True) == []


class TestSqliteLedger(SqliteLedgerContract):
    """As production runs it: commit and redo in one transaction."""

    atomic = True


class TestSqliteLedgerInSteps(SqliteLedgerContract):
    """As MongoDB will run: one conditional write decides, redo follows."""

    atomic = False


async def test_a_file_may_change_hands_between_the_modes(tmp_path: Path) -> None:
    """The states are the same: what one mode left half done, the other finishes."""
    path = tmp_path / "ledger.db"
    for round_ in range(4):
        async with open_database(path, SqliteOptions(synchronous="OFF")) as db:
            store = SqliteLedgerStore(db, atomic=round_ % 2 == 1)
            await store.prepare()
            async with process(store) as ledger:
                await ledger.post(recharge(W, f"r{round_}", 100))
                await ledger.post(payment(W, f"p{round_}", (E, 10), (V, 5)))
                await open_(ledger, W, f"h{round_}", 20)
                if round_:
                    await close(ledger, W, f"h{round_ - 1}", (E, 20))
            assert len(list(db.read(lambda conn: list(all_accounts(conn))))) == 3
    books = read_books(path)
    assert books.problems(at_rest=True) == []
    assert books.accounts[W].posted == 400 - 4 * 15 - 3 * 20
    assert books.accounts[E].asset == INR
