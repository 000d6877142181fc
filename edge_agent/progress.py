"""The few numbers that must survive a restart of the agent."""

import json
import logging
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from fedward.files import write_durably
from fedward.messages import Offer

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Progress:
    """Counted since the state folder was made."""

    sequence: int = 0  # of the next update: an id is never made twice
    trained_from: int | None = None  # base version of the last finished update
    num_accepted: int = 0
    num_refused: int = 0

    def after(self, offer: Offer) -> "Progress":
        """The progress once this update is in the outbox."""
        return replace(self, sequence=offer.sequence + 1, trained_from=offer.base_version)


class ProgressFile:
    """Progress on disk, written whole."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self, waiting: Iterable[Offer]) -> Progress:
        """What was saved, corrected by the outbox: a crash between saving an update and this leaves it behind."""
        try:
            progress = Progress(**json.loads(self._path.read_text()))
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
