"""Kill a federation at random and count: `python -m benchmarks.chaos [--seed N ...] [--kills N] [--seconds S] ...`.

Three sites train a wide network on drawn records, one step a version, so that nearly all time is spent on the way:
an update has 310 chunks. Agents, coordinator and broker are killed (SIGKILL) after a plan that the seed makes, the
broker comes back empty, links are cut, stalled and slowed. Then the sites are paused, everything may settle, the
account is made, and the ledger replayed. It fails on any difference between what was trained and what became of it, or
between a version and the same version made again, and when more than 2 % of the chunks travelled in vain. 100 kills
take less than 10 minutes on two cores, the replay some more, and 15 GB in the folder for temporary files.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.chaos_outcome import Outcome, table
from fedward.errors import ConfigError
from fedward.messages import FederationState
from sandbox.account import account
from sandbox.datasets import site_name
from sandbox.faults import COORDINATOR, DATABASE, LONGEST_CUT_S, random_plan
from sandbox.federation import Federation
from sandbox.inject import Injector
from sandbox.ports import HOST, free_port
from sandbox.postgres import PostgresServer
from sandbox.relay import Relay
from sandbox.wide import wide_federation

WIDE = (4500, 4500)
"""Hidden layers of the long form: 20.3 million parameters, 81 MB as float32."""

NUM_SITES = 3
KILLS_PER_CUT = 10
READY_S = 90.0
SETTLE_S = 90.0
POLL_S = 0.2


@dataclass(frozen=True)
class Cuts:
    """How often a site's link fails, and how long at most."""

    number: int
    longest_s: float = LONGEST_CUT_S


@dataclass
class ChunkCount:
    """Chunks over all lives of the coordinator, whose own counters die with it: read all the time.

    What came in between the last look and the end of a life is missing.
    """

    received: int = 0  # of the lives that ended
    redundant: int = 0
    life: tuple[int, int] = (0, 0)  # received and redundant of the newest one

    def look(self, running: Federation) -> None:
        """Read the running coordinator."""
        state = running.state()
        if state:
            self.life = (state["chunks_received"], state["chunks_redundant"])

    def end_life(self) -> None:
        """Add what the newest life counted to those before it."""
        self.received += self.life[0]
        self.redundant += self.life[1]
        self.life = (0, 0)


def run(  # noqa: PLR0913 - what main is asked for
    folder: Path,
    seed: int,
    kills: int,
    hidden: Sequence[int],
    seconds: float,
    cuts: Cuts | None = None,
    *,
    postgres: bool = False,
    **plan: Any,
) -> Outcome:
    """A whole run, whose faults end after `seconds` at the latest; `plan`, as of Plan, goes before.

    Raises TransientError when nothing ever starts.
    """
    rng = Random(seed)  # noqa: S311 - a plan, not a secret
    sites = [site_name(index) for index in range(NUM_SITES)]
    broker_port = free_port(HOST)
    chunks = ChunkCount()
    with ExitStack() as stack:
        relays = {site: stack.enter_context(Relay(HOST, broker_port)) for site in sites}
        routes = {site: relay.port for site, relay in relays.items()}
        database = stack.enter_context(PostgresServer.running()) if postgres else None
        usual = {
            "broker_port": broker_port,
            "routes": routes,
            "ledger": {"url": database.new_url()} if database else {},
        }
        running = wide_federation(folder, hidden, rng, NUM_SITES, **usual, **plan)
        stack.enter_context(running)
        running.wait_for(lambda state: state["version"] >= 1, READY_S, "a first version")

        def died(victim: str) -> None:
            if victim in (COORDINATOR, DATABASE):  # whose loss begins a new life, too
                chunks.end_life()

        injector = Injector(running, relays, lambda: chunks.look(running), died, database)
        began_s = time.monotonic()
        cuts = cuts or Cuts(kills // KILLS_PER_CUT)
        faults = random_plan(rng, sites, kills, cuts.number, cuts.longest_s, database=postgres)
        injector.carry_out(faults, began_s + seconds)
        moving = settle(running)
        chunks.look(running)
        chunks.end_life()
        seconds = time.monotonic() - began_s
        updates, (proved, replay) = account(running), replay_all(running)
        return Outcome(
            seed=seed,
            seconds=seconds,
            planned_kills=kills,
            faults=dict(sorted(injector.done.items())),
            updates=updates,
            chunks_received=chunks.received,
            chunks_redundant=chunks.redundant,
            moving=moving,
            replay=replay,
            difference=[*updates.difference(), *([] if proved else [f"replay: {replay}"])],
        )


def replay_all(running: Federation) -> tuple[bool, str]:
    """Whether every version comes out of the ledger again, and what the command said."""
    try:
        said = running.fedward("coordinator", "replay", "--config", str(running.config_path(COORDINATOR)))
    except ConfigError as error:
        return False, str(error)
    return True, said.splitlines()[0]


def settle(running: Federation) -> list[str]:
    """Pause every site and wait until nothing is on its way; what still is after SETTLE_S, in words."""
    ledger = running.ledger()
    for site in running.sites:
        ledger.wish(site, FederationState.PAUSED, time.time())
    ledger.close()
    deadline_s = time.monotonic() + SETTLE_S
    while (moving := _moving(running.state())) and time.monotonic() < deadline_s:
        running.check_processes()
        time.sleep(POLL_S)
    return moving


def _moving(state: Mapping[str, Any] | None) -> list[str]:
    """An agent says that it is paused only when it neither trains nor has anything in its outbox."""
    if state is None:
        return ["the coordinator does not answer"]
    buffered = [f"{state['buffer']} updates in the buffer"] if state["buffer"] else []
    phases = [f"{name} is {site['phase']}" for name, site in state["sites"].items() if site["phase"] != "paused"]
    return buffered + phases


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, action="append", help="of plan and records; may be repeated. Default: 1")
    parser.add_argument("--kills", type=int, default=100, help="SIGKILLs over agents, broker and coordinator")
    parser.add_argument("--cuts", type=int, help="failures of a site's link; default: one for every ten kills")
    parser.add_argument("--longest-cut", type=float, default=LONGEST_CUT_S, help="seconds that one lasts at most")
    parser.add_argument("--hidden", type=int, nargs="+", default=list(WIDE), help="widths of the hidden layers")
    parser.add_argument("--seconds", type=float, default=600.0, help="no fault after so long, however many are left")
    parser.add_argument("--sealed-model", action="store_true", help="seal the model to the members, too")
    parser.add_argument("--postgres", action="store_true", help="the ledger in PostgreSQL, which is killed as well")
    parser.add_argument("--keep", type=Path, help="folder for logs and state; default: one that is deleted at the end")
    parser.add_argument("--json", type=Path, help="write the figures of every seed to this file, too")
    given = parser.parse_args()
    outcomes = []
    cuts = Cuts(given.kills // KILLS_PER_CUT if given.cuts is None else given.cuts, given.longest_cut)
    for seed in given.seed or [1]:
        with tempfile.TemporaryDirectory(prefix="fedward-chaos-") as temporary:
            folder = (given.keep or Path(temporary)) / f"seed-{seed}"
            how = given.kills, given.hidden, given.seconds, cuts
            plan = {"postgres": given.postgres, "sealed_model": given.sealed_model}
            outcomes.append(run(folder.resolve(), seed, *how, **plan))
        for name, value in outcomes[-1].figures().items():
            print(f"{name:22} {value}", flush=True)
        print()
    for line in table(outcomes):
        print(line)
    if given.json:
        given.json.write_text(json.dumps([outcome.figures() for outcome in outcomes], indent=2) + "\n")
    return 1 if any(outcome.failures() for outcome in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
