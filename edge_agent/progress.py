"""The few numbers that must survive a restart of the agent."""

import json
import logging
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from fedward.files import write_durably
from fedward.messages import Announcement, Control, Offer, Outcome, Receipt

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Progress:
    """Counted since the state folder was made."""

    sequence: int = 0  # of the next update: an id is never made twice
    trained_from: int | None = None  # base version of the last finished update
    num_accepted: int = 0
    num_refused: int = 0
    receipted_update: str | None = None  # the last one that was counted, hexadecimal
    base_digest: str | None = None  # of the model at `trained_from`, hexadecimal; None: not known
    epoch: int = 0  # of the coordinator, when it was last heard
    work_s: float | None = None  # time of the last finished training
    uplink_bytes_s: float | None = None  # rate of the link, by the uploads so far
    announced: int | None = None  # greatest sequence of an announcement: an older one is never acted on again
    controlled: int | None = None  # the same of a control
    paused: bool = False  # what that one says

    def after(self, offer: Offer) -> "Progress":
        """The progress once this update is in the outbox."""
        digest = offer.base_digest.hex() if offer.base_digest else None
        after = replace(self, sequence=offer.sequence + 1, trained_from=offer.base_version, base_digest=digest)
        return replace(after, work_s=offer.work_s)

    def receipted(self, receipt: Receipt, uplink_bytes_s: float | None) -> "Progress":
        """The progress once this is known of an update, and of the link; `later` counts nothing.

        An update is counted before it leaves the outbox. A crash in between brings its receipt once more: it is not
        counted again.
        """
        rated, update = replace(self, uplink_bytes_s=uplink_bytes_s), receipt.update_id.hex()
        if receipt.outcome is Outcome.LATER or update == self.receipted_update:
            return rated
        accepted = receipt.outcome is Outcome.ACCEPTED
        return replace(
            rated,
            num_accepted=self.num_accepted + accepted,
            num_refused=self.num_refused + (not accepted),
            receipted_update=update,
        )

    def trained(self, version: int, digest: bytes) -> bool:
        """Whether the last finished update was trained from this model, and not from another one of its number."""
        return self.trained_from == version and self.base_digest in (None, digest.hex())

    def hear(self, announcement: Announcement) -> "Progress":
        """The progress once this announcement was heard, which is the newest one."""
        return replace(self.in_epoch(announcement.epoch or 0), announced=announcement.sequence)

    def control(self, control: Control) -> "Progress":
        """The progress once this control was heard; the greatest sequence wins."""
        if self.controlled is not None and control.sequence <= self.controlled:
            return self
        return replace(self, controlled=control.sequence, paused=control.paused)

    def in_epoch(self, epoch: int) -> "Progress":
        """The progress once a coordinator of this epoch was heard: a restored one may have lost what it receipted."""
        if epoch <= self.epoch:
            return self
        return replace(self, epoch=epoch, trained_from=None, base_digest=None)


KNOWN = frozenset(field.name for field in fields(Progress))


class ProgressFile:
    """Progress on disk, written whole."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self, waiting: Iterable[Offer]) -> Progress:
        """What was saved, corrected by the outbox: a crash between saving an update and this leaves it behind.

        What a newer release has written beside it is left out: after a rollback the rest is as true as before.
        """
        try:
            saved = json.loads(self._path.read_text())
            progress = Progress(**{name: saved[name] for name in KNOWN.intersection(saved)})
        except FileNotFoundError:
            progress = Progress()
        except (ValueError, TypeError):
            LOG.warning("progress_unreadable")
            progress = Progress()
        for offer in waiting:
            if offer.sequence >= progress.sequence:
                progress = progress.after(offer)
        return progress

    def save(self, progress: Progress) -> None:
        write_durably(self._path, json.dumps(asdict(progress)).encode())


class SavedProgress:
    """The progress of a running agent: every change is on disk before it is seen."""

    def __init__(self, file: ProgressFile, waiting: Iterable[Offer]) -> None:
        self._file = file
        self.now = file.load(waiting)
        if self.now != file.load(()):  # its receipt will delete the update that the correction was read from
            file.save(self.now)

    def change(self, progress: Progress) -> None:
        if progress != self.now:
            self._file.save(progress)
            self.now = progress
