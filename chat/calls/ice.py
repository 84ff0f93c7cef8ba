"""How two devices find a way to each other: STUN and TURN servers, with credentials that expire.

TURN credentials follow coturn's REST scheme (`use-auth-secret`): the username starts with the second at which it expires, the
password is base64(HMAC-SHA1(secret, username)). Nothing is stored; who has the secret can check it.

Source: https://github.com/coturn/coturn/blob/master/README.turnserver (TURN REST API), draft-uberti-behave-turn-rest-00.
"""

import base64
import hashlib
import hmac
from dataclasses import dataclass, field
from typing import Any, Final

#: What a credential lasts beyond the money: a recharge, a slow handshake.
SLACK_S: Final = 300


@dataclass(frozen=True, slots=True)
class IceRules:
    """`secrets`: those that the TURN servers know at the moment. Each makes a credential of its own, so that while they are being
    changed one of them works at every server.
    """

    stun_urls: tuple[str, ...] = ()
    turn_urls: tuple[str, ...] = ()
    secrets: tuple[str, ...] = field(default=(), repr=False)
    ttl_s: int = 3_600
    relay_only: bool = False


@dataclass(frozen=True, slots=True)
class IceConfig:
    """What a peer connection is made with. `servers`: `RTCConfiguration.iceServers`, ready for the wire."""

    servers: list[dict[str, Any]] = field(repr=False)
    policy: str
    ttl_s: int
    expires_at_ms: int


def credential(secret: str, username: str) -> str:
    """The password that belongs to a username."""
    # HMAC with SHA-1 is what TURN servers check; its weakness against collisions does not matter here.
    digest = hmac.new(secret.encode(), username.encode(), hashlib.sha1).digest()
    return base64.b64encode(digest).decode()


def ttl_of(rules: IceRules, remaining_s: int | None) -> int:
    """Seconds that a credential lasts: the money and some slack, at most `ttl_s`. None: what is left is not for the asker to know,
    who could tell it from the answer.
    """
    return rules.ttl_s if remaining_s is None else min(rules.ttl_s, max(0, remaining_s) + SLACK_S)


def ice_config(
    rules: IceRules, *, session_id: str, person_id: str, remaining_s: int | None, now_ms: int
) -> IceConfig:
    """Servers and credentials for one person in one session."""
    ttl_s = ttl_of(rules, remaining_s)
    expires_at_s = now_ms // 1000 + ttl_s
    servers: list[dict[str, Any]] = []
    if rules.stun_urls:
        servers.append({"urls": list(rules.stun_urls), "username": None, "credential": None})
    username = f"{expires_at_s}:{session_id}:{person_id}"
    servers.extend(
        {"urls": list(rules.turn_urls), "username": username, "credential": credential(secret, username)}
        for secret in rules.secrets
        if rules.turn_urls
    )
    return IceConfig(servers, "relay" if rules.relay_only else "all", ttl_s, expires_at_s * 1000)
