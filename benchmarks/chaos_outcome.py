"""What a run of chaos ended with: its figures, whether it passed, and a table of several runs. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from sandbox.account import Account
from sandbox.faults import REPLACED, Breakage

REDUNDANT_BAR = 0.02
"""Of the chunks that reached the coordinator at most so many may be ones that it held already."""

COLUMNS = ("seed", "kills", "seconds", "trained", "accepted", "refused", "duplicates", "versions")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One run: what was done to the federation, and what became of its updates."""

    seed: int
    seconds: float
    planned_kills: int
    faults: dict[str, int]  # a kill's target, or how a link failed -> how often
    updates: Account
    chunks_received: int
    chunks_redundant: int
    moving: list[str]
    """What was still on its way at the end."""
    replay: str
    """What `fedward coordinator replay` said at the end, of all versions."""
    difference: list[str] = field(default_factory=list)
    """What does not add up, in the account or in the replay."""

    @property
    def kills(self) -> int:
        return sum(count for name, count in self.faults.items() if name not in {*Breakage, REPLACED})

    @property
    def redundant_share(self) -> float:
        return self.chunks_redundant / max(self.chunks_received, 1)

    @property
    def duplicates(self) -> int:
        """Updates that were trained again although they were saved, and versions whose updates are in another one."""
        return len(self.updates.saved_again) + len(self.updates.torn_versions)

    def failures(self) -> list[str]:
        """Why the run did not pass; empty when it did."""
        found = list(self.difference)
        if self.duplicates:
            found.append(f"{self.duplicates} duplicates")
        if self.moving:
            found.append(f"it did not settle: {', '.join(self.moving)}")
        if self.kills < self.planned_kills:
            found.append(f"{self.kills} of {self.planned_kills} kills in the time given")
        if self.redundant_share > REDUNDANT_BAR:
            found.append(f"redundant chunk share {self.redundant_share:.1%}, the bar is {REDUNDANT_BAR:.0%}")
        return found

    def figures(self) -> dict[str, object]:
        """What is printed, and what `--json` writes."""
        updates = self.updates
        return {
            "seed": self.seed,
            "seconds": round(self.seconds, 1),
            "kills": self.kills,
            "faults": self.faults,
            "trained": len(updates.trained),
            "receipted": len(updates.receipted),
            "accepted": len(updates.accepted),
            "applied": len(updates.applied),
            "refused": len(updates.refused),
            "in the outbox": len(updates.waiting),
            "duplicates": self.duplicates,
            "versions": updates.num_versions,
            "chunks": self.chunks_received,
            "chunks needed": updates.num_chunks,
            "chunks an update": updates.num_chunks // max(len(updates.accepted), 1),
            "redundant chunk share": round(self.redundant_share, 4),
            "redundant bar": REDUNDANT_BAR,
            "moving": self.moving,
            "replay": self.replay,
            "failures": self.failures(),
        }


def table(outcomes: Sequence[Outcome]) -> list[str]:
    """A line for each run under a line of headings."""
    lines = ["  ".join([*(f"{column:>10}" for column in COLUMNS), f"{'redundant':>10}", "verdict"])]
    for outcome in outcomes:
        figures = outcome.figures()
        share = f"{outcome.redundant_share:.2%}"
        verdict = "; ".join(outcome.failures()) or "passed"
        lines.append("  ".join([*(f"{figures[column]!s:>10}" for column in COLUMNS), f"{share:>10}", verdict]))
    return lines
