"""A started server with people of every role, and schemathesis on it."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from tests.support.server_process import ADMIN_EMAIL, ADMIN_PASSWORD, ROOT, ServerProcess

#: In no example of the document: schemathesis tries those, and would delete the accounts.
_PASSWORD = "known to nobody but the fuzzer"


def budget_s(default: int) -> int:
    """How long to go on: `FUZZ_SECONDS`, which `make fuzz` sets."""
    return int(os.environ.get("FUZZ_SECONDS", "") or default)


@dataclass
class FuzzedServer:
    """The server and what each role registers with."""

    process: ServerProcess
    people: dict[str, dict[str, Any]]

    def call(self, method: str, path: str, body: Any = None, token: str | None = None) -> Any:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        answer = requests.request(method, self.process.url + path, json=body, headers=headers, timeout=30)
        assert answer.ok, answer.text
        return answer.json()

    def token(self, role: str) -> str:
        form = {name: self.people[role][name] for name in ("email", "password")}
        return str(self.call("POST", "/auth/login", form)["accessToken"])

    def schemathesis(self, role: str, *, seconds: int) -> "subprocess.CompletedProcess[str]":
        """All checks, all phases, as `role` (empty: as one that may call)."""
        seed = os.environ.get("FUZZ_SEED", "1")
        return subprocess.run(
            [
                str(Path(sys.executable).parent / "schemathesis"), "run", f"{self.process.url}/openapi.json",
                "--max-time", str(seconds), "--continue-on-failure", "--no-color", "--warnings", "off",
                *(["--seed", seed] if seed else []),
            ],
            cwd=self.process.directory,
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "SCHEMATHESIS_HOOKS": "tests.support.schemathesis_hooks",
                "FUZZ_PEOPLE": json.dumps(self.people),
                "FUZZ_ROLE": role,
                "FUZZ_URL": self.process.url,
            },
            capture_output=True, text=True, timeout=seconds + 120, check=False,
        )  # fmt: skip


@contextmanager
def fuzzed_server(directory: Path) -> Iterator[FuzzedServer]:
    """At the end its log must be clean and its books too."""
    with ServerProcess(directory, ACCESS_TOKEN_MINUTES="1440", LOG_LEVEL="WARNING") as process:
        server = FuzzedServer(process, _forms())
        for role, form in server.people.items():
            if role != "ADMIN":
                server.call("POST", "/lawyer/register" if role == "LAWYER" else "/auth/register", form)
        lawyer = server.token("LAWYER")
        lawyer_id = server.call("GET", "/auth/me", token=lawyer)["id"]
        server.call("PATCH", f"/lawyer/{lawyer_id}/verify", {}, server.token("ADMIN"))
        server.call("PATCH", "/lawyer/availability", {"isOnline": True}, lawyer)
        server.call("POST", "/wallet/recharge", {"amount": "90000.00"}, server.token("USER"))
        yield server
        code, output = process.settled_books()
        assert code == 0, output


def _forms() -> dict[str, dict[str, Any]]:
    papers = {"ratePerMinute": "30.00", "barCouncilNumber": "KAR/1/2015"}
    more: dict[str, dict[str, Any]] = {
        "USER": {},
        "FREELANCER": {"role": "FREELANCER", "profession": "videographer"},
        "COMPANY": {"role": "COMPANY", "companyName": "Acme"},
        "LAWYER": papers,
    }
    people = {
        role: {"email": f"{role.lower()}@example.com", "password": _PASSWORD, "name": "Asha", **form}
        for role, form in more.items()
    }
    return people | {"ADMIN": {"email": ADMIN_EMAIL, "password": ADMIN_PASSWORD}}
