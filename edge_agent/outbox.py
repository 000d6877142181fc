"""Finished updates that have no receipt yet, on disk: what a hospital's GPU-hours became.

An update is saved before the first byte of it is sent, and deleted after its receipt and not before.
"""

import hashlib
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from fedward.chunks import chunk_of
from fedward.errors import PeerError
from fedward.files import sync_folder, write_all, write_durably
from fedward.limits import INLINE_BYTES
from fedward.messages import Offer
from fedward.pack import pack, unpack

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Entry:
    """A saved update: its offer as it is sent, and where its payload is."""

    offer: Offer
    payload: Path

    def offer_to_send(self, *, alone: bool = False) -> Offer:
        """The offer with the payload inside when it is small, unless the offer goes alone."""
        if alone or self.offer.manifest.size_bytes > INLINE_BYTES:
            return self.offer
        return replace(self.offer, payload=self.payload.read_bytes())

    def chunk(self, index: int) -> bytes:
        return chunk_of(self.payload, index)


class Outbox:
    """A folder with two files an update: `<id>.payload` first, then `<id>.offer`, which makes it count."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder

    def save(self, offer: Offer, chunks: Iterable[bytes | memoryview]) -> None:
        """Make the update durable; when this returns, it survives this process, and power loss."""
        write_all(self._path(offer.update_id, "payload"), chunks)
        write_durably(self._path(offer.update_id, "offer"), pack(offer))

    def entries(self) -> tuple[Entry, ...]:
        """The saved updates, oldest first."""
        ordered = sorted(self._offers(), key=lambda offer: offer.sequence)
        return tuple(Entry(offer, self._path(offer.update_id, "payload")) for offer in ordered)

    def holds(self, update_id: bytes) -> bool:
        """Whether the update is here: it has no receipt yet."""
        return self._path(update_id, "offer").exists()

    def delete(self, update_id: bytes) -> None:
        """Forget an update that has its receipt."""
        self._path(update_id, "offer").unlink()
        sync_folder(self._folder)
        self._path(update_id, "payload").unlink(missing_ok=True)

    def take_over(self) -> list[Offer]:
        """Tidy up as the folder's new owner, say what waits, and return its offers, oldest first."""
        self.tidy()
        waiting = [entry.offer for entry in self.entries()]
        for offer in waiting:
            LOG.info("waiting", extra={"update": offer.update_id.hex(), "base_version": offer.base_version})
        return waiting

    def tidy(self) -> None:
        """Drop what a crash left between the two files, and put updates that can't be sent aside, as `.unreadable`.

        Only for the process that owns the folder, before it saves: a reader that tidied up would delete a payload
        whose offer is being written.
        """
        for path in self._folder.glob("*.offer"):
            if not _is_whole(path):
                LOG.error("update_put_aside", extra={"update": path.stem})
                path.rename(path.with_suffix(".unreadable"))
        for path in self._folder.glob("*.payload"):
            if not path.with_suffix(".offer").exists() and not path.with_suffix(".unreadable").exists():
                path.unlink()
        for path in self._folder.glob(".*.part"):
            path.unlink()

    def _path(self, update_id: bytes, kind: str) -> Path:
        return self._folder / f"{update_id.hex()}.{kind}"

    def _offers(self) -> Iterator[Offer]:
        for path in self._folder.glob("*.offer"):
            try:
                yield unpack(path.read_bytes(), Offer)
            except FileNotFoundError:
                pass  # its receipt came while a reader looked
            except PeerError:
                pass  # of a newer release: `tidy` puts it aside


def _is_whole(offer: Path) -> bool:
    """Can this update be offered? One whose payload was damaged would be offered for ever."""
    try:
        manifest = unpack(offer.read_bytes(), Offer).manifest
        with offer.with_suffix(".payload").open("rb") as payload:
            return hashlib.file_digest(payload, "sha256").digest() == manifest.digest
    except (PeerError, FileNotFoundError):
        return False
