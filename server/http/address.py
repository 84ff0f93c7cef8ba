"""Who is at the other end: the peer of the connection, or whom our own proxies say that they saw."""

import ipaddress
from collections.abc import Sequence
from typing import Final

from aiohttp import web

_FORWARDED: Final = "X-Forwarded-For"
#: A household or a server has a whole /64: its owner changes the lower half at will.
_IPV6_PREFIX: Final = 64


def client_address(request: web.Request, trusted_proxies: int) -> str:
    """The client's address, believing that many proxies in front of us (SPEC 2, `TRUSTED_PROXIES`)."""
    forwarded = request.headers.getall(_FORWARDED, []) if trusted_proxies else []
    return address_of(request.remote or "", forwarded, trusted_proxies)


def address_of(remote: str, forwarded: Sequence[str], trusted_proxies: int) -> str:
    """The address in `X-Forwarded-For` that our outermost proxy wrote, else `remote`.

    Each proxy of ours appended whom it saw; what a client wrote itself is further left, and is believed by nobody. Several
    headers are one list (RFC 9110).
    """
    hops = [hop.strip() for header in forwarded for hop in header.split(",")]
    if 0 < trusted_proxies <= len(hops) and (seen := _plain(hops[-trusted_proxies])):
        return seen
    return remote


def network_of(address: str) -> str:
    """The address as it is counted: IPv6 by its /64, everything else as it is."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, _IPV6_PREFIX), strict=False).network_address)
    return str(parsed)


def _plain(hop: str) -> str:
    """The address of one entry without brackets and port; empty if it is none."""
    text = hop
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return ""
