"""Where a company's webhook may lead: a URL is foreign input, and must not make us a door into the network that we stand in."""

import ipaddress
import re
from typing import Any, Final

from yarl import URL

from server.company_news.errors import WebhookUrlRefused

_LONGEST: Final = 2_000
_ODD: Final = re.compile(r"[\x00-\x20\x7f-\x9f\\]")
#: IPv6 addresses that carry an IPv4 address in their last four bytes: NAT64 (RFC 6052).
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")
#: Special-purpose blocks that not every version of Python's `ipaddress` knows; 192.0.0.192 is a cloud's metadata.
_SPECIAL: Final = tuple(
    ipaddress.ip_network(block)
    for block in ("192.0.0.0/24", "192.88.99.0/24", "100::/64", "2001::/23", "3fff::/20", "5f00::/16")
)
_LOCAL_NAMES: Final = (".localhost", ".local", ".internal", ".localdomain", ".home.arpa")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def is_public(address: str) -> bool:
    """Whether the address is one of the public internet. What is no address is not.

    Private, loopback, link-local (clouds' metadata), multicast, reserved, shared (CGNAT) and documentation addresses are not, nor
    is an IPv6 address that stands for one of those IPv4 addresses. Source: IANA's special-purpose registries.
    """
    try:
        ip: Address = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    return _is_global(ip)


def _is_global(ip: Address) -> bool:
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return _is_global(ip.ipv4_mapped)
        if ip in _NAT64:
            return _is_global(ipaddress.IPv4Address(ip.packed[-4:]))
        if ip.sixtofour is not None or ip.teredo is not None or ip.is_site_local:
            # Relays to IPv4 that nobody honest uses any more.
            return False
    if any(ip.version == block.version and ip in block for block in _SPECIAL):
        return False
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_unspecified or ip.is_loopback)


def check_url(url: str, *, allow_private: bool) -> str:
    """The URL as it will be asked for. Where its name leads is seen when it is connected to, each time anew.

    Raises:
        WebhookUrlRefused: what can be told from the text alone; `field` is `webhookUrl`.
    """
    if len(url) > _LONGEST or _ODD.search(url):
        raise _refused(f"must be a URL without spaces, of at most {_LONGEST} characters")
    try:
        parsed = URL(url)
        host, port = parsed.host, parsed.port
    except ValueError as exc:
        raise _refused("is not a URL") from exc
    if parsed.scheme != "https" and not (allow_private and parsed.scheme == "http"):
        raise _refused("must begin with https://")
    if not host or not port:
        raise _refused("must name a host")
    if parsed.user is not None or parsed.password is not None:
        raise _refused("must not carry a user name or password; check our signature instead")
    if parsed.raw_fragment:
        raise _refused("must not have a fragment (#)")
    if not allow_private and (problem := _problem_of(host.rstrip(".").lower())):
        raise _refused(problem)
    return str(parsed)


def _problem_of(host: str) -> str | None:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        is_name = "." in host and not host.endswith(_LOCAL_NAMES) and not host.rpartition(".")[2].isdigit()
        return None if is_name else "must name a host of the public internet"
    return None if is_public(host) else "must not be a private, loopback or reserved address"


def _refused(problem: str, **facts: Any) -> WebhookUrlRefused:
    return WebhookUrlRefused(field="webhookUrl", problem=problem, **facts)
