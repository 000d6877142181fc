"""A real coordinator whose ledger is damaged while it runs: it ends with one message, and goes on from a backup."""

import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fedward.cli import EXIT_INTEGRITY
from sandbox.federation import Federation
from tests.integration.conftest import READY_S
from tests.integration.test_federation import assert_every_update_counts_once, ledger_of
from tests.support.ledger_file import flip, page_of, settle_log
from tests.support.paused import pause

pytestmark = [pytest.mark.slow, pytest.mark.network]


def damage_while_it_stands_still(running: Federation) -> None:
    """Flip a page of the table of updates between two transactions of the coordinator."""
    process = running.children["coordinator"].process
    ledger = running.state_folder("coordinator") / "ledger.sqlite"
    deadline_s = time.monotonic() + READY_S
    while True:
        pause(process.pid)
        try:
            if settle_log(ledger):
                flip(ledger, page_of(ledger, "updates")[0])
                return
        finally:
            process.send_signal(signal.SIGCONT)
        assert time.monotonic() < deadline_s, "the coordinator is never between two transactions"


def ended(running: Federation) -> tuple[int, str]:
    """The coordinator's exit code, and what it said last."""
    child = running.children.pop("coordinator")
    code = child.process.wait(READY_S)
    log = child.log.read_text()
    assert "Traceback" not in log
    return code, log.splitlines()[-1]


def test_a_page_damaged_under_a_running_coordinator_ends_it_and_a_backup_takes_its_place(
    federation: Callable[..., Federation], tmp_path: Path
) -> None:
    running = federation(finish={"version": 5000})
    running.wait_for(lambda state: state["version"] >= 2, READY_S, "two versions")
    config, backup = str(running.config_path("coordinator")), str(tmp_path / "backup")
    running.fedward("coordinator", "backup", "--config", config, "--out", backup)
    damage_while_it_stands_still(running)
    code, said = ended(running)
    assert code == EXIT_INTEGRITY
    assert "ledger.sqlite: the ledger is damaged" in said

    left = (running.state_folder("coordinator") / "ledger.sqlite").read_bytes()
    running.start("coordinator")  # as its supervisor does
    code, said = ended(running)
    assert code == EXIT_INTEGRITY
    assert "ledger.sqlite: the ledger is damaged" in said
    running.fedward("coordinator", "restore", "--config", config, "--from", backup, "--force")
    (aside,) = running.state_folder("coordinator").glob("replaced-*")
    assert (aside / "ledger.sqlite").read_bytes() == left
    running.start("coordinator")
    before = running.wait_for(lambda _state: True, READY_S, "the coordinator")
    running.wait_for(
        lambda state: state["version"] >= before["version"] + 3
        and all(site["num_accepted"] > before["sites"][name]["num_accepted"] for name, site in state["sites"].items()),
        READY_S,
        "versions of updates of both sites",
    )  # fmt: skip
    assert_every_update_counts_once(ledger_of(running))
