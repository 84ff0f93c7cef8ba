"""schemathesis on the running server: what the document allows is taken, what it forbids is refused, every answer is documented.

`make fuzz` runs it for longer, with a new seed each time.
"""

from pathlib import Path

import pytest

from tests.support.fuzz import budget_s, fuzzed_server

pytestmark = pytest.mark.slow


def test_the_server_keeps_to_its_document_whatever_is_sent(tmp_path: Path) -> None:
    """Stateful, all checks; as somebody who may call, then as each role, allowed or not."""
    seconds = budget_s(30)
    with fuzzed_server(tmp_path) as server:
        failed = {}
        for role, share in (("", 3), ("USER", 1), ("LAWYER", 1), ("ADMIN", 1)):
            ran = server.schemathesis(role, seconds=max(3, seconds * share // 6))
            assert "Operations:" in ran.stdout, ran.stdout + ran.stderr
            if ran.returncode != 0:
                failed[role or "anyone who may"] = ran.stdout[-12_000:] + ran.stderr[-2_000:]

        assert not failed, "\n".join(f"=== as {role}\n{output}" for role, output in failed.items())
