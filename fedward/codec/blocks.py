"""Where each block's bytes lie in a payload: the part that all codecs share.

A payload is the encodings of the layout's blocks, one after another in layout order, and nothing else: no header,
no lengths. A block of an exact segment is its little-endian float32 values in every codec; any other block is what
the codec's `Quantizer` makes of it, whose size depends on the number of elements only.
Shape letters: P parameters, B elements of a block.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from fedward.layout import BLOCK_ELEMENTS, Block, Layout, Vector

Planes = Sequence[npt.NDArray[Any]]
"""Contiguous arrays whose bytes, one after another, are the encoding of a block."""


@dataclass(frozen=True)
class Quantizer:
    """What one codec does to one block: (B,) float32 <-> `block_bytes(B)` bytes.

    `encode` takes finite values only. `decode` takes exactly `block_bytes(B)` bytes, whatever they hold, and may
    return values that are not finite. Both take the block and the seed for what they draw.
    """

    block_bytes: Callable[[int], int]
    encode: Callable[[Vector, Block, bytes], Planes]
    decode: Callable[[memoryview, Block, bytes], Vector]


def _exact_bytes(size: int) -> int:
    return 4 * size


def _encode_exact(values_B: Vector, _block: Block, _seed: bytes) -> Planes:
    return [values_B.astype("<f4", copy=False)]


def _decode_exact(raw: memoryview, _block: Block, _seed: bytes) -> Vector:
    return np.frombuffer(raw, "<f4").astype(np.float32)


EXACT = Quantizer(_exact_bytes, _encode_exact, _decode_exact)


def rows(values_B: Vector, width: int) -> npt.NDArray[np.float32]:
    """(B,) -> (ceil(B / width), width), the last row filled up with zeros."""
    missing = -values_B.size % width
    return (np.pad(values_B, (0, missing)) if missing else values_B).reshape(-1, width)


def peaks(values: npt.NDArray[np.float32]) -> Vector:
    """(R, width) -> (R,) the largest magnitude of each row, without a copy of |values|."""
    highest: Vector = np.maximum(values.max(axis=1), -values.min(axis=1))
    return highest


class _Remembered:
    """A layout as a cache key: a layout's own hash walks all its tensors at every call, its digest is kept."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout

    def __hash__(self) -> int:
        return hash(self.layout.digest)

    def __eq__(self, other: object) -> bool:
        # `is` first: comparing two equal layouts walks all their tensors too.
        return isinstance(other, _Remembered) and (self.layout is other.layout or self.layout == other.layout)


@lru_cache(maxsize=64)
def _segment_starts(block_bytes: Callable[[int], int], key: _Remembered) -> tuple[int, ...]:
    """First byte of each segment in the payload, and the payload's size as the last entry."""
    starts = [0]
    for segment in key.layout.segments:
        sized = _exact_bytes if segment.exact else block_bytes
        full, rest = divmod(segment.size, BLOCK_ELEMENTS)
        starts.append(starts[-1] + full * sized(BLOCK_ELEMENTS) + (sized(rest) if rest else 0))
    return tuple(starts)


@dataclass(frozen=True)
class BlockCodec:
    """A codec made of a quantizer; see `fedward.codec.registry.Codec` for what each method promises."""

    name: str
    bits: int
    deterministic: bool
    carries_updates: bool
    quantizer: Quantizer

    def size_bytes(self, layout: Layout) -> int:
        return _segment_starts(self.quantizer.block_bytes, _Remembered(layout))[-1]

    def encode(self, vector_P: Vector, layout: Layout, seed: bytes) -> bytes:
        layout.check(vector_P)
        planes: list[npt.NDArray[Any]] = []
        for block in layout.blocks:
            values_B = np.ascontiguousarray(vector_P[block.start : block.stop])
            if not np.isfinite(values_B).all():
                raise ValueError(f"segment {layout.segments[block.segment].name} has a NaN or an infinity")
            planes += self._quantizer_of(block, layout).encode(values_B, block, seed)
        return b"".join(plane.data for plane in planes)

    def decode_block(self, payload: memoryview, layout: Layout, block: Block, seed: bytes) -> Vector:
        quantizer = self._quantizer_of(block, layout)
        # All blocks before this one in its segment are full.
        before = block.offset // BLOCK_ELEMENTS * quantizer.block_bytes(BLOCK_ELEMENTS)
        start = _segment_starts(self.quantizer.block_bytes, _Remembered(layout))[block.segment] + before
        return quantizer.decode(payload[start : start + quantizer.block_bytes(block.size)], block, seed)

    def _quantizer_of(self, block: Block, layout: Layout) -> Quantizer:
        return EXACT if layout.segments[block.segment].exact else self.quantizer
