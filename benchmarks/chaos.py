"""Kill a federation at random and count: `python -m benchmarks.chaos [--seed N] [--kills N] [--seconds S] ...`.

Three sites train a wide network on drawn records, one step a version, so that nearly all time is spent on the way:
an update has some hundred chunks. Agents, coordinator and broker are killed (SIGKILL) after a plan that the seed
makes, the broker comes back empty, links are cut, stalled and slowed. Then the sites are paused, everything may
settle, and the account is made. It fails on any difference between what was trained and what became of it.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from coordinator.ledger import Ledger
from fedward.messages import FederationState
from sandbox.account import Account, account
from sandbox.datasets import SiteData, Split, site_name
from sandbox.faults import BROKER, COORDINATOR, random_plan
from sandbox.federation import HOST, Federation, Plan
from sandbox.inject import Injector
from sandbox.ports import free_port
from sandbox.relay import Relay

WIDE = (2600, 2600)
"""Hidden layers of the long form: 6.8 million parameters, 27 MB as float32."""

NUM_SITES = 3
NUM_FEATURES = 8
NUM_RECORDS = 64
KILLS_PER_CUT = 10
READY_S = 90.0
SETTLE_S = 90.0
POLL_S = 0.2
WORK = {"local_epochs": 1, "batch_size": 16, "local_lr": 0.01, "max_steps": 1}


@dataclass
class ChunkCount:
    """Chunks over all lives of the coordinator, whose own counters die with it: read before each kill and at the end.

    What came in the milliseconds between the last look and the kill is missing.
    """

    received: int = 0
    redundant: int = 0

    def look(self, running: Federation) -> None:
        """Add what the running coordinator counted. Once a life, at its end."""
        state = running.state()
        if state is not None:
            self.received += state["chunks_received"]
            self.redundant += state["chunks_redundant"]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One run: what was done to the federation, and what became of its updates."""

    seed: int
    seconds: float
    faults: dict[str, int]  # a kill's target, or how a link failed -> how often
    updates: Account
    chunks: ChunkCount
    settled: bool
    difference: list[str] = field(default_factory=list)

    @property
    def kills(self) -> int:
        return sum(count for name, count in self.faults.items() if name in (BROKER, COORDINATOR) or "hospital" in name)

    def figures(self) -> dict[str, object]:
        """What is printed, and what `--json` writes."""
        updates, chunks = self.updates, self.chunks
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
            "duplicates": len(updates.saved_again) + len(updates.torn_versions),
            "versions": updates.num_versions,
            "chunks": chunks.received,
            "redundant chunk share": round(chunks.redundant / max(chunks.received, 1), 4),
            "chunks needed": updates.num_chunks,
            "settled": self.settled,
            "difference": self.difference,
        }


def run(folder: Path, seed: int, kills: int, hidden: Sequence[int], seconds: float) -> Outcome:
    """A whole run, whose faults end after `seconds` at the latest. Raises TransientError when nothing ever starts."""
    rng = Random(seed)  # noqa: S311 - a plan, not a secret
    columns, records = write_records(folder, hidden, rng)
    sites = [site.name for site in records]
    broker_port = free_port(HOST)
    chunks = ChunkCount()
    with ExitStack() as stack:
        relays = {site: stack.enter_context(Relay(HOST, broker_port)) for site in sites}
        plan = Plan(
            folder=folder,
            task="tabular",
            records=records,
            codec="f32",
            work=WORK,
            broker_port=broker_port,
            routes={site: relay.port for site, relay in relays.items()},
        )
        running = Federation(plan)
        options = json.dumps({"columns": str(columns)})
        running.fedward(
            "agent", "init-model", "--task", "tabular", "--options", options, "--out", str(running.model_path)
        )
        stack.enter_context(running)
        running.wait_for(lambda state: state["version"] >= 1, READY_S, "a first version")

        def look(target: str) -> None:
            if target == COORDINATOR:
                chunks.look(running)

        injector = Injector(running, relays, look)
        began_s = time.monotonic()
        injector.carry_out(random_plan(rng, sites, kills, kills // KILLS_PER_CUT), began_s + seconds)
        settled = settle(running)
        chunks.look(running)
        updates = account(running)
        return Outcome(
            seed=seed,
            seconds=time.monotonic() - began_s,
            faults=dict(sorted(injector.done.items())),
            updates=updates,
            chunks=chunks,
            settled=settled,
            difference=updates.difference(),
        )


def settle(running: Federation) -> bool:
    """Pause every site and wait until nothing is on its way; False if that takes longer than SETTLE_S."""
    ledger = Ledger.in_folder(running.state_folder(COORDINATOR))
    for site in running.sites:
        ledger.wish(site, FederationState.PAUSED, time.time())
    ledger.close()
    deadline_s = time.monotonic() + SETTLE_S
    while time.monotonic() < deadline_s:
        running.check_processes()
        state = running.state()
        # An agent says that it is paused only when it neither trains nor has anything in its outbox.
        if state and state["buffer"] == 0 and all(site["phase"] == "paused" for site in state["sites"].values()):
            return True
        time.sleep(POLL_S)
    return False


def write_records(folder: Path, hidden: Sequence[int], rng: Random, num_sites: int = NUM_SITES) -> tuple[Path, Split]:
    """A column map for a network with these hidden layers, and drawn records of so many sites that fit it."""
    names = [f"x{index}" for index in range(NUM_FEATURES)]
    columns = folder / "columns.yaml"
    columns.parent.mkdir(parents=True, exist_ok=True)
    features = {name: {"center": 0, "scale": 1} for name in names}
    columns.write_text(  # JSON is YAML
        json.dumps({"label": {"name": "y", "positive_above": 0}, "features": features, "hidden": list(hidden)})
    )
    sites = []
    for index in range(num_sites):
        rows = [[round(rng.gauss(), 4) for _ in names] for _ in range(NUM_RECORDS)]
        lines = [",".join([*names, "y"]), *(",".join(map(str, [*row, int(sum(row) > 0)])) for row in rows)]
        path = folder / f"{site_name(index)}.csv"
        path.write_text("\n".join(lines) + "\n")
        options: dict[str, object] = {"columns": str(columns), "train": str(path)}
        sites.append(SiteData(site_name(index), options, NUM_RECORDS, NUM_RECORDS // 4))
    return columns, Split(tuple(sites), {})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1, help="of the plan of faults, and of the records")
    parser.add_argument("--kills", type=int, default=100, help="SIGKILLs over agents, broker and coordinator")
    parser.add_argument("--hidden", type=int, nargs="+", default=list(WIDE), help="widths of the hidden layers")
    parser.add_argument("--seconds", type=float, default=600.0, help="no fault after so long, however many are left")
    parser.add_argument("--keep", type=Path, help="folder for logs and state; default: one that is deleted at the end")
    parser.add_argument("--json", type=Path, help="write the figures to this file, too")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fedward-chaos-") as temporary:
        folder = given.keep or Path(temporary)
        outcome = run(folder.resolve(), given.seed, given.kills, given.hidden, given.seconds)
    figures = outcome.figures()
    for name, value in figures.items():
        print(f"{name:22} {value}")
    if given.json:
        given.json.write_text(json.dumps(figures, indent=2) + "\n")
    complete = outcome.settled and outcome.kills == given.kills
    return 0 if complete and not outcome.difference else 1


if __name__ == "__main__":
    sys.exit(main())
