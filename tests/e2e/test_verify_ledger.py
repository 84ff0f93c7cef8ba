"""`tarazu verify-ledger` on books that somebody has touched: what is broken is called broken, what is unfinished unfinished.

Each test edits a copy of a real server's database behind the server's back, with nothing but SQL.
"""

import asyncio
import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.people import Json, people_of
from tests.support.server_process import QUICK, Ran, ServerProcess, environment, tarazu

SETTINGS = {**QUICK, "COMMISSION_PERCENT": "10"}


@dataclass(frozen=True)
class History:
    """A stopped server's file, and who is in it: an ended consultation with a bill, and one that goes on."""

    database: Path
    user_id: str
    lawyer_id: str
    ended_id: str
    live_id: str
    other_user_id: str
    ended: Json


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> History:
    directory = tmp_path_factory.mktemp("books")
    with ServerProcess(directory, **SETTINGS) as server:
        made = asyncio.run(make_history(server))
    code, output = server.verify_ledger()
    assert code == 0, output
    return made


async def make_history(server: ServerProcess) -> History:
    async with people_of(server) as world:
        ended, live = await asyncio.gather(world.talk("30.00"), world.talk("300.00"))
        await ended.say(ended.user_device, "Hello.")
        await ended.user_device.heard("session:tick", lambda tick: tick["elapsedSeconds"] >= 1)
        await ended.user.end(ended.id)
        session = await ended.user.session(ended.id)
    return History(server.database, ended.user.id, ended.lawyer.id, ended.id, live.id, live.user.id, session)


class Copy:
    """A copy of the file, open for mischief."""

    def __init__(self, history: History, directory: Path) -> None:
        self.history = history
        self.directory = directory
        self.path = directory / "tarazu.db"
        for suffix in ("", "-wal"):
            # A server that had to be killed has left its last commits beside the file.
            if (part := history.database.with_name(history.database.name + suffix)).exists():
                shutil.copyfile(part, self.path.with_name(self.path.name + suffix))
        self.wallet = f"wallet:{history.user_id}"
        self.earnings = f"earnings:{history.lawyer_id}"
        self.bill_key = f"{self.wallet}|consult:{history.ended_id}"

    def sql(self, statement: str, *arguments: Any) -> list[tuple[Any, ...]]:
        """Run one statement; it must touch something, or the test would prove nothing."""
        with closing(sqlite3.connect(self.path)) as connection, connection:
            cursor = connection.execute(statement, arguments)
            rows = cursor.fetchall()
            assert rows or cursor.rowcount > 0, f"nothing was touched: {statement} {arguments}"
            return rows

    def one(self, statement: str, *arguments: Any) -> Any:
        return self.sql(statement, *arguments)[0][0]

    def edit_json(self, table: str, column: str, where: str, key: str, change: Callable[[Any], None]) -> None:
        document = json.loads(self.one(f'SELECT "{column}" FROM "{table}" WHERE {where} = ?', key))
        change(document)
        self.sql(f'UPDATE "{table}" SET "{column}" = ? WHERE {where} = ?', json.dumps(document), key)

    def edit_session(self, session_id: str, **fields: Any) -> None:
        def change(document: Any) -> None:
            assert fields.keys() <= document.keys(), document
            document |= fields

        self.edit_json("c_consult_sessions", "_body", "_id", session_id, change)
        if "status" in fields:
            self.sql("UPDATE c_consult_sessions SET status = ? WHERE _id = ?", fields["status"], session_id)

    def verify(self, **settings: str) -> Ran:
        env = environment(self.path, **SETTINGS, **settings)
        return tarazu(self.directory, "verify-ledger", env=env)


@pytest.fixture
def copy(history: History, tmp_path: Path) -> Copy:
    return Copy(history, tmp_path)


def change_balance(copy: Copy) -> None:
    copy.sql("UPDATE ledger_accounts SET posted = posted + 1 WHERE id = ?", copy.wallet)


def swap_money_between_two_accounts(copy: Copy) -> None:
    change_balance(copy)
    copy.sql("UPDATE ledger_accounts SET posted = posted - 1 WHERE id = ?", copy.earnings)


def change_held(copy: Copy) -> None:
    copy.sql(
        "UPDATE ledger_accounts SET held = held + 1 WHERE id = ?", f"wallet:{copy.history.other_user_id}"
    )


def remove_entry(copy: Copy) -> None:
    copy.sql("DELETE FROM ledger_entries WHERE key = ?", copy.bill_key)


def remove_account(copy: Copy) -> None:
    copy.sql("DELETE FROM ledger_accounts WHERE id = ?", copy.wallet)


def change_entry_balance(copy: Copy) -> None:
    copy.sql("UPDATE ledger_entries SET posted_after = posted_after + 1 WHERE key = ?", copy.bill_key)


def change_entry_transfers(copy: Copy) -> None:
    def more(transfers: Any) -> None:
        transfers[0][2] += 1

    copy.edit_json("ledger_entries", "transfers", "key", copy.bill_key, more)


def remove_report_row(copy: Copy) -> None:
    copy.sql("DELETE FROM ledger_transfers WHERE entry_key = ? AND i = 0", copy.bill_key)


def change_report_row(copy: Copy) -> None:
    copy.sql("UPDATE ledger_transfers SET amount = amount + 1 WHERE entry_key = ? AND i = 0", copy.bill_key)


def date_income_back(copy: Copy) -> None:
    """To another day: every balance is right, and the tax return is wrong."""
    copy.sql("UPDATE ledger_transfers SET day = '2025-12-31' WHERE entry_key = ?", copy.bill_key)


def count_a_second_more(copy: Copy) -> None:
    copy.sql("UPDATE ledger_entries SET quantity = quantity + 1 WHERE key = ?", copy.bill_key)


def change_a_transfers_kind(copy: Copy) -> None:
    copy.sql("UPDATE ledger_transfers SET kind = 'recharge' WHERE entry_key = ? AND i = 0", copy.bill_key)


def change_timeline_row(copy: Copy) -> None:
    def later(row: Any) -> None:
        row["at_ms"] += 1

    key = copy.one('SELECT "_id" FROM c_timeline WHERE session_id = ? AND k = 0', copy.history.ended_id)
    copy.edit_json("c_timeline", "_body", "_id", key, later)


def remove_timeline_start_and_bill_trail(copy: Copy) -> None:
    """Neither the rows nor the entry tell a beginning."""
    copy.sql("DELETE FROM c_timeline WHERE session_id = ? AND k = 0", copy.history.ended_id)
    copy.edit_json("ledger_entries", "facts", "key", copy.bill_key, lambda facts: facts.update(trail=[]))


def change_session_total(copy: Copy) -> None:
    copy.edit_session(copy.history.ended_id, total_minor=1)


def change_session_rate(copy: Copy) -> None:
    copy.edit_session(copy.history.ended_id, rate_minor_per_min=5_999)


def change_end_reason(copy: Copy) -> None:
    copy.edit_session(copy.history.ended_id, end_reason="LAWYER_ENDED")


def remove_session(copy: Copy) -> None:
    copy.sql("DELETE FROM c_consult_sessions WHERE _id = ?", copy.history.ended_id)


def remove_live_session(copy: Copy) -> None:
    copy.sql("DELETE FROM c_consult_sessions WHERE _id = ?", copy.history.live_id)


def remove_hold(copy: Copy) -> None:
    copy.sql(
        "UPDATE ledger_accounts SET holds = NULL, held = 0 WHERE id = ?",
        f"wallet:{copy.history.other_user_id}",
    )


def finish_a_session_that_is_held(copy: Copy) -> None:
    copy.edit_session(copy.history.live_id, status="ENDED", end_reason="USER_ENDED")


def bill_a_second_more(copy: Copy) -> None:
    """Everything agrees, but the timeline: money, rows, reports and the record."""

    def longer(facts: Any) -> None:
        facts["servedMs"] += 1_000

    copy.edit_json("ledger_entries", "facts", "key", copy.bill_key, longer)


BROKEN = [
    (change_balance, "a balance is the sum of its entries"),
    (swap_money_between_two_accounts, "a balance is the sum of its entries"),
    (change_held, "held is the sum of the holds"),
    (remove_entry, "no entry of an account is missing"),
    (remove_account, "an entry's account exists"),
    (change_entry_balance, "an entry's balances differ by its transfers"),
    (change_entry_transfers, "a bill is the price of the served seconds"),
    (remove_report_row, "reports equal the entries"),
    (change_report_row, "reports equal the entries"),
    (date_income_back, "a day's report equals its entries"),
    (count_a_second_more, "a day's report equals its entries"),
    (change_a_transfers_kind, "a day's report equals its entries"),
    (change_timeline_row, "a bill can be recomputed from its timeline"),
    (remove_timeline_start_and_bill_trail, "a timeline is start, pauses, end"),
    (change_session_total, "a record is the copy of its entry"),
    (change_session_rate, "a bill is the price of the served seconds"),
    (change_end_reason, "a record is the copy of its entry"),
    (remove_session, "a bill has its session"),
    (remove_live_session, "a hold has its session"),
    (remove_hold, "a live session has a hold"),
    (finish_a_session_that_is_held, "a finished session has no hold"),
    (bill_a_second_more, "a bill can be recomputed from its timeline"),
]


@pytest.mark.parametrize(("mischief", "rule"), BROKEN, ids=[mischief.__name__ for mischief, _ in BROKEN])
def test_books_that_were_touched_are_broken(copy: Copy, mischief: Callable[[Copy], None], rule: str) -> None:
    mischief(copy)
    ran = copy.verify()
    assert ran.code == 4, ran.out + ran.err
    assert f"broken: {rule}: " in ran.out
    assert ran.out.splitlines()[-1].startswith("broken: ")


def leave_the_bill_in_the_tail(copy: Copy) -> None:
    """As after a commit on an engine that copies entries out later: taken from the wallet, not yet told to anybody."""
    with closing(sqlite3.connect(copy.path)) as connection, connection:
        connection.row_factory = sqlite3.Row
        row = connection.execute("SELECT * FROM ledger_entries WHERE key = ?", (copy.bill_key,)).fetchone()
        entry = {
            "key": row["key"],
            "account": row["account"],
            "seq": row["seq"],
            "state": row["state"],
            "kind": row["kind"],
            "asset": row["asset"],
            "reference": row["reference"],
            "transfers": json.loads(row["transfers"]),
            "postedBefore": row["posted_before"],
            "postedAfter": row["posted_after"],
            "atMs": row["at_ms"],
            "day": row["day"],
            "facts": json.loads(row["facts"]),
        }
        net_minor = entry["facts"]["net"]
        connection.execute("DELETE FROM ledger_entries WHERE key = ?", (copy.bill_key,))
        connection.execute("DELETE FROM ledger_transfers WHERE entry_key = ?", (copy.bill_key,))
        connection.execute(
            "UPDATE ledger_accounts SET tail = ? WHERE id = ?", (json.dumps([entry]), copy.wallet)
        )
        connection.execute(
            "UPDATE ledger_accounts SET posted = posted - ? WHERE id = ?", (net_minor, copy.earnings)
        )


def leave_the_record_active(copy: Copy) -> None:
    """Closed in the ledger, nothing after it: the claims are taken still."""
    copy.edit_session(
        copy.history.ended_id, status="ACTIVE", ended_at_ms=None, end_reason=None, duration_s=0, total_minor=0
    )
    copy.sql("DELETE FROM c_timeline WHERE session_id = ?", copy.history.ended_id)


def leave_a_start(copy: Copy) -> None:
    """A session row that came no further."""
    body = json.loads(copy.one("SELECT _body FROM c_consult_sessions WHERE _id = ?", copy.history.ended_id))
    body |= {
        "_id": "0" * 32,
        "status": "STARTING",
        "started_at_ms": None,
        "ended_at_ms": None,
        "end_reason": None,
    }
    copy.sql(
        "INSERT INTO c_consult_sessions (_id, user_id, lawyer_id, status, created_at_ms, _body)"
        " VALUES (?, ?, ?, 'STARTING', ?, ?)",
        body["_id"],
        body["user_id"],
        body["lawyer_id"],
        body["created_at_ms"],
        json.dumps(body),
    )


def leave_a_session_alone_for_an_hour(copy: Copy) -> None:
    def earlier(holds: Any) -> None:
        for hold in holds:
            facts = next(part for part in hold if isinstance(part, dict))
            for name in ("startedAt", "runningSince", "evidenceAt"):
                facts[name] -= 3_600_000

    def started_earlier(row: Any) -> None:
        row["at_ms"] -= 3_600_000

    copy.edit_json("ledger_accounts", "holds", "id", f"wallet:{copy.history.other_user_id}", earlier)
    key = copy.one('SELECT "_id" FROM c_timeline WHERE session_id = ? AND k = 0', copy.history.live_id)
    copy.edit_json("c_timeline", "_body", "_id", key, started_earlier)


UNFINISHED = [
    (leave_the_bill_in_the_tail, "a tail is copied out"),
    (leave_the_record_active, "a closed session is settled"),
    (leave_a_start, "a start is finished or given back"),
    (leave_a_session_alone_for_an_hour, "a live session has an owner"),
]


@pytest.mark.parametrize(("leave", "rule"), UNFINISHED, ids=[leave.__name__ for leave, _ in UNFINISHED])
def test_what_a_crash_has_left_is_unfinished_and_the_next_start_finishes_it(
    copy: Copy, leave: Callable[[Copy], None], rule: str
) -> None:
    leave(copy)
    before = copy.path.read_bytes()
    ran = copy.verify()
    assert copy.path.read_bytes() == before, "it repairs nothing itself"
    assert ran.code == 3, ran.out + ran.err
    assert f"unfinished: {rule}: " in ran.out
    with ServerProcess(copy.directory, **SETTINGS) as server:
        code, output = server.settled_books()
        assert code == 0, output
        assert bill_of(copy) == copy.history.ended["totalAmount"]


def bill_of(copy: Copy) -> str:
    """What the ended consultation has brought its lawyer and the platform, from the books that were healed."""
    total = copy.one("SELECT SUM(amount) FROM ledger_transfers WHERE entry_key = ?", copy.bill_key)
    return f"{total / 100:.2f}"


def test_a_file_that_cannot_be_read_is_no_verdict(tmp_path: Path) -> None:
    database = tmp_path / "tarazu.db"
    ran = tarazu(tmp_path, "verify-ledger", env=environment(database))
    assert (ran.code, ran.out) == (1, "")
    assert "there is no database at" in ran.err
    database.write_bytes(b"no database at all, whatever its name says" * 100)
    ran = tarazu(tmp_path, "verify-ledger", env=environment(database))
    assert (ran.code, ran.out) == (1, "")
    assert "cannot read" in ran.err
    assert "Traceback" not in ran.err
