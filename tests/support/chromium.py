"""A real Chromium for the tests that need one. Without it they are left out, loudly; where it is required, they fail."""

import os
import shutil

import pytest


def chromium() -> str:
    """Its path. `TARAZU_REQUIRE_BROWSER=1` makes a missing one a failure."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        message = "NOT TESTED in a browser: there is no chromium (on Debian: apt-get install chromium)"
        if os.environ.get("TARAZU_REQUIRE_BROWSER", "") not in ("", "0"):
            pytest.fail(message)
        pytest.skip(message)
    return found
