"""The image's HEALTHCHECK: exit 0 when this container's own server says that it lives, 1 when it does not. Needs no curl."""

# ruff: noqa: INP001 - a program of the image, no module of a package

import http.client
import os
import sys

connection = http.client.HTTPConnection("127.0.0.1", int(os.environ.get("PORT") or 8000), timeout=2)
try:
    connection.request("GET", "/healthz")
    alive = connection.getresponse().status == http.HTTPStatus.OK
except (OSError, http.client.HTTPException):
    alive = False
sys.exit(0 if alive else 1)
