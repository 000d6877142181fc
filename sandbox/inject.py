"""Carries a plan of faults out on a running federation, and brings every victim back."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from sandbox.faults import (
    BROKER,
    COORDINATOR,
    DATABASE,
    REPLACED,
    SLOW_BYTES_PER_S,
    After,
    AtMessage,
    AtStep,
    AtVersion,
    Breakage,
    Cut,
    Fault,
    Kill,
    Moment,
)
from sandbox.federation import Federation
from sandbox.logs import Log
from sandbox.postgres import PostgresServer
from sandbox.relay import Relay

POLL_S = 0.02
LOOK_S = 0.2
UP_S = 15.0
"""How long a victim may take to come up before it is struck again anyway."""

MOMENT_S = 5.0
"""A fault whose moment does not come happens after so many seconds anyway: the federation may be stuck for a while."""


@dataclass
class Injector:
    """Faults of one federation, one after the other. Several victims may be down at once."""

    running: Federation
    relays: Mapping[str, Relay]  # site -> its link
    look: Callable[[], None]  # called now and then, and just before a kill, while the victim still answers
    died: Callable[[str], None]  # told the victim of each kill
    database: PostgresServer | None = None  # that has the ledger
    done: "Counter[str]" = field(default_factory=Counter)  # what was done: a kill's target, or how a link failed
    _returns: list[tuple[float, str, Callable[[], None]]] = field(default_factory=list)  # when, who, how
    _logs: dict[str, Log] = field(default_factory=dict)  # of programs that were started and are not connected yet
    _doomed: set[str] = field(default_factory=set)  # programs that were started to die at a step
    _left: Sequence[Fault] = ()  # of the plan, from the current fault on
    _looked_at_s: float = 0.0

    def carry_out(self, plan: Sequence[Fault], until_s: float) -> None:
        """Return when every fault happened and every victim runs again, or at `until_s` of the monotonic clock."""
        for number, fault in enumerate(plan):
            self._left = plan[number:]
            victim = fault.target if isinstance(fault, Kill) else fault.site
            self._wait(lambda victim=victim: self._is_up(victim), UP_S, until_s)  # type: ignore[misc]
            self._wait(self._moment(fault.at, victim), MOMENT_S, until_s)
            if time.monotonic() > until_s:
                break
            self._strike(fault)
        self._wait(lambda: not self._returns, float("inf"), float("inf"))
        for name in sorted(self._doomed):
            self.running.kill(name)
            self.running.start(name)

    def _strike(self, fault: Fault) -> None:
        if isinstance(fault, Cut):
            self._break(fault)
            return
        self.look()
        if fault.target == BROKER:
            self.running.broker.kill()
            if fault.replaced:
                self.running.broker.replace()
                self.done[REPLACED] += 1
            back = self.running.broker.start
        elif fault.target == DATABASE and self.database:
            self.database.kill()
            back = self.database.start
        else:
            self.running.kill(fault.target)
            self._doomed.discard(fault.target)
            back = lambda: self._start(fault.target)  # noqa: E731
        self.died(fault.target)
        self.done[fault.target] += 1
        self._returns.append((time.monotonic() + fault.down_s, fault.target, back))

    def _break(self, fault: Cut) -> None:
        relay = self.relays[fault.site]
        if fault.how is Breakage.CUT:
            relay.cut()
        elif fault.how is Breakage.STALL:
            relay.stall()
        else:
            relay.throttle(SLOW_BYTES_PER_S)
        self.done[fault.how.value] += 1
        self._returns.append((time.monotonic() + fault.seconds, fault.site, relay.clear))

    def _start(self, name: str) -> None:
        """Start a program again: to die at a step, if that is what comes next for it and the step is its own."""
        self._logs[name] = self._log(name)
        at = next((fault.at for fault in self._left[1:] if isinstance(fault, Kill) and fault.target == name), None)
        if isinstance(at, AtStep):
            self._doomed.add(name)
            self.running.start(name, ("sandbox.die", at.step, at.side))
        else:
            self.running.start(name)

    def _log(self, name: str) -> Log:
        """A program's log, from now on."""
        return Log(self.running.plan.folder / "logs" / f"{name}.log", from_end=True)

    def _is_up(self, name: str) -> bool:
        """Not down, its link in order, and connected since it was started: a kill before that would test nothing."""
        if any(victim == name for _, victim, _ in self._returns):
            return False
        if name in self._logs and (self._logs[name].count("connected") or self._is_dead(name)):
            del self._logs[name]
        return name not in self._logs

    def _is_dead(self, name: str) -> bool:
        """Whether a program that was to die at a step has reached it."""
        return name in self._doomed and not self.running.children[name].alive

    def _moment(self, at: Moment, victim: str) -> Callable[[], bool]:
        """Whether the moment has come, seen from now."""
        if isinstance(at, After):
            due_s = time.monotonic() + at.seconds
            return lambda: time.monotonic() >= due_s
        if isinstance(at, AtVersion):
            return _Seen(self._log(COORDINATOR), "version", at.more, 0.0)
        if isinstance(at, AtMessage):
            relay = self.relays[at.site]
            count = relay.num_published + at.more
            return lambda: relay.num_published >= count
        if isinstance(at, AtStep):
            return lambda: victim not in self._doomed or self._is_dead(victim)
        return _Seen(self._log(at.program), at.event, 1, at.seconds)

    def _wait(self, holds: Callable[[], bool], patience_s: float, until_s: float) -> None:
        deadline_s = min(until_s, time.monotonic() + patience_s)
        while not holds() and time.monotonic() < deadline_s:
            time.sleep(POLL_S)
            self._bring_back()
            if time.monotonic() >= self._looked_at_s + LOOK_S:
                self.look()
                self._looked_at_s = time.monotonic()

    def _bring_back(self) -> None:
        now_s = time.monotonic()
        for entry in [entry for entry in self._returns if entry[0] <= now_s]:
            self._returns.remove(entry)
            entry[2]()


@dataclass
class _Seen:
    """True from `seconds` after the event was seen `times` times."""

    log: Log
    event: str
    times: int
    seconds: float
    due_s: float | None = None

    def __call__(self) -> bool:
        if self.due_s is None:
            self.times -= self.log.count(self.event)
            if self.times <= 0:
                self.due_s = time.monotonic() + self.seconds
        return self.due_s is not None and time.monotonic() >= self.due_s
