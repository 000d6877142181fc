"""The model version that this site holds, on disk. Shape letter: P parameters."""

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fedward.files import write_durably
from fedward.layout import Layout, Vector, vector_digest

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Held:
    """The version that this site has, exactly as announced."""

    version: int
    digest: bytes  # of the vector
    vector_P: Vector


class ModelFolder:
    """The held version: the vector, a line that says which it is, and the parts of the version being fetched."""

    def __init__(self, folder: Path) -> None:
        self.parts = folder / "parts"
        self.parts.mkdir(parents=True, exist_ok=True)
        self._vector = folder / "model.f32"
        self._label = folder / "model.json"

    def label(self) -> dict[str, Any]:
        """Which version is held: `version` and `digest`; empty when none is."""
        try:
            label = json.loads(self._label.read_text())
        except (FileNotFoundError, ValueError):
            return {}
        return label if isinstance(label, dict) else {}

    def load(self, layout: Layout) -> Held | None:
        """What was saved last, if it is whole and of this layout."""
        label = self.label()
        if not label or not self._vector.exists():
            return None
        vector_P = np.fromfile(self._vector, "<f4").astype(np.float32, copy=False)
        digest = vector_digest(vector_P)
        if vector_P.size != layout.size or digest.hex() != label.get("digest"):
            LOG.warning("held_model_unusable")  # damaged, or of another task
            return None
        return Held(int(label["version"]), digest, vector_P)

    def save(self, held: Held) -> None:
        """The label goes last: between the two writes the digest does not fit, and the model is fetched again."""
        write_durably(self._vector, memoryview(held.vector_P.astype("<f4", copy=False).data).cast("B"))
        label = {"version": held.version, "digest": held.digest.hex()}
        write_durably(self._label, json.dumps(label).encode())

    def tidy(self) -> None:
        """Drop what crashes left half-written, each as large as the model. Only for the folder's owner."""
        for path in self._vector.parent.glob(".*.part"):
            path.unlink()

    def forget(self) -> None:
        """Drop the held version: the next download starts from a snapshot."""
        self._label.unlink(missing_ok=True)
