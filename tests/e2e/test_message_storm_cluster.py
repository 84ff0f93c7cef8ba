"""The storm at a cluster, with the clients that app teams use. `make chaos-messages MESSAGES=100000` is the long run."""

import asyncio
import os
import secrets
from pathlib import Path
from typing import Final

import pytest

from tests.e2e.message_storm import storm
from tests.support.cluster import Cluster
from tests.support.server_process import QUICK
from tests.support.typescript_client import missing

pytestmark = pytest.mark.slow

MESSAGES: Final = int(os.environ.get("TARAZU_STORM_MESSAGES") or 10_000)
SEED: Final = int(os.environ.get("TARAZU_STORM_SEED") or secrets.randbelow(10**9))
#: Minutes on a busy machine; this only ends a run that hangs.
PATIENCE_S: Final = 600.0


async def test_thousands_of_messages_through_two_processes_arrive_once_and_in_order_whatever_breaks(
    tmp_path: Path,
) -> None:
    print(f"TARAZU_STORM_SEED={SEED}")
    with_node = missing() is None or bool(os.environ.get("TARAZU_REQUIRE_NODE"))
    with Cluster(tmp_path, **QUICK) as cluster:
        async with asyncio.timeout(PATIENCE_S):
            story = await storm(
                cluster, messages=MESSAGES, pairs=2, seed=SEED, strikes=6, with_node=with_node
            )
        print(story)
        # The weather was bad enough to mean something.
        assert story.torn > MESSAGES / 500, story
        code, output = await asyncio.to_thread(cluster.settled_books)
        assert code == 0, output
