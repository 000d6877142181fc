"""What the agent does next, from where it stands: pure rules over one value, asked again after every event.

Nothing depends on which event came before, so an event that was lost or came twice changes nothing.
"""

from dataclasses import dataclass

from fedward.messages import FederationState, Phase


@dataclass(frozen=True)
class Situation:
    """Where the agent stands. Versions are None where there is none."""

    announced: int | None  # the newest announced version that the policy allows
    state: FederationState | None  # of the federation
    paused_here: bool  # the coordinator's wish for this site
    held: int | None  # the version on disk
    evaluated: int | None  # the held version, once it was measured
    trained_from: int | None  # the base of the last finished update
    failed_at: int | None  # the version at which training failed: not tried again before the next one
    repeat_base: bool
    computing: bool  # the compute thread has a job
    assembling: bool  # and that job makes a version: of a complete download, or version 0
    training: bool  # or trains
    outbox: bool  # a finished update waits for its receipt
    full: bool  # no room on the disk for another version and another update


def wants_fetch(now: Situation) -> bool:
    """Fetch the announced version, unless a job is running on the held one or there is no room for it."""
    return now.announced is not None and now.held != now.announced and not now.computing and not now.full


def wants_evaluation(now: Situation) -> bool:
    """Measure each version that is held, also the last one of a finished federation."""
    return _settled(now) and now.evaluated != now.held


def wants_training(now: Situation) -> bool:
    """Train from the newest version: one finished update at a time, once a version unless `repeat_base`."""
    return (
        _settled(now)
        and now.state is FederationState.RUNNING
        and not now.paused_here
        and not now.outbox
        and not now.full
        and now.failed_at != now.held
        and (now.repeat_base or now.trained_from != now.held)
    )


def can_still_count(base: int, announced: int, max_staleness: int, state: FederationState) -> bool:
    """Is an unfinished update from version `base` worth resuming? What was begun is finished, also in a pause."""
    return state is not FederationState.FINISHED and 0 <= announced - base <= max_staleness


def _settled(now: Situation) -> bool:
    return now.held is not None and now.held == now.announced and not now.computing


def fetches(now: Situation) -> bool:
    """Is the announced version on its way?"""
    return now.assembling or wants_fetch(now)


PHASES = (
    (Phase.TRAINING, lambda now: now.training),
    (Phase.PUBLISHING, lambda now: now.outbox),
    (Phase.FULL, lambda now: now.full),
    (Phase.FETCHING, fetches),
    (Phase.PAUSED, lambda now: now.paused_here or now.state is FederationState.PAUSED),
    (Phase.FAILED, lambda now: now.failed_at is not None and now.failed_at == now.held),
    (Phase.IDLE, lambda _now: True),
)
"""What people are told, by the first rule that holds."""


def phase(now: Situation) -> Phase:
    return next(phase for phase, holds in PHASES if holds(now))
