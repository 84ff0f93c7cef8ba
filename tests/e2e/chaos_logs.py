"""What the processes have written since the last look, and which complaints the faults of a round explain."""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from tests.e2e.chaos_faults import Fault

Line = dict[str, Any]

#: What a failing part makes our code raise, by the part. The last line of a traceback begins with its full name.
_EXPLAINED: Final = {
    "store": (
        "server.storage.errors.StoreUnavailable",
        "billing_engine.errors.Unavailable",
        "chat.errors.Unavailable",
    ),
    "redis": ("server.redis_client.RedisUnavailable",),
}
#: Warnings that carry such a traceback.
_TRACED: Final = frozenset(
    {
        "request failed",
        "the answer of a request was not kept",
        "an idempotency row was left to its lease",
    }
)
#: What a command says as it gives up, on a line of its own.
_GAVE_UP: Final = re.compile(
    r"no MongoDB answers there|^the server cannot start: |^the worker cannot start: "
)
_TOOK_OVER: Final = re.compile(r"^took over (\d+) sessions|^the sweep took up (\d+) sessions")


class Logs:
    """The logs of a cluster's processes, read once."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self._read: dict[Path, int] = dict.fromkeys(paths, 0)

    def news(self) -> list[Line]:
        """Complete lines since the last call. What is no event is given as `raw`."""
        lines: list[Line] = []
        for path, begin in self._read.items():
            if not path.exists():
                continue
            with path.open("rb") as log:
                log.seek(begin)
                whole, _, _ = log.read().rpartition(b"\n")
            self._read[path] = begin + len(whole) + bool(whole)
            lines += [_line(path.stem, text) for text in whole.decode(errors="replace").splitlines()]
        return lines


def _line(process: str, text: str) -> Line:
    try:
        event = json.loads(text)
    except ValueError:
        event = None
    return {"process": process} | (event if isinstance(event, dict) else {"level": "error", "raw": text})


def unexplained(lines: Iterable[Line], faults: Iterable[Fault]) -> list[Line]:
    """Errors, tracebacks and bare text, but for what these faults must bring about."""
    explained = {part for fault in faults for part in _parts_of(fault)}
    return [line for line in lines if _complains(line) and not _is_explained(line, explained)]


def _parts_of(fault: Fault) -> set[str]:
    """Which parts do not answer somebody. To a process that wakes, everything it waited for has been silent."""
    parts = {part for part in ("store", "redis") if fault.kind.endswith(part)}
    return parts | ({"store", "redis"} if fault.kind in ("freeze web", "freeze worker") else set())


def may_lose_answers(fault: Fault) -> bool:
    """Whether something may take effect whose answer the store then does not keep."""
    return "store" in _parts_of(fault)


def _complains(line: Line) -> bool:
    return line.get("level") in ("error", "critical") or "exception" in line or "raw" in line


def _is_explained(line: Line, broken: set[str]) -> bool:
    if "raw" in line:
        return "store" in broken and bool(_GAVE_UP.search(line["raw"]))
    if line.get("event") not in _TRACED or line.get("level") != "warning":
        return False
    last = str(line.get("exception", "")).rstrip().splitlines()[-1:]
    return any(last and last[0].startswith(name) for part in broken for name in _EXPLAINED[part])


def told(line: Line) -> str:
    """A complaint, without the whole way to it."""
    return str({**line, "exception": str(line.get("exception", ""))[-600:]})


def takeovers(lines: Iterable[Line]) -> int:
    """How many sessions went on elsewhere."""
    found = (_TOOK_OVER.match(str(line.get("event", ""))) for line in lines)
    return sum(int(match[1] or match[2]) for match in found if match)
