"""The Socket.IO server on aiohttp: everything that is specific to these libraries, and nothing that decides."""

from server.realtime.options import SocketOptions
from server.realtime.realtime import Realtime

__all__ = ["Realtime", "SocketOptions"]
