"""`make chaos ROUNDS=500`: break a cluster of real processes again and again while people talk and pay, and compare everything.

Resumable: what is done stands in data/chaos/state.json, and Ctrl-C loses one cluster's rounds at most. The seed alone says what breaks
when; SEED=n begins a campaign of its own, FIRST=n at that round. A failure keeps its cluster's logs and databases.
"""

import asyncio
import json
import os
import random
import secrets
import shutil
import signal
import sys
import time
import traceback
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.e2e.chaos_campaign import Tally, campaign
from tests.e2e.chaos_faults import Fault, draw

#: A round's history grows with the rounds before it, so a new cluster begins after so many.
ROUNDS_A_CLUSTER: Final = 25
PAIRS: Final = int(os.environ.get("PAIRS") or 16)
_BAR: Final = 30


@dataclass
class State:
    """How far a campaign has come."""

    seed: int
    done: int = 0
    seconds: float = 0.0
    faults: dict[str, int] = field(default_factory=dict)
    looked_at: dict[str, int] = field(default_factory=dict)

    def add(self, faults: tuple[Fault, ...], tally: Tally, seconds: float) -> None:
        """One more round is clean."""
        self.done += 1
        self.seconds += seconds
        for fault in faults:
            self.faults[fault.kind] = self.faults.get(fault.kind, 0) + 1
        self.looked_at = asdict(Tally(**self.looked_at) + tally)


class Campaign:
    """Rounds on one cluster after another, in `directory`."""

    def __init__(self, directory: Path, *, rounds: int, seed: int | None, first: int | None) -> None:
        self._directory = directory
        self._file = directory / "state.json"
        self._first = first or 0
        self._last = self._first + rounds
        self.state = self._resumed(seed, is_again=first is not None)

    def _resumed(self, seed: int | None, *, is_again: bool) -> State:
        begun = State(**json.loads(self._file.read_text())) if self._file.exists() else None
        if is_again:
            # One stretch of a campaign again: it has nothing to do with what is written down.
            self._file = self._file.with_name("state-again.json")
            return State(seed if seed is not None else begun.seed if begun else 0, done=self._first)
        if begun is not None and begun.done < self._last and seed in (None, begun.seed):
            return begun
        return State(secrets.randbelow(10**9) if seed is None else seed)

    def run(self) -> int:
        """The exit code."""
        last = self._last
        say(f"seed {self.state.seed}, rounds {self.state.done} to {last - 1}")
        while self.state.done < last:
            cluster = self.state.done // ROUNDS_A_CLUSTER
            until = min(last, (cluster + 1) * ROUNDS_A_CLUSTER)
            directory = self._directory / f"cluster-{cluster}"
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir(parents=True)
            try:
                asyncio.run(self._on_one_cluster(directory, cluster, until, last))
            except KeyboardInterrupt:
                say(f"stopped after {self.state.done} rounds; the same command goes on")
                return 130
            except BaseException:  # noqa: BLE001 (whatever it is, it is the finding)
                self._failed(directory, cluster)
                return 1
            shutil.rmtree(directory)
        say(f"{last - self._first} rounds are clean: {self._sums()}")
        return 0

    async def _on_one_cluster(self, directory: Path, cluster: int, until: int, last: int) -> None:
        rng = random.Random(f"{self.state.seed}/{cluster}")
        webs = rng.choice((2, 2, 2, 3))
        async with campaign(
            directory, seed=f"{self.state.seed}/{cluster}/people", pairs=PAIRS, webs=webs
        ) as running:
            for number in range(self.state.done, until):
                faults = draw(random.Random(f"{self.state.seed}:{number}"), webs=webs, long=True)
                show(number, last, "; ".join(map(str, faults)))
                began_s = time.monotonic()
                try:
                    tally = await running.round(faults)
                except KeyboardInterrupt:
                    raise
                except BaseException:
                    say(f"round {number}: {'; '.join(map(str, faults))}: FAILED")
                    raise
                seconds = time.monotonic() - began_s
                self.state.add(faults, tally, seconds)
                looked_at = ", ".join(f"{count} {name}" for name, count in asdict(tally).items() if count)
                say(f"round {number}: {'; '.join(map(str, faults))}: {looked_at}: clean, {seconds:.1f} s")
                self._file.write_text(json.dumps(asdict(self.state), indent=1))
            await running.finish()

    def _failed(self, directory: Path, cluster: int) -> None:
        kept = self._directory / f"failed-{self.state.seed}-round-{self.state.done}"
        shutil.rmtree(kept, ignore_errors=True)
        directory.rename(kept)
        (kept / "failure.txt").write_text(traceback.format_exc())
        say(traceback.format_exc())
        first = max(self._first, cluster * ROUNDS_A_CLUSTER)
        say(f"logs and databases: {kept}")
        say(f"again: make chaos SEED={self.state.seed} FIRST={first} ROUNDS={self.state.done - first + 1}")

    def _sums(self) -> str:
        faults = ", ".join(f"{count} times {kind}" for kind, count in sorted(self.state.faults.items()))
        looked_at = ", ".join(f"{count} {name}" for name, count in self.state.looked_at.items())
        return f"{looked_at}; {faults}; {self.state.seconds:.0f} s"


def say(text: str) -> None:
    """A line that stays."""
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr, flush=True)
    print(text, flush=True)


def show(number: int, rounds: int, text: str) -> None:
    """How far we are, on a terminal."""
    if sys.stderr.isatty():
        done = _BAR * number // rounds
        width = shutil.get_terminal_size().columns
        line = f"[{'#' * done}{'.' * (_BAR - done)}] {number}/{rounds} {text}"
        print(f"\r\033[K{line[: width - 1]}", end="", file=sys.stderr, flush=True)


def number_of(name: str) -> int | None:
    """An environment variable that may be missing or empty."""
    value: Any = os.environ.get(name)
    return int(value) if value else None


if __name__ == "__main__":
    for stop in (signal.SIGINT, signal.SIGTERM):
        # Started in the background, a process ignores the first; and its cluster must not outlive it.
        signal.signal(stop, signal.default_int_handler)
    sys.exit(
        Campaign(
            Path("data/chaos").resolve(),
            rounds=number_of("ROUNDS") or 20,
            seed=number_of("SEED"),
            first=number_of("FIRST"),
        ).run()
    )
