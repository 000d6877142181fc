"""How long a version takes when training takes no time: `python -m benchmarks.version_time [--profile] [--json FILE]`.

Four agents, a coordinator and a broker as processes on this machine, updates of eden4; every version is made of one
update of each site. What is left of a version is Fedward: announce, get, chunks, assemble, evaluate, encode, save,
offer, chunks, verify, store, fold, persist. The median over the versions after the warm-up, from the coordinator's
log; and where the time went between the lines of the logs. `--profile` runs once more with a stopwatch on the steps of
both programs. Set TMPDIR to choose the disk: every version waits for it many times.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks.null_training import WAIT_S, null_federation
from benchmarks.timed import AGENT_STEPS, COORDINATOR_STEPS, EVENT
from benchmarks.waiting import cpu_seconds
from fedward.errors import TransientError
from sandbox.faults import COORDINATOR
from sandbox.federation import Federation
from sandbox.logs import Log

NUM_SITES = 4
BARS_S: Mapping[int, float] = {11_200_000: 1.5, 1_200_000: 0.3}
"""Of each size of the model in parameters, seconds a version."""

WARM_UP = 5
"""Versions that do not count."""

POLL_S = 0.2

Event = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class VersionTime:
    """Seconds a version; `stages` are medians over versions and sites, and add up to about a version.

    `cpu_s` is processor time a version, of all threads of a program: the agents' of all of them together. It tells
    what a version costs also where other programs share the processors.
    """

    parameters: int
    bar_s: float | None
    num_versions: int
    median_s: float
    fastest_s: float
    slowest_s: float
    stages: dict[str, float]
    cpu_s: dict[str, float]


@dataclass(frozen=True)
class Logs:
    """The lines of a run, with the time of each in seconds as `at_s`."""

    coordinator: Sequence[Event]
    agents: Sequence[Sequence[Event]]


def times_of(events: Iterable[Event], event: str, field: str) -> dict[int, float]:
    """When an event came last for each version, which is in `field`."""
    return {int(line[field]): line["at_s"] for line in events if line["event"] == event}


def durations(made_s: Mapping[int, float], first: int) -> list[float]:
    """Seconds from each version to the next, from version `first` on."""
    return [made_s[version + 1] - made_s[version] for version in made_s if version >= first and version + 1 in made_s]


def stages(logs: Logs, first: int) -> dict[str, float]:
    """Median seconds between the lines of the logs, in the order of the data's way, from version `first` on."""
    made_s = times_of(logs.coordinator, "version", "version")
    spans: dict[str, list[float]] = defaultdict(list)
    for agent in logs.agents:
        ways = (
            ("announce", made_s, times_of(agent, "announced", "version")),
            ("get, chunks, assemble", times_of(agent, "announced", "version"), times_of(agent, "fetched", "version")),
            ("evaluate", times_of(agent, "fetched", "version"), times_of(agent, "training", "version")),
            ("train, encode, save", times_of(agent, "training", "version"), times_of(agent, "saved", "base_version")),
            ("offer to receipt", times_of(agent, "saved", "base_version"), receipts_of(agent)),
        )
        for name, begins, ends in ways:
            spans[name] += [
                ends[version] - begins[version] for version in begins.keys() & ends.keys() if version >= first
            ]
    stored_s = times_of(logs.coordinator, "accepted", "base_version")
    spans["fold, persist"] = [
        made_s[base + 1] - stored_s[base] for base in stored_s if base >= first and base + 1 in made_s
    ]
    return {name: statistics.median(seconds) for name, seconds in spans.items() if seconds}


def receipts_of(agent: Sequence[Event]) -> dict[int, float]:
    """When the update from each version had its receipt."""
    base_of = {line["update"]: line["base_version"] for line in agent if line["event"] == "saved"}
    return {base_of[line["update"]]: line["at_s"] for line in agent if line["event"] == "receipt"}


def profile(events: Sequence[Event], steps: Iterable[str], num_versions: int) -> dict[str, float]:
    """Seconds a version that one process spent in each step."""
    spent: dict[str, float] = defaultdict(float)
    for line in events:
        if line["event"] == EVENT:
            spent[line["step"]] += line["seconds"]
    return {step: spent[step] / num_versions for step in steps}


def measure(parameters: int, versions: int, program: Sequence[str] = ("fedward.cli",)) -> tuple[VersionTime, Logs]:
    """A run of so many versions after the warm-up. Raises TransientError when it does not get there."""
    with tempfile.TemporaryDirectory(prefix="fedward-version-time-") as folder:
        running = null_federation(Path(folder), parameters, NUM_SITES, program=program)
        with running:
            log = Log(running.children[COORDINATOR].log)
            wait_for_versions(running, log, WARM_UP)
            began = cpu_of(running)
            made = wait_for_versions(running, log, versions + 1)
            spent = cpu_of(running)
            num_parameters = running.wait_for(bool, WAIT_S, "the coordinator's page")["num_parameters"]
        coordinator, *agents = (read(running.children[name].log) for name in (COORDINATOR, *running.sites))
    logs = Logs(coordinator, agents)
    took_s = durations(times_of(logs.coordinator, "version", "version"), WARM_UP)
    result = VersionTime(
        parameters=num_parameters,
        bar_s=BARS_S.get(parameters),
        num_versions=len(took_s),
        median_s=statistics.median(took_s),
        fastest_s=min(took_s),
        slowest_s=max(took_s),
        stages=stages(logs, WARM_UP),
        cpu_s={name: (spent[name] - began[name]) / made for name in spent},
    )
    return result, logs


def wait_for_versions(running: Federation, log: Log, number: int) -> int:
    """Until so many more versions are in the log; how many there were. The coordinator's page would cost it time.

    Raises TransientError when they don't come.
    """
    made, deadline_s = 0, time.monotonic() + WAIT_S
    while made < number:
        running.check_processes()
        if time.monotonic() > deadline_s:
            raise TransientError(f"{made} of {number} versions within {WAIT_S:g} s")
        time.sleep(POLL_S)
        made += log.count("version")
    return made


def cpu_of(running: Federation) -> dict[str, float]:
    """Processor seconds of each program since its start."""
    pids = {"coordinator": [running.children[COORDINATOR].pid], "broker": [running.broker.pid or 0]}
    pids["agents"] = [running.children[site].pid for site in running.sites]
    return {name: sum(map(cpu_seconds, each)) for name, each in pids.items()}


def read(log: Path) -> list[Event]:
    """A log's lines, with the time of each in seconds as `at_s`."""
    return [{**line, "at_s": datetime.fromisoformat(line["at"]).timestamp()} for line in Log(log).events()]


def show(result: VersionTime) -> None:
    """Print the figures of one size."""
    bar = f"at most {result.bar_s:g}" if result.bar_s else "none"
    print(f"{result.parameters:,} parameters, {NUM_SITES} agents: {result.median_s:.3f} s a version; bar: {bar}")
    print(f"  from {result.fastest_s:.3f} to {result.slowest_s:.3f} s, {result.num_versions} versions")
    for name, seconds in result.stages.items():
        print(f"  {name:24}{1000 * seconds:8.0f} ms")
    print("  processor time: " + ", ".join(f"{name} {1000 * spent_s:.0f} ms" for name, spent_s in result.cpu_s.items()))


def show_profile(logs: Logs) -> None:
    """Print where a run's programs spent their time."""
    num_versions = sum(line["event"] == "version" for line in logs.coordinator)
    print("ms a version, wall clock, of the coordinator and of one agent")
    for steps, events in ((COORDINATOR_STEPS, logs.coordinator), (AGENT_STEPS, logs.agents[0])):
        for step, seconds in profile(events, steps, num_versions).items():
            print(f"  {step:28}{1000 * seconds:8.1f}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--parameters", type=int, action="append", help="of the model; may be repeated; default: both bars'"
    )
    parser.add_argument("--versions", type=int, default=30, help="that count (default: %(default)s)")
    parser.add_argument("--profile", action="store_true", help="run once more with a stopwatch on the programs' steps")
    parser.add_argument("--json", type=Path, help="write the figures to this file, too")
    given = parser.parse_args()
    results = []
    for parameters in given.parameters or BARS_S:
        results.append(measure(parameters, given.versions)[0])
        show(results[-1])
        if given.profile:
            show_profile(measure(parameters, given.versions, ("benchmarks.timed",))[1])
    if given.json:
        given.json.write_text(json.dumps([asdict(result) for result in results], indent=2) + "\n")
    return 1 if any(result.bar_s and result.median_s > result.bar_s for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
