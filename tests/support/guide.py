"""The programs of the guide and of the clients' READMEs, as they stand there."""

import re
from pathlib import Path
from typing import Final

from tests.support.server_process import ROOT

_BLOCK: Final = re.compile(r"^```(?:python|js) (\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def programs(page: str = "docs/guide.md") -> dict[str, str]:
    """Each program by its file's name."""
    return dict(_BLOCK.findall((ROOT / page).read_text("utf-8")))


def write_programs(directory: Path) -> None:
    """Save them as the guide says."""
    for name, text in programs().items():
        (directory / name).write_text(text, "utf-8")
