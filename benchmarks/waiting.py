"""What an agent costs while nobody answers: `python -m benchmarks.waiting [--minutes M] [--json FILE]`.

A real agent trains, and its coordinator is killed meanwhile: a finished update stays in the outbox. Then the agent is
watched for M minutes with a broker and no coordinator, and for M minutes more without a broker. A relay between agent
and broker counts bytes and connections; all else is read from /proc and from the log file. Figures are an hour's.

Each count begins after a minute: the first offers carry the payload, and come more often than the later ones.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from os import sysconf
from pathlib import Path

import yaml

from benchmarks.growth import HOUR_S, slope_of
from benchmarks.soak import Sample, sample
from fedward.errors import TransientError
from fedward.limits import MIB
from sandbox.faults import COORDINATOR
from sandbox.federation import Federation, Plan
from sandbox.ports import HOST, free_port
from sandbox.relay import Relay

SITE, IDLE = "hospital-a", "hospital-b"
READY_S = 90.0
EVERY_S = 2.0
SETTLE_S = 60.0
POLL_S = 0.2
WARM_UP = 0.25
"""Share of the readings that is left out of the slope of the memory: the training has only just ended."""

WORK = {"local_epochs": 10_000, "batch_size": 16, "local_lr": 0.001, "max_steps": 2000}
"""Some seconds of training: long enough for the coordinator to be killed in the middle."""


@dataclass(frozen=True)
class Cost:
    """An hour of waiting. Bytes are those of the wire above TCP."""

    cpu_s: float
    bytes_up: float
    bytes_down: float
    connections: float
    log_bytes: float
    own_mb: float  # growth of its anonymous memory, fitted after the warm-up


@dataclass(frozen=True)
class Reading:
    """All that is counted, at one moment."""

    process: Sample
    cpu_s: float
    bytes_up: int
    bytes_down: int
    connections: int
    log_bytes: int


def read(running: Federation, relay: Relay) -> Reading:
    """Read everything of the agent now."""
    child = running.children[SITE]
    return Reading(
        process=sample(child.pid, running.state_folder(SITE), time.monotonic()),
        cpu_s=cpu_seconds(child.pid),
        bytes_up=relay.bytes_up,
        bytes_down=relay.bytes_down,
        connections=relay.num_connections,
        log_bytes=child.log.stat().st_size,
    )


def cpu_seconds(pid: int) -> float:
    """User and system time of a process, all its threads, since its start."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / sysconf("SC_CLK_TCK")


def cost(readings: Sequence[Reading]) -> Cost:
    """From the first to the last of at least two readings, for an hour."""
    first, last = readings[0], readings[-1]
    hours = (last.process.at_s - first.process.at_s) / HOUR_S
    samples = [reading.process for reading in readings[int(len(readings) * WARM_UP) :]]
    return Cost(
        cpu_s=(last.cpu_s - first.cpu_s) / hours,
        bytes_up=(last.bytes_up - first.bytes_up) / hours,
        bytes_down=(last.bytes_down - first.bytes_down) / hours,
        connections=(last.connections - first.connections) / hours,
        log_bytes=(last.log_bytes - first.log_bytes) / hours,
        own_mb=slope_of([entry.at_s for entry in samples], [entry.own_bytes / MIB for entry in samples]).per_hour,
    )


def watch(running: Federation, relay: Relay, minutes: float) -> Cost:
    """What the agent costs once the first minute is over. Raises TransientError when it ends."""
    time.sleep(SETTLE_S)
    readings = [read(running, relay)]
    while readings[-1].process.at_s - readings[0].process.at_s < 60 * minutes:
        time.sleep(EVERY_S)
        running.check_processes()
        readings.append(read(running, relay))
    return cost(readings)


def leave_alone_with_an_update(running: Federation) -> None:
    """Kill the coordinator while the agent trains, and wait until its update is in the outbox."""
    running.wait_for(lambda state: state["sites"][SITE]["phase"] == "training", READY_S, "training")
    for other in (COORDINATOR, IDLE):
        running.kill(other)
    deadline_s = time.monotonic() + READY_S
    while not list((running.state_folder(SITE) / "outbox").glob("*.offer")):
        if time.monotonic() > deadline_s:
            raise TransientError("no update in the outbox")
        time.sleep(POLL_S)


def run(folder: Path, minutes: float) -> dict[str, Cost]:
    """Both ways of being alone, one after the other."""
    broker_port = free_port(HOST)
    with ExitStack() as stack:
        relay = stack.enter_context(Relay(HOST, broker_port))
        plan = Plan(
            folder=folder,
            num_sites=2,
            allowed={IDLE: {"heart-disease": {}}},  # there are always two, and only one is looked at
            work=WORK,
            broker_port=broker_port,
            routes={SITE: relay.port},
        )
        running = Federation(plan)
        as_in_a_hospital(running.config_path(SITE))
        stack.enter_context(running)
        leave_alone_with_an_update(running)
        without_coordinator = watch(running, relay, minutes)
        running.broker.stop()
        return {"no coordinator": without_coordinator, "no broker": watch(running, relay, minutes)}


def as_in_a_hospital(config: Path) -> None:
    """Timers as they are by default, where a demo is impatient."""
    settings = yaml.safe_load(config.read_text())
    del settings["telemetry_s"], settings["broker"]["reconnect_max_s"]
    config.write_text(yaml.safe_dump(settings))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0, help="of each of the two situations")
    parser.add_argument("--json", type=Path, help="write the figures to this file, too")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fedward-waiting-") as folder:
        costs = run(Path(folder), given.minutes)
    print(f"an hour of waiting, from {given.minutes:g} minutes each")
    for situation, figures in costs.items():
        print(situation)
        for name, value in asdict(figures).items():
            print(f"  {name:12} {value:12.1f}")
    if given.json:
        given.json.write_text(json.dumps({name: asdict(figures) for name, figures in costs.items()}, indent=2) + "\n")


if __name__ == "__main__":
    main()
