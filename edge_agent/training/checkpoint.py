"""Training in progress, on disk: after a crash or a restart the same update goes on where it was.

One safetensors file: nothing in it is code. It carries the base vector too, so that an update can be finished though
the agent holds a newer version by then. Shape letter: P parameters.
"""

import errno
import hashlib
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from edge_agent.training.snapshot import Snapshot
from fedward.disk import has_room
from fedward.files import write_durably
from fedward.layout import Vector
from fedward.messages import Work

LOG = logging.getLogger(__name__)

BASE, LOSSES, LABEL, DIGEST = "base", "losses", "label", "digest"


@dataclass(frozen=True)
class Order:
    """Which update is in training: all that tells it from another one. Ids and digests in hexadecimal.

    The codec does not: it is used only when all steps are done, and another may be chosen until then.
    """

    update_id: str
    task: str
    version: int
    layout_digest: str
    work: Work
    codec: str = field(compare=False)


@dataclass(frozen=True)
class Checkpoint:
    """An update in training: its order, the (P,) float32 base vector, and how far it has come."""

    order: Order
    vector_P: Vector
    snapshot: Snapshot


@dataclass(frozen=True)
class _Label:
    """What of a checkpoint is not a tensor."""

    order: Order
    work_s: float
    values: dict[str, Any]


class CheckpointFile:
    """At most one checkpoint, replaced as a whole; `interval_s` is what a crash may cost at most."""

    def __init__(self, folder: Path, interval_s: float) -> None:
        self.interval_s = interval_s
        self._folder = folder
        self._path = folder / "checkpoint.safetensors"

    def save(self, checkpoint: Checkpoint) -> None:
        """Make it durable in place of the one before. A disk that fails costs the checkpoint, not the training."""
        snapshot = checkpoint.snapshot
        label = json.dumps(asdict(_Label(checkpoint.order, snapshot.work_s, snapshot.values)))
        tensors = {
            **snapshot.tensors,
            BASE: torch.tensor(checkpoint.vector_P),
            LOSSES: torch.tensor(snapshot.losses, dtype=torch.float64),
        }
        content = save(tensors, {LABEL: label, DIGEST: digest_of(label, tensors)})
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            if not has_room(self._folder, len(content)):  # what is left is for the update and for what counts it
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            write_durably(self._path, content)
        except OSError as error:
            LOG.error("checkpoint_not_saved", extra={"problem": error.strerror})

    def load(self) -> Checkpoint | None:
        """What was saved last; None when there is none, or it is damaged, which puts it aside."""
        try:
            return read(self._path)
        except FileNotFoundError:
            return None
        except (OSError, SafetensorError, ValueError, KeyError):
            LOG.error("checkpoint_damaged")
            self._path.replace(self._path.with_suffix(".damaged"))
            return None

    def delete(self) -> None:
        """Forget the training: its update is in the outbox, or will never count."""
        self._path.unlink(missing_ok=True)

    def tidy(self) -> None:
        """Drop what a crash left half-written. Only for the folder's owner."""
        for path in self._folder.glob(".*.part"):
            path.unlink()


@dataclass(frozen=True)
class Resumable:
    """One update's place in the checkpoint file, as `train` sees it."""

    file: CheckpointFile
    order: Order
    vector_P: Vector

    def load(self) -> Snapshot | None:
        """How far this very update has come; None for any other, and for its like from another model of the number."""
        checkpoint = self.file.load()
        if checkpoint is None or checkpoint.order != self.order:
            return None
        return checkpoint.snapshot if np.array_equal(checkpoint.vector_P, self.vector_P) else None

    def save(self, snapshot: Snapshot) -> None:
        self.file.save(Checkpoint(self.order, self.vector_P, snapshot))

    def is_due(self, unsaved_s: float, next_step_s: float) -> bool:
        """Would the next step, pause included, bring what a crash would cost over the interval?"""
        return unsaved_s + next_step_s > self.file.interval_s


def read(path: Path) -> Checkpoint:
    """Read what `CheckpointFile.save` wrote.

    Raises FileNotFoundError; SafetensorError, ValueError, KeyError or OSError for a file that is not whole.
    """
    if not path.exists():
        raise FileNotFoundError(path)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        # Copies: the file's own memory would be read again from a disk that may fail in the middle of training.
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 - not a dict
    if digest_of(metadata[LABEL], tensors) != metadata[DIGEST]:
        raise ValueError("the checkpoint's digest does not fit")
    label = TypeAdapter(_Label).validate_python(json.loads(metadata[LABEL]))
    vector_P = tensors.pop(BASE).numpy().astype(np.float32, copy=False)
    losses = tuple(tensors.pop(LOSSES).tolist())
    return Checkpoint(label.order, vector_P, Snapshot(losses, label.work_s, tensors, label.values))


def digest_of(label: str, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over everything in the file: what a disk may lose without a word."""
    digest = hashlib.sha256(label.encode())
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
