"""What grows while a federation runs: `python -m benchmarks.soak [--minutes N] [--json FILE]`, or `make soak`.

A federation of real processes trains for a while; of each process the resident memory, open files, threads and of
each state folder the bytes on disk are read every few seconds. After the warm-up a straight line is fitted through
each series: its slope is what the process gains in an hour. Memory, files and threads should be flat.

The sites are fast and the policy keeps little, so that everything that is bounded reaches its bound within the
warm-up: caches, what is kept of payloads, the rows of the ledger.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from fedward.limits import MIB
from sandbox.federation import Federation, Plan

EVERY_S = 5.0
WARM_UP = 0.25
"""Share of the run that is left out: imports, first training, caches that fill once."""

RETENTION = {"versions": 100, "records": 1000}

WORK = {"local_epochs": 4, "batch_size": 16, "local_lr": 0.001, "max_steps": 20}

BAR_MB_PER_HOUR = 1.0
HOUR_S = 3600.0


@dataclass(frozen=True)
class Sample:
    """One process at one moment."""

    at_s: float
    resident_bytes: int
    open_files: int
    threads: int
    disk_bytes: int


@dataclass(frozen=True)
class Growth:
    """The fitted slopes of a process, an hour, and its last sample."""

    resident_mb_per_hour: float
    open_files_per_hour: float
    threads_per_hour: float
    disk_mb_per_hour: float
    last: Sample


def slope_per_hour(samples: Sequence[Sample], values: Sequence[float]) -> float:
    """Least-squares slope of the values over time, in units an hour; 0 for fewer than two samples."""
    if len(samples) < 2:
        return 0.0
    times_s = np.array([sample.at_s for sample in samples])
    return float(np.polyfit(times_s - times_s[0], np.array(values), 1)[0] * HOUR_S)


def growth_of(samples: Sequence[Sample]) -> Growth:
    """Fit what comes after the warm-up."""
    kept = samples[int(len(samples) * WARM_UP) :]
    return Growth(
        resident_mb_per_hour=slope_per_hour(kept, [sample.resident_bytes / MIB for sample in kept]),
        open_files_per_hour=slope_per_hour(kept, [sample.open_files for sample in kept]),
        threads_per_hour=slope_per_hour(kept, [sample.threads for sample in kept]),
        disk_mb_per_hour=slope_per_hour(kept, [sample.disk_bytes / MIB for sample in kept]),
        last=kept[-1],
    )


def sample(pid: int, folder: Path, at_s: float) -> Sample:
    """Read a process from /proc, and its state folder."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line)
    return Sample(
        at_s=at_s,
        resident_bytes=int(status["VmRSS"].split()[0]) * 1024,
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


def soak(federation: Federation, minutes: float) -> Mapping[str, list[Sample]]:
    """Sample every process until the time is over."""
    series: dict[str, list[Sample]] = {name: [] for name in federation.children}
    started_s = time.monotonic()
    while time.monotonic() - started_s < 60 * minutes:
        federation.check_processes()
        for name, child in federation.children.items():
            at_s = time.monotonic() - started_s
            series[name].append(sample(child.pid, federation.state_folder(name), at_s))
        time.sleep(EVERY_S)
    return series


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--json", type=Path, help="write every figure there")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="fedward-soak-") as folder,
        Federation(Plan(folder=Path(folder), num_sites=3, work=WORK, retention=RETENTION)) as federation,
    ):
        federation.wait_for(lambda state: state["version"] >= 1, 120, "the first version")
        series = soak(federation, options.minutes)
        versions = (federation.state() or {}).get("version")
    grown = {name: growth_of(samples) for name, samples in series.items()}
    print(f"{options.minutes:g} minutes, {versions} versions; slopes an hour after the first {WARM_UP:.0%}")
    print(f"{'process':14} {'MB':>8} {'MB/h':>8} {'files':>6} {'/h':>6} {'threads':>8} {'/h':>6} {'disk MB/h':>10}")
    for name, growth in grown.items():
        last = growth.last
        print(
            f"{name:14} {last.resident_bytes / MIB:8.1f} {growth.resident_mb_per_hour:8.2f} {last.open_files:6} "
            f"{growth.open_files_per_hour:6.1f} {last.threads:8} {growth.threads_per_hour:6.1f} "
            f"{growth.disk_mb_per_hour:10.1f}"
        )
    worst = max(growth.resident_mb_per_hour for growth in grown.values())
    print(f"bar: {BAR_MB_PER_HOUR} MB an hour: {'met' if worst <= BAR_MB_PER_HOUR else 'not met'} ({worst:.2f})")
    if options.json:
        found = {name: {"growth": asdict(grown[name]), "samples": list(map(asdict, series[name]))} for name in series}
        options.json.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
