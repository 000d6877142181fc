"""How often one training was begun in vain, on disk: a task that kills its process must not be run for ever.

An attempt is counted before training begins, and forgotten when it ends or the agent leaves on purpose. What a
crash leaves behind is the count. One that came further than the one before, by its checkpoint, was not in vain.
"""

import hashlib
import json
import logging
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from fedward.files import write_durably

LOG = logging.getLogger(__name__)

MOST_ATTEMPTS = 3
"""After so many attempts without progress this site leaves the training alone: the next one would end the same way."""

TRY_AGAIN_S = 3600.0
"""What failed or is left alone is tried once more after so long: a GPU that was taken, or a drive that was away, may
be back, and where every site failed there will be no other version."""


@dataclass(frozen=True)
class Attempts:
    """The attempts at one training since it last made progress."""

    training: str = ""  # what is trained, and with what: see `training_name`
    begun: int = 0
    step: int = 0  # of the checkpoint that the last one began with
    running: bool = False  # the last one has not ended: when a process starts, the one before it died in training

    def begin(self, training: str, step: int) -> "Attempts":
        """One more, from a checkpoint of `step` steps; those of another training, or before progress, are forgotten.

        Progress counts from where the last one began: also where its checkpoint was lost, and it began further back.
        """
        if training != self.training or step > self.step:
            return Attempts(training, 1, step, running=True)
        return replace(self, begun=self.begun + 1, step=step, running=True)

    def failed(self) -> "Attempts":
        """The last one ended with an exception: it stays counted."""
        return replace(self, running=False)

    def once_more(self) -> "Attempts":
        """A while has passed: one more may begin."""
        return replace(self, begun=min(self.begun, MOST_ATTEMPTS - 1))

    def in_vain(self, training: str, step: int) -> bool:
        """Is this training, from a checkpoint of `step` steps, to be left alone?"""
        return self.begun >= MOST_ATTEMPTS and training == self.training and step <= self.step


def training_name(*parts: str) -> str:
    """A name for a training by all that may decide how it ends: another part is another name. SHA-256, hexadecimal."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


class AttemptsFile:
    """The attempts, as they are on disk: every change is saved before it is seen."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.now = self._load()

    def change(self, attempts: Attempts) -> None:
        write_durably(self._path, json.dumps(asdict(attempts)).encode())
        self.now = attempts

    def forget(self) -> None:
        """None is left to count. Needs no room on the disk; a power cut may bring the last ones back."""
        self._path.unlink(missing_ok=True)
        self.now = Attempts()

    def _load(self) -> Attempts:
        try:
            return Attempts(**json.loads(self._path.read_text()))
        except FileNotFoundError:
            return Attempts()
        except (ValueError, TypeError):
            LOG.warning("attempts_unreadable")
            return Attempts()
