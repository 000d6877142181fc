"""The outcome of the last replay, in a file beside the ledger: `replay` writes it, the coordinator shows it."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from fedward.errors import IntegrityError
from fedward.files import write_durably
from fedward.ports import Clock

LOG = logging.getLogger(__name__)

REPLAYED = "replayed.json"


@dataclass(frozen=True)
class Outcome:
    """When the ledger was replayed last, in seconds since 1970, and whether all of it was as recorded."""

    at_s: float
    matches: bool


@contextmanager
def noting(state_folder: Path, clock: Clock, *, whole: bool) -> Iterator[None]:
    """Write down how the replay in the block ends: with an IntegrityError, or, where the `whole` is replayed, without.

    What ends in another way says nothing of the ledger.
    """
    try:
        yield
    except IntegrityError:
        _note(state_folder, Outcome(clock.now_s(), matches=False))
        raise
    if whole:
        _note(state_folder, Outcome(clock.now_s(), matches=True))


def last_replay(state_folder: Path) -> Outcome | None:
    """None where there was none, or what is written of it can't be read."""
    try:
        found = json.loads((state_folder / REPLAYED).read_text())
        return Outcome(float(found["at_s"]), bool(found["matches"]))
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _note(state_folder: Path, outcome: Outcome) -> None:
    try:
        write_durably(state_folder / REPLAYED, json.dumps(asdict(outcome)).encode())
    except OSError as error:  # a full or read-only disk: the replay itself is done
        LOG.warning("replay_not_noted", extra={"problem": error.strerror})
