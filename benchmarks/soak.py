"""What grows while a federation runs: `python -m benchmarks.soak [--minutes N] [--json FILE]`, or `make soak`.

A federation of real processes trains for a while. Of each process the memory of its own, the open files and the threads
are read every few seconds, and of each state folder the bytes on disk. What they gain in an hour is printed with its
error (`benchmarks/growth.py`), and the bar is met when all of the error of a process's memory lies below it.

Memory of its own is anonymous memory: pages of libraries and payloads, which the kernel may drop and read again, come
and go by its own rules. The programs give back all the time what they don't use (`sandbox/collect.py`). By themselves
they keep garbage, free pages and a table of names, some megabytes at most, which fill up in steps and more slowly than
a soak lasts: `docs/runbook.md` has the list.

A single step that is left leaves a process undecided. It is printed, and a longer run tells: a table that doubles comes
in steps too, each twice as large and after twice as many versions.

The run is warm when all that is bounded has come to its bound, which versions tell and minutes don't: the policy keeps
little, and after FULL_AT versions rows and payloads have been deleted many times over.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.growth import Slope, Verdict, largest_step, slope_of
from fedward.errors import TransientError
from fedward.limits import MIB
from sandbox.federation import Federation, Plan

EVERY_S = 2.0

COLLECT_EVERY_S = 5.0

RETENTION = {"versions": 50, "records": 200}

FULL_AT = 5 * RETENTION["records"]
"""Versions. Rows come to their bound after `records`; SQLite's pages and the allocator's peak after two times more."""

WORK = {"local_epochs": 1, "batch_size": 16, "local_lr": 0.001, "max_steps": 1}
"""Little: each version costs the same memory whatever was trained, and there are more of them so."""

MB_BAR, COUNT_BAR = 1.0, 1.0
"""An hour: megabytes of a process's own memory; open files, and threads."""


@dataclass(frozen=True)
class Sample:
    """One process at one moment."""

    at_s: float
    own_bytes: int
    """Anonymous memory, also where it is swapped out."""
    resident_bytes: int
    open_files: int
    threads: int
    disk_bytes: int


@dataclass(frozen=True)
class Growth:
    """What a process gains in an hour, and its last sample."""

    own_mb: Slope
    own_step_mb: float
    """The largest step of its own memory, from one part of the run to the next."""
    open_files: Slope
    threads: Slope
    disk_mb: Slope
    last: Sample

    def failures(self) -> list[str]:
        """Why the bar is not met; empty when it is. Memory must be flat; files and threads, few, may be unsure."""
        memory = self.own_mb.beside(MB_BAR)
        found = [] if memory is Verdict.FLAT else [f"memory {memory}"]
        counted = {"open files": self.open_files, "threads": self.threads}
        return found + [f"{name} grow" for name, slope in counted.items() if slope.beside(COUNT_BAR) is Verdict.GROWS]


def growth_of(samples: Sequence[Sample]) -> Growth:
    """Of a warm process, in order of time."""
    times_s = [sample.at_s for sample in samples]
    own_mb = [sample.own_bytes / MIB for sample in samples]
    return Growth(
        own_mb=slope_of(times_s, own_mb),
        own_step_mb=largest_step(own_mb),
        open_files=slope_of(times_s, [sample.open_files for sample in samples]),
        threads=slope_of(times_s, [sample.threads for sample in samples]),
        disk_mb=slope_of(times_s, [sample.disk_bytes / MIB for sample in samples]),
        last=samples[-1],
    )


def sample(pid: int, folder: Path, at_s: float) -> Sample:
    """Read a process from /proc, and its state folder."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line)
    own_kib, swapped_kib, resident_kib = (int(status[name].split()[0]) for name in ("RssAnon", "VmSwap", "VmRSS"))
    return Sample(
        at_s=at_s,
        own_bytes=(own_kib + swapped_kib) * 1024,
        resident_bytes=resident_kib * 1024,
        open_files=len(list(Path(f"/proc/{pid}/fd").iterdir())),
        threads=int(status["Threads"]),
        disk_bytes=sum(file_bytes(path) for path in folder.rglob("*")),
    )


def file_bytes(path: Path) -> int:
    """Size of a file; 0 for one that went away meanwhile, and for folders."""
    try:
        return path.stat().st_size if path.is_file() else 0
    except FileNotFoundError:
        return 0


def soak(federation: Federation, until_s: float) -> Mapping[str, list[Sample]]:
    """Sample every process until this moment of the monotonic clock."""
    series: dict[str, list[Sample]] = {name: [] for name in federation.children}
    while time.monotonic() < until_s:
        federation.check_processes()
        for name, child in federation.children.items():
            series[name].append(sample(child.pid, federation.state_folder(name), time.monotonic()))
        time.sleep(EVERY_S)
    return series


def run(folder: Path, minutes: float) -> tuple[str, Mapping[str, list[Sample]]]:
    """What was done in so many minutes, and the warm samples. Raises TransientError when it never was warm."""
    plan = Plan(
        folder=folder,
        num_sites=3,
        work=WORK,
        retention=RETENTION,
        gather_s=0.0,  # more versions again
        program=("sandbox.collect", str(COLLECT_EVERY_S)),
    )
    began_s = time.monotonic()
    with Federation(plan) as federation:
        federation.wait_for(lambda state: state["version"] >= FULL_AT, 60 * minutes, f"the warm-up, {FULL_AT} versions")
        warm_s = time.monotonic() - began_s
        series = soak(federation, began_s + 60 * minutes)
        versions = (federation.state() or {}).get("version")
    if not all(series.values()):
        raise TransientError(f"warm after {warm_s:.0f} s, and no time left: more --minutes, please")
    return f"{minutes:g} minutes, {versions} versions; warm after {FULL_AT} of them, {warm_s:.0f} s", series


def table(grown: Mapping[str, Growth]) -> list[str]:
    """A line for each process. The leak told is the smallest that would not have been missed."""
    what = (
        "MB",
        "own MB",
        "an hour",
        "leak told",
        "a step",
        "files",
        "an hour",
        "threads",
        "an hour",
        "disk MB",
        "an hour",
    )
    rows = [("process", *what)]
    for name, growth in grown.items():
        last = growth.last
        memory = (f"{last.resident_bytes / MIB:.1f}", f"{last.own_bytes / MIB:.1f}", _figure(growth.own_mb))
        told = (f"{growth.own_mb.least_told(MB_BAR):.2f}", f"{growth.own_step_mb:+.2f}")
        counted = (str(last.open_files), _figure(growth.open_files), str(last.threads), _figure(growth.threads))
        rows.append((name, *memory, *told, *counted, f"{last.disk_bytes / MIB:.1f}", _figure(growth.disk_mb)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]


def _figure(slope: Slope) -> str:
    return f"{slope.per_hour:+.2f} ± {slope.error:.2f}"


def verdict(grown: Mapping[str, Growth]) -> str | None:
    """Why the bar is not met, by process; None when it is."""
    failures = {name: growth.failures() for name, growth in grown.items()}
    return "; ".join(f"{name}: {', '.join(found)}" for name, found in failures.items() if found) or None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20.0, help="of the whole run, with its warm-up")
    parser.add_argument("--json", type=Path, help="write every figure there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fedward-soak-") as folder:
        done, series = run(Path(folder), options.minutes)
    grown = {name: growth_of(samples) for name, samples in series.items()}
    print(done)
    for line in table(grown):
        print(line)
    against = verdict(grown)
    print(f"bar: {MB_BAR:g} MB an hour a process: {f'not met ({against})' if against else 'met'}")
    if options.json:
        found = {name: {"growth": asdict(grown[name]), "samples": list(map(asdict, series[name]))} for name in series}
        options.json.write_text(json.dumps(found, indent=2))
    return 1 if against else 0


if __name__ == "__main__":
    sys.exit(main())
