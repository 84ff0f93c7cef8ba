"""`python -m server.docs_pages` writes the pages of `docs/` that are made from tables; a test says when they are out of date."""

from pathlib import Path
from typing import Final

from server.api_docs.errors_page import errors_markdown
from server.api_docs.states import states_markdown
from server.routes import ROUTES

DOCS: Final = Path(__file__).parents[1] / "docs"
_NOTE: Final = "<!-- Made by `python -m server.docs_pages` from the tables in the code. Do not edit. -->\n\n"


def generated_pages() -> dict[str, str]:
    """The pages by their file names."""
    return {"errors.md": _NOTE + errors_markdown(ROUTES), "states.md": _NOTE + states_markdown()}


if __name__ == "__main__":
    for name, text in generated_pages().items():
        (DOCS / name).write_text(text, "utf-8")
