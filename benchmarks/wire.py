"""Bits a parameter on the wire, everything counted: `python -m benchmarks.wire [--json FILE]`.

One agent trains without training (benchmarks.null_training), a version is made of each update, and a relay between the
agent and a real mosquitto counts every byte above TCP, in both directions: payloads, MQTT packets and their
acknowledgements, offers with their manifests and envelopes, grants and receipts, announcements, telemetry, pings.
The federation is paused and still when the count begins and ends, so that whole versions lie in between. The deltas are
normal values, of which an entropy coder makes least. The codec of the model is the coordinator's default.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.null_training import WAIT_S, go_on, null_federation, stand_still
from coordinator.config import FederationConfig
from sandbox.datasets import site_name
from sandbox.federation import Federation
from sandbox.ports import HOST, free_port
from sandbox.relay import Relay

PARAMETERS = 11_200_000
BARS_UP: Mapping[str, float] = {"eden4": 4.1, "eden2": 2.1, "eden1": 1.1}
BAR_DOWN = 3.7
MODEL_CODEC: str = FederationConfig.model_fields["model_codec"].default
SITE = site_name(0)


@dataclass(frozen=True)
class Count:
    """What had passed at one moment of a federation that stood still."""

    bytes_up: int
    bytes_down: int
    updates: int
    versions: int
    parameters: int


@dataclass(frozen=True, kw_only=True)
class WireCost:
    """Bits a parameter of one update up and one version down."""

    codec: str
    model_codec: str
    parameters: int
    bits_up: float
    bits_down: float
    bar_up: float
    bar_down: float = BAR_DOWN

    @property
    def meets_bars(self) -> bool:
        return self.bits_up <= self.bar_up and self.bits_down <= self.bar_down


def cost(first: Count, last: Count) -> tuple[float, float]:
    """Bits a parameter, up and down, of what passed between two counts."""
    up = 8 * (last.bytes_up - first.bytes_up) / (last.updates - first.updates)
    down = 8 * (last.bytes_down - first.bytes_down) / (last.versions - first.versions)
    return up / first.parameters, down / first.parameters


def count(running: Federation, relay: Relay) -> Count:
    """Let everything stand still, and count."""
    state = stand_still(running)
    updates = state["sites"][SITE]["num_accepted"]
    return Count(relay.bytes_up, relay.bytes_down, updates, state["version"], state["num_parameters"])


def measure(codec: str, parameters: int, versions: int) -> WireCost:
    """A federation whose site sends with `codec`, over at least so many versions after the first."""
    broker_port = free_port(HOST)
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="fedward-wire-"))
        relay = stack.enter_context(Relay(HOST, broker_port))
        plan = {"codec": codec, "model_codec": MODEL_CODEC, "broker": "mosquitto", "broker_port": broker_port}
        running = null_federation(Path(folder), parameters, 1, routes={SITE: relay.port}, **plan)
        stack.enter_context(running)
        running.wait_for(lambda state: state["version"] >= 1, WAIT_S, "a first version")
        first = count(running, relay)
        go_on(running)
        running.wait_for(lambda state: state["version"] >= first.versions + versions, WAIT_S, "the versions")
        last = count(running, relay)
    up, down = cost(first, last)
    return WireCost(
        codec=codec,
        model_codec=MODEL_CODEC,
        parameters=first.parameters,
        bits_up=up,
        bits_down=down,
        bar_up=BARS_UP[codec],
    )


def show(results: Sequence[WireCost]) -> None:
    """Print the table."""
    print(f"{results[0].parameters:,} parameters; bits a parameter on the wire, everything above TCP counted")
    print(f"{'up':<8}{'bits':>8}{'bar':>6}   {'down':<8}{'bits':>8}{'bar':>6}")
    for row in results:
        down = f"{row.model_codec:<8}{row.bits_down:>8.3f}{row.bar_down:>6}"
        print(f"{row.codec:<8}{row.bits_up:>8.3f}{row.bar_up:>6}   {down}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parameters", type=int, default=PARAMETERS, help="of the model (default: %(default)s)")
    parser.add_argument("--versions", type=int, default=3, help="to count, at least (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="write the figures to this file, too")
    given = parser.parse_args()
    results = [measure(codec, given.parameters, given.versions) for codec in BARS_UP]
    show(results)
    if given.json:
        given.json.write_text(json.dumps([asdict(result) for result in results], indent=2) + "\n")
    return 0 if all(result.meets_bars for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
