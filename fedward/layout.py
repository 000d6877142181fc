"""A model as one flat float32 vector: which tensor lies where, and the digest that names the arrangement.

The order is canonical (large weights, small weights, statistics, each by name), so two sides that hold the
same tensors agree on every offset. Shape letters: P parameters (elements of the vector), B elements of a block.
"""

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

import numpy as np
import numpy.typing as npt

from fedward.errors import PeerError, RejectReason
from fedward.limits import MAX_NAME, MAX_PAYLOAD_BYTES, MAX_TENSORS

Vector = npt.NDArray[np.float32]

QUANTIZED_FROM = 4096
"""A tensor of fewer elements than this travels as exact float32: it is small, and often a bias or a norm."""

BLOCK_ELEMENTS = 65_536
"""The unit of streaming: small enough for the cache, large enough that numpy's overhead does not show."""

MAX_TENSOR_NAME = 4 * MAX_NAME


class Kind(StrEnum):
    """What becomes of a tensor in aggregation."""

    WEIGHT = "weight"  # trained: goes through the server optimizer
    STATISTIC = "statistic"  # running statistics of a norm layer: plain weighted mean


@dataclass(frozen=True, order=True)
class Tensor:
    """One tensor of the model: its name in the state dict, its shape, and its kind."""

    name: str
    shape: tuple[int, ...]
    kind: Kind = Kind.WEIGHT

    @property
    def size(self) -> int:
        """Number of elements; 1 for a scalar."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Segment:
    """A run of the vector that a codec treats as one: a large tensor, or all the small ones together."""

    name: str
    start: int
    stop: int
    exact: bool

    @property
    def size(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True)
class Block:
    """At most BLOCK_ELEMENTS of one segment: [start, stop) in the vector; `offset` counts from the segment's start."""

    segment: int
    start: int
    stop: int
    offset: int

    @property
    def size(self) -> int:
        return self.stop - self.start


def _rank(tensor: Tensor) -> tuple[int, str]:
    if tensor.kind is Kind.STATISTIC:
        return 2, tensor.name
    return (0 if tensor.size >= QUANTIZED_FROM else 1), tensor.name


@dataclass(frozen=True)
class Layout:
    """The arrangement of tensors in the vector. Build it with `Layout.of`, which brings them in order."""

    tensors: tuple[Tensor, ...]

    @classmethod
    def of(cls, tensors: Iterable[Tensor]) -> "Layout":
        """Tensors in any order -> the canonical layout.

        Raises PeerError (LAYOUT_MISMATCH) for none, too many, a name that repeats or is too long, or more
        bytes than a payload may have.
        """
        ordered = tuple(sorted(tensors, key=_rank))
        names = [tensor.name for tensor in ordered]
        if not 1 <= len(ordered) <= MAX_TENSORS:
            raise PeerError(RejectReason.LAYOUT_MISMATCH, f"{len(ordered)} tensors, expected 1 to {MAX_TENSORS}")
        if len(set(names)) != len(names) or any(not 1 <= len(name) <= MAX_TENSOR_NAME for name in names):
            raise PeerError(
                RejectReason.LAYOUT_MISMATCH,
                f"tensor names must be unique and of 1 to {MAX_TENSOR_NAME} characters",
            )
        if any(dimension < 1 for tensor in ordered for dimension in tensor.shape):
            raise PeerError(RejectReason.LAYOUT_MISMATCH, "a tensor has an empty dimension")
        if 4 * sum(tensor.size for tensor in ordered) > MAX_PAYLOAD_BYTES:
            raise PeerError(
                RejectReason.LAYOUT_MISMATCH, f"the model is larger than {MAX_PAYLOAD_BYTES} bytes of float32"
            )
        return cls(ordered)

    @cached_property
    def size(self) -> int:
        """P: elements of the vector."""
        return sum(tensor.size for tensor in self.tensors)

    @cached_property
    def num_weights(self) -> int:
        """Elements of kind WEIGHT; they come first, [0, num_weights)."""
        return sum(tensor.size for tensor in self.tensors if tensor.kind is Kind.WEIGHT)

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 over names, kinds and shapes in order: two sides with the same digest agree on every offset."""
        lines = (f"{t.name}\0{t.kind}\0{','.join(map(str, t.shape))}\n" for t in self.tensors)
        return hashlib.sha256("".join(lines).encode()).digest()

    @cached_property
    def segments(self) -> tuple[Segment, ...]:
        """Large weights each on its own; then the small weights, then the statistics, each group exact."""
        segments: list[Segment] = []
        start = 0
        for tensor in self.tensors:
            group = ("", "weights", "statistics")[_rank(tensor)[0]]
            stop = start + tensor.size
            if group and segments and segments[-1].name == f"exact {group}":
                segments[-1] = Segment(segments[-1].name, segments[-1].start, stop, exact=True)
            else:
                name = f"exact {group}" if group else tensor.name
                segments.append(Segment(name, start, stop, exact=bool(group)))
            start = stop
        return tuple(segments)

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        """The vector cut for streaming: every block lies in one segment, and blocks cover it in order."""
        return tuple(
            Block(index, start, min(start + BLOCK_ELEMENTS, segment.stop), start - segment.start)
            for index, segment in enumerate(self.segments)
            for start in range(segment.start, segment.stop, BLOCK_ELEMENTS)
        )

    def split(self, vector_P: Vector) -> Iterator[tuple[Tensor, Vector]]:
        """(P,) float32 -> each tensor with its view, in shape. Raises ValueError for another length or dtype."""
        self.check(vector_P)
        start = 0
        for tensor in self.tensors:
            yield tensor, vector_P[start : start + tensor.size].reshape(tensor.shape)
            start += tensor.size

    def join(self, arrays: Mapping[str, npt.NDArray[np.generic]]) -> Vector:
        """Arrays by tensor name -> (P,) float32. Raises ValueError for a missing one or another shape."""
        vector_P = np.empty(self.size, np.float32)
        for tensor, view in self.split(vector_P):
            if tensor.name not in arrays or arrays[tensor.name].shape != tensor.shape:
                got = arrays[tensor.name].shape if tensor.name in arrays else "nothing"
                raise ValueError(f"tensor {tensor.name}: got {got}, expected shape {tensor.shape}")
            view[...] = arrays[tensor.name]
        return vector_P

    def check(self, vector_P: Vector) -> None:
        """Raise ValueError unless this is a (P,) float32 vector of this layout."""
        if vector_P.shape != (self.size,) or vector_P.dtype != np.float32:
            raise ValueError(f"got {vector_P.dtype} {vector_P.shape}, expected float32 ({self.size},)")


def vector_digest(vector_P: Vector) -> bytes:
    """SHA-256 of the vector's little-endian float32 bytes: what an announcement promises every agent holds."""
    return hashlib.sha256(np.ascontiguousarray(vector_P, "<f4").data).digest()
