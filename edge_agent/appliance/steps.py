"""What is to be done next to a hospital's agent, from the journal and what the engine shows. Pure.

A change (install, upgrade, rollback, uninstall) is written into the journal before anything is touched, and taken out
when it is done or undone. In between `next_action` is asked again and again, and needs to know nothing but where things
stand: a program that was killed anywhere is continued by the next one. Two containers never run at once, for the state
belongs to one.

    forward: create the new, stop the old, snapshot, start the new, prove it; settle: the new counts, the old is removed
    back:    stop the new, put the snapshot back, start the old; settle: the old counts, the new is removed
"""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

RESTARTS = 2
"""Ends of a new container, each followed by a start of the engine's, that say that it will not come up."""


PASSES = 2
"""Of the health check in a row that prove a new container: one that comes up and falls over is seen."""


class Kind(StrEnum):
    """What somebody asked for."""

    INSTALL = "install"
    UPGRADE = "upgrade"
    ROLLBACK = "rollback"
    UNINSTALL = "uninstall"


@dataclass(frozen=True)
class Release:
    """An image: its id here, how people know it, and the version that it says it is."""

    image: str
    reference: str
    version: str


@dataclass(frozen=True)
class Deployment:
    """A container as it was made or is to be made; no two of an appliance have the same generation."""

    generation: int
    release: Release
    options: dict[str, Any]

    def is_like(self, other: "Deployment | None") -> bool:
        """Whether the other one runs the same image in the same way."""
        return other is not None and (self.release.image, self.options) == (other.release.image, other.options)


@dataclass(frozen=True)
class Change:
    """What is under way, and where it is undone, `why_back`.

    `restore` is the generation whose snapshot is still to be put back before anything starts.
    """

    kind: Kind
    target: Deployment | None = None
    why_back: str | None = None
    restore: int | None = None
    delete_state: bool = False


@dataclass(frozen=True)
class Journal:
    """The appliance's memory: which container counts, which one did before, and what is under way."""

    generation: int = 0  # the newest that was ever given
    current: Deployment | None = None
    before: Deployment | None = None
    change: Change | None = None
    failure: str | None = None  # why the last change was undone


@dataclass(frozen=True)
class Container:
    """One container of ours, as the engine shows it. One for a single command has no generation."""

    id: str
    generation: int | None
    status: str  # created, running, restarting, exited, ...
    health: str | None = None  # starting, healthy, unhealthy; None: its image has no check
    exit_code: int = 0
    restarts: int = 0
    running_s: float = 0.0
    passes: int = 0  # of the health check in a row, as far back as the engine remembers

    @property
    def is_up(self) -> bool:
        """Whether it runs, or the engine is about to start it again."""
        return self.status in ("running", "restarting", "paused")


@dataclass(frozen=True)
class Seen:
    """What is there now. `snapshots` are the generations before whose first start the state was copied."""

    containers: tuple[Container, ...] = ()
    snapshots: frozenset[int] = frozenset()
    has_state: bool = False

    def of(self, deployment: Deployment | None) -> Container | None:
        """The container of a deployment; None where there is none."""
        if deployment is None:
            return None
        return next((each for each in self.containers if each.generation == deployment.generation), None)


# What can be done, one thing at a time.


@dataclass(frozen=True)
class Create:
    """Make the container; the engine makes the state's volume with it where there is none."""

    deployment: Deployment


@dataclass(frozen=True)
class Start:
    container: Container


@dataclass(frozen=True)
class Stop:
    """Ask the agent to save its step and leave, and wait until it has; one `in_a_hurry` is not given long."""

    container: Container
    in_a_hurry: bool = False


@dataclass(frozen=True)
class Remove:
    container: Container


@dataclass(frozen=True)
class TakeSnapshot:
    """Copy the state, as this container that does not run sees it, under the number of a generation."""

    container: Container
    generation: int


@dataclass(frozen=True)
class PutSnapshot:
    """Put a copy of the state back through this container that does not run, and make `then` the journal."""

    container: Container
    generation: int
    then: Journal


@dataclass(frozen=True)
class DropSnapshot:
    generation: int


@dataclass(frozen=True)
class DeleteState:
    """The volume: the model, the unsent updates, the hospital's key."""


@dataclass(frozen=True)
class Wait:
    """Nothing can be done until the engine has news."""


@dataclass(frozen=True)
class Write:
    """Make this the journal."""

    journal: Journal


@dataclass(frozen=True)
class Done:
    """Nothing is left to do."""


Action = Create | Start | Stop | Remove | TakeSnapshot | PutSnapshot | DropSnapshot | DeleteState | Wait | Write | Done


@dataclass(frozen=True)
class Verdict:
    """Whether a started container is as it should be, None while that can't be told, and why it is not."""

    is_proven: bool | None
    why: str = ""


def judge(container: Container, health_s: float) -> Verdict:
    """Of a container that was started. It has `health_s` to become healthy, and as long again to stay it."""
    if container.restarts >= RESTARTS or not container.is_up:
        return Verdict(False, f"its program ended, exit code {container.exit_code}")
    match container.status, container.health:
        case "running", "healthy" if container.passes >= PASSES:
            return Verdict(True)
        case "running", "healthy":
            health_s *= 2
        case "running", "unhealthy":
            return Verdict(False, "its health check fails")
        case "running", None:
            return Verdict(False, "its image has no health check")
    if container.running_s > health_s:
        return Verdict(False, f"it was not healthy within {health_s:g} s")
    return Verdict(None)


def next_action(journal: Journal, seen: Seen, health_s: float) -> Action:
    """The one thing to do next; `Done` when nothing is left. `health_s`: how long a new container may take."""
    change = journal.change
    if change is None:
        return _keep(journal, seen)
    if change.kind is Kind.UNINSTALL or change.target is None:
        return _take_down(journal, change, seen)
    if stray := _stray(seen, journal.current, change.target):
        return _out(stray)
    if change.why_back is None:
        return _forward(journal, change, change.target, seen, health_s)
    return _back(journal, change, change.target, seen, health_s)


def given_up(journal: Journal, seen: Seen, why: str) -> Journal:
    """The journal when its change is to be undone.

    The state is put back unless it is surely as it was: a new container that has run, or that somebody removed, may
    have changed it, and a rollback may have put an older one there, or half of it.
    """
    change = journal.change
    if change is None or change.target is None:
        raise RuntimeError("no change is under way that could be undone")
    new = seen.of(change.target)
    untouched = new is not None and new.status == "created" and change.kind is not Kind.ROLLBACK
    has_copy = journal.current is not None and change.target.generation in seen.snapshots
    restore = change.target.generation if has_copy and not untouched else None
    return replace(journal, change=replace(change, why_back=why, restore=restore))


def left_stopped(journal: Journal, why: str) -> Journal:
    """The journal when its change was undone, and the container before can't be made or started, either."""
    if journal.change is None:
        raise RuntimeError("no change is under way that could end")
    both = f"{journal.change.why_back}; the one before can't come back: {why}; no agent runs"
    return replace(journal, change=None, failure=both)


def left_over(journal: Journal, seen: Seen) -> Action | None:
    """What takes away the next container that isn't the one that counts, while no change is under way."""
    stray = _stray(seen, journal.current)
    return _out(stray) if stray else None


def unknown(journal: Journal, seen: Seen) -> Container | None:
    """A container that is newer than all that the journal tells of: it is another appliance's, or an older journal."""
    return next((each for each in seen.containers if (each.generation or 0) > journal.generation), None)


def _keep(journal: Journal, seen: Seen) -> Action:
    """Exactly the container that counts, and it runs; the snapshot that a rollback would put back, and no other."""
    if stray := _stray(seen, journal.current):
        return _out(stray)
    current = journal.current
    if old := sorted(seen.snapshots - {current.generation if current else None}):
        return DropSnapshot(old[0])
    if current is None:
        return Done()
    container = seen.of(current)
    if container is None:
        return Create(current)
    return Done() if container.is_up else Start(container)


def _forward(journal: Journal, change: Change, target: Deployment, seen: Seen, health_s: float) -> Action:
    old, new = seen.of(journal.current), seen.of(target)
    if new is None:
        return Create(target)
    if old is not None and old.is_up:
        return Stop(old)
    if new.status == "created":
        if target.generation not in seen.snapshots:
            return TakeSnapshot(new, target.generation)
        if change.restore is not None:
            return PutSnapshot(new, change.restore, _restored(journal, change))
        return Start(new)
    verdict = judge(new, health_s)
    if verdict.is_proven is None:
        return Wait()
    if not verdict.is_proven:
        return Write(given_up(journal, seen, verdict.why))
    return Write(replace(journal, current=target, before=journal.current, change=None, failure=None))


def _back(journal: Journal, change: Change, target: Deployment, seen: Seen, health_s: float) -> Action:
    old, new = seen.of(journal.current), seen.of(target)
    undone = replace(journal, change=None, failure=change.why_back)
    if new is not None and new.is_up:
        return Stop(new, in_a_hurry=True)
    if journal.current is None:
        return Write(undone)
    stopped = old or new  # the state is seen through either
    if change.restore is not None and stopped is not None and not stopped.is_up:
        return PutSnapshot(stopped, change.restore, _restored(journal, change))
    if old is None:
        return Create(journal.current)
    if not old.is_up:
        return Start(old)
    verdict = judge(old, health_s)
    if verdict.is_proven is None:
        return Wait()
    note = "" if verdict.is_proven else f"; the one before is back, and {verdict.why}, too"
    return Write(replace(undone, failure=f"{change.why_back}{note}"))


def _take_down(journal: Journal, change: Change, seen: Seen) -> Action:
    if stray := _stray(seen):
        return _out(stray)
    if change.delete_state and seen.has_state:
        return DeleteState()
    return Write(Journal(generation=journal.generation))


def _restored(journal: Journal, change: Change) -> Journal:
    return replace(journal, change=replace(change, restore=None))


def _stray(seen: Seen, *kept: Deployment | None) -> Container | None:
    """A container of ours that should not be: of another generation, or left over from a single command."""
    generations = {deployment.generation for deployment in kept if deployment}
    return next((each for each in seen.containers if each.generation not in generations), None)


def _out(container: Container) -> Action:
    return Stop(container) if container.is_up else Remove(container)
