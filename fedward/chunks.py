"""A payload cut in chunks: its manifest, and the file that collects the chunks on the other side.

The manifest's digests are what is believed; a chunk may come from anywhere, in any order, more than once. The
file survives a restart: what is in it is found again by its digests, so nothing that arrived travels twice.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from fedward.errors import PeerError, RejectReason
from fedward.files import move_durably
from fedward.limits import CHUNK_BYTES, MAX_RANGES
from fedward.messages import Manifest, Range


def manifest_of(payload: bytes | memoryview) -> Manifest:
    """Size and digests of a payload of at least one byte."""
    view = memoryview(payload)
    digests = (hashlib.sha256(view[at : at + CHUNK_BYTES]).digest() for at in range(0, len(view), CHUNK_BYTES))
    return Manifest(size_bytes=len(view), digest=hashlib.sha256(view).digest(), chunk_digests=b"".join(digests))


def num_chunks(manifest: Manifest) -> int:
    return -(-manifest.size_bytes // CHUNK_BYTES)


def check_manifest(manifest: Manifest) -> None:
    """Raise PeerError (MALFORMED) when size and number of digests contradict each other."""
    if len(manifest.chunk_digests) != 32 * num_chunks(manifest):
        raise PeerError(
            RejectReason.MALFORMED,
            f"{manifest.size_bytes} bytes need {num_chunks(manifest)} chunk digests, "
            f"got {len(manifest.chunk_digests)} bytes of them",
        )


def chunk_of(path: Path, index: int) -> bytes:
    """Read one chunk of a payload file."""
    with path.open("rb") as file:
        file.seek(index * CHUNK_BYTES)
        return file.read(CHUNK_BYTES)


def ranges_of(indices: Iterable[int]) -> tuple[Range, ...]:
    """Sorted chunk indices -> ranges, at most MAX_RANGES of them (the rest is asked for next time)."""
    ranges: list[Range] = []
    for index in indices:
        if ranges and ranges[-1].stop == index:
            ranges[-1] = Range(start=ranges[-1].start, stop=index + 1)
        elif len(ranges) == MAX_RANGES:
            break
        else:
            ranges.append(Range(start=index, stop=index + 1))
    return tuple(ranges)


def indices_of(ranges: Iterable[Range], manifest: Manifest) -> Iterator[int]:
    """The chunk indices of untrusted ranges that the payload really has, rising, each once at most.

    Ranges that overlap or go back would let one small message ask for millions of chunks: only what lies beyond
    the ranges before is taken.
    """
    start, total = 0, num_chunks(manifest)
    for part in ranges:
        start = max(start, part.start)
        yield from range(start, min(part.stop, total))
        start = max(start, part.stop)


class ChunkFile:
    """Collects the chunks of one payload in a file; opening it again goes on where it was."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        """Open or make `path`. Raises PeerError (MALFORMED) for a manifest that contradicts itself."""
        check_manifest(manifest)
        self.path = path
        self.manifest = manifest
        self._missing = set(range(num_chunks(manifest)))
        self._file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b")
        for index in range(num_chunks(manifest)):
            self._file.seek(index * CHUNK_BYTES)
            if self._is_right(index, self._file.read(self._size_of(index))):
                self._missing.discard(index)

    def add(self, index: int, payload: bytes) -> bool:
        """Take a chunk; False if it was here already.

        Raises PeerError: MALFORMED for an index beyond the end, DIGEST_MISMATCH for bytes that are not the
        promised ones; nothing is written then.
        """
        if index >= num_chunks(self.manifest):
            raise PeerError(RejectReason.MALFORMED, f"chunk {index} of {num_chunks(self.manifest)}")
        if index not in self._missing:
            return False
        if not self._is_right(index, payload):
            raise PeerError(RejectReason.DIGEST_MISMATCH, f"chunk {index} of {len(payload)} bytes")
        self._file.seek(index * CHUNK_BYTES)
        self._file.write(payload)
        self._missing.discard(index)
        return True

    @property
    def num_missing(self) -> int:
        return len(self._missing)

    def missing(self) -> tuple[Range, ...]:
        """What to ask for; empty when complete."""
        return ranges_of(sorted(self._missing))

    def finish(self, target: Path) -> None:
        """Make the complete payload durable under its final name and close.

        Raises PeerError (DIGEST_MISMATCH) when the whole is not what the manifest promised, and drops it.
        """
        self._file.flush()
        self._file.seek(0)
        whole = hashlib.file_digest(self._file, "sha256").digest()
        if self._missing or whole != self.manifest.digest:
            self.drop()
            raise PeerError(RejectReason.DIGEST_MISMATCH, "the whole payload is not the one that was promised")
        os.fsync(self._file.fileno())
        self._file.close()
        move_durably(self.path, target)

    def close(self) -> None:
        """Leave the file for later."""
        self._file.close()

    def drop(self) -> None:
        """Delete what was collected."""
        self._file.close()
        self.path.unlink(missing_ok=True)

    def _size_of(self, index: int) -> int:
        return min(CHUNK_BYTES, self.manifest.size_bytes - index * CHUNK_BYTES)

    def _is_right(self, index: int, payload: bytes) -> bool:
        expected = self.manifest.chunk_digests[32 * index : 32 * index + 32]
        return len(payload) == self._size_of(index) and hashlib.sha256(payload).digest() == expected
