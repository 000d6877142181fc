"""A model version from the broker, verified, kept on disk.

The parts that lead to the version are chosen once; their chunks may come in any order, from the broadcast or for
this site alone; what is on disk is not asked for again, also after a restart. The digest of the whole decides.
"""

import logging
from pathlib import Path

from edge_agent.models import Held, ModelFolder
from fedward import topics
from fedward.chunks import ChunkFile
from fedward.errors import PeerError, RejectReason
from fedward.layout import Layout, vector_digest
from fedward.messages import Announcement, Chunk, Get, Part
from fedward.pack import pack
from fedward.ports import Link
from fedward.recipe import apply_part, cheapest_recipe
from fedward.topics import Up

LOG = logging.getLogger(__name__)

ASK_AGAIN_S = 4.0
"""Seconds without a new chunk after which what is missing is asked for again; doubles up to LONGEST_ASK_S."""

LONGEST_ASK_S = 60.0


class Download:
    """One download of one announced version."""

    def __init__(self, announcement: Announcement, held: Held | None, layout: Layout, folder: ModelFolder) -> None:
        """Raises PeerError (MALFORMED) when the announcement leads nowhere."""
        self.announcement = announcement
        self._held = held
        self._layout = layout
        self._folder = folder
        self._recipe = cheapest_recipe(announcement.parts, announcement.version, held.version if held else None)
        self._open: dict[bytes, ChunkFile] = {}
        self._ask_at_s = 0.0
        self._patience_s = ASK_AGAIN_S
        self._drop_other_parts()
        for part in self._recipe:
            if not self._path(part).exists():
                self._collect(part)

    @property
    def complete(self) -> bool:
        return not self._open

    def filters(self) -> set[str]:
        """What to subscribe to while this download lasts."""
        federation = self.announcement.federation
        return {topics.part_chunks(federation, part.manifest.digest) for part in self._recipe}

    def gets(self, now_s: float) -> list[Get]:
        """What to ask for now: everything that is missing, at first and whenever nothing came for a while."""
        if now_s < self._ask_at_s:
            return []
        self._ask_at_s = now_s + self._patience_s
        self._patience_s = min(2 * self._patience_s, LONGEST_ASK_S)
        return [
            Get(federation=self.announcement.federation, digest=digest, missing=collected.missing())
            for digest, collected in self._open.items()
        ]

    def ask_now(self) -> None:
        """The link is new: requests may have been lost."""
        self._ask_at_s, self._patience_s = 0.0, ASK_AGAIN_S

    def add(self, chunk: Chunk, now_s: float) -> None:
        """Take a chunk of one of the parts; chunks of others are ignored. Raises PeerError as ChunkFile does."""
        collected = self._open.get(chunk.owner)
        if collected is None or not collected.add(chunk.index, chunk.payload):
            return
        self._ask_at_s, self._patience_s = now_s + ASK_AGAIN_S, ASK_AGAIN_S
        if not collected.num_missing:
            self._finish(chunk.owner)

    def assemble(self) -> Held:
        """The complete parts -> the announced version, saved.

        Raises PeerError when a part can't be applied, or (DIGEST_MISMATCH) when the result is not what was
        announced. The parts are gone in any case.
        """
        vector_P = self._held.vector_P.copy() if self._held else None
        try:
            for part in self._recipe:
                vector_P = apply_part(vector_P, part, memoryview(self._path(part).read_bytes()), self._layout)
            if vector_P is None or vector_digest(vector_P) != self.announcement.model_digest:
                raise PeerError(RejectReason.DIGEST_MISMATCH, f"version {self.announcement.version} came out wrong")
        finally:
            for part in self._recipe:
                self._path(part).unlink(missing_ok=True)
        held = Held(self.announcement.version, vector_P)
        self._folder.save(held)
        return held

    def close(self) -> None:
        """Stop collecting; the chunks stay on disk for the next download that needs them."""
        for collected in self._open.values():
            collected.close()

    def _collect(self, part: Part) -> None:
        collected = ChunkFile(self._path(part).with_suffix(".part"), part.manifest)
        self._open[part.manifest.digest] = collected
        if not collected.num_missing:
            self._finish(part.manifest.digest)

    def _finish(self, digest: bytes) -> None:
        self._open.pop(digest).finish(self._folder.parts / digest.hex())

    def _path(self, part: Part) -> Path:
        return self._folder.parts / part.manifest.digest.hex()

    def _drop_other_parts(self) -> None:
        needed = {part.manifest.digest.hex() for part in self._recipe}
        for path in self._folder.parts.iterdir():
            if path.stem not in needed:
                path.unlink()


class Fetcher:
    """Keeps the held version up with the announced one, one download at a time."""

    def __init__(self, link: Link, site: str, folder: ModelFolder) -> None:
        self._link = link
        self._site = site
        self._folder = folder
        self._download: Download | None = None
        self._looked_on_disk = False
        self.held: Held | None = None
        self.num_fetched = 0

    def recall(self, layout: Layout) -> None:
        """Take what an earlier process left on disk, once."""
        if not self._looked_on_disk:
            self._looked_on_disk = True
            self.held = self._folder.load(layout)

    def step(self, announcement: Announcement, layout: Layout, now_s: float) -> None:
        """Go on with the download of this version; when it is complete, it is the held one.

        Raises PeerError when the announcement leads nowhere or its parts do not lead to what it promised; in the
        latter case the held version is dropped too, so that the next attempt starts from a snapshot.
        """
        if self._download is None or self._download.announcement.version != announcement.version:
            self._begin(Download(announcement, self.held, layout, self._folder))
        download = self._download
        if download is None:
            return
        if download.complete:
            self._end(download)
            return
        for get in download.gets(now_s):
            self._link.publish(topics.up(announcement.federation, self._site, Up.GET), pack(get), expiry_s=60)

    def add(self, chunk: Chunk, now_s: float) -> None:
        """Take a chunk, if it is of the version being fetched."""
        if self._download:
            self._download.add(chunk, now_s)

    def ask_now(self) -> None:
        """The link is new."""
        if self._download:
            self._download.ask_now()

    def close(self) -> None:
        """Leave what was collected for the next process."""
        if self._download:
            self._download.close()

    def _begin(self, download: Download) -> None:
        before = self._download.filters() if self._download else set()
        self.close()
        self._download = download
        if before - download.filters():
            self._link.unsubscribe(*(before - download.filters()))
        if not download.complete:
            self._link.subscribe(*download.filters())

    def _end(self, download: Download) -> None:
        self._download = None
        self._link.unsubscribe(*download.filters())
        try:
            self.held = download.assemble()
        except PeerError:
            self.held = None
            self._folder.forget()
            raise
        self.num_fetched += 1
        LOG.info("fetched", extra={"version": self.held.version})
