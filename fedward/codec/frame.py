"""One zstd frame (RFC 8878) around one array of bytes: how a block is written whose size depends on its values.

zstd is used at level 1, for its entropy coder; a higher level finds little more in numbers.
"""

import numpy as np
import numpy.typing as npt
import zstandard

from fedward.errors import PeerError, RejectReason

Bytes = npt.NDArray[np.uint8]

LEVEL = 1

LARGEST_WINDOW = 2**20
"""Bytes that a decoder may have to remember; a block of ours has fewer."""


def most_bytes(size: int) -> int:
    """The largest frame of `size` bytes: what zstd.h calls ZSTD_COMPRESSBOUND."""
    return size + (size >> 8) + max(0, (2**17 - size) >> 11)


def packed(*planes: Bytes) -> Bytes:
    """Contiguous bytes -> one frame of them all; each plane is coded for itself, for what is frequent in it."""
    writer = zstandard.ZstdCompressor(level=LEVEL).compressobj(size=sum(plane.nbytes for plane in planes))
    pieces = []
    for plane in planes:
        pieces += [writer.compress(plane.data), writer.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)]
    return np.frombuffer(b"".join([*pieces, writer.flush()]), np.uint8)


def unpacked(frame: memoryview, size: int) -> Bytes:
    """A frame that came from the other side -> (size,) read-only.

    Raises PeerError (MALFORMED) for one that is damaged or holds another number of bytes; no more than `size` are
    made room for, whatever it claims.
    """
    try:
        header = zstandard.get_frame_parameters(frame)
        if header.content_size != size or header.window_size > LARGEST_WINDOW:
            raise PeerError(RejectReason.MALFORMED, f"a zstd frame that does not hold {size} bytes in a small window")
        content = zstandard.ZstdDecompressor().decompress(frame, max_output_size=size, allow_extra_data=False)
    except zstandard.ZstdError:
        raise PeerError(RejectReason.MALFORMED, "a damaged zstd frame") from None
    if len(content) != size:
        raise PeerError(RejectReason.MALFORMED, f"a zstd frame of {len(content)} bytes, expected {size}")
    return np.frombuffer(content, np.uint8)
