"""Cells of a CSV file that people open in a spreadsheet."""


def plain(text: str) -> str:
    """A text that somebody typed, so that no spreadsheet takes it for a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
