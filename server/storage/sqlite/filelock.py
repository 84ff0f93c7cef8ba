"""One process per database file.

The lock is a file of its own beside the database, never the database file itself: closing any descriptor of
that one drops the locks that SQLite holds on it (POSIX), and a second writer could then delete a live WAL.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from server.storage.errors import CannotOpen


class DatabaseInUse(CannotOpen):
    """Another process, or another part of this one, has the database open for writing."""


@contextmanager
def exclusive(database: Path) -> Iterator[None]:
    """Hold `<database>.lock` until the block ends, or the process does.

    The lock file stays behind: deleting it would let two processes lock two files of the same name.

    Raises:
        DatabaseInUse: somebody else holds it; the message names the file and, where known, the process.
        CannotOpen: the lock file cannot be made.
    """
    path = database.with_name(database.name + ".lock")
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise CannotOpen(path, exc.strerror or str(exc)) from exc
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
            raise DatabaseInUse(
                database,
                f"already in use by process {holder or '?'}, which holds {path.name}: one process per file",
            ) from exc
        except OSError as exc:
            raise CannotOpen(path, exc.strerror or str(exc)) from exc
        # Who holds it is a courtesy to the operator; a full disk must not keep the server from starting.
        with suppress(OSError):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode("ascii"), 0)
        yield
    finally:
        os.close(descriptor)
