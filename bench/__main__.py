"""The short version of each benchmark, one after the other, each in a process of its own: `python -m bench`, `make bench`.

Compare ratios, not figures: of one machine with itself. The full versions are in README.md.
"""

import os
import platform
import sqlite3
import subprocess
import sys

SHORT = (
    ("sqlite_group_commit", "--rows", "50000", "--callers", "500"),
    ("ledger_holds", "--writes", "50000", "--callers", "1000"),
    ("cut_off", "--sessions", "1000", "--spread", "5"),
    ("engine_capacity", "--sessions", "2000", "--seconds", "12"),
    ("reconnect_storm", "--sessions", "100", "--storms", "1"),
    ("deaf_clients", "--clients", "10"),
    ("redis_locks", "--rounds", "3", "--pairs", "1000"),
    ("redis_bus", "--messages", "10000"),
    ("slice_cost", "--callers", "1,100", "--seconds", "0.1"),
    ("takeover", "--sessions", "100", "--rounds", "1"),
    ("second_process", "--rounds", "1"),
    ("usage", "--rounds", "1", "--seconds", "3", "--wallets", "100"),
    ("ai_gateway", "--seconds", "2"),
    ("usage_reads", "--rows", "50000", "--seconds", "0.5"),
)


def main() -> int:
    load = os.getloadavg()[0]
    print(
        f"{platform.platform()}, {os.cpu_count()} cores, load {load:.1f}; "
        f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}"
    )
    failed = []
    for name, *arguments in SHORT:
        print(f"\n== {name} {' '.join(arguments)}", flush=True)
        if subprocess.run([sys.executable, "-m", f"bench.{name}", *arguments], check=False).returncode:
            failed.append(name)
    for name in failed:
        print(f"FAILED: {name}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
