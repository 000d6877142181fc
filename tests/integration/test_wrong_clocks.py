"""Wall clocks that are wrong by hours, and set while the programs run: only what the logs say of the time changes."""

import json
from collections.abc import Callable

import pytest

from coordinator.ledger import Ledger
from fedward.errors import RejectReason
from sandbox.account import account
from sandbox.federation import Federation
from tests.integration.conftest import READY_S

pytestmark = [pytest.mark.sweep, pytest.mark.slow, pytest.mark.network]

HOUR_S = 3600


def hour_in_log(running: Federation, name: str) -> int:
    lines = (running.plan.folder / "logs" / f"{name}.log").read_text().splitlines()
    return int(json.loads(lines[-1])["at"][11:13])


def test_a_federation_whose_clocks_disagree_by_hours_makes_versions_and_counts_every_update_once(
    federation: Callable[..., Federation],
) -> None:
    running = federation(num_sites=2)
    running.wait_for(lambda state: state["version"] >= 1, READY_S, "a first version")
    fast, slow = running.sites
    for name, hours in ((fast, 5), (slow, -6), ("coordinator", -9)):
        running.kill(name)
        running.start(name, ("sandbox.skew", str(hours * HOUR_S)))
    begun = running.wait_for(lambda state: state["connected"], READY_S, "the coordinator")
    after = running.wait_for(
        lambda state: (
            state["version"] >= begun["version"] + 40
            and all(site["num_accepted"] >= 20 for site in state["sites"].values())
        ),
        READY_S,
        "many versions, over the jump",
    )
    refused = {reason for reason, count in after["refused"].items() if count}
    assert refused <= {RejectReason.REPLAYED}  # the killed coordinator had handled it, and the broker did not know
    assert hour_in_log(running, fast) != hour_in_log(running, slow)
    running.kill("coordinator")
    running.start("coordinator")
    running.wait_for(lambda state: state["version"] >= after["version"] + 2, READY_S, "versions by a right clock")
    ledger = Ledger.in_folder(running.state_folder("coordinator"))
    weights = [row.weight for row in ledger.accepted() if row.weight is not None]
    ledger.close()
    assert all(0.2 < weight < 5 for weight in weights), weights
    now = account(running)
    assert not now.lost
    assert not now.saved_again
    assert not now.torn_versions
