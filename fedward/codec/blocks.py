"""Where each block's bytes lie in a payload: the part that all codecs share.

A payload is the encodings of the layout's blocks, one after another in layout order. A block of an exact segment is
its little-endian float32 values in every codec; any other block is what the codec's `Quantizer` makes of it. Where
the size of that depends on the number of elements only, there is nothing else: no header, no lengths. Where it depends
on the values, the payload ends with an index: the size of each such block as little-endian uint32.
Shape letters: P parameters, B elements of a block.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from fedward.errors import PeerError, RejectReason
from fedward.layout import BLOCK_ELEMENTS, Block, Layout, Vector

INDEX = np.dtype("<u4")
INDEX_BYTES = INDEX.itemsize

Planes = Sequence[npt.NDArray[Any]]
"""Contiguous arrays whose bytes, one after another, are the encoding of a block."""


class Payload(Protocol):
    """What can be sliced: the bytes themselves, or a file that is read where it is sliced."""

    @property
    def nbytes(self) -> int: ...

    def __getitem__(self, span: slice, /) -> memoryview: ...


@dataclass(frozen=True)
class Quantizer:
    """What one codec does to one block: (B,) float32 <-> at most `most_bytes(B)` bytes, exactly that unless `varies`.

    `encode` takes finite values only. `decode` takes bytes of such a size, whatever they hold, and may return values
    that are not finite. All take the block and the seed for what they draw.
    A quantizer that varies may find that bytes are no encoding at all: PeerError (MALFORMED).
    """

    most_bytes: Callable[[int], int]
    encode: Callable[[Vector, Block, bytes], Planes]
    decode: Callable[[memoryview, Block, bytes], Vector]
    varies: bool = False
    weighted_sum: Callable[[Sequence[memoryview], Sequence[float], Block, bytes], Vector] | None = None
    """The sum of weight x decoded block, where that costs less than to decode each; None where it does not."""
    energy: Callable[[memoryview, Block, bytes], float] | None = None
    """The sum of squares of the decoded block, where that costs less than to decode it; None where it does not."""


def _exact_bytes(size: int) -> int:
    return 4 * size


def _encode_exact(values_B: Vector, _block: Block, _seed: bytes) -> Planes:
    return [values_B.astype("<f4", copy=False)]


def _decode_exact(raw: memoryview, _block: Block, _seed: bytes) -> Vector:
    return np.frombuffer(raw, "<f4").astype(np.float32)


EXACT = Quantizer(_exact_bytes, _encode_exact, _decode_exact)


def energy_of(values_B: Vector) -> float:
    """The sum of squares in float64. Squares of finite float32 can't overflow it: not finite iff a value is not."""
    with np.errstate(invalid="ignore"):  # a signalling NaN
        return float(np.square(values_B, dtype=np.float64).sum())


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


@dataclass(frozen=True)
class _Places:
    """Of a layout: how many blocks come before each segment, and the most bytes before it; the totals as last entry."""

    blocks: tuple[int, ...]
    most_bytes: tuple[int, ...]
    num_quantized: int


@lru_cache(maxsize=64)
def _places(most_bytes: Callable[[int], int], key: _Remembered) -> _Places:
    blocks, starts, num_quantized = [0], [0], 0
    for segment in key.layout.segments:
        sized = _exact_bytes if segment.exact else most_bytes
        full, rest = divmod(segment.size, BLOCK_ELEMENTS)
        num_blocks = full + (rest > 0)
        blocks.append(blocks[-1] + num_blocks)
        starts.append(starts[-1] + full * sized(BLOCK_ELEMENTS) + (sized(rest) if rest else 0))
        num_quantized += 0 if segment.exact else num_blocks
    return _Places(tuple(blocks), tuple(starts), num_quantized)


@dataclass(frozen=True)
class BlockCodec:
    """A codec made of a quantizer; see `fedward.codec.registry.Codec` for what each method promises."""

    name: str
    bits: int
    deterministic: bool
    carries_updates: bool
    quantizer: Quantizer
    shared_seed: bool = False
    exact: bool = False

    def most_bytes(self, layout: Layout) -> int:
        places = self._places(layout)
        return places.most_bytes[-1] + (INDEX_BYTES * places.num_quantized if self.quantizer.varies else 0)

    def check_size(self, size_bytes: int, layout: Layout) -> None:
        most = self.most_bytes(layout)
        if size_bytes > most or (size_bytes < most and not self.quantizer.varies):
            bound = "at most" if self.quantizer.varies else "exactly"
            raise PeerError(
                RejectReason.LAYOUT_MISMATCH, f"a {self.name} payload of {size_bytes} bytes, expected {bound} {most}"
            )

    def check(self, payload: memoryview, layout: Layout) -> None:
        self.check_size(payload.nbytes, layout)
        if self.quantizer.varies:
            self._check_index(payload, layout)

    def encode(self, vector_P: Vector, layout: Layout, seed: bytes) -> bytes:
        layout.check(vector_P)
        encoded = [
            self.encode_block(vector_P[block.start : block.stop], layout, block, seed) for block in layout.blocks
        ]
        return b"".join([*encoded, self.index(layout, [len(raw) for raw in encoded])])

    def encode_block(self, values_B: Vector, layout: Layout, block: Block, seed: bytes) -> bytes:
        values_B = np.ascontiguousarray(values_B)
        if not np.isfinite(values_B).all():
            raise ValueError(f"segment {layout.segments[block.segment].name} has a NaN or an infinity")
        return b"".join(plane.data for plane in self._quantizer_of(block, layout).encode(values_B, block, seed))

    def index(self, layout: Layout, sizes_bytes: Sequence[int]) -> bytes:
        if not self.quantizer.varies:
            return b""
        return np.array(sizes_bytes[: self._places(layout).num_quantized], INDEX).tobytes()

    def decode_block(self, payload: memoryview, layout: Layout, block: Block, seed: bytes) -> Vector:
        return self.decode_encoded(payload[self._span(payload, layout, block)], layout, block, seed)

    def decode_encoded(self, encoded: memoryview, layout: Layout, block: Block, seed: bytes) -> Vector:
        return self._quantizer_of(block, layout).decode(encoded, block, seed)

    def sum_block(
        self, payloads: Sequence[Payload], weights: Sequence[float], layout: Layout, block: Block, seed: bytes
    ) -> Vector:
        if len(payloads) != len(weights):
            raise ValueError(f"got {len(weights)} weights of {len(payloads)} payloads")
        quantizer = self._quantizer_of(block, layout)
        raws = (payload[self._span(payload, layout, block)] for payload in payloads)
        if quantizer.weighted_sum is not None:
            return quantizer.weighted_sum(list(raws), weights, block, seed)
        sum_B = np.zeros(block.size, np.float32)
        with np.errstate(over="ignore", invalid="ignore"):  # of payloads that `norm` would have refused
            for raw, weight in zip(raws, weights, strict=True):
                values_B = quantizer.decode(raw, block, seed)
                values_B *= np.float32(weight)
                sum_B += values_B
        return sum_B

    def energy_block(self, payload: memoryview, layout: Layout, block: Block, seed: bytes) -> float:
        quantizer = self._quantizer_of(block, layout)
        raw = payload[self._span(payload, layout, block)]
        if quantizer.energy is not None:
            return quantizer.energy(raw, block, seed)
        return energy_of(quantizer.decode(raw, block, seed))

    def _span(self, payload: Payload, layout: Layout, block: Block) -> slice:
        places = self._places(layout)
        if not self.quantizer.varies:
            quantizer = self._quantizer_of(block, layout)
            # All blocks before this one in its segment are full.
            before = block.offset // BLOCK_ELEMENTS * quantizer.most_bytes(BLOCK_ELEMENTS)
            start = places.most_bytes[block.segment] + before
            return slice(start, start + quantizer.most_bytes(block.size))
        sizes = self._index_of(payload, places)
        number = places.blocks[block.segment] + block.offset // BLOCK_ELEMENTS
        start = int(sizes[:number].sum())
        if number < sizes.size:
            return slice(start, start + int(sizes[number]))
        # Exact segments come last in every layout, one after another.
        start += 4 * (block.start - layout.blocks[sizes.size].start)
        return slice(start, start + 4 * block.size)

    def _check_index(self, payload: memoryview, layout: Layout) -> None:
        places = self._places(layout)
        exact_bytes = 4 * sum(segment.size for segment in layout.segments if segment.exact)
        fixed_bytes = INDEX_BYTES * places.num_quantized + exact_bytes
        if payload.nbytes >= fixed_bytes:
            sizes = self._index_of(payload, places)
            quantized = layout.blocks[: places.num_quantized]
            most = np.array([self.quantizer.most_bytes(block.size) for block in quantized], np.int64)
            if (sizes <= most).all() and int(sizes.sum()) == payload.nbytes - fixed_bytes:
                return
        raise PeerError(RejectReason.LAYOUT_MISMATCH, f"a {self.name} payload whose index does not fit its size")

    def _index_of(self, payload: Payload, places: _Places) -> npt.NDArray[np.int64]:
        """(quantized blocks,) the size of each in bytes."""
        start = payload.nbytes - INDEX_BYTES * places.num_quantized
        return np.frombuffer(payload[start : payload.nbytes], INDEX, places.num_quantized).astype(np.int64)

    def _places(self, layout: Layout) -> _Places:
        return _places(self.quantizer.most_bytes, _Remembered(layout))

    def _quantizer_of(self, block: Block, layout: Layout) -> Quantizer:
        return EXACT if layout.segments[block.segment].exact else self.quantizer
