"""The model version that this site holds, on disk. Shape letter: P parameters."""

import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fedward.layout import Layout, Vector, vector_digest

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Held:
    """The version that this site has, exactly as announced."""

    version: int
    digest: bytes  # of the vector
    vector_P: Vector


@dataclass(frozen=True)
class _Slot:
    """A vector, and a line that says which it is."""

    vector: Path
    label: Path


class ModelFolder:
    """The held version and the one before it, and the parts of the version being fetched.

    Two slots are written in turn, each in place. The other one is whole meanwhile, so that a process that dies costs
    nothing. Nothing is synced, for a model can be fetched again and is believed by its digest: a sync of each version
    would keep training waiting for the disk. A power cut within half a minute of a save may cost that version, and
    then the one before it is taken, or a snapshot.
    """

    def __init__(self, folder: Path) -> None:
        self.parts = folder / "parts"
        self.parts.mkdir(parents=True, exist_ok=True)
        for path in folder.glob(".model.f32.*.part"):
            path.unlink(missing_ok=True)  # of an earlier release that died while it wrote a vector
        self._slots = [_Slot(folder / f"{name}.f32", folder / f"{name}.json") for name in ("model", "model-2")]

    def label(self) -> dict[str, Any]:
        """Which version is held: `version` and `digest`; empty when none is."""
        return next((label for label, _ in self._labelled()), {})

    def load(self, layout: Layout) -> Held | None:
        """What was saved last, of what is whole and of this layout.

        A slot that is not has no label from then on: `save` takes the other one for the newest, and spares it.
        """
        for label, slot in self._labelled():
            held = _read(slot, label, layout)
            if held:
                return held
            LOG.warning("held_model_unusable")  # damaged, or of another task
            slot.label.unlink()
        return None

    def save(self, held: Held) -> None:
        """In place of the version before the last one, without a label meanwhile."""
        label, newest = next(iter(self._labelled()), ({}, self._slots[-1]))
        slot = next(slot for slot in self._slots if slot != newest)
        slot.label.unlink(missing_ok=True)
        _overwrite(slot.vector, memoryview(held.vector_P.astype("<f4", copy=False).data).cast("B"))
        facts = {"version": held.version, "digest": held.digest.hex(), "saved": label.get("saved", 0) + 1}
        slot.label.write_text(json.dumps(facts))

    def forget(self) -> None:
        """Drop what is held: the next download starts from a snapshot."""
        for slot in self._slots:
            slot.label.unlink(missing_ok=True)

    def _labelled(self) -> list[tuple[dict[str, Any], _Slot]]:
        """The slots that say what they hold, the one that was saved last first."""
        labelled = [(label, slot) for slot in self._slots if (label := _label(slot))]
        return sorted(labelled, key=lambda each: -each[0].get("saved", 0))


def _label(slot: _Slot) -> dict[str, Any]:
    """What a slot says of itself; empty where it says nothing that can be read."""
    try:
        label = json.loads(slot.label.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return label if isinstance(label, dict) else {}


def _read(slot: _Slot, label: dict[str, Any], layout: Layout) -> Held | None:
    if not slot.vector.exists():
        return None
    vector_P = np.fromfile(slot.vector, "<f4").astype(np.float32, copy=False)
    digest = vector_digest(vector_P)
    if vector_P.size != layout.size or digest.hex() != label.get("digest"):
        return None
    return Held(int(label["version"]), digest, vector_P)


def _overwrite(path: Path, content: memoryview) -> None:
    """Into the blocks that the file has: it takes no room but once, and no sync of another file waits for it."""
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b") as file:
        file.write(content)
        file.truncate()
