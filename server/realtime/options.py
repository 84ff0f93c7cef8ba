"""How the socket server runs. The defaults are for production."""

from dataclasses import dataclass

from chat.buckets import Limits
from chat.inbox import UNDER_WAY, WAITING
from chat.presence import GRACE_S, SWEEP_S
from chat.whereabouts import KEEP_S


@dataclass(frozen=True, slots=True)
class SocketOptions:
    """Times in seconds, sizes in bytes."""

    #: Browsers' origins that may connect, beside our own; `*` allows all.
    cors_origins: tuple[str, ...] = ()
    #: A dead peer is known after interval + timeout at the latest.
    ping_interval_s: float = 10
    ping_timeout_s: float = 8
    #: 8,000 emoji, escaped by a client's JSON, are 96 KB.
    max_frame_bytes: int = 128 * 1024
    #: A socket that has not finished connecting by then is closed.
    connect_timeout_s: float = 10
    #: Connections that are taken in, or tidied up after, in one turn of the event loop: a storm must not hold up the ticks.
    at_the_door: int = 16
    #: Above this, what is worthless later (typing, ticks) is not queued for a client.
    shed_bytes: int = 256 * 1024
    #: Above this, or without taking anything for so long, a client is cut off; with a sweep and a goodbye that is within 20 s.
    cut_bytes: int = 1024 * 1024
    stall_s: float = 16
    #: How long a client has for a burst above `cut_bytes` before it is cut off.
    burst_s: float = 0.5
    sweep_interval_s: float = 2
    #: Events of one connection that may wait, and that may be under way.
    inbox_waiting: int = WAITING
    inbox_under_way: int = UNDER_WAY
    #: How long reading from a connection stops when its inbox is full, before an event is refused.
    inbox_patience_s: float = 2
    #: How fast clients may send; None is as fast as they can.
    limits: Limits | None = None
    #: How long a client may take to go after our goodbye.
    goodbye_s: float = 1
    #: A person whose last socket left a session is still there for so long.
    presence_grace_s: float = GRACE_S
    #: For how long it is remembered when somebody who is gone was last heard.
    presence_keep_s: float = KEEP_S
    #: How often what other processes know of presence is compared with what our clients were told.
    presence_sweep_s: float = SWEEP_S
    #: Proxies in front of us whose X-Forwarded-For entries are believed.
    trusted_proxies: int = 0
