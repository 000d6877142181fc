"""What is done next to an agent's container: in a small world in which anything may fail or be killed."""

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.appliance import orders
from edge_agent.appliance.steps import (
    Action,
    Container,
    Create,
    DeleteState,
    Done,
    DropSnapshot,
    Journal,
    PutSnapshot,
    Release,
    Remove,
    Seen,
    Start,
    Stop,
    TakeSnapshot,
    Wait,
    Write,
    given_up,
    judge,
    next_action,
)
from fedward.errors import ConfigError

HEALTH_S = 25.0
MANY = 60
"""Actions that no change needs as many of."""

GOOD, SICK, HANGING, ENDING = "good", "sick", "hanging", "ending"
BAD = [SICK, HANGING, ENDING]

UP = Container("c", 1, "running", "healthy", passes=2)


@dataclass
class World:
    """An engine whose images do what their names say, a journal, and a state in which each start leaves its mark."""

    journal: Journal = field(default_factory=Journal)
    containers: dict[int | None, Container] = field(default_factory=dict)
    images: dict[int | None, str] = field(default_factory=dict)
    snapshots: dict[int, tuple[str, ...]] = field(default_factory=dict)
    state: tuple[str, ...] | None = None
    done: list[Action] = field(default_factory=list)

    def seen(self) -> Seen:
        return Seen(tuple(self.containers.values()), frozenset(self.snapshots), self.state is not None)

    def step(self) -> bool:
        """One action; False when nothing is left to do."""
        action = next_action(self.journal, self.seen(), HEALTH_S)
        self.done.append(action)
        if isinstance(action, Done):
            return False
        self.perform(action)
        assert sum(each.is_up for each in self.containers.values()) <= 1, "two agents on one state"
        return True

    def perform(self, action: Action) -> None:  # noqa: C901 - one line for each kind of action
        match action:
            case Create(deployment):
                self.state = self.state or ()
                self.containers[deployment.generation] = Container("c", deployment.generation, "created")
                self.images[deployment.generation] = deployment.release.image
            case Start(container):
                image = self.images[container.generation]
                self.state = (*(self.state or ()), image)
                self.containers[container.generation] = replace(
                    container, status="running", health="starting", passes=0
                )
            case Stop(container):
                self.containers[container.generation] = replace(container, status="exited", health="unhealthy")
            case Remove(container):
                del self.containers[container.generation]
            case TakeSnapshot(container, generation):
                assert not container.is_up
                self.snapshots[generation] = self.state or ()
            case PutSnapshot(container, generation, then):
                assert not any(each.is_up for each in self.containers.values())
                self.state, self.journal = self.snapshots[generation], then
            case DropSnapshot(generation):
                del self.snapshots[generation]
            case DeleteState():
                assert not self.containers
                self.state = None
            case Write(journal):
                self.journal = journal
            case Wait():
                self.time_passes()

    def time_passes(self) -> None:
        for generation, container in self.containers.items():
            if container.status == "running":
                self.containers[generation] = self._later(self.images[generation], container)

    def _later(self, image: str, container: Container) -> Container:
        match image.partition(":")[0]:
            case "sick":
                return replace(container, health="unhealthy")
            case "ending":
                return replace(container, status="restarting", restarts=2, exit_code=7)
            case "hanging":
                return replace(container, running_s=container.running_s + 10)
        return replace(container, health="healthy", passes=container.passes + 1)

    def finish(self) -> None:
        for _ in range(MANY):
            if not self.step():
                return
        raise AssertionError(f"it never ends: {self.done[-6:]}")


def order(journal: Journal, image: str, **options: Any) -> Journal:
    release = Release(image, image, "1")
    return (orders.upgrade if journal.current else orders.install)(journal, release, options)


def installed(image: str = GOOD) -> World:
    world = World()
    world.journal = order(world.journal, image)
    world.finish()
    return world


def running(world: World) -> list[str]:
    return [world.images[each.generation] for each in world.containers.values() if each.is_up]


def test_an_install_ends_with_one_container_that_runs() -> None:
    world = installed()
    assert running(world) == [GOOD]
    assert world.journal.change is None
    assert world.journal.failure is None


def test_an_upgrade_stops_the_old_copies_the_state_and_only_then_starts_the_new() -> None:
    world = installed()
    world.done.clear()
    world.journal = order(world.journal, "good:2")
    world.finish()
    kinds = [type(action) for action in world.done if not isinstance(action, Wait)]
    assert kinds == [Create, Stop, TakeSnapshot, Start, Write, Remove, DropSnapshot, Done]
    assert running(world) == ["good:2"]
    assert world.journal.before is not None
    assert world.journal.before.release.image == GOOD


@pytest.mark.parametrize("bad", BAD)
def test_a_bad_upgrade_brings_the_old_container_and_its_state_back(bad: str) -> None:
    world = installed()
    world.journal = order(world.journal, bad)
    world.finish()
    assert running(world) == [GOOD]
    assert len(world.containers) == 1
    assert world.state == (GOOD, GOOD)  # the mark of the bad one is gone
    assert world.journal.failure
    assert world.journal.change is None


@pytest.mark.parametrize("bad", BAD)
def test_a_bad_first_install_leaves_no_container_and_says_why(bad: str) -> None:
    world = World(order(Journal(), bad))
    world.finish()
    assert not world.containers
    assert world.journal.current is None
    assert world.journal.failure


def test_what_runs_is_not_installed_again() -> None:
    world = installed()
    assert order(world.journal, GOOD).change is None


def test_other_settings_of_the_same_image_are_an_upgrade() -> None:
    world = installed()
    world.journal = order(world.journal, GOOD, mem_limit=1)
    world.finish()
    assert world.journal.current is not None
    assert world.journal.current.options == {"mem_limit": 1}
    assert world.journal.generation == 2


def test_a_rollback_goes_back_and_can_itself_be_taken_back() -> None:
    world = installed()
    world.journal = order(world.journal, "good:2")
    world.finish()
    for expected in (GOOD, "good:2"):
        world.journal = orders.rollback(world.journal, with_state=False)
        world.finish()
        assert running(world) == [expected]


def test_a_rollback_with_the_state_puts_back_what_was_copied_before_the_upgrade() -> None:
    world = installed()
    world.journal = order(world.journal, "good:2")
    world.finish()
    assert world.state == (GOOD, "good:2")
    world.journal = orders.rollback(world.journal, with_state=True)
    world.finish()
    assert world.state == (GOOD, GOOD)


def rolls_back_until(action: type[Action]) -> World:
    """A rollback with the state after an upgrade, up to where this is to be done."""
    world = installed()
    world.journal = order(world.journal, "good:2")
    world.finish()
    world.journal = orders.rollback(world.journal, with_state=True)
    while not isinstance(next_action(world.journal, world.seen(), HEALTH_S), action):
        world.step()
    return world


def test_a_rollback_that_is_refused_after_it_put_a_state_back_takes_that_back_too() -> None:
    world = rolls_back_until(Start)
    assert world.state == (GOOD,)
    world.journal = given_up(world.journal, world.seen(), "the engine can't start it")
    world.finish()
    assert running(world) == ["good:2"]
    assert world.state == (GOOD, "good:2", "good:2")


def test_a_rollback_that_put_half_of_a_state_back_takes_that_back_too() -> None:
    world = rolls_back_until(PutSnapshot)
    world.state = ("half",)
    world.journal = given_up(world.journal, world.seen(), "the engine can't put it back")
    world.finish()
    assert world.state == (GOOD, "good:2", "good:2")


def test_an_upgrade_that_is_refused_before_its_first_start_leaves_the_state_as_it_is() -> None:
    world = installed()
    world.journal = order(world.journal, "good:2")
    while not isinstance(next_action(world.journal, world.seen(), HEALTH_S), Start):
        world.step()
    world.journal = given_up(world.journal, world.seen(), "the engine can't start it")
    world.done.clear()
    world.finish()
    assert running(world) == [GOOD]
    assert not any(isinstance(action, PutSnapshot) for action in world.done)


def test_there_is_nothing_to_go_back_to_after_an_install() -> None:
    with pytest.raises(ConfigError, match="nothing to go back to"):
        orders.rollback(installed().journal, with_state=False)


def test_an_upgrade_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="nothing is installed"):
        orders.upgrade(Journal(), Release(GOOD, GOOD, "1"), {})


def test_an_install_over_something_else_is_refused() -> None:
    with pytest.raises(ConfigError, match="is installed already"):
        orders.install(installed().journal, Release("good:2", "good:2", "2"), {})


@pytest.mark.parametrize("delete_state", [True, False])
def test_an_uninstall_leaves_the_state_or_takes_it(delete_state: bool) -> None:
    world = installed()
    world.journal = orders.uninstall(world.journal, delete_state=delete_state)
    world.finish()
    assert not world.containers
    assert not world.snapshots  # they hold the hospital's key
    assert (world.state is None) == delete_state
    assert world.journal.current is None


def test_a_container_that_somebody_removed_is_made_again() -> None:
    world = installed()
    world.containers.clear()
    world.finish()
    assert running(world) == [GOOD]


def meddle(world: World, event: str) -> None:
    """Something that happens to the engine while nobody of ours runs."""
    for generation, container in list(world.containers.items()):
        match event:
            case "somebody removes all":
                del world.containers[generation]
            case "somebody stops all" if container.is_up:
                world.containers[generation] = replace(container, status="exited")
            case "the machine starts again" if container.is_up:
                world.containers[generation] = replace(container, health="starting", running_s=0.0, passes=0)
    if event == "a command was killed" and not any(each.is_up for each in world.containers.values()):
        world.containers[None] = Container("once", None, "exited")


EVENTS = ["nothing", "somebody removes all", "somebody stops all", "the machine starts again", "a command was killed"]


@given(
    st.sampled_from([GOOD, "good:2", *BAD]),
    st.lists(st.tuples(st.integers(0, 12), st.sampled_from(EVENTS)), max_size=4),
    st.booleans(),
)
def test_whatever_happens_in_between_one_agent_runs_in_the_end(
    image: str, events: list[tuple[int, str]], rolls_back: bool
) -> None:
    world = installed()
    world.journal = order(world.journal, image)
    for num_steps, event in events:
        for _ in range(num_steps):
            world.step()
        meddle(world, event)
        if rolls_back and world.journal.change is None and world.journal.before:
            world.journal = orders.rollback(world.journal, with_state=True)
    world.finish()
    assert running(world) in ([GOOD], ["good:2"])
    assert len(world.containers) == 1
    assert world.journal.change is None


@pytest.mark.parametrize(
    ("container", "expected"),
    [
        (UP, True),
        (replace(UP, passes=1), None),
        (replace(UP, passes=1, running_s=2 * HEALTH_S + 1), False),
        (replace(UP, health="starting", running_s=HEALTH_S), None),
        (replace(UP, health="starting", running_s=HEALTH_S + 1), False),
        (replace(UP, health="unhealthy"), False),
        (replace(UP, health=None), False),
        (replace(UP, status="restarting", health="unhealthy", restarts=1), None),
        (replace(UP, restarts=2), False),
        (replace(UP, status="exited"), False),
    ],
)
def test_a_started_container_is_judged(container: Container, expected: bool | None) -> None:
    verdict = judge(container, HEALTH_S)
    assert verdict.is_proven is expected
    assert bool(verdict.why) == (expected is False)
