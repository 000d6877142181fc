"""A line of the doctor's report, and the report as a whole. Pure."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """What became of a check."""

    OK = "ok"
    WARNING = "warning"  # it works, and somebody should know
    FAILED = "failed"
    SKIPPED = "skipped"  # it can't be told: what it builds on failed, or does not apply here


@dataclass(frozen=True)
class Check:
    """What was looked at, what was found, and in one line what the IT desk has to change; empty where nothing is."""

    name: str
    verdict: Verdict
    found: str
    remedy: str = ""


def ok(name: str, found: str) -> Check:
    return Check(name, Verdict.OK, found)


def warning(name: str, found: str, remedy: str) -> Check:
    return Check(name, Verdict.WARNING, found, remedy)


def failed(name: str, found: str, remedy: str) -> Check:
    return Check(name, Verdict.FAILED, found, remedy)


def skipped(name: str, because: str) -> Check:
    return Check(name, Verdict.SKIPPED, f"because {because}")


class Course:
    """Checks that build on one another: one whose basis failed is skipped, and says which check it was."""

    def __init__(self) -> None:
        self.checks: list[Check] = []
        self._broken: dict[str, str] = {}  # what failed or was skipped for it, and the check that failed

    def take(self, name: str, judge: Callable[[], Check], *basis: str) -> None:
        """Add the check that `judge` makes, unless one of those that it builds on failed or was skipped for that."""
        failure = next((self._broken[each] for each in basis if each in self._broken), None)
        check = skipped(name, f"{failure} failed") if failure else judge()
        self.checks.append(check)
        if failure or check.verdict is Verdict.FAILED:
            self._broken[name] = failure or name


def exit_code(checks: Iterable[Check]) -> int:
    """0 when nothing failed, 1 otherwise."""
    return int(any(check.verdict is Verdict.FAILED for check in checks))


def as_text(checks: Sequence[Check]) -> str:
    """A line for each check, with a second one for what is to be changed, and a last one that counts.

    Names and texts that came over the network are shown without control characters: they must not steer a terminal.
    """
    width = max((len(check.name) for check in checks), default=0)
    lines: list[str] = []
    for check in checks:
        lines.append(f"{check.verdict:8} {check.name:{width}}  {_printable(check.found)}")
        if check.remedy:
            lines.append(f"{'':8} {'':{width}}  -> {_printable(check.remedy)}")
    counts = {verdict: sum(check.verdict is verdict for check in checks) for verdict in Verdict}
    lines.append(", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count))
    return "\n".join(lines)


def as_json(checks: Iterable[Check]) -> str:
    """One JSON array of objects with `name`, `verdict`, `found` and `remedy`, for scripts."""
    return json.dumps([vars(check) for check in checks], indent=2)


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text)
