"""The engine among processes: one writer only, readers and backups beside it, and `kill -9` at any instant."""

import asyncio
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from server.storage.errors import StoreUnavailable
from server.storage.sqlite.engine import (
    DatabaseInUse,
    Lane,
    SqliteDatabase,
    SqliteOptions,
    open_database,
    open_readonly,
)
from tests.support.sqlite_child import SCHEMA, pair

FAST = SqliteOptions(synchronous="OFF")


@contextmanager
def child(mode: str, path: Path, *rest: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.sqlite_child", mode, str(path), *rest],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=30)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "processes.db"


def read_all(path: Path) -> dict[str, int]:
    with closing(open_readonly(path)) as connection:
        return dict(connection.execute("SELECT id, amount FROM entry").fetchall())


def listed(directory: Path) -> set[str]:
    return {file.name for file in directory.iterdir()}


# --- one process per file ---


async def test_a_second_opener_is_refused_while_the_first_lives(path: Path) -> None:
    async with open_database(path, FAST) as db:
        for again in (path, path.parent / "." / path.name):
            with pytest.raises(DatabaseInUse, match=f"{path.name}.*process {os.getpid()}"):
                async with open_database(again, FAST):
                    pass
        with child("hold", path) as second:
            out, err = second.communicate(timeout=30)
        assert (second.returncode, out) == (3, "")
        assert str(path) in err
        assert f"process {os.getpid()}" in err
        await db.ping()
    async with open_database(path, FAST) as db:
        await db.ping()


async def test_a_link_to_the_file_meets_the_same_lock(path: Path) -> None:
    link = path.with_name("link.db")
    link.symlink_to(path)
    async with open_database(path, FAST):
        with pytest.raises(DatabaseInUse):
            async with open_database(link, FAST):
                pass


async def test_the_lock_dies_with_its_process(path: Path) -> None:
    with child("hold", path) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "open\n"
        with pytest.raises(DatabaseInUse, match=f"process {first.pid}"):
            async with open_database(path, FAST):
                pass
        first.send_signal(signal.SIGKILL)
        first.wait(30)
        async with open_database(path, FAST) as db:
            await db.ping()


# --- kill -9 ---


@pytest.mark.parametrize("seed", range(6))
def test_what_was_acknowledged_survives_kill_9(path: Path, seed: int) -> None:
    """The promise that everything else is built on. Three deaths on one file, each at a random moment."""
    chance = random.Random(seed)
    acknowledged: set[str] = set()
    for _ in range(3):
        with child("write", path) as writer:
            assert writer.stdout is not None
            for _ in range(chance.randrange(1, 4_000)):
                acknowledged.add(writer.stdout.readline().strip())
            writer.send_signal(signal.SIGKILL)
            rest, err = writer.communicate(timeout=30)
            assert err == ""
        lines = rest.split("\n")
        acknowledged.update(lines[:-1])  # a line without its end was cut by the kill
        rows = read_all(path)
        assert acknowledged <= rows.keys()
        # No half of a pair, acknowledged or not.
        assert sum(rows.values()) == 0
        assert {id_.removesuffix("-contra") for id_ in rows} == {id_ for id_ in rows if "contra" not in id_}
    with closing(open_readonly(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_reading_after_a_crash_leaves_the_files_to_the_next_server(path: Path) -> None:
    """`verify-ledger` after a crash must not swallow the log that holds the last commits."""
    with child("write", path) as writer:
        assert writer.stdout is not None
        for _ in range(500):
            writer.stdout.readline()
    files = [path, path.with_name(path.name + "-wal")]
    before = [file.read_bytes() for file in files]
    assert before[1]
    first = read_all(path)
    assert len(first) >= 1_000
    assert [file.read_bytes() for file in files] == before
    assert read_all(path) == first


# --- beside a running writer ---


async def keep_writing(db: SqliteDatabase, stop: asyncio.Event) -> int:
    async def caller(number: int) -> int:
        count = 0
        while not stop.is_set():
            count += 1
            await db.write(Lane.LEDGER, pair(f"w{number}-{count}", count))
        return count

    return sum(await asyncio.gather(*(caller(number) for number in range(20))))


async def test_a_reader_in_another_process_sees_one_committed_state(path: Path) -> None:
    async with open_database(path, FAST) as db:
        await db.script(SCHEMA)
        stop = asyncio.Event()
        writing = asyncio.ensure_future(keep_writing(db, stop))
        with child("verify", path) as reader:
            out, err = await asyncio.to_thread(reader.communicate, timeout=60)
        assert reader.returncode == 0, err
        stop.set()
        written = await writing
        states = json.loads(out)
        for state in states:
            assert len({tuple(row) for row in state}) == 1
            assert state[0][1] == 0
            assert state[0][0] % 2 == 0
        assert states[-1][0][0] > states[0][0][0]
        # The reader's going took nothing with it.
        assert len(read_all(path)) == 2 * written
        await db.ping()


async def test_a_backup_beside_a_running_writer_is_one_committed_state(path: Path, tmp_path: Path) -> None:
    async with open_database(path, FAST) as db:
        await db.script(SCHEMA)
        await db.write(Lane.LEDGER, pair("before", 7))
        stop = asyncio.Event()
        writing = asyncio.ensure_future(keep_writing(db, stop))
        here, there = tmp_path / "here.db", tmp_path / "it's there?#%.db"
        await db.backup(here)
        with child("backup", path, str(there)) as other:
            _, err = await asyncio.to_thread(other.communicate, timeout=60)
        assert (other.returncode, err) == (0, "")
        stop.set()
        await writing
        for copy in (here, there):
            with closing(sqlite3.connect(copy)) as connection:
                assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
                rows = dict(connection.execute("SELECT id, amount FROM entry").fetchall())
            assert rows["before"] == 7
            assert sum(rows.values()) == 0
        async with open_database(here, FAST) as restored:
            await restored.write(Lane.LEDGER, pair("goes on", 1))
        assert not [name for name in listed(tmp_path) if "part" in name]


async def test_a_backup_overwrites_nothing_and_leaves_no_half_copy(path: Path, tmp_path: Path) -> None:
    async with open_database(path, FAST) as db:
        taken = tmp_path / "taken.db"
        taken.write_text("precious")
        with pytest.raises(FileExistsError, match=r"taken\.db"):
            await db.backup(taken)
        assert taken.read_text() == "precious"
        with pytest.raises(StoreUnavailable):
            await db.backup(tmp_path / "no such directory" / "copy.db")
    assert listed(tmp_path) == {"processes.db", "processes.db.lock", "taken.db"}


async def test_a_backup_works_on_a_disk_without_links(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(source: Path, target: Path) -> None:
        raise PermissionError(1, "Operation not permitted", str(source), None, str(target))

    monkeypatch.setattr(os, "link", no_links)
    async with open_database(path, FAST) as db:
        await db.script(SCHEMA)
        await db.write(Lane.LEDGER, pair("x", 1))
        await db.backup(tmp_path / "copy.db")
        with pytest.raises(FileExistsError):
            await db.backup(tmp_path / "copy.db")
    assert read_all(tmp_path / "copy.db") == {"x": 1, "x-contra": -1}
    assert not [name for name in listed(tmp_path) if "part" in name]
