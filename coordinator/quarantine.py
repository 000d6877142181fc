"""Quarantine: a site that sends one outlier after the other does not count any more until a person has looked.

Who is in it follows from the ledger alone: the ends of the site's newest updates, and the operator's last verdict. So
nothing is written when a site falls into it, and no crash can come in between. Its updates are refused with a reason of
its own, and their norms recorded: whoever decides sees whether the site's pipeline was mended meanwhile.
"""

import logging
from collections.abc import Iterable, Sequence

from coordinator.ledger import Ledger
from coordinator.tables import StoredUpdate, StoredVerdict, Verdict
from coordinator.verdicts import IN_A_ROW, JUDGED
from fedward.errors import RejectReason

LOG = logging.getLogger(__name__)

LOOK_EVERY_S = 0.5
"""How long a verdict may go unseen."""


def is_held(verdict: Verdict | None, ends: Sequence[str | None]) -> bool:
    """Whether a site is in quarantine: `ends` are those of its newest IN_A_ROW judged updates since the verdict."""
    return verdict is Verdict.REFUSED or (len(ends) == IN_A_ROW and None not in ends)


class Quarantine:
    """Which of the admitted sites are in it now."""

    def __init__(self, ledger: Ledger, sites: Iterable[str]) -> None:
        self._ledger = ledger
        self._sites = tuple(sites)
        self._verdicts = ledger.verdicts()
        self._look_at_s = 0.0
        self.held = frozenset(site for site in self._sites if self._is_held(site))
        """Replaced, never changed in place."""

    def look(self, monotonic_s: float) -> None:
        """Look for new verdicts of the operator, if it is time."""
        if monotonic_s < self._look_at_s:
            return
        self._look_at_s = monotonic_s + LOOK_EVERY_S
        before, self._verdicts = self._verdicts, self._ledger.verdicts()
        if self._verdicts != before:
            self._set(frozenset(site for site in self._sites if self._is_held(site)))

    def on_update(self, row: StoredUpdate) -> None:
        """An update had its end, and is in the ledger."""
        if row.reason == RejectReason.OUTLIER and self._is_held(row.site):
            self._set(self.held | {row.site})

    def _set(self, held: frozenset[str]) -> None:
        before, self.held = self.held, held
        for site in sorted(held ^ before):
            LOG.warning("quarantine", extra={"site": site, "held": site in held})

    def _is_held(self, site: str) -> bool:
        verdict: StoredVerdict | None = self._verdicts.get(site)
        since = verdict.after_number if verdict else 0
        rows = self._ledger.judged(site, since, JUDGED, IN_A_ROW)
        return is_held(verdict.verdict if verdict else None, [row.reason for row in rows])
