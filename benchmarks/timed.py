"""The programs with a stopwatch on their steps: `python -m benchmarks.timed agent|coordinator ARGUMENTS`.

Each call of a step is a line in the log when it ends. A step that calls another one counts that one's time too.
"""

import functools
import importlib
import logging
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from fedward import cli

LOG = logging.getLogger(__name__)
EVENT = "timed"

AGENT_STEPS: Mapping[str, str] = {
    "assemble": "edge_agent.download:Download.assemble",
    "- check the model's digest": "edge_agent.download:vector_digest",
    "- save the model": "edge_agent.models:ModelFolder.save",
    "evaluate": "edge_agent.compute:Compute._evaluate",
    "train and encode": "edge_agent.compute:Compute._train",
    "- train": "edge_agent.compute:train",
    "save the update": "edge_agent.train:Trainer.save",
    "- digests of the update": "edge_agent.train:manifest_of_chunks",
    "- outbox": "edge_agent.outbox:Outbox.save",
    "take a message": "edge_agent.agent:Agent._on_delivery",
    "look at everything": "edge_agent.agent:Agent.step",
}
COORDINATOR_STEPS: Mapping[str, str] = {
    "take a message": "coordinator.service:Service._on_delivery",
    "- store an update": "coordinator.intake:Intake._store",
    "-- adopt its file": "coordinator.blobs:BlobFolder.adopt",
    "-- verify: norm": "coordinator.intake:check_update",
    "-- ledger": "coordinator.ledger:Ledger.add_update",
    "make a version": "coordinator.versions:Versions.make",
    "- fold, encode, write": "coordinator.versions:Versions._write",
    "-- fold": "coordinator.making:fold",
    "-- digests of the delta": "coordinator.versions:manifest_of",
    "- persist": "coordinator.versions:Versions._persist",
    "announce": "coordinator.announcer:Announcer.announce",
    "send chunks": "coordinator.publish:Publisher.send_chunks",
}
"""Module and function of each step. A dash: part of the step above it with a dash less."""


def watch(steps: Mapping[str, str]) -> None:
    """Put a stopwatch on these functions."""
    for step, place in steps.items():
        owner, name = find(place)
        setattr(owner, name, _timed(step, getattr(owner, name)))


def find(place: str) -> tuple[Any, str]:
    """Module and function as `module:path` -> what holds the function, and its name there."""
    module, _, path = place.partition(":")
    *owners, name = path.split(".")
    return functools.reduce(getattr, owners, importlib.import_module(module)), name


def _timed(step: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def run(*arguments: Any, **named: Any) -> Any:
        began_s = time.perf_counter()
        try:
            return function(*arguments, **named)
        finally:
            LOG.info(EVENT, extra={"step": step, "seconds": time.perf_counter() - began_s})

    return run


if __name__ == "__main__":
    watch(AGENT_STEPS if sys.argv[1] == "agent" else COORDINATOR_STEPS)
    sys.exit(cli.main(sys.argv[1:]))
