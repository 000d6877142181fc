"""What the coordinator wants of this site: the newest announcement that is allowed here, and the newest control."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from edge_agent.config import SiteConfig
from edge_agent.permission import Permission
from edge_agent.progress import SavedProgress
from fedward.codec import CODECS
from fedward.errors import PeerError, RejectReason
from fedward.layout import Layout
from fedward.messages import Announcement, Control

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class News:
    """What is new about an announcement, beside its version."""

    coordinator: bool  # a process of it that may have missed what we sent
    epoch: bool  # the numbers of versions stand for other models, and what was receipted may be lost
    work: bool


class Announced:
    """State, not commands: whatever is older than what was heard last changes nothing, also after a restart."""

    def __init__(
        self, config: SiteConfig, layouts: Mapping[str, Layout], progress: SavedProgress, permission: Permission
    ) -> None:
        self._config = config
        self._layouts = layouts  # of the configured tasks
        self._progress = progress
        self._permission = permission
        self._heard_newest = False
        self._last: Announcement | None = None
        self._sound: Announcement | None = None

    @property
    def newest(self) -> Announcement | None:
        """What to act on; None when there is none, or it is refused, for now or for good."""
        return self._sound if self._permission.permitted else None

    @property
    def paused_here(self) -> bool:
        """The coordinator's wish for this site. One from before its ledger was restored is of another life."""
        now = self._progress.now
        return now.paused and now.controlled is not None and now.controlled >= now.epoch

    def hear(self, announcement: Announcement) -> News | None:
        """Take an announcement in; None when it is not news. One that is refused ends the work on the one before.

        Raises PeerError as `check_announcement` does. What the policy refuses is news: it may be allowed later.
        """
        if not self._is_newest(announcement.sequence):
            return None
        before, last, self._heard_newest = self._progress.now, self._last, True
        self._progress.change(before.hear(announcement))
        self._last, self._sound = announcement, None
        if announcement.federation == self._config.federation:
            self._permission.hear(announcement)
        check_announcement(announcement, self._config.federation, self._layouts, seals=bool(self._config.identity))
        self._sound = announcement
        LOG.info("announced", extra={"version": announcement.version, "state": announcement.state})
        return News(
            coordinator=last is None or last.boot_id != announcement.boot_id,
            epoch=self._progress.now.epoch > before.epoch,
            work=last is not None and last.work != announcement.work,
        )

    def control(self, control: Control) -> None:
        """Take a control in, unless it is older than one that was heard."""
        self._progress.change(self._progress.now.control(control))

    def leads_nowhere(self, version: int) -> None:
        """This version can't be had as it was announced: wait for another announcement, if none has come since."""
        if self._sound and self._sound.version == version:
            self._sound = None

    def _is_newest(self, sequence: int) -> bool:
        """Also where a broker went back to an old state. Every process takes the newest one once."""
        newest = self._progress.now.announced
        if newest is None or sequence > newest:
            return True
        if sequence < newest:
            LOG.warning("announcement_out_of_date", extra={"sequence": sequence, "newest": newest})
        return sequence == newest and not self._heard_newest


def check_announcement(
    announcement: Announcement, federation: str, layouts: Mapping[str, Layout], *, seals: bool = False
) -> None:
    """Can this site do what is announced? `layouts` are those of the configured tasks; one that `seals` needs a key.

    Raises PeerError: WRONG_FEDERATION, TASK_NOT_ALLOWED, MALFORMED, UNKNOWN_CODEC, LAYOUT_MISMATCH.
    """
    if announcement.federation != federation:
        raise PeerError(RejectReason.WRONG_FEDERATION, "an announcement of another federation")
    if announcement.task not in layouts:
        raise PeerError(
            RejectReason.TASK_NOT_ALLOWED,
            f"the federation asks for task {announcement.task}; allowed here: {', '.join(layouts)}",
        )
    if seals and announcement.sealing_key is None:
        raise PeerError(RejectReason.MALFORMED, "no key to seal updates with, and this site sends none unsealed")
    if announcement.codec not in CODECS:
        raise PeerError(RejectReason.UNKNOWN_CODEC, f"codec {announcement.codec}; known here: {', '.join(CODECS)}")
    if announcement.layout_digest != layouts[announcement.task].digest:
        raise PeerError(RejectReason.LAYOUT_MISMATCH, "the installed task's model is not the federation's")
