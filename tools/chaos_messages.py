"""`make chaos-messages MESSAGES=100000 SEED=n`: a storm of messages at a cluster of real processes, with the clients of app teams.

The seed says what is said, where connections are torn and what breaks. A failure keeps the cluster's logs and databases.
"""

import asyncio
import os
import secrets
import shutil
import signal
import sys
import traceback
from pathlib import Path
from typing import Final

from tests.e2e.message_storm import storm
from tests.support.cluster import Cluster
from tests.support.server_process import QUICK
from tests.support.typescript_client import missing
from tools.chaos import number_of, say

#: So many messages are said between two things that break.
_MESSAGES_A_STRIKE: Final = 1_500
PAIRS: Final = int(os.environ.get("PAIRS") or 2)


def main(directory: Path, *, messages: int, seed: int) -> int:
    """The exit code."""
    strikes = max(1, messages // _MESSAGES_A_STRIKE)
    say(f"seed {seed}: {messages} messages, {PAIRS} pairs, {strikes} strikes")
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    try:
        # Nobody's token runs out: who renews it is another test's business.
        with Cluster(directory, **{**QUICK, "ACCESS_TOKEN_MINUTES": "600"}) as cluster:
            story = asyncio.run(
                storm(
                    cluster,
                    messages=messages,
                    pairs=PAIRS,
                    seed=seed,
                    strikes=strikes,
                    with_node=missing() is None,
                    tell=say,
                )
            )
            code, output = cluster.settled_books()
            assert code == 0, output
    except KeyboardInterrupt:
        say("stopped")
        return 130
    except BaseException:  # noqa: BLE001 (whatever it is, it is the finding)
        (directory / "failure.txt").write_text(traceback.format_exc())
        say(traceback.format_exc())
        say(f"logs and databases: {directory}")
        say(f"again: make chaos-messages MESSAGES={messages} SEED={seed}")
        return 1
    shutil.rmtree(directory)
    say(f"clean: {story}")
    return 0


if __name__ == "__main__":
    for stop in (signal.SIGINT, signal.SIGTERM):
        # Started in the background, a process ignores the first; and its cluster must not outlive it.
        signal.signal(stop, signal.default_int_handler)
    chosen = number_of("SEED")
    sys.exit(
        main(
            Path("data/chaos-messages").resolve(),
            messages=number_of("MESSAGES") or 10_000,
            seed=secrets.randbelow(10**9) if chosen is None else chosen,
        )
    )
