"""Every durable step, killed just before and just after it: one federation, and one step of it after another.

A victim is not started normally in between but with its next step to die at, so that each step that is reached also
shows that the federation went on after the one before.
"""

import signal
from collections.abc import Iterator
from random import Random

import pytest

from benchmarks.chaos import settle
from sandbox.account import account
from sandbox.faults import COORDINATOR
from sandbox.federation import Federation
from sandbox.steps import AGENT_STEPS, COORDINATOR_STEPS
from sandbox.wide import wide_federation
from tests.integration.conftest import READY_S

pytestmark = [pytest.mark.sweep, pytest.mark.slow, pytest.mark.network]

HIDDEN = (400, 400)
"""An update has 3 chunks."""

AT_THE_END = "end in the ledger"
STEPS_ON_THE_WAY = [step for step in COORDINATOR_STEPS if step != AT_THE_END]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    folder = tmp_path_factory.mktemp("federation")
    federation = wide_federation(folder, HIDDEN, Random(5), 2, telemetry_s=0.2)
    with federation:
        federation.wait_for(lambda state: state["version"] >= 1, READY_S, "a first version")
        yield federation


def start_to_die(running: Federation, name: str, step: str, side: str) -> None:
    if name in running.children:
        running.kill(name)
    running.start(name, ("sandbox.die", step, side))


def wait_for_death(running: Federation, name: str) -> None:
    code = running.children[name].process.wait(READY_S)
    del running.children[name]
    assert code == -signal.SIGKILL, f"{name} ended by itself, see {running.plan.folder / 'logs'}"


def start_all(running: Federation) -> None:
    for name in (COORDINATOR, *running.sites):
        if name not in running.children:
            running.start(name)


def assert_nothing_is_lost_so_far(running: Federation) -> None:
    now = account(running)
    assert not now.lost
    assert not now.saved_again
    assert not now.torn_versions


@pytest.mark.parametrize("step", AGENT_STEPS)
def test_an_agent_that_dies_just_before_or_just_after(running: Federation, step: str) -> None:
    for site, side in zip(running.sites, ("before", "after"), strict=True):
        start_to_die(running, site, step, side)
    for site in running.sites:
        wait_for_death(running, site)
    assert_nothing_is_lost_so_far(running)


@pytest.mark.parametrize("side", ["before", "after"])
@pytest.mark.parametrize("step", STEPS_ON_THE_WAY)
def test_a_coordinator_that_dies_just(running: Federation, step: str, side: str) -> None:
    start_to_die(running, COORDINATOR, step, side)
    for site in running.sites:
        if site not in running.children:
            running.start(site)
    wait_for_death(running, COORDINATOR)
    assert_nothing_is_lost_so_far(running)


def test_after_all_deaths_every_update_is_accepted_or_refused_once(running: Federation) -> None:
    start_all(running)
    before = running.wait_for(lambda state: state["connected"], READY_S, "the coordinator")
    running.wait_for(lambda state: state["version"] >= before["version"] + 2, READY_S, "versions as before")
    assert settle(running) == []
    end = account(running)
    assert end.difference() == []
    assert end.waiting == set()
    assert end.accepted == end.applied


def test_a_coordinator_that_dies_around_the_end_of_the_federation_still_ends_it(running: Federation) -> None:
    start_all(running)
    running.wait_for(lambda state: state["version"] >= 1, READY_S, "the coordinator")
    config = running.config_path(COORDINATOR)
    config.write_text(config.read_text().replace("finish: {}", "finish: {version: 1}"))
    for side in ("before", "after"):
        start_to_die(running, COORDINATOR, AT_THE_END, side)
        wait_for_death(running, COORDINATOR)
    running.start(COORDINATOR)
    running.wait_for(lambda state: state["state"] == "finished", READY_S, "the end")
    assert account(running).difference() == []
