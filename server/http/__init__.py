"""The HTTP edge: what happens between aiohttp and a route's handler."""
