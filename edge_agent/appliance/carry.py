"""Carries a change out: looks, asks the rules for the one thing to do, does it, and looks again."""

import time
from collections.abc import Callable
from pathlib import Path

from edge_agent.appliance.config import STATE_MOUNT
from edge_agent.appliance.engine import Engine, EngineRefusedError
from edge_agent.appliance.journal import JournalFile
from edge_agent.appliance.snapshots import SnapshotError, Snapshots
from edge_agent.appliance.steps import (
    Action,
    Create,
    DeleteState,
    Done,
    DropSnapshot,
    Journal,
    PutSnapshot,
    Remove,
    Seen,
    Start,
    Stop,
    TakeSnapshot,
    Wait,
    Write,
    given_up,
    left_over,
    left_stopped,
    next_action,
    unknown,
)
from fedward.errors import ConfigError

WAIT_S = 1.0
"""Longest wait for news of the engine; a deadline is looked at as often."""

HURRY_S = 2
"""What a container that failed is given to leave: a hospital waits for the one before, and no kill costs more than the
step in hand."""


class Carrier:
    """The one who works on an appliance; whoever has one holds the lock of its folder."""

    def __init__(self, folder: Path, engine: Engine, health_s: float, stop_s: int, told: Callable[[str], None]) -> None:
        """`told` hears a line for each thing that is done."""
        self._folder = folder
        self._journal = JournalFile(folder / "journal.json")
        self._snapshots = Snapshots(folder / "snapshots")
        self._engine = engine
        self._health_s, self._stop_s, self._told = health_s, stop_s, told

    @property
    def journal(self) -> Journal:
        return self._journal.load()

    def see(self) -> Seen:
        """What is there now."""
        return Seen(self._engine.containers(), self._snapshots.generations(), self._engine.has_state())

    def check_known(self) -> None:
        """Raises ConfigError where a container is there of which the journal knows nothing: it would go as a stray, and
        the only agent with it."""
        if stranger := unknown(self.journal, self.see()):
            name = f"{self._folder.name}-{stranger.generation}"
            raise ConfigError(
                f"{name} is {stranger.status}, and {self._folder} has no journal of it: is `folder` another one, or "
                "not mounted? `fedward appliance uninstall --keep-state` takes it away"
            )

    def finish(self) -> Journal:
        """Do what is left to do of the journal's change, or what it takes for things to be as it says."""
        while True:
            seen_s, journal, seen = time.time(), self.journal, self.see()
            action = next_action(journal, seen, self._health_s)
            match action:
                case Done():
                    return journal
                case Wait():
                    self._engine.wait(seen_s, WAIT_S)
                case _:
                    self._try(action, journal, seen)

    def tidy(self) -> Journal:
        """Where no change is under way: take away what is left of single commands and of changes, and no more.

        Whether the container that counts can be started isn't tried: what is asked for next may be what mends it.
        """
        journal = self.journal
        while action := left_over(journal, self.see()):
            self.perform(action)
        return journal

    def begin(self, journal: Journal) -> Journal:
        """Write a change down, and carry it out."""
        self._journal.save(journal)
        return self.finish()

    def _try(self, action: Action, journal: Journal, seen: Seen) -> None:
        """What can't be done for a new container undoes the change, what can't be done for the one before ends it;
        anything else is told."""
        try:
            self.perform(action)
        except (EngineRefusedError, SnapshotError) as refusal:
            change = journal.change
            if change is None or change.target is None:
                raise
            if change.why_back is None:
                self.perform(Write(given_up(journal, seen, str(refusal))))
                return
            if change.restore is not None:
                raise  # the copy of the state waits for the next command
            ended = left_stopped(journal, str(refusal))
            self._journal.save(ended)
            raise EngineRefusedError(str(ended.failure)) from refusal

    def perform(self, action: Action) -> None:  # noqa: C901 - one line for each kind of action
        """Do one thing. To do it again changes nothing."""
        match action:
            case Create(deployment):
                self._told(f"create container {deployment.generation} of {deployment.release.reference}")
                self._engine.create(deployment)
            case Start(container):
                self._told(f"start container {container.generation}, and wait until it is healthy")
                self._engine.start(container)
            case Stop(container, in_a_hurry):
                self._told(f"stop container {container.generation}: the agent saves its training step, and leaves")
                self._engine.stop(container, min(self._stop_s, HURRY_S) if in_a_hurry else self._stop_s)
            case Remove(container):
                self._engine.remove(container)
            case TakeSnapshot(container, generation):
                self._told("copy the state")
                self._snapshots.take(generation, self._engine.read_state(container, STATE_MOUNT))
            case PutSnapshot(container, generation, then):
                self._told("put the copy of the state back")
                with self._snapshots.to_put_back(generation) as archive:
                    self._engine.write_state(container, STATE_MOUNT, archive)
                self._journal.save(then)
            case DropSnapshot(generation):
                self._snapshots.drop(generation)
            case DeleteState():
                self._engine.delete_state()
            case Write(journal):
                if journal.change and journal.change.why_back:
                    self._told(f"go back: {journal.change.why_back}")
                self._journal.save(journal)
