"""An upgrade that is killed at each thing that it does, and run again: one healthy agent, no orphan, nothing lost."""

import itertools
import json
from collections.abc import Iterable

import pytest
from _pytest.mark.structures import ParameterSet

from sandbox.steps import APPLIANCE_STEPS, RETURN_STEPS, SIDES
from tests.containers.appliance.conftest import Desk

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

WORK = "an update that took 15 hours\n"

OFTEN = ("old stopped", "new started", "state put back", "old started")
"""Where it is killed in every run; the other points are for the sweep."""


def points(steps: Iterable[str]) -> list[ParameterSet]:
    """Each step with both of its sides."""
    often = [(step, "after") for step in OFTEN]
    pairs = itertools.product(steps, SIDES)
    marks = {True: [pytest.mark.containers], False: [pytest.mark.containers, pytest.mark.sweep]}
    return [pytest.param(*pair, marks=marks[pair in often]) for pair in pairs]


@pytest.mark.parametrize(("step", "side"), points(APPLIANCE_STEPS))
def test_27_an_upgrade_that_dies_is_finished_by_the_next_one(desk: Desk, step: str, side: str) -> None:
    desk.install()
    desk.die(step, side, "upgrade", "--bundle", desk.bundle("better"))
    again = desk.fedward("upgrade", "--bundle", desk.bundle("better"))
    assert again.code == 0, (again.out, again.err)
    assert desk.modes() == ["better"]
    assert desk.read("outbox/1.offer") == WORK
    assert desk.read("starts") == "good\nbetter\n"  # neither was started twice
    status = json.loads(desk.fedward("status", "--json").out)
    assert (status["state"], status["change"], status["version"]) == ("healthy", None, "2")


@pytest.mark.parametrize(("step", "side"), points(RETURN_STEPS))
def test_27_a_return_that_dies_is_finished_by_the_next_one(desk: Desk, step: str, side: str) -> None:
    desk.install()
    desk.die(step, side, "upgrade", "--bundle", desk.bundle("sick"))
    again = desk.fedward("upgrade", "--bundle", desk.bundle("sick"))
    assert again.code == 1, (again.out, again.err)
    assert "its health check fails" in again.err
    assert desk.modes() == ["good"]
    assert desk.read("outbox/1.offer") == WORK


@pytest.mark.containers
def test_27_an_install_that_dies_is_finished_by_the_next_one(desk: Desk) -> None:
    desk.die("new created", "after", "install", "--bundle", desk.bundle("good"))
    desk.install()
    assert desk.modes() == ["good"]
    assert desk.read("starts") == "good\n"


@pytest.mark.containers
def test_27_an_uninstall_that_dies_is_finished_by_the_next_one(desk: Desk) -> None:
    desk.install()
    desk.die("old removed", "after", "uninstall", "--delete-state")
    assert desk.fedward("uninstall", "--delete-state").code == 0
    assert desk.containers() == []
    assert desk.engine.volumes.list(filters={"name": desk.name}) == []


@pytest.mark.containers
def test_a_rollback_of_an_upgrade_that_was_interrupted_and_is_bad_goes_back_once(desk: Desk) -> None:
    desk.install()
    assert desk.fedward("upgrade", "--bundle", desk.bundle("better")).code == 0
    desk.die("new started", "after", "upgrade", "--bundle", desk.bundle("end"))
    ran = desk.fedward("rollback")
    assert ran.code == 1
    assert desk.modes() == ["better"]


@pytest.mark.containers
def test_an_uninstall_in_the_middle_of_a_change_takes_all_away(desk: Desk) -> None:
    desk.install()
    desk.die("new started", "after", "upgrade", "--bundle", desk.bundle("hang"))
    assert desk.fedward("uninstall", "--keep-state").code == 0
    assert desk.containers() == []


@pytest.mark.containers
def test_another_change_finishes_first_what_was_interrupted(desk: Desk) -> None:
    desk.install()
    desk.die("old stopped", "after", "upgrade", "--bundle", desk.bundle("better"))
    assert json.loads(desk.fedward("status", "--json").out)["state"] == "changing"
    assert desk.fedward("rollback").code == 0
    assert desk.modes() == ["good"]
    assert desk.read("starts") == "good\nbetter\ngood\n"
