"""Updates on their way in: the offer that was granted, and the file that collects its chunks.

Lost when the process dies, but for the files: the agent offers again, and what is on disk need not travel twice.
"""

from dataclasses import dataclass
from pathlib import Path

from fedward.chunks import ChunkFile
from fedward.errors import PeerError, RejectReason
from fedward.messages import Offer


@dataclass
class Upload:
    """One update being uploaded."""

    site: str
    offer: Offer
    collected: ChunkFile


class Uploads:
    """The open uploads: one a site, because a site holds one finished update at a time."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._open: dict[str, Upload] = {}

    def open(self, site: str, offer: Offer) -> Upload:
        """The upload of this offer; one of another update of the same site is dropped: the agent gave it up."""
        upload = self._open.get(site)
        if upload and upload.offer.update_id != offer.update_id:
            self.drop(upload)
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

    def end(self, upload: Upload) -> None:
        """Forget an upload whose file has become a blob."""
        self._open.pop(upload.site, None)

    def drop(self, upload: Upload) -> None:
        """Forget an upload and delete what was collected."""
        self._open.pop(upload.site, None)
        upload.collected.drop()
