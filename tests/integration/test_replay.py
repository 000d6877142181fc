"""A running federation: its model proved, its coordinator backed up, and restored behind sites that are ahead."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from coordinator.ledger import Ledger
from edge_agent.models import ModelFolder
from sandbox.federation import Federation
from tests.integration.conftest import READY_S
from tests.integration.test_federation import assert_every_update_counts_once, ledger_of

pytestmark = [pytest.mark.slow, pytest.mark.network]

Start = Callable[..., Federation]


def coordinator(running: Federation, verb: str, *arguments: object) -> str:
    config = str(running.config_path("coordinator"))
    return running.fedward("coordinator", verb, "--config", config, *map(str, arguments))


def test_the_versions_are_made_again_while_the_federation_runs(federation: Start, tmp_path: Path) -> None:
    running = federation(finish={"version": 200})
    running.wait_for(lambda state: state["version"] >= 4, READY_S, "four versions")
    out = tmp_path / "model.safetensors"
    coordinator(running, "export", "--out", out)
    head = out.with_suffix(".md").read_text().split("--head ")[1].split("`")[0]
    answer = coordinator(running, "replay", "--head", head, "--verbose")
    assert "every digest is as recorded" in answer
    assert answer.startswith("version 0: 0 updates")


def test_sites_that_are_ahead_of_a_restored_coordinator_go_on_with_it(federation: Start, tmp_path: Path) -> None:
    running = federation(num_sites=3, finish={"version": 5000})
    running.wait_for(lambda state: state["version"] >= 4, READY_S, "four versions")
    backup = tmp_path / "backup"
    coordinator(running, "backup", "--out", backup)
    saved = json.loads((backup / "manifest.json").read_text())["version"]
    running.wait_for(lambda state: state["version"] >= saved + 5, READY_S, "versions that will be lost")
    running.kill("coordinator")
    lost = ledger_of(running)
    reached = lost.versions()[-1].version
    lost.close()
    coordinator(running, "restore", "--from", backup, "--force")

    running.start("coordinator")
    state = running.wait_for(lambda state: state["version"] >= reached + 3, READY_S, "versions beyond the lost ones")
    held = running.wait_for(
        lambda later: all(
            later["sites"][s]["num_accepted"] > state["sites"][s]["num_accepted"] + 1 for s in running.sites
        ),
        READY_S,
        "updates of every site",
    )
    assert held["state"] == "running"
    coordinator(running, "finish")
    running.wait_for(
        lambda last: (
            last["state"] == "finished"
            and all(site["evaluated_version"] == last["version"] for site in last["sites"].values())
        ),
        READY_S,
        "all to hold the last version",
    )
    assert "every digest is as recorded" in coordinator(running, "replay")
    ledger = ledger_of(running)
    assert_every_update_counts_once(ledger)
    assert_counted_as_trained(ledger, backup)
    last = ledger.versions()[-1]
    for site in running.sites:
        held = ModelFolder(running.state_folder(site) / "model").label()
        assert (held["version"], held["digest"]) == (last.version, last.model_digest.hex())
    ledger.close()


def assert_counted_as_trained(ledger: Ledger, backup: Path) -> None:
    """What the backup held is as it was, and each site's updates are numbered upwards: none came back."""
    before = Ledger.in_folder(backup)
    assert ledger.versions()[: len(before.versions())] == before.versions()
    assert ledger.chain()[: len(before.chain())] == before.chain()
    before.close()
    for site in {row.site for row in ledger.accepted()}:
        numbers = [row.sequence for row in ledger.accepted() if row.site == site]
        assert numbers == sorted(set(numbers)), site
