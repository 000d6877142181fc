"""The buffer and its deadline: when the accepted updates become a version."""

import logging
from collections.abc import Sequence

from coordinator.clock import Moment
from coordinator.engine.buffer import buffer_size
from coordinator.engine.norms import waits_for_norms
from coordinator.engine.rates import Arrival
from coordinator.engine.rounds import LONGEST_DEADLINE_S, flush_after_s, flush_at_s, is_ready
from coordinator.engine.settings import EngineSettings
from coordinator.engine.weigh import weights
from coordinator.ledger import Ledger
from coordinator.making import arrival_of
from coordinator.members import Members
from coordinator.tables import StoredUpdate
from coordinator.versions import Versions

LOG = logging.getLogger(__name__)


class Aggregator:
    """Asks the engine's rules whether the buffer is ready, and has the version made."""

    def __init__(self, ledger: Ledger, versions: Versions, members: Members, settings: EngineSettings) -> None:
        self._versions = versions
        self._members = members
        self._settings = settings
        self._buffer: list[StoredUpdate] = list(ledger.buffered())
        self._have_delivered = {site for site, _ in ledger.recent_norms()}

    def __len__(self) -> int:
        """Accepted updates since the last version."""
        return len(self._buffer)

    @property
    def size(self) -> int:
        """Updates that make a version now."""
        return buffer_size(self._settings, len(self._members.active(self._settings.barrier)))

    @property
    def usual_size(self) -> int:
        """The same if all admitted sites were there."""
        return buffer_size(self._settings, len(self._members.admitted()))

    def add(self, row: StoredUpdate) -> None:
        """Take an accepted update, which is in the ledger already."""
        self._buffer.append(row)
        self._have_delivered.add(row.site)

    def due_s(self, own_s: float) -> float | None:
        """When a version is made of what is there, by the federation's clock; None while the buffer is empty."""
        return flush_at_s(self._arrivals(), self._deadline_s(own_s))

    def make_if_ready(self, at: Moment) -> Sequence[StoredUpdate]:
        """Fold the buffer into a version and persist it, if it is time; returns what was folded."""
        if not self._is_ready(at.own_s):
            return ()
        base = self._versions.current.version
        shares = weights(self._arrivals(), base, self._members.rates, self._settings, self.size, at.own_s)
        self._versions.make(self._buffer, shares, at.wall_s)
        for row, weight in zip(self._buffer, shares, strict=True):
            self._members.on_folded(row, base - row.base_version, weight)
        numbers = [row.number for row in self._buffer]
        LOG.info("version", extra={"version": base + 1, "updates": len(numbers), "numbers": numbers})
        folded, self._buffer = self._buffer, []
        return folded

    def _is_ready(self, own_s: float) -> bool:
        if self._waits_for_norms():
            due_s = self.due_s(own_s)
            return due_s is not None and own_s >= due_s
        active = self._members.active(self._settings.barrier)
        return is_ready(self._arrivals(), self._settings, active, self._deadline_s(own_s), own_s)

    def _deadline_s(self, own_s: float) -> float:
        """How long a buffer is waited for. One that waits for norms has few training times to go by, and no other."""
        if self._waits_for_norms() and self._settings.flush_after_s is None:
            return LONGEST_DEADLINE_S
        return flush_after_s(self._settings, self.size, self._members.rates, own_s)

    def _waits_for_norms(self) -> bool:
        active = self._members.active(self._settings.barrier)
        return waits_for_norms(len(self._have_delivered), len(active), self._settings)

    def _arrivals(self) -> list[Arrival]:
        return [arrival_of(row) for row in self._buffer]
