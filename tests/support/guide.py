"""The programs of `docs/guide.md`, as they stand there."""

import re
from pathlib import Path
from typing import Final

from tests.support.server_process import ROOT

_BLOCK: Final = re.compile(r"^```(?:python|js) (\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def programs() -> dict[str, str]:
    """Each program by its file's name."""
    return dict(_BLOCK.findall((ROOT / "docs" / "guide.md").read_text("utf-8")))


def write_programs(directory: Path) -> None:
    """Save them as the guide says."""
    for name, text in programs().items():
        (directory / name).write_text(text, "utf-8")
