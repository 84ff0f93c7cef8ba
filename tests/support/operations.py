"""The shell blocks of docs/operations.md, so that a test can run them as they stand there."""

import re
from typing import Final

from tests.support.server_process import ROOT

OPERATIONS: Final = ROOT / "docs" / "operations.md"


def shell_block(heading: str) -> str:
    """The first ```bash block below `heading`. Raises AssertionError where there is none before the next heading."""
    section = re.search(
        rf"^#+ {re.escape(heading)}\n(?P<text>.*?)(?=^#+ |\Z)", _prose(), re.MULTILINE | re.DOTALL
    )
    assert section is not None, f"docs/operations.md has no heading {heading!r}"
    block = re.search(r"^```bash\n(.*?)^```", section["text"].replace(_HASH, "#"), re.MULTILINE | re.DOTALL)
    assert block is not None, f"docs/operations.md has no shell block below {heading!r}"
    return block[1]


#: Stands for the # of a shell's comment while headings are looked for.
_HASH: Final = "\0"


def _prose() -> str:
    """The page, with the # of comments in code blocks hidden: at the start of a line it would be a heading."""
    return re.sub(
        r"^```.*?^```",
        lambda block: block[0].replace("#", _HASH),
        OPERATIONS.read_text(encoding="utf-8"),
        flags=re.MULTILINE | re.DOTALL,
    )
