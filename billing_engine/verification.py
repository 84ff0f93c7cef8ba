"""What an audit of the books finds: three verdicts, and the reasons by name (LEDGER 7). It repairs nothing."""

from dataclasses import dataclass, field
from enum import StrEnum


class Verdict(StrEnum):
    """CLEAN: every rule holds. UNFINISHED: work that recovery will finish. BROKEN: a rule does not hold."""

    CLEAN = "clean"
    UNFINISHED = "unfinished"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be: the rule, what it is about, the figures."""

    rule: str
    subject: str
    detail: str


@dataclass(slots=True)
class Findings:
    """Collected by one audit. `counted` says how much was looked at, so that a clean verdict over nothing is seen as such."""

    unfinished: list[Finding] = field(default_factory=list)
    broken: list[Finding] = field(default_factory=list)
    counted: dict[str, int] = field(default_factory=dict)

    @property
    def verdict(self) -> Verdict:
        if self.broken:
            return Verdict.BROKEN
        return Verdict.UNFINISHED if self.unfinished else Verdict.CLEAN

    def require(self, condition: bool, rule: str, subject: str, detail: str) -> None:
        """Note a broken rule unless the condition holds."""
        if not condition:
            self.broken.append(Finding(rule, subject, detail))

    def waits(self, rule: str, subject: str, detail: str) -> None:
        """Note unfinished work."""
        self.unfinished.append(Finding(rule, subject, detail))
