"""What the operator wants of the federation and of its sites, and the end that the configuration names.

A wish is in the ledger before anybody follows it, so it outlives the process; `fedward coordinator pause` and the like
write one from a process of their own.
"""

import logging
from collections.abc import Mapping

from coordinator.config import FinishSettings
from coordinator.ledger import Ledger
from coordinator.tables import ALL
from fedward.messages import FederationState
from fedward.ports import Clock

LOG = logging.getLogger(__name__)

LOOK_EVERY_S = 0.5
"""How long a wish may go unseen."""


class Operation:
    """The wishes as they were seen last."""

    def __init__(self, ledger: Ledger, finish: FinishSettings, clock: Clock) -> None:
        self._ledger = ledger
        self._finish = finish
        self._clock = clock
        self._wishes = ledger.wishes()
        self._look_at_s = 0.0

    @property
    def state(self) -> FederationState:
        """What is wanted of the federation."""
        return self._wishes.get(ALL, FederationState.RUNNING)

    def of_sites(self) -> dict[str, FederationState]:
        """What is wanted of single sites, admitted or not."""
        return {target: state for target, state in self._wishes.items() if target != ALL}

    def look(self) -> bool:
        """Look for new wishes, if it is time; whether there are any."""
        if self._clock.monotonic_s() < self._look_at_s:
            return False
        self._look_at_s = self._clock.monotonic_s() + LOOK_EVERY_S
        before, self._wishes = self._wishes, self._ledger.wishes()
        return self._wishes != before

    def finish_if_done(self, version: int, *metrics: Mapping[str, float]) -> bool:
        """Turn the end that the configuration names, once it is reached, into a wish; whether it was."""
        if self.state is not FederationState.RUNNING or not is_done(self._finish, version, *metrics):
            return False
        LOG.info("finished", extra={"version": version})
        self._ledger.wish(ALL, FederationState.FINISHED, self._clock.now_s())
        self._wishes = self._ledger.wishes()
        return True


def is_done(finish: FinishSettings, version: int, *metrics: Mapping[str, float]) -> bool:
    """Whether the federation has reached what its configuration calls the end, by each of these ways to measure it."""
    if finish.version is not None and version >= finish.version:
        return True
    if finish.metric is None or finish.value is None or not metrics:
        return False
    return all(_reaches(measured.get(finish.metric), finish.metric, finish.value) for measured in metrics)


def _reaches(measured: float | None, metric: str, value: float) -> bool:
    if measured is None:
        return False
    return measured <= value if metric == "loss" else measured >= value
