"""Updates on their way in: the offer that was granted, and the file that collects its chunks.

Both outlive the process. The broker still holds chunks that were under way when it died, and delivers them to the next
one before any site could offer again: the upload that they belong to is found by its files.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from fedward.chunks import ChunkFile
from fedward.errors import PeerError, RejectReason
from fedward.files import write_durably
from fedward.identity.sealing import SEGMENT_BYTES, Seal
from fedward.limits import CHUNK_BYTES
from fedward.messages import Chunk, Offer, Range
from fedward.pack import pack, unpack

SealOf = Callable[[Offer], Seal]
"""How the payload of an offer was sealed. Raises PeerError (CANNOT_OPEN) for what no payload was sealed with."""


@dataclass
class Upload:
    """One update being uploaded."""

    site: str
    offer: Offer
    collected: ChunkFile

    def missing(self) -> tuple[Range, ...]:
        """What to ask for; empty when complete."""
        return self.collected.missing()

    def is_complete(self) -> bool:
        return self.collected.num_missing == 0

    def take_inline(self, payload: bytes) -> None:
        """Take the payload that rode inside the offer. Raises PeerError as `ChunkFile.add` does."""
        for start in range(0, len(payload), CHUNK_BYTES):
            self.add(start // CHUNK_BYTES, payload[start : start + CHUNK_BYTES])

    def add(self, index: int, payload: bytes) -> bool:
        """Take a chunk; False if it was here already. Raises PeerError as `ChunkFile.add` does."""
        return self.collected.add(index, payload)


class Uploads:
    """The open uploads: one a site, because a site holds one finished update at a time."""

    def __init__(self, folder: Path, seal_of: SealOf | None = None) -> None:
        """`seal_of` is None where payloads come as they are."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._seal_of = seal_of
        self._opened = memoryview(bytearray(SEGMENT_BYTES)) if seal_of else None
        self._open: dict[str, Upload] = {}
        self.num_received = 0
        self.num_useful = 0
        """Of the received chunks those that were not held yet; the others came twice, or when no upload was open."""

    def open(self, site: str, offer: Offer) -> Upload:
        """The upload of this offer, with all that is here of it already. The names of its files are durable then.

        One of another update of the same site is dropped: the agent gave it up. So is one of the same update with
        another manifest: the site lost what it had and trained again. Raises PeerError (DIGEST_MISMATCH) for a payload
        inside the offer that is not the promised one.
        """
        upload = self._open.get(site)
        if upload is None or not _is_same(upload.offer, offer):
            upload = self._begin(site, offer)
        if offer.payload is not None:
            upload.take_inline(offer.payload)
        elif not _is_same(_read(self._offer_path(upload)), offer):
            write_durably(self._offer_path(upload), pack(offer))
        return upload

    def find(self, site: str, update_id: bytes) -> Upload:
        """The upload that a chunk belongs to. Raises PeerError (NOT_OFFERED) when there is none."""
        upload = self._open.get(site)
        if upload and upload.offer.update_id == update_id:
            return upload
        offer = _read(self._folder / f"{site}.{update_id.hex()}.offer")
        if offer is None:
            raise PeerError(RejectReason.NOT_OFFERED, "a chunk of an update that is not being uploaded")
        return self._begin(site, offer)

    def add(self, site: str, chunk: Chunk) -> Upload:
        """Take a chunk of an open upload. Raises PeerError as `find` and `ChunkFile.add` do."""
        self.num_received += 1
        upload = self.find(site, chunk.owner)
        self.num_useful += upload.add(chunk.index, chunk.payload)
        return upload

    def sync(self) -> None:
        """Make all chunks that were taken survive power loss: one fsync for each file that has new ones."""
        for upload in self._open.values():
            upload.collected.sync()

    def tidy(self, sites: Collection[str]) -> None:
        """Delete what belongs to no site of these, what a crash left half-written, and offers that can't be read.

        At the start of the process: an offer of another release, or a damaged one, is made again by its site.
        """
        for path in self._folder.iterdir():
            unreadable = path.suffix == ".offer" and _read(path) is None
            if unreadable or path.name.split(".")[0] not in sites:  # a name that begins with a dot: half-written
                path.unlink()

    def end(self, upload: Upload) -> None:
        """Forget an upload that is in the ledger, and with it all that was collected."""
        self._open.pop(upload.site, None)
        upload.collected.drop()
        self._offer_path(upload).unlink(missing_ok=True)

    def abandon(self, site: str, update_id: bytes) -> None:
        """Forget an update that was refused, and all that was collected of it, also by an earlier process."""
        upload = self._open.get(site)
        if upload and upload.offer.update_id == update_id:
            self.end(upload)
        for name in (f"{site}.{update_id.hex()}", f"{site}.{update_id.hex()}.offer"):
            (self._folder / name).unlink(missing_ok=True)

    def close(self) -> None:
        """Leave every file for the next process."""
        for upload in self._open.values():
            upload.collected.close()
        self._open.clear()

    def _begin(self, site: str, offer: Offer) -> Upload:
        """Open the files of an update, and delete those of the site's other ones."""
        previous = self._open.pop(site, None)
        if previous:
            previous.collected.close()
        path = self._folder / f"{site}.{offer.update_id.hex()}"
        for found in self._folder.glob(f"{site}.*"):
            if found.stem != path.name and found != path:
                found.unlink()
        seal = self._seal_of(offer) if self._seal_of else None
        upload = self._open[site] = Upload(site, offer, ChunkFile(path, offer.manifest, seal, self._opened))
        return upload

    def _offer_path(self, upload: Upload) -> Path:
        return self._folder / f"{upload.site}.{upload.offer.update_id.hex()}.offer"


def _is_same(known: Offer | None, offer: Offer) -> bool:
    """Whether both promise the same bytes for the same update."""
    return known is not None and (known.update_id, known.manifest) == (offer.update_id, offer.manifest)


def _read(path: Path) -> Offer | None:
    """A kept offer; None when there is none, or it is damaged or of another release."""
    try:
        return unpack(path.read_bytes(), Offer)
    except (FileNotFoundError, PeerError):
        return None
