"""How a change is carried out where the engine refuses, and where the journal is not the one of what is there."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("docker", reason="the SDK is not installed: pip install 'fedward[appliance]'")

from edge_agent.appliance import orders
from edge_agent.appliance.carry import Carrier
from edge_agent.appliance.changing import interrupted
from edge_agent.appliance.engine import EngineRefusedError
from edge_agent.appliance.steps import Container, Deployment, Journal, Release
from fedward.errors import ConfigError
from tests.unit.edge_agent.test_appliance_snapshots import state_of

GOOD, BETTER = "good", "better"


@dataclass
class MemoryEngine:
    """As much of an engine as a change asks for: what is started is healthy, unless it is refused or `sick`."""

    found: dict[int | None, Container] = field(default_factory=dict)
    images: dict[int | None, str] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)
    """Images of which no container is made or started any more."""
    sick: set[str] = field(default_factory=set)
    put_through: list[int | None] = field(default_factory=list)

    def containers(self) -> tuple[Container, ...]:
        return tuple(self.found.values())

    def has_state(self) -> bool:
        return True

    def create(self, deployment: Deployment) -> None:
        self._look(deployment.release.image)
        self.images[deployment.generation] = deployment.release.image
        self.found[deployment.generation] = Container("c", deployment.generation, "created")

    def start(self, container: Container) -> None:
        image = self.images[container.generation]
        self._look(image)
        health = "unhealthy" if image in self.sick else "healthy"
        self.found[container.generation] = replace(container, status="running", health=health, passes=2)

    def _look(self, image: str) -> None:
        if image in self.refused:
            raise EngineRefusedError(f"{image} is refused")

    def stop(self, container: Container, limit_s: int) -> None:
        self.found[container.generation] = replace(container, status="exited")

    def remove(self, container: Container) -> None:
        del self.found[container.generation]

    def read_state(self, container: Container, folder: Any) -> Iterator[bytes]:
        return iter(state_of({"progress.json": b"{}"}))

    def write_state(self, container: Container, folder: Any, archive: Any) -> None:
        self.put_through.append(container.generation)

    def running(self) -> list[str]:
        return [self.images[each.generation] for each in self.containers() if each.is_up]


@pytest.fixture
def engine() -> MemoryEngine:
    return MemoryEngine()


@pytest.fixture
def carrier(tmp_path: Path, engine: MemoryEngine) -> Carrier:
    """Of an appliance with one agent, which runs."""
    carrier = carrier_in(tmp_path / "north", engine)
    carrier.begin(orders.install(carrier.journal, release(GOOD), {}))
    assert engine.running() == [GOOD]
    return carrier


def carrier_in(folder: Path, engine: MemoryEngine) -> Carrier:
    return Carrier(folder, engine, 20, 10, print)  # type: ignore[arg-type]


def release(image: str) -> Release:
    return Release(image, image, "1")


def test_an_agent_of_which_the_journal_knows_nothing_is_not_touched(
    carrier: Carrier, engine: MemoryEngine, tmp_path: Path
) -> None:
    other = carrier_in(tmp_path / "elsewhere" / "north", engine)
    with pytest.raises(ConfigError, match=r"north-1 is running, and .*elsewhere/north has no journal of it"):
        interrupted(other)
    assert engine.running() == [GOOD]
    other.begin(orders.uninstall(other.journal, delete_state=False))  # as the message says
    assert engine.containers() == ()
    assert interrupted(other) == (None, Journal())


def test_an_agent_that_the_journal_has_is_known(carrier: Carrier) -> None:
    assert interrupted(carrier) == (None, carrier.journal)


def test_an_agent_that_can_not_be_started_is_in_nobodys_way(carrier: Carrier, engine: MemoryEngine) -> None:
    """Its folder of records has another name now, its port is taken: the upgrade to new settings is what mends that."""
    [container] = engine.containers()
    engine.stop(container, 10)
    engine.refused = {GOOD}
    _, journal = interrupted(carrier)
    carrier.begin(orders.upgrade(journal, release(BETTER), {}))
    assert engine.running() == [BETTER]
    assert carrier.journal.change is None


def test_an_agent_whose_image_and_container_are_gone_is_in_nobodys_way(carrier: Carrier, engine: MemoryEngine) -> None:
    engine.found.clear()
    engine.refused = {GOOD}
    _, journal = interrupted(carrier)
    engine.refused = set()  # by then the bundle is opened
    assert orders.install(journal, release(GOOD), {}).change is None
    carrier.finish()
    assert engine.running() == [GOOD]


def test_what_a_single_command_left_is_taken_away_though_nothing_is_started(
    carrier: Carrier, engine: MemoryEngine
) -> None:
    [container] = engine.containers()
    engine.stop(container, 10)
    engine.found[None] = Container("once", None, "running")
    interrupted(carrier)
    assert [(each.generation, each.status) for each in engine.containers()] == [(1, "exited")]


@pytest.mark.parametrize("is_gone", [False, True])
def test_a_return_to_an_agent_that_can_not_be_started_ends_and_says_both(
    carrier: Carrier, engine: MemoryEngine, monkeypatch: pytest.MonkeyPatch, is_gone: bool
) -> None:
    def falls_over(container: Container) -> None:
        """The new one runs, and fails; by then the old one can't be had any more."""
        MemoryEngine.start(engine, container)
        engine.refused = {GOOD}
        if is_gone:
            engine.found.pop(1, None)

    engine.sick = {BETTER}
    monkeypatch.setattr(engine, "start", falls_over)
    both = "its health check fails; the one before can't come back: good is refused"
    with pytest.raises(EngineRefusedError, match=both):
        carrier.begin(orders.upgrade(carrier.journal, release(BETTER), {}))
    assert engine.put_through == [2 if is_gone else 1]  # the state is the old one's again
    assert carrier.journal.change is None
    assert carrier.journal.failure is not None
    assert both in carrier.journal.failure
    monkeypatch.undo()
    engine.refused, engine.sick = set(), set()
    _, journal = interrupted(carrier)
    carrier.begin(orders.upgrade(journal, release(BETTER), {}))
    assert engine.running() == [BETTER]
