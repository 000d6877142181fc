"""A large model to a site that joins over a poor link: `python -m benchmarks.joiner [--megabytes N] [--json FILE]`.

A real agent without a model downloads the snapshot of a federation through a relay of 7 Mbit/s, which cuts every
connection once a minute. Two shares of the line were useful, which means bytes of the snapshot: of the bytes that
crossed it, the rest having come twice or being no payload; and of what it could have carried while it was up, where
the agent's absence counts too. A model of 500 MB as float32 travels as a snapshot of about 423 MB (f32z: the same bits,
packed), which over this line takes more than eight minutes.
"""

import argparse
import json
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.codecs import resnet_like
from benchmarks.null_training import null_federation
from coordinator.ledger import Ledger
from fedward.errors import TransientError
from sandbox.datasets import site_name
from sandbox.faults import COORDINATOR
from sandbox.federation import Federation
from sandbox.logs import Log
from sandbox.ports import HOST, free_port
from sandbox.relay import Relay

MEGABIT_S = 7.0
CUT_EVERY_S = 60.0
CUT_S = 2.0
"""How long the line stays away."""

BAR = 0.9
PATIENCE = 3.0
"""Times the time that the line needs at least, after which the download counts as failed."""

READY_S = 120.0
POLL_S = 0.1
SITE = site_name(0)


@dataclass(frozen=True, kw_only=True)
class Joining:
    """One download. Bytes of the model are those as float32; the others are those above TCP, down to the site."""

    model_bytes: int
    snapshot_bytes: int
    crossed_bytes: int
    bytes_per_s: float
    up_s: float
    num_cuts: int
    bar: float = BAR

    @property
    def sizes(self) -> str:
        """What was downloaded, for people: the model, and what of it travels."""
        return f"a model of {self.model_bytes / 1e6:.1f} MB float32 as a snapshot of {self.snapshot_bytes / 1e6:.1f} MB"

    @property
    def useful_of_crossed(self) -> float:
        return self.snapshot_bytes / self.crossed_bytes

    @property
    def useful_of_line(self) -> float:
        return self.snapshot_bytes / (self.bytes_per_s * self.up_s)


@dataclass(frozen=True)
class Line:
    """The site's way to the broker, and its weather."""

    relay: Relay
    bytes_per_s: float
    cut_every_s: float


def run(folder: Path, megabytes: float, megabit_s: float, cut_every_s: float) -> Joining:
    """The whole download. Raises TransientError when it does not end in time."""
    broker_port, bytes_per_s = free_port(HOST), megabit_s * 1e6 / 8
    num_parameters = round(megabytes * 1e6 / 4)
    with ExitStack() as stack:
        relay = stack.enter_context(Relay(HOST, broker_port))
        relay.throttle(bytes_per_s)
        plan = {"broker": "mosquitto", "broker_port": broker_port, "routes": {SITE: relay.port}}
        running = stack.enter_context(null_federation(folder, num_parameters, 1, **plan))
        running.wait_for(lambda _state: relay.num_connections > 0, READY_S, "the site")
        snapshot_bytes = size_of_snapshot(running)
        up_s, num_cuts = cut_until_fetched(
            running, Line(relay, bytes_per_s, cut_every_s), PATIENCE * snapshot_bytes / bytes_per_s
        )
        return Joining(
            model_bytes=4 * resnet_like(num_parameters).size,
            snapshot_bytes=snapshot_bytes,
            crossed_bytes=relay.bytes_down,
            bytes_per_s=bytes_per_s,
            up_s=up_s,
            num_cuts=num_cuts,
        )


def cut_until_fetched(running: Federation, line: Line, patience_s: float) -> tuple[float, int]:
    """Cut the line now and then until the site has the model: the seconds that it was up, and the number of cuts."""
    log, up_s, num_cuts = Log(running.children[SITE].log), 0.0, 0
    while up_s < patience_s:
        began_s = time.monotonic()
        while time.monotonic() < began_s + line.cut_every_s:
            running.check_processes()
            if log.count("fetched"):
                return up_s + time.monotonic() - began_s, num_cuts
            time.sleep(POLL_S)
        up_s += time.monotonic() - began_s
        line.relay.cut()
        time.sleep(CUT_S)
        line.relay.throttle(line.bytes_per_s)
        num_cuts += 1
    raise TransientError(f"the model has not come in {up_s:.0f} s of a line that was up")


def size_of_snapshot(running: Federation) -> int:
    """Bytes of the snapshot that the coordinator announces."""
    ledger = Ledger.in_folder(running.state_folder(COORDINATOR), create=False)
    (snapshot,) = ledger.parts(0, 0)
    ledger.close()
    return snapshot.manifest.size_bytes


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, default=500.0, help="of the model as float32 (default: %(default)s)")
    parser.add_argument("--megabit-s", type=float, default=MEGABIT_S, help="of the line (default: %(default)s)")
    parser.add_argument("--cut-every", type=float, default=CUT_EVERY_S, help="seconds (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="write the figures to this file, too")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fedward-joiner-") as folder:
        result = run(Path(folder), given.megabytes, given.megabit_s, given.cut_every)
    print(f"{result.sizes} over {given.megabit_s:g} Mbit/s, {result.num_cuts} cuts:")
    print(f"  complete after {result.up_s:.0f} s of a line that was up; {result.crossed_bytes / 1e6:.1f} MB crossed it")
    print(f"  useful of what crossed it   {result.useful_of_crossed:.3f}; bar: at least {BAR}")
    print(f"  useful of its capacity      {result.useful_of_line:.3f}")
    if given.json:
        shares = {"useful_of_crossed": result.useful_of_crossed, "useful_of_line": result.useful_of_line}
        given.json.write_text(json.dumps(asdict(result) | shares, indent=2) + "\n")
    return 0 if result.useful_of_crossed >= BAR else 1


if __name__ == "__main__":
    sys.exit(main())
