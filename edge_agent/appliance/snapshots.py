"""Copies of an agent's state, made while no container runs, before a new one may touch it."""

import os
import tarfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import IO

from edge_agent.appliance.archives import Pieces
from fedward.errors import FedwardError
from fedward.files import move_durably, sync_folder

PRIVATE = 0o600
"""A snapshot holds the hospital's key."""

NOT_COPIED = frozenset({"model"})
"""Versions of the model: large, and the federation has them."""

NOT_PUT_BACK = frozenset({"egress", "counter.json", ".lock", "approvals.json", "approvals.lock"})
"""The log of what left must tell of what left meanwhile, too; the counter never goes back; a refusal stays one."""


class SnapshotError(FedwardError):
    """The state can't be copied, or put back: the disk is full, or fails."""


class Snapshots:
    """A folder with one tar for each generation before whose first start the state was copied."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def generations(self) -> frozenset[int]:
        return frozenset(int(path.stem) for path in self._folder.glob("*.tar"))

    def take(self, generation: int, state: Iterable[bytes]) -> None:
        """Keep a tar of the state, which comes in pieces; when this returns it survives power loss.

        Raises SnapshotError on a full disk or for a tar that is cut off, and nothing of it is left.
        """
        partial = self._partial()
        try:
            _copy(Pieces(state), partial, _to_keep)
            move_durably(partial, self._path(generation))
        except (OSError, tarfile.TarError) as error:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
            why = error.strerror if isinstance(error, OSError) else "the engine gave a half of it"
            raise SnapshotError(f"{self._folder}: the state can't be copied: {why}") from None

    @contextmanager
    def to_put_back(self, generation: int) -> Iterator[IO[bytes]]:
        """A tar of what may be put back. Raises SnapshotError on a full disk, or for a copy that can't be read."""
        try:
            chosen = self._chosen(generation)
        except (OSError, tarfile.TarError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is cut off, or changed"
            raise SnapshotError(f"{self._path(generation)}: this copy of the state can't be put back: {why}") from None
        with chosen:
            yield chosen

    def _chosen(self, generation: int) -> IO[bytes]:
        """Open, and without a name already: nothing of it is left when it is closed."""
        partial = self._partial()
        try:
            with self._path(generation).open("rb") as file:
                _copy(file, partial, _to_put_back)
            return partial.open("rb")
        finally:
            with suppress(OSError):
                partial.unlink(missing_ok=True)

    def drop(self, generation: int) -> None:
        self._path(generation).unlink(missing_ok=True)
        sync_folder(self._folder)

    def _path(self, generation: int) -> Path:
        return self._folder / f"{generation}.tar"

    def _partial(self) -> Path:
        """Where one is written; what a killed program left there is overwritten."""
        return self._folder / ".part"


def _to_keep(name: PurePosixPath) -> PurePosixPath | None:
    """In the engine's tar the folder's own name goes before all names."""
    inside = name.parts[1:]
    return PurePosixPath(*inside) if inside and inside[0] not in NOT_COPIED else None


def _to_put_back(name: PurePosixPath) -> PurePosixPath | None:
    return None if name.parts[0] in NOT_PUT_BACK else name


def _copy(source: IO[bytes] | Pieces, target: Path, choose: Callable[[PurePosixPath], PurePosixPath | None]) -> None:
    """Copy a tar's members under the names that `choose` gives them, or not at all, with owners, rights and times."""
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, PRIVATE)
    with (
        os.fdopen(descriptor, "wb") as file,
        tarfile.open(fileobj=source, mode="r|") as members,
        tarfile.open(fileobj=file, mode="w") as kept,
    ):
        for member in members:
            if chosen := choose(PurePosixPath(member.name)):
                member.name = str(chosen)
                kept.addfile(member, members.extractfile(member) if member.isfile() else None)
        kept.close()
        file.flush()
        os.fsync(file.fileno())
