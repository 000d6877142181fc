"""A payload cut in chunks: its manifest, and the file that collects the chunks on the other side.

The manifest's digests are what is believed; a chunk may come from anywhere, in any order, more than once. The
file survives a restart: what is in it is found again by its digests, so nothing that arrived travels twice.
"""

import errno
import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from fedward.errors import PeerError, RejectReason
from fedward.files import move_durably, sync_file
from fedward.identity.sealing import SEGMENT_BYTES, Seal
from fedward.limits import CHUNK_BYTES, MAX_RANGES
from fedward.messages import Manifest, Range

NO_LINKS = {errno.EPERM, errno.EXDEV, errno.ENOTSUP, errno.EMLINK}
"""What a file system says that gives a file no second name there: the payload is copied then."""


def chunks_of(payload: bytes | memoryview) -> Iterator[memoryview]:
    """The payload, cut."""
    view = memoryview(payload)
    return (view[at : at + CHUNK_BYTES] for at in range(0, len(view), CHUNK_BYTES))


def manifest_of(payload: bytes | memoryview) -> Manifest:
    """Size and digests of a payload of at least one byte."""
    return manifest_of_chunks(chunks_of(payload))


def manifest_of_chunks(chunks: Iterable[bytes | memoryview]) -> Manifest:
    """`manifest_of`, of a payload that is cut already."""
    size_bytes, whole, digests = 0, hashlib.sha256(), []
    for chunk in chunks:
        size_bytes += len(chunk)
        whole.update(chunk)
        digests.append(hashlib.sha256(chunk).digest())
    return Manifest(size_bytes=size_bytes, digest=whole.digest(), chunk_digests=b"".join(digests))


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


def size_of_chunk(manifest: Manifest, index: int) -> int:
    """Bytes of a chunk that the payload has."""
    return min(CHUNK_BYTES, manifest.size_bytes - index * CHUNK_BYTES)


def is_promised(manifest: Manifest, index: int, chunk: bytes) -> bool:
    """Whether these bytes are what the manifest says of a chunk that the payload has."""
    expected = manifest.chunk_digests[32 * index : 32 * index + 32]
    return len(chunk) == size_of_chunk(manifest, index) and hashlib.sha256(chunk).digest() == expected


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
    """Collects the chunks of one payload in a file; opening it again goes on where it was.

    Each byte is hashed twice, as part of its chunk and of the whole, and both from the memory that it came in: only
    what came out of order, after a gap, is read again for the whole.

    With a seal, each chunk is opened as it comes, and the file holds what was sealed. What the seal opens needs no
    digest: nobody else can have sealed it, as this chunk of this payload. Chunks that are found again are closed once
    more, to be compared with their digests.
    """

    def __init__(
        self, path: Path, manifest: Manifest, seal: Seal | None = None, opened: memoryview | None = None
    ) -> None:
        """Open or make `path`; what lies beyond the manifest's size, of another payload that was there, is cut off.

        `opened` is SEGMENT_BYTES of memory to open chunks in, which files that one thread fills may share; without it
        the file has its own. Raises PeerError (MALFORMED) for a manifest that contradicts itself.
        """
        check_manifest(manifest)
        self.path = path
        self.manifest = manifest
        self._seal = seal
        self._opened = opened if opened or seal is None else memoryview(bytearray(SEGMENT_BYTES))
        self._step = CHUNK_BYTES if seal is None else SEGMENT_BYTES
        self.size_bytes = manifest.size_bytes - (CHUNK_BYTES - self._step) * num_chunks(manifest)
        """Of the payload in the file, when it is complete."""
        self._missing = set(range(num_chunks(manifest)))
        self._whole = hashlib.sha256()
        self._num_hashed = 0  # chunks that are in `_whole`: the first ones, without a gap
        self._is_synced = True
        self._file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b", buffering=0)
        if os.fstat(self._file.fileno()).st_size > self.size_bytes:
            self._file.truncate(self.size_bytes)
        for index in range(num_chunks(manifest)):
            content = self._read(index)
            if is_promised(self.manifest, index, content if seal is None else seal.close(index, content)):
                self._note(index, content)  # not synced: the process before this one may have died before it was

    def add(self, index: int, payload: bytes) -> bool:
        """Take a chunk; False if it was here already. It survives this process at once, and power loss after `sync`.

        Raises PeerError: MALFORMED for an index beyond the end, DIGEST_MISMATCH for bytes that are neither the promised
        ones nor opened by the seal, CANNOT_OPEN for promised ones that it does not open; nothing is written then.
        """
        if index >= num_chunks(self.manifest):
            raise PeerError(RejectReason.MALFORMED, f"chunk {index} of {num_chunks(self.manifest)}")
        if index not in self._missing:
            return False
        content = self._content(index, payload)
        self._write(index, content)
        self._note(index, content)
        return True

    @property
    def num_missing(self) -> int:
        return len(self._missing)

    def missing(self) -> tuple[Range, ...]:
        """What to ask for; empty when complete."""
        return ranges_of(sorted(self._missing))

    def sync(self) -> None:
        """Make the chunks that are here survive power loss; free when nothing came since the last time.

        The file's name is its maker's to make durable.
        """
        if not self._is_synced:
            os.fsync(self._file.fileno())
            self._is_synced = True

    def finish(self, place: Callable[[bytes], Path]) -> bytes:
        """Give the complete payload, durably, another name that `place` makes of its digest, and return the digest.

        The file keeps its own name as well, until `drop`: after a crash in between nothing is asked for again.
        Raises PeerError (DIGEST_MISMATCH) when the whole is not what the manifest promised, and drops it; with a seal,
        whose manifest is of other bytes, it is each chunk that counts.
        """
        if self._missing or (self._digest() != self.manifest.digest and self._seal is None):
            self.drop()
            raise PeerError(RejectReason.DIGEST_MISMATCH, "the whole payload is not the one that was promised")
        self.sync()
        target = place(self._digest())
        partial = target.with_name(f".{target.name}.part")
        partial.unlink(missing_ok=True)
        try:
            partial.hardlink_to(self.path)
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            shutil.copyfile(self.path, partial)
            sync_file(partial)
        move_durably(partial, target)  # over what is there: it may be damaged
        partial.unlink(missing_ok=True)  # left where the target was this very file already
        return self._digest()

    def close(self) -> None:
        """Leave the file for later."""
        self._file.close()

    def drop(self) -> None:
        """Delete what was collected."""
        self._file.close()
        self.path.unlink(missing_ok=True)

    def _content(self, index: int, payload: bytes) -> bytes | memoryview:
        """What a chunk adds to the file, valid until the next one. Raises PeerError as `add` does."""
        mismatch = PeerError(RejectReason.DIGEST_MISMATCH, f"chunk {index} of {len(payload)} bytes")
        if self._seal is None or self._opened is None or len(payload) != size_of_chunk(self.manifest, index):
            if not is_promised(self.manifest, index, payload):
                raise mismatch
            return payload
        content = self._opened[: len(payload) - (CHUNK_BYTES - self._step)]
        try:
            self._seal.open_into(index, payload, content)
        except PeerError:
            if is_promised(self.manifest, index, payload):
                raise  # never sealed as it should be
            raise mismatch from None  # changed on its way
        return content

    def _note(self, index: int, content: bytes | memoryview) -> None:
        """The chunk is in the file, as it was promised."""
        self._missing.discard(index)
        self._is_synced = False
        if index == self._num_hashed:
            self._whole.update(content)
            self._num_hashed += 1

    def _digest(self) -> bytes:
        """Of the complete payload."""
        for index in range(self._num_hashed, num_chunks(self.manifest)):
            self._whole.update(self._read(index))
        self._num_hashed = num_chunks(self.manifest)
        return self._whole.digest()

    def _read(self, index: int) -> bytes:
        return os.pread(self._file.fileno(), min(self._step, self.size_bytes - index * self._step), index * self._step)

    def _write(self, index: int, content: bytes | memoryview) -> None:
        rest, at = memoryview(content), index * self._step
        while rest:  # a disk that fills up takes a part first, and fails at the next attempt
            written = os.pwrite(self._file.fileno(), rest, at)
            rest, at = rest[written:], at + written
