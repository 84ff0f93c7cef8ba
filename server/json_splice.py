"""A field more in a JSON object, whose every other byte stays as it is: numbers, order, spaces."""


def with_last_field(body: bytes, name: str, value: bytes) -> bytes:
    """The JSON object in `body` with one more field at its end, `value` being JSON; what is no object comes back as it is."""
    text = body.strip()
    if not text.startswith(b"{") or not text.endswith(b"}"):
        return body
    comma = b"" if text[1:-1].strip() == b"" else b","
    return b'%b%b"%b":%b}' % (text[:-1], comma, name.encode(), value)
