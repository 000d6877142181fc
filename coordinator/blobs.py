"""The blob store: immutable payloads by their SHA-256, in a folder."""

import hashlib
import mmap
import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Self

from fedward.chunks import ChunkFile
from fedward.errors import IntegrityError
from fedward.files import write_durably, write_pieces

NAME = re.compile(r"[0-9a-f]{64}")


class OpenBlob:
    """A blob of which only what is sliced is in memory, and only while the slice is; close it as a file.

    Of a mapped file the kernel may keep 2 MiB in memory for every place that was read, in each of many blobs.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb", buffering=0)
        self.nbytes = os.fstat(self._file.fileno()).st_size
        self._digest = path.name

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __getitem__(self, span: slice) -> memoryview:
        """The bytes from `span.start` to `span.stop`, both given. Raises IntegrityError when there are fewer."""
        content = os.pread(self._file.fileno(), span.stop - span.start, span.start)
        if len(content) != span.stop - span.start:
            raise IntegrityError(f"blob {self._digest} is cut off before byte {span.stop}")
        return memoryview(content)


class BlobFolder:
    """Every blob is one file named by its digest; a blob that is there is whole and never changes."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder

    def path(self, digest: bytes) -> Path:
        return self._folder / digest.hex()

    def put(self, content: bytes | memoryview) -> bytes:
        """Store durably and return the digest; storing the same content again changes nothing."""
        digest = hashlib.sha256(content).digest()
        if not self.path(digest).exists():
            write_durably(self.path(digest), content)
        return digest

    def write(self, pieces: Iterable[bytes | memoryview]) -> bytes:
        """Store durably what comes piece by piece, without ever holding it, and return the digest of the whole."""
        partial, digest = self._folder / f".{os.getpid()}.part", hashlib.sha256()
        write_pieces(partial, _passed(pieces, digest.update), lambda: self.path(digest.digest()))
        return digest.digest()

    def holds(self, digest: bytes) -> bool:
        """Whether the blob is there, with every byte as it was stored: reads all of it."""
        try:
            with self.path(digest).open("rb") as file:
                return hashlib.file_digest(file, "sha256").digest() == digest
        except FileNotFoundError:
            return False

    def adopt(self, collected: ChunkFile) -> bytes:
        """Take a complete upload as a blob, and return its digest. Raises PeerError as `ChunkFile.finish` does."""
        return collected.finish(self.path)

    def digests(self) -> set[bytes]:
        """Of every blob that is there."""
        return {bytes.fromhex(path.name) for path in self._folder.iterdir() if NAME.fullmatch(path.name)}

    def tidy(self) -> None:
        """Drop what crashes left half-written, each up to the size of a state. Only for the folder's owner."""
        for path in self._folder.glob(".*.part"):
            path.unlink()

    def drop(self, digest: bytes) -> None:
        """Delete a blob that the ledger does not need."""
        self.path(digest).unlink(missing_ok=True)

    def view(self, digest: bytes) -> memoryview:
        """The blob's bytes, mapped from disk: pages come and go, memory does not grow with the blob.

        Raises IntegrityError when it is missing.
        """
        try:
            with self.path(digest).open("rb") as file:
                return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        except FileNotFoundError:
            raise IntegrityError(f"blob {digest.hex()} is missing") from None

    def open(self, digest: bytes) -> "OpenBlob":
        """The blob, to be read slice by slice. Raises IntegrityError when it is missing."""
        try:
            return OpenBlob(self.path(digest))
        except FileNotFoundError:
            raise IntegrityError(f"blob {digest.hex()} is missing") from None

    def check(self, digest: bytes, what: str) -> None:
        """Read the blob, and raise IntegrityError unless it is there with every byte as it was stored."""
        try:
            with self.path(digest).open("rb") as file:
                found = hashlib.file_digest(file, "sha256").digest()
        except FileNotFoundError:
            raise IntegrityError(f"{what}: blob {digest.hex()} is missing") from None
        if found != digest:
            raise IntegrityError(f"{what}: blob {digest.hex()} is damaged, its SHA-256 is {found.hex()}")


def _passed(
    pieces: Iterable[bytes | memoryview], see: Callable[[bytes | memoryview], None]
) -> Iterator[bytes | memoryview]:
    for piece in pieces:
        see(piece)
        yield piece
