"""What leaves the coordinator for a version, with more agents: `python -m benchmarks.egress [--json FILE]`.

4 agents and then 16, as processes that train without training (benchmarks.null_training); every version is made of one
update of each. What the coordinator has handed to its link is read while the federation is paused and still, so that
whole versions lie in between. It counts MQTT payloads: the chunks, but also announcements, grants and receipts.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.null_training import WAIT_S, go_on, null_federation, stand_still

PARAMETERS = 1_200_000
FEW, MANY = 4, 16
BAR = 1.15
"""Bytes with many agents, to those with few."""


@dataclass(frozen=True, kw_only=True)
class Egress:
    """Bytes that the coordinator sent for a version."""

    num_sites: int
    num_versions: int
    bytes_a_version: float
    parameters: int


def egress(first: Mapping[str, Any], last: Mapping[str, Any]) -> Egress:
    """Between two states of a coordinator, with at least a version in between."""
    num_versions = last["version"] - first["version"]
    return Egress(
        num_sites=len(last["sites"]),
        num_versions=num_versions,
        bytes_a_version=(last["bytes_sent"] - first["bytes_sent"]) / num_versions,
        parameters=last["num_parameters"],
    )


def measure(num_sites: int, parameters: int, versions: int) -> Egress:
    """A federation of so many agents, over at least so many versions after the first."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="fedward-egress-"))
        running = stack.enter_context(null_federation(Path(folder), parameters, num_sites))
        running.wait_for(lambda state: state["version"] >= 1, WAIT_S, "a first version")
        first = stand_still(running)
        go_on(running)
        running.wait_for(lambda state: state["version"] >= first["version"] + versions, WAIT_S, "the versions")
        return egress(first, stand_still(running))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parameters", type=int, default=PARAMETERS, help="of the model (default: %(default)s)")
    parser.add_argument("--versions", type=int, default=10, help="to count, at least (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="write the figures to this file, too")
    given = parser.parse_args()
    few, many = (measure(num_sites, given.parameters, given.versions) for num_sites in (FEW, MANY))
    ratio = many.bytes_a_version / few.bytes_a_version
    print(f"{few.parameters:,} parameters; bytes that the coordinator sent for a version")
    for result in (few, many):
        print(f"  {result.num_sites:2} agents {result.bytes_a_version:14,.0f} over {result.num_versions} versions")
    print(f"  ratio {ratio:.3f}; bar: at most {BAR}")
    if given.json:
        given.json.write_text(json.dumps({"few": asdict(few), "many": asdict(many), "ratio": ratio}, indent=2) + "\n")
    return 0 if ratio <= BAR else 1


if __name__ == "__main__":
    sys.exit(main())
