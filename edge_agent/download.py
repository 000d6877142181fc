"""One way to one announced version: the parts that lead there, collected in any order, then assembled.

The parts are chosen once; their chunks may come from the broadcast or for this site alone; what is on disk is not
asked for again, also after a restart. The digest of the whole decides. Shape letter: P parameters.
"""

from pathlib import Path

import numpy as np

from edge_agent.models import Held, ModelFolder
from fedward import topics
from fedward.chunks import ChunkFile, check_manifest
from fedward.errors import PeerError, RejectReason
from fedward.layout import Layout, vector_digest
from fedward.messages import Announcement, Chunk, Manifest, Part, PartKind, Range
from fedward.recipe import apply_part, cheapest_recipe, codec_of


class Download:
    """One download of one announced version."""

    def __init__(self, announcement: Announcement, held: Held | None, layout: Layout, folder: ModelFolder) -> None:
        """Raises PeerError when the announcement leads nowhere, before anything is asked for.

        MALFORMED: no way to the version, or a manifest that contradicts itself. UNKNOWN_CODEC, LAYOUT_MISMATCH: a
        part that could not be applied.
        """
        self.announcement = announcement
        self._held = held
        self._layout = layout
        self._folder = folder
        self._recipe = cheapest_recipe(announcement.parts, announcement.version, held.version if held else None)
        self._open: dict[bytes, ChunkFile] = {}
        for part in self._recipe:
            check_part(part, layout)
        self._drop_other_parts()
        for part in self._recipe:
            if (
                part.manifest.digest not in self._open
            ):  # two parts may be one payload: two deltas of nothing, for instance
                self._collect(part)

    def leads_to(self, announcement: Announcement) -> bool:
        """Whether this is the way to what is announced now."""
        ours = self.announcement
        return ours is announcement or (ours.version, ours.model_digest, ours.parts) == (
            announcement.version,
            announcement.model_digest,
            announcement.parts,
        )

    @property
    def complete(self) -> bool:
        return not self._open

    def filters(self) -> set[str]:
        """What to subscribe to while this download lasts."""
        federation = self.announcement.federation
        return {topics.part_chunks(federation, part.manifest.digest) for part in self._recipe}

    def manifests(self) -> list[Manifest]:
        """Of the parts whose chunks are collected, in the order of the recipe."""
        return [collected.manifest for collected in self._open.values()]

    def missing(self) -> dict[bytes, tuple[Range, ...]]:
        """The chunks that are lacked, by part, in the order of the recipe."""
        return {digest: collected.missing() for digest, collected in self._open.items()}

    def collects(self, chunk: Chunk) -> bool:
        """Whether the chunk is of a part that is not complete yet."""
        return chunk.owner in self._open

    def add(self, chunk: Chunk) -> None:
        """Take a chunk of one of the parts; chunks of others are ignored. Raises PeerError as ChunkFile does."""
        collected = self._open.get(chunk.owner)
        if collected and collected.add(chunk.index, chunk.payload) and not collected.num_missing:
            self._open.pop(chunk.owner).close()

    def assemble(self) -> Held:
        """The complete parts -> the announced version, saved. Takes the memory of one model more than the held one.

        Raises PeerError when a part can't be applied, or (DIGEST_MISMATCH) when the result is not what was
        announced. The parts are gone then; otherwise they go when the version is saved and not before.
        """
        try:
            held = self._apply_parts()
        except PeerError:
            self._drop_parts()
            raise
        self._folder.save(held)
        self._drop_parts()
        return held

    def close(self) -> None:
        """Stop collecting; the chunks stay on disk for the next download that needs them."""
        for collected in self._open.values():
            collected.close()

    def _apply_parts(self) -> Held:
        announcement = self.announcement
        # Copied where deltas are added to it: the held version stays what it is until the next one is proved.
        begins_at_held = self._held and all(part.kind is PartKind.DELTA for part in self._recipe)
        vector_P = self._held.vector_P.copy() if self._held and begins_at_held else None
        for part in self._recipe:
            payload = np.memmap(self._path(part), np.uint8, mode="r")  # read block by block, never whole
            vector_P = apply_part(vector_P, part, payload.data, self._layout)
        if vector_P is None or vector_digest(vector_P) != announcement.model_digest:
            raise PeerError(RejectReason.DIGEST_MISMATCH, f"version {announcement.version} came out wrong")
        return Held(announcement.version, announcement.model_digest, vector_P)

    def _drop_parts(self) -> None:
        for part in self._recipe:
            self._path(part).unlink(missing_ok=True)

    def _collect(self, part: Part) -> None:
        """Go on with what is on disk. Nothing there is believed but by its digest, so nothing is synced."""
        collected = ChunkFile(self._path(part), part.manifest)
        if collected.num_missing:
            self._open[part.manifest.digest] = collected
        else:
            collected.close()

    def _path(self, part: Part) -> Path:
        return self._folder.parts / part.manifest.digest.hex()

    def _drop_other_parts(self) -> None:
        needed = {self._path(part) for part in self._recipe}
        for path in self._folder.parts.iterdir():
            if path not in needed:
                path.unlink()


def check_part(part: Part, layout: Layout) -> None:
    """Raise PeerError for a part that could not be applied: UNKNOWN_CODEC, LAYOUT_MISMATCH, MALFORMED."""
    check_manifest(part.manifest)
    codec_of(part).check_size(part.manifest.size_bytes, layout)
