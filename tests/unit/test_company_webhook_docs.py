"""What the page tells receivers to do accepts what we send, and nothing else. A receiver copies it without looking."""

import json
import re
import subprocess
import time
from collections.abc import Callable
from shutil import which
from typing import Any

import pytest

from server.company_news.delivery import headers_of
from server.company_news.model import Webhook, body_of, new_secret
from server.docs_pages import DOCS

PAGE = (DOCS / "company-webhooks.md").read_text("utf-8")
BODY = body_of("e1", "billing.low_balance", 0, "acme", {"walletBalance": "18.40", "note": "₹ é"})
Check = Callable[[str, dict[str, str], bytes], bool]


def _code(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    return found[1]


def _python(secret: str, headers: dict[str, str], body: bytes) -> bool:
    names: dict[str, Any] = {}
    exec(_code("python"), names)
    return bool(names["is_genuine"](secret, headers, body))


def _node(secret: str, headers: dict[str, str], body: bytes) -> bool:
    arguments = json.dumps({"secret": secret, "headers": headers, "body": body.hex()})
    ask = f"const a = {arguments}; console.log(isGenuine(a.secret, a.headers, Buffer.from(a.body, 'hex')));"
    done = subprocess.run(
        [which("node") or "node", "--input-type=module", "-e", _code("js") + ask],
        capture_output=True,
        text=True,
        check=True,
    )
    return {"true\n": True, "false\n": False}[done.stdout]


@pytest.mark.parametrize(
    "check",
    [
        _python,
        pytest.param(
            _node, marks=pytest.mark.skipif(which("node") is None, reason="NOT TESTED in Node: there is none")
        ),
    ],
)
def test_the_example_of_the_page_knows_ours_from_others(check: Check) -> None:
    now_ms = int(time.time()) * 1000
    old, new = new_secret(), new_secret()
    exchanged = Webhook("acme", "u", new, 0, previous_secret=old, previous_until_ms=now_ms + 1)
    headers = headers_of(exchanged, "e1", BODY, now_ms=now_ms)

    assert check(new, headers, BODY)
    assert check(old, headers, BODY)
    assert not check(new_secret(), headers, BODY)
    assert not check(new, headers, BODY + b" ")
    assert not check(new, headers | {"webhook-id": "e2"}, BODY)
    assert not check(new, headers | {"webhook-timestamp": str(now_ms // 1000 + 1)}, BODY)
    assert not check(new, headers_of(exchanged, "e1", BODY, now_ms=now_ms - 301_000), BODY)


def test_a_secret_has_enough_in_it_and_is_another_each_time() -> None:
    secrets = {new_secret() for _ in range(100)}
    assert len(secrets) == 100
    assert all(re.fullmatch(r"whsec_[A-Za-z0-9+/]{43}=", secret) for secret in secrets)
