"""`make cluster`: the production path on one machine, from pip packages alone, until Ctrl-C.

Two web processes and a worker over the MongoDB protocol and a real Valkey. The store is a stand-in (nx-27017, SQLite inside):
good for trying and for tests, not for money. Kill a web process and watch the other one go on.
"""

import os
import secrets
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Final

from tests.support.cluster import Cluster

FIRST_PORT: Final = int(os.environ.get("PORT") or 8000)
WEBS: Final = int(os.environ.get("WEBS") or 2)
ADMIN_EMAIL: Final = os.environ.get("ADMIN_EMAIL") or "admin@example.com"


def main() -> int:
    """Run until interrupted, or until a process ends that nobody asked to."""
    directory = Path("data/cluster").resolve()
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    password = os.environ.get("ADMIN_PASSWORD") or secrets.token_urlsafe(12)
    settings = {
        "APP_ENV": "development",
        "JWT_SECRET": secrets.token_urlsafe(48),
        "ADMIN_EMAIL": ADMIN_EMAIL,
        "ADMIN_PASSWORD": password,
        "BCRYPT_COST": "10",
        "RATE_LIMITS": "on",
        "MIN_SECONDS": os.environ.get("MIN_SECONDS") or "20",
        "TICK_SECONDS": os.environ.get("TICK_SECONDS") or "2",
        "LOG_FORMAT": "console",
        "PYTHONWARNINGS": "default",
    }
    cluster = Cluster(directory, webs=WEBS, **settings)
    for number, web in enumerate(cluster.webs):
        web.settings["PORT"] = str(FIRST_PORT + number)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with cluster:
        _introduce(cluster, password)
        gone: set[str] = set()
        try:
            while len(gone) < len(cluster.webs):
                for process in cluster.processes:
                    if not process.is_running and process.name not in gone:
                        gone.add(process.name)
                        print(f"{process.name} has ended; its log: {process.log_path}", flush=True)
                time.sleep(0.5)
        except (KeyboardInterrupt, SystemExit):
            print("\nstopping")
            return 0
    return 1


def _introduce(cluster: Cluster, password: str) -> None:
    rows = [(process.name, process.pid, process.url or "-") for process in cluster.processes]
    width = max(len(url) for _, _, url in rows)
    print("\nTarazu runs as in production, on stand-ins:\n")
    for name, pid, url in rows:
        print(f"  {name:8} pid {pid:<8} {url:{width}}")
    print(f"  {'mongo':8} {cluster.settings['DATABASE_URL']}")
    print(f"  {'redis':8} {cluster.settings['REDIS_URL']}")
    print(f"\n  logs      {cluster.directory}")
    print(f"  admin     {ADMIN_EMAIL}  {password}\n")
    urls = " ".join(f"--url {web.url}" for web in cluster.webs)
    print("The demo, with the user on one process and the lawyer on the other:\n")
    print(f"  .venv/bin/tarazu demo {urls} --admin-email {ADMIN_EMAIL} --admin-password {password}\n")
    print("Take the lawyer's away while it runs (kill -9 PID). Ctrl-C stops everything.\n", flush=True)


if __name__ == "__main__":
    sys.exit(main())
