"""The first model of a site, in whole federations: made from the seed that is announced, and only else downloaded."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import Any

import pytest

from coordinator.ledger import Ledger
from edge_agent.models import ModelFolder
from fedward.modelfile import TASK_KEY, load_model, save_model
from sandbox.federation import Federation
from sandbox.wide import wide_federation
from tests.integration.conftest import READY_S

pytestmark = [pytest.mark.slow, pytest.mark.network]

HIDDEN = (256, 256)
"""A model of 275 kB as float32, of random values, which hardly compress; a delta of uqz has a tenth."""

NUM_VERSIONS = 2


@pytest.fixture
def wide(tmp_path: Path) -> Iterator[Federation]:
    """Two hospitals, not started; the model's file names no seed."""
    with ExitStack() as stack:
        federation = wide_federation(
            tmp_path / "federation",
            HIDDEN,
            Random(5),
            2,
            codec="eden4",
            precise_versions=0,
            finish={"version": NUM_VERSIONS},
        )
        stack.callback(federation.stop)
        yield federation


def bytes_received(running: Federation) -> dict[str, int]:
    """By site, once all hold the last version."""

    def all_hold_it(state: dict[str, Any]) -> bool:
        return all(site["evaluated_version"] == NUM_VERSIONS for site in state["sites"].values())

    state = running.wait_for(all_hold_it, READY_S, "the last version at every site")
    ledger = Ledger.in_folder(running.state_folder("coordinator"))
    promised = ledger.version(NUM_VERSIONS).model_digest.hex()
    ledger.close()
    for site in running.sites:
        assert ModelFolder(running.state_folder(site) / "model").label()["digest"] == promised
    return {name: site["bytes_received"] for name, site in state["sites"].items()}


def size_of_first_snapshot(running: Federation) -> int:
    ledger = Ledger.in_folder(running.state_folder("coordinator"))
    (snapshot,) = ledger.parts(0, 0)
    ledger.close()
    return snapshot.manifest.size_bytes


def events(running: Federation, site: str) -> list[str]:
    log = (running.plan.folder / "logs" / f"{site}.log").read_text()
    return [json.loads(line)["event"] for line in log.splitlines() if line.startswith("{")]


def test_no_site_downloads_its_first_model_where_the_file_names_the_seed(wide: Federation) -> None:
    options = json.dumps({"columns": str(wide.plan.folder / "columns.yaml")})
    wide.fedward(
        "agent", "init-model", "--task", "tabular", "--options", options, "--seed", "9", "--out", str(wide.model_path)
    )
    with wide as running:
        received = bytes_received(running)
        assert max(received.values()) < size_of_first_snapshot(running) / 2
        assert all(events(running, site).count("made") == 1 for site in running.sites)


def test_a_seed_that_makes_another_model_here_costs_a_download_and_nothing_else(wide: Federation) -> None:
    """As where the sites' torch draws otherwise than that of whoever wrote the file."""
    save_model(wide.model_path, *load_model(wide.model_path), {TASK_KEY: "tabular", "fedward.seed": "9"})
    with wide as running:
        received = bytes_received(running)
        assert min(received.values()) > size_of_first_snapshot(running)
        assert all("initial_model_differs" in events(running, site) for site in running.sites)
