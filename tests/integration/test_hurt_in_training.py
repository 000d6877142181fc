"""Tasks that kill their process or take long over a step, in real agents: neither goes on for ever."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from edge_agent.attempts import MOST_ATTEMPTS
from sandbox.federation import Federation, Plan
from tests.integration.conftest import READY_S

pytestmark = [pytest.mark.sweep, pytest.mark.slow, pytest.mark.network]

SITE, IDLE = "hospital-a", "hospital-b"
NUM_STEPS = 60
LEAVE_S = 10.0

Start = Callable[..., None]


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Federation]:
    """A federation with an idle site and one whose agent the test starts."""
    federation = Federation(
        Plan(
            folder=tmp_path / "federation",
            allowed={IDLE: {"heart-disease": {}}},
            num_sites=2,
            engine={"preset": "fedasync"},
            work={"local_epochs": 100, "batch_size": 16, "local_lr": 0.001, "max_steps": NUM_STEPS},
            telemetry_s=0.2,
        )
    )
    with federation:
        for site in (SITE, IDLE):
            federation.kill(site)
        yield federation


def start(running: Federation, harm: str, step: int, seconds: float = 0.0) -> None:
    running.start(SITE, ("tests.integration.hurt_in_training", harm, str(step), str(seconds)))


def configure(running: Federation, **changes: object) -> None:
    path = running.config_path(SITE)
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **changes}))


def wait_for_death(running: Federation) -> None:
    assert running.children.pop(SITE).process.wait(READY_S) == -signal.SIGKILL


def site(state: dict[str, Any]) -> dict[str, Any]:
    return dict(state["sites"][SITE])


def lines(running: Federation, event: str) -> list[dict[str, Any]]:
    """The agent's log lines of this event, of all its processes."""
    text = (running.plan.folder / "logs" / f"{SITE}.log").read_text()
    entries = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    return [entry for entry in entries if entry["event"] == event]


def test_a_task_that_kills_its_process_is_left_alone_until_the_operator_changes_something(running: Federation) -> None:
    state = running.state_folder(SITE)
    for _ in range(MOST_ATTEMPTS):
        start(running, "die", 7)
        wait_for_death(running)
    start(running, "die", 7)
    running.wait_for(lambda state: site(state)["phase"] == "failed", READY_S, "the site to leave the version alone")
    assert running.children[SITE].alive
    assert len(lines(running, "left_alone")) == 1
    assert not list((state / "outbox").iterdir())
    running.kill(SITE)
    configure(running, checkpoint_s=20.0)
    running.start(SITE)
    running.wait_for(lambda state: site(state)["num_accepted"] >= 1, READY_S, "an update after the change")


def test_a_training_that_gets_further_with_every_process_ends_however_often_it_is_killed(running: Federation) -> None:
    configure(running, checkpoint_s=0.0)
    for _ in range(MOST_ATTEMPTS + 1):
        start(running, "die", 11)  # after ten steps more
        wait_for_death(running)
    assert lines(running, "training_resumed")[-1]["step"] == 10 * MOST_ATTEMPTS
    running.start(SITE)
    running.wait_for(lambda state: site(state)["num_accepted"] >= 1, READY_S, "the update")
    assert not lines(running, "left_alone")


@pytest.mark.parametrize(("seconds", "saved"), [(3.0, True), (60.0, False)], ids=["short step", "endless step"])
def test_an_agent_that_is_asked_to_leave_in_a_slow_step_says_so_and_is_gone_in_time(
    running: Federation, seconds: float, saved: bool
) -> None:
    start(running, "dawdle", 2, seconds)
    running.wait_for(lambda state: site(state)["step"] == 1, READY_S, "the second step")
    child = running.children.pop(SITE)
    asked_s = time.monotonic()
    os.kill(child.pid, signal.SIGTERM)
    assert child.process.wait(2 * LEAVE_S) == 0
    assert time.monotonic() - asked_s < LEAVE_S
    running.wait_for(lambda state: site(state)["phase"] == "leaving", 10, "the goodbye")
    folder = running.state_folder(SITE)
    assert (folder / "training" / "checkpoint.safetensors").exists() is saved
    assert not (folder / "attempts.json").exists(), "leaving is no attempt in vain"
