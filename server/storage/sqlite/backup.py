"""A consistent copy of a database that is in use."""

import os
from contextlib import closing, suppress
from pathlib import Path

from server.storage.sqlite.connect import open_readonly


def backup_to(source: str | Path, target: Path) -> None:
    """Write one committed state of `source` to the new file `target`, which appears whole or not at all.

    Needs no lock and may run in another process. The copy carries no write-ahead log.

    Raises:
        FileExistsError: `target` exists; nothing is ever overwritten.
        CannotOpen: `source` cannot be read.
        sqlite3.Error, OSError: the copy failed, for instance for want of space; what was written is removed.
    """
    part = target.with_name(target.name + ".part")
    if target.exists():
        raise FileExistsError(f"{target} exists already")
    part.unlink(missing_ok=True)
    try:
        with closing(open_readonly(source)) as connection:
            # query_only forbids VACUUM INTO as well; mode=ro still keeps the source from being written.
            connection.execute("PRAGMA query_only=0")
            connection.execute("VACUUM INTO ?", (str(part),))
        _sync(part)
        _publish(part, target)
    finally:
        with suppress(FileNotFoundError):
            part.unlink()
    _sync(target.parent)


def _publish(part: Path, target: Path) -> None:
    try:
        # A link refuses to replace a file that has appeared meanwhile; a rename would not.
        os.link(part, target)
    except FileExistsError:
        raise
    except OSError:
        # An external disk's file system may know no links.
        if target.exists():
            raise FileExistsError(f"{target} exists already") from None
        part.rename(target)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
