"""Faults as data: what dies or breaks, when, and for how long. Pure; `sandbox/inject.py` carries a plan out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from random import Random

from sandbox.steps import AGENT_STEPS, COORDINATOR_STEPS, SIDES

BROKER = "broker"
COORDINATOR = "coordinator"
DATABASE = "database"
REPLACED = "replaced"

SHARES: Mapping[str, float] = {BROKER: 0.2, COORDINATOR: 0.35}
"""Of the kills those that hit the broker and the coordinator; the agents share the rest."""

DATABASE_SHARE = 0.15
"""Of them those that hit the ledger's server, where there is one."""

TELLING: Mapping[str, Sequence[str]] = {COORDINATOR: ("accepted", "version"), "agent": ("saved",)}
"""Log events of a program after which a kill hurts: something was written that others don't know of yet."""

MOST_MESSAGES = 100
LONGEST_AFTER_S = 1.0
LONGEST_DOWN_S = 1.0
LONGEST_CUT_S = 2.0
SLOW_BYTES_PER_S = 4e6


@dataclass(frozen=True)
class After:
    """So many seconds after the fault before, or after the victim was up again if that was later."""

    seconds: float


@dataclass(frozen=True)
class AtVersion:
    """When there are so many versions more than at the fault before."""

    more: int


@dataclass(frozen=True)
class OnEvent:
    """So many seconds after the next line in this program's log that has this event."""

    program: str
    event: str
    seconds: float = 0.0


@dataclass(frozen=True)
class AtMessage:
    """When so many MQTT messages more have gone up over this site's link."""

    site: str
    more: int


@dataclass(frozen=True)
class AtStep:
    """`before` or `after` a durable step of the victim's program, named in `sandbox/steps.py`.

    The victim is started so that it dies there by itself; one that has no life left to start is killed at once.
    """

    step: str
    side: str


Moment = After | AtVersion | OnEvent | AtMessage | AtStep


@dataclass(frozen=True)
class Kill:
    """SIGKILL to a site's agent, COORDINATOR, BROKER or DATABASE, which is started again after `down_s`.

    The broker keeps nothing on disk: it comes back empty, or `replaced` by a broker of the other make.
    """

    target: str
    at: Moment
    down_s: float
    replaced: bool = False


class Breakage(StrEnum):
    """How a site's link fails."""

    CUT = "cut"  # connections end, new ones are refused
    STALL = "stall"  # half-open: nothing passes, and nobody is told
    SLOW = "slow"


@dataclass(frozen=True)
class Cut:
    """A site's link fails in one of the ways of `Breakage` for some seconds."""

    site: str
    at: Moment
    seconds: float
    how: Breakage = Breakage.CUT


Fault = Kill | Cut


def random_plan(
    rng: Random,
    sites: Sequence[str],
    kills: int,
    cuts: int = 0,
    longest_cut_s: float = LONGEST_CUT_S,
    *,
    database: bool = False,
) -> tuple[Fault, ...]:
    """So many kills and cuts in a random order: the same `rng` state gives the same plan.

    Whatever is drawn, with three kills or more each of broker, coordinator and agents dies at least once.
    """
    targets = [*(BROKER, COORDINATOR, rng.choice(sites))[:kills], *(_target(rng, sites) for _ in range(kills - 3))]
    if database:
        targets = [DATABASE if rng.random() < DATABASE_SHARE else target for target in targets]
    faults: list[Fault] = [_kill(rng, target, sites) for target in targets]
    for _ in range(cuts):
        site, how = rng.choice(sites), rng.choice(list(Breakage))
        faults.append(Cut(site, _moment(rng, site, sites), _seconds(rng, longest_cut_s), how))
    rng.shuffle(faults)
    return tuple(faults)


def _target(rng: Random, sites: Sequence[str]) -> str:
    drawn = rng.random()
    for target, share in SHARES.items():
        drawn -= share
        if drawn < 0:
            return target
    return rng.choice(sites)


def _kill(rng: Random, target: str, sites: Sequence[str]) -> Kill:
    """One of three kills of an agent or the coordinator is at a named step, one of three brokers is replaced."""
    special = rng.random() < 1 / 3
    if target == DATABASE:
        return Kill(target, _moment(rng, COORDINATOR, sites), _seconds(rng, LONGEST_DOWN_S))
    if special and target != BROKER:
        steps = COORDINATOR_STEPS if target == COORDINATOR else AGENT_STEPS
        step = rng.choice([name for name, step in steps.items() if not step.rare])
        return Kill(target, AtStep(step, rng.choice(SIDES)), _seconds(rng, LONGEST_DOWN_S))
    moment = _moment(rng, target, sites)
    return Kill(target, moment, _seconds(rng, LONGEST_DOWN_S), replaced=special)


def _moment(rng: Random, target: str, sites: Sequence[str]) -> Moment:
    """Half of the time after a while, else in the middle of an upload, or right after something was written."""
    drawn = rng.random()
    if drawn < 0.25:
        return AtMessage(rng.choice(sites), rng.randint(1, MOST_MESSAGES))
    if drawn < 0.5 or target == BROKER:
        return After(_seconds(rng, LONGEST_AFTER_S))
    if drawn < 0.6:
        return AtVersion(1)
    program = COORDINATOR if target == COORDINATOR else "agent"
    return OnEvent(target, rng.choice(TELLING[program]), round(rng.choice((0.0, rng.uniform(0.0, 0.3))), 3))


def _seconds(rng: Random, longest: float) -> float:
    return round(rng.uniform(0.05, longest), 3)
