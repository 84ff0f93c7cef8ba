"""The commands of `docs/company-billing.md` are run as they stand there: who copies them gets what they promise."""

import asyncio
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.server_process import ROOT, ServerProcess

_BLOCK: Final = re.compile(r"^```sh (\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def commands() -> dict[str, str]:
    """Each block of the page by its name, in order."""
    return dict(_BLOCK.findall((ROOT / "docs" / "company-billing.md").read_text("utf-8")))


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
async def test_the_commands_lead_from_registration_to_the_dashboard(tmp_path: Path) -> None:
    blocks = commands()
    assert list(blocks) == ["register.sh", "recharge.sh", "usage.sh", "dashboard.sh"]
    with ServerProcess(tmp_path) as server:
        script = "set -e\n" + "\necho\n".join(blocks.values()).replace("curl -sf", "curl -sSf -w '\\n'")
        process = await asyncio.create_subprocess_exec(
            "bash",
            "-c",
            script,
            env={"PATH": os.environ["PATH"], "TARAZU_URL": server.url},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await asyncio.wait_for(process.communicate(), 60)
        assert (process.returncode, err.decode()) == (0, ""), out.decode()
        answers: list[Any] = [json.loads(line) for line in out.decode().splitlines() if line.startswith("{")]
        used = [one for one in answers if "usageId" in one]
        assert [(one["status"], one["cost"]) for one in used] == [
            ("CHARGED", "0.50"), ("CHARGED", "0.01"), ("CHARGED", "1.50"), ("DRAFT", "0.003"),
        ]  # fmt: skip
        (batch,) = (one for one in answers if "usageId" in str(one.get("items")) and "publishedAt" not in one)
        assert [one["duplicate"] for one in batch["items"]] == [True, False]
        (status,) = (one for one in answers if "totalSpent" in one)
        assert (status["totalSpent"], status["walletBalance"]) == ("2.513", "97.487")
        assert status["autoRecharge"]["state"] == "READY"
        assert status["alertThresholds"] == ["50.00", "20.00"]
        month, week = (one for one in answers if "daily" in one)
        assert month["usage"]["total"] == {"count": 5, "cost": "2.513"}
        assert week["usage"]["total"] == {"count": 1, "cost": "0.50"}
        assert "CV_PARSE,-0.50" in out.decode()
        code, output = server.settled_books()
        assert code == 0, output
