"""A model version from the broker, verified, kept on disk. Shape letter: P parameters.

The parts that lead to the version are chosen once; their chunks may come in any order, from the broadcast or for
this site alone; what is on disk is not asked for again, also after a restart. The digest of the whole decides.
"""

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fedward import topics
from fedward.chunks import ChunkFile
from fedward.errors import PeerError, RejectReason
from fedward.files import write_durably
from fedward.layout import Layout, Vector, vector_digest
from fedward.messages import Announcement, Chunk, Get, Part
from fedward.recipe import apply_part, cheapest_recipe

LOG = logging.getLogger(__name__)

ASK_AGAIN_S = 4.0
"""Seconds without a new chunk after which what is missing is asked for again; doubles up to LONGEST_ASK_S."""

LONGEST_ASK_S = 60.0


@dataclass(frozen=True)
class Held:
    """The version that this site has, exactly as announced."""

    version: int
    vector_P: Vector


class ModelFolder:
    """The held version on disk: the vector, and a line that says which it is."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.parts = folder / "parts"
        self.parts.mkdir(exist_ok=True)
        self._vector = folder / "model.f32"
        self._label = folder / "model.json"

    def load(self, layout: Layout) -> Held | None:
        """What was saved last, if it is whole."""
        label = self.label()
        if not label or not self._vector.exists():
            return None
        vector_P = np.fromfile(self._vector, "<f4").astype(np.float32, copy=False)
        if vector_P.size != layout.size or vector_digest(vector_P).hex() != label.get("digest"):
            LOG.warning("held_model_damaged")
            return None
        return Held(int(label["version"]), vector_P)

    def label(self) -> dict[str, Any]:
        """Which version is held: `version` and `digest`; empty when none is."""
        try:
            label = json.loads(self._label.read_text())
        except (FileNotFoundError, ValueError):
            return {}
        return label if isinstance(label, dict) else {}

    def save(self, held: Held) -> None:
        """The label goes last: between the two writes the digest does not fit, and the model is fetched again."""
        write_durably(self._vector, memoryview(held.vector_P.astype("<f4", copy=False).data).cast("B"))
        label = {"version": held.version, "digest": vector_digest(held.vector_P).hex()}
        write_durably(self._label, json.dumps(label).encode())

    def forget(self) -> None:
        """Drop the held model: the next download starts from a snapshot."""
        self._label.unlink(missing_ok=True)


class Fetch:
    """One download of one announced version."""

    def __init__(self, announcement: Announcement, held: Held | None, layout: Layout, folder: ModelFolder) -> None:
        """Raises PeerError (MALFORMED) when the announcement leads nowhere."""
        self.announcement = announcement
        self._held = held
        self._layout = layout
        self._folder = folder
        recipe = cheapest_recipe(announcement.parts, announcement.version, held.version if held else None)
        self._recipe: tuple[Part, ...] = recipe
        self._open: dict[bytes, ChunkFile] = {}
        self._ask_at_s = 0.0
        self._patience_s = ASK_AGAIN_S
        self._drop_other_parts()
        for part in recipe:
            if not self._path(part).exists():
                self._collect(part)

    @property
    def complete(self) -> bool:
        return not self._open

    def filters(self) -> tuple[str, ...]:
        """What to subscribe to while this download lasts."""
        federation = self.announcement.federation
        return tuple(topics.part_chunks(federation, part.manifest.digest) for part in self._recipe)

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
        self._ask_at_s = 0.0

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

        Raises PeerError (DIGEST_MISMATCH) when the result is not what was announced; the parts are gone then.
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
