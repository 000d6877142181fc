"""Updates on their way in: the offer that was granted, and the file that collects its chunks.

Lost when the process dies, but for the files: the agent offers again, and what is on disk need not travel twice.
"""

from dataclasses import dataclass
from pathlib import Path

from fedward.chunks import ChunkFile
from fedward.errors import PeerError, RejectReason
from fedward.limits import CHUNK_BYTES
from fedward.messages import Chunk, Offer


@dataclass
class Upload:
    """One update being uploaded."""

    site: str
    offer: Offer
    collected: ChunkFile

    def take_inline(self) -> None:
        """Take the payload that rode inside the offer. Raises PeerError (DIGEST_MISMATCH)."""
        payload = self.offer.payload or b""
        for start in range(0, len(payload), CHUNK_BYTES):
            self.collected.add(start // CHUNK_BYTES, payload[start : start + CHUNK_BYTES])


class Uploads:
    """The open uploads: one a site, because a site holds one finished update at a time."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._open: dict[str, Upload] = {}
        self.num_received = 0
        self.num_useful = 0
        """Of the received chunks those that were not held yet; the others came twice, or when no upload was open."""

    def open(self, site: str, offer: Offer) -> Upload:
        """The upload of this offer; one of another update of the same site is dropped: the agent gave it up."""
        upload = self._open.get(site)
        if upload and upload.offer.update_id != offer.update_id:
            self.abandon(site, upload.offer.update_id)
            upload = None
        if upload is None:
            path = self._folder / f"{site}.{offer.update_id.hex()}"
            for abandoned in self._folder.glob(f"{site}.*"):
                if abandoned != path:
                    abandoned.unlink()
            upload = Upload(site, offer, ChunkFile(path, offer.manifest))
            self._open[site] = upload
        return upload

    def find(self, site: str, update_id: bytes) -> Upload:
        """Raises PeerError (NOT_OFFERED) for chunks of an update that is not open."""
        upload = self._open.get(site)
        if upload is None or upload.offer.update_id != update_id:
            raise PeerError(RejectReason.NOT_OFFERED, "a chunk of an update that is not being uploaded")
        return upload

    def add(self, site: str, chunk: Chunk) -> Upload:
        """Take a chunk of an open upload. Raises PeerError as `find` and `ChunkFile.add` do."""
        self.num_received += 1
        upload = self.find(site, chunk.owner)
        self.num_useful += upload.collected.add(chunk.index, chunk.payload)
        return upload

    def end(self, upload: Upload) -> None:
        """Forget an upload whose file has become a blob."""
        self._open.pop(upload.site, None)

    def abandon(self, site: str, update_id: bytes) -> None:
        """Forget an update that was refused and delete what was collected of it; nothing if it was not open."""
        upload = self._open.get(site)
        if upload and upload.offer.update_id == update_id:
            del self._open[site]
            upload.collected.drop()

    def close(self) -> None:
        """Leave every file for the next process."""
        for upload in self._open.values():
            upload.collected.close()
        self._open.clear()
