"""The codecs by name, and what may be done with a payload that came from the other side.

Shape letters: P parameters, B elements of a block.
"""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Protocol

import numpy as np

from fedward.codec.eden import EDEN
from fedward.codec.f32 import F32
from fedward.codec.q8 import Q8
from fedward.errors import PeerError, RejectReason
from fedward.layout import Block, Layout, Vector


class Codec(Protocol):
    """A way to write a float32 vector as bytes, block by block. Stateless; safe to share between threads."""

    @property
    def name(self) -> str: ...

    @property
    def bits(self) -> int:
        """Of the code of a quantized element: of two codecs the one with more is the more precise."""

    @property
    def deterministic(self) -> bool:
        """Decoding is elementwise multiplication only: the same bits on every machine, as the way down needs."""

    @property
    def carries_updates(self) -> bool:
        """Unbiased over the seeds, or as good as exact: no sender needs error feedback (docs/adr/0006)."""

    def size_bytes(self, layout: Layout) -> int:
        """Size of every payload of this layout: it does not depend on the values."""

    def encode(self, vector_P: Vector, layout: Layout, seed: bytes) -> bytes:
        """(P,) float32 -> payload. Raises ValueError for a NaN, an infinity, another shape or another dtype."""

    def decode_block(self, payload: memoryview, layout: Layout, block: Block, seed: bytes) -> Vector:
        """One of `layout.blocks` -> (B,) float32, a fresh array; any block in any order.

        The payload has passed `check_payload`. The values may be infinite or NaN: `norm` finds that out.
        """


CODECS: Mapping[str, Codec] = MappingProxyType({known.name: known for known in (F32, Q8, *EDEN)})


def codec(name: str) -> Codec:
    """The codec of this name. Raises PeerError (UNKNOWN_CODEC)."""
    if name not in CODECS:
        raise PeerError(RejectReason.UNKNOWN_CODEC, f"not one of {', '.join(CODECS)}")
    return CODECS[name]


def check_payload(payload: bytes | memoryview, codec: Codec, layout: Layout) -> None:
    """Raise PeerError (LAYOUT_MISMATCH) unless the payload has exactly the size that the layout asks for."""
    got, expected = memoryview(payload).nbytes, codec.size_bytes(layout)
    if got != expected:
        raise PeerError(RejectReason.LAYOUT_MISMATCH, f"a {codec.name} payload of {got} bytes, expected {expected}")


def decode(payload: bytes | memoryview, codec: Codec, layout: Layout, seed: bytes) -> Vector:
    """Payload -> (P,) float32, finite or not. Raises PeerError (LAYOUT_MISMATCH) as `check_payload` does."""
    check_payload(payload, codec, layout)
    view = memoryview(payload)
    vector_P = np.empty(layout.size, np.float32)
    for block in layout.blocks:
        vector_P[block.start : block.stop] = codec.decode_block(view, layout, block, seed)
    return vector_P


def norm(payload: bytes | memoryview, codec: Codec, layout: Layout, seed: bytes) -> float:
    """L2 norm of the decoded vector, summed in float64; no more than one block is held.

    Raises PeerError: LAYOUT_MISMATCH as `check_payload` does, NOT_FINITE if any decoded value is NaN or infinite.
    """
    check_payload(payload, codec, layout)
    view = memoryview(payload)
    energy = 0.0
    for block in layout.blocks:
        values_B = codec.decode_block(view, layout, block, seed)
        with np.errstate(invalid="ignore"):  # a signalling NaN
            energy += float(np.square(values_B, dtype=np.float64).sum())
        # Squares of finite float32 can't overflow float64, so only a NaN or an infinity gets here.
        if not math.isfinite(energy):
            name = layout.segments[block.segment].name
            raise PeerError(RejectReason.NOT_FINITE, f"a decoded value of segment {name} is not finite")
    return math.sqrt(energy)
