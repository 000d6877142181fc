"""How far back the coordinator's state reaches: payloads down to the floor, rows further, and nothing older.

The floor is recorded before a blob is deleted, and rows are deleted long after their payloads, a few versions at a
time, so that nobody waits for it. A crash in between leaves blobs that nothing needs; the next process deletes them at
its start. See docs/adr/0005.
"""

import logging

from coordinator.blobs import BlobFolder
from coordinator.config import RetentionSettings
from coordinator.ledger import Ledger
from coordinator.needed import STATE_EVERY
from coordinator.pruning import RowChangedError
from fedward.errors import ConfigError

LOG = logging.getLogger(__name__)

LARGEST_CUT = 25
"""Versions whose rows are deleted in one transaction, at most: a fraction of a second with a hundred sites."""


class Retention:
    """Deletes what the policy does not keep."""

    def __init__(self, ledger: Ledger, blobs: BlobFolder, settings: RetentionSettings) -> None:
        self._ledger = ledger
        self._blobs = blobs
        self._settings = settings
        self.floor = ledger.floor
        """The oldest version that can be replayed and exported."""
        self.row_changed = False
        """Whether no more rows are deleted by this process, because an old one is not as it was written."""

    def begin(self) -> None:
        """At the start of the process: apply the policy to payloads, and delete what a crash left behind."""
        self._raise_floor(self._newest())
        self._sweep()

    def apply(self) -> None:
        """After a version was made: mostly nothing; deletes payloads once in STATE_EVERY versions, rows more rarely."""
        if self._raise_floor(self._newest()):
            self._sweep()
        self.cut()

    def cut(self) -> None:
        """Delete the rows of the oldest versions, where enough are too old: of LARGEST_CUT at most, in a fraction of a
        second. What is left over is for the next calls, after a version or when there is nothing else to do.

        The snapshot that leads to the floor has its rows too, however old it is. A row that is not as it was written is
        evidence: it is told once, nothing more is deleted, and the work goes on.
        """
        if self.row_changed:
            return
        first_kept = min(self._newest() + 1 - self._settings.records, self._ledger.reach)
        oldest = self._ledger.oldest_version()
        if first_kept - oldest >= max(1, min(LARGEST_CUT, self._settings.records // 10)):
            self._cut_before(min(first_kept, oldest + LARGEST_CUT))

    def _newest(self) -> int:
        newest = self._ledger.newest_version()
        if newest is None:
            raise RuntimeError("Versions.begin() comes first")
        return newest.version

    def _raise_floor(self, newest: int) -> bool:
        """To the newest version that is old enough and whose state is stored; False where there is none."""
        last = newest - self._settings.versions
        for version in range(last - last % STATE_EVERY, self.floor, -STATE_EVERY):
            if self._blobs.path(self._ledger.version(version).state_digest).exists():
                self._ledger.raise_floor(version)
                self.floor = version
                LOG.info("floor", extra={"version": version})
                return True
        return False

    def _sweep(self) -> None:
        """Delete every blob that no row needs.

        That of an update which a crash kept from its row still has its name among the uploads, and becomes one again.
        """
        for digest in self._blobs.digests() - self._ledger.blobs().keys():
            self._delete(digest)

    def _delete(self, digest: bytes) -> None:
        self._blobs.drop(digest)

    def _cut_before(self, first_version: int) -> None:
        try:
            self._ledger.prune(first_version)
        except RowChangedError as error:
            self.row_changed = True
            LOG.error("rows_not_deleted", extra={"detail": str(error)})
        else:
            LOG.info("rows_deleted", extra={"before_version": first_version})


def check_kept(ledger: Ledger, version: int, asked: str) -> None:
    """Raise ConfigError when the payloads of `version` were deleted; `asked` is what was asked for, in its words."""
    floor = ledger.floor
    if 0 <= version < floor:
        raise ConfigError(
            f"{asked}: the oldest version that is still there is {floor}; what older ones were made of was deleted "
            "(retention.versions), and may be found in a backup"
        )
