"""The codecs by name, and what may be done with a payload that came from the other side.

Shape letters: P parameters, B elements of a block.
"""

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Protocol

import numpy as np

from fedward.codec.blocks import Payload
from fedward.codec.eden import EDEN
from fedward.codec.f32 import F32
from fedward.codec.f32z import F32Z
from fedward.codec.q8 import Q8
from fedward.codec.uqz import UQZ
from fedward.errors import PeerError, RejectReason
from fedward.layout import Block, Layout, Vector


class Codec(Protocol):
    """A way to write a float32 vector as bytes, block by block. Stateless; safe to share between threads."""

    @property
    def name(self) -> str: ...

    @property
    def bits(self) -> int:
        """Of the codes before any entropy coding: of two codecs the one with more is the more precise."""

    @property
    def deterministic(self) -> bool:
        """Decoding is elementwise multiplication only: the same bits on every machine, as the way down needs."""

    @property
    def shared_seed(self) -> bool:
        """All updates from one base version are encoded with one seed, so that `sum_block` decodes their sum once.

        Their errors are then alike where the updates are: a price that only a codec of small error can pay.
        """

    @property
    def carries_updates(self) -> bool:
        """Unbiased over the seeds, or as good as exact: no sender needs error feedback (docs/adr/0006)."""

    @property
    def exact(self) -> bool:
        """What is decoded is what was encoded, bit for bit."""

    def most_bytes(self, layout: Layout) -> int:
        """Size of the largest payload of this layout; most codecs have no other size."""

    def check_size(self, size_bytes: int, layout: Layout) -> None:
        """Raise PeerError (LAYOUT_MISMATCH) for a size that no payload of this layout has."""

    def check(self, payload: memoryview, layout: Layout) -> None:
        """Raise PeerError (LAYOUT_MISMATCH) unless size and index are those of a payload of this layout."""

    def encode(self, vector_P: Vector, layout: Layout, seed: bytes) -> bytes:
        """(P,) float32 -> payload: every block of the layout as `encode_block` makes it, then the `index`.

        Raises ValueError for a NaN, an infinity, another shape or another dtype.
        """

    def encode_block(self, values_B: Vector, layout: Layout, block: Block, seed: bytes) -> bytes:
        """(B,) float32, one of `layout.blocks` -> its part of the payload. Raises ValueError as `encode` does."""

    def index(self, layout: Layout, sizes_bytes: Sequence[int]) -> bytes:
        """What ends a payload whose blocks, in order, have these sizes; empty where sizes don't depend on values."""

    def decode_block(self, payload: memoryview, layout: Layout, block: Block, seed: bytes) -> Vector:
        """One of `layout.blocks` -> (B,) float32, a fresh array; any block in any order.

        The payload has passed `check`. The values may be infinite or NaN: `norm` finds that out. Raises PeerError
        (MALFORMED) for bytes that are no encoding.
        """

    def decode_encoded(self, encoded: memoryview, layout: Layout, block: Block, seed: bytes) -> Vector:
        """What `encode_block` made -> (B,) float32, as `decode_block` does from a whole payload."""

    def sum_block(
        self, payloads: Sequence[Payload], weights: Sequence[float], layout: Layout, block: Block, seed: bytes
    ) -> Vector:
        """The sum of weight x `decode_block` over several payloads of one seed -> (B,) float32, a fresh array.

        Equal to decoding one by one up to float32 rounding; the same payloads in the same order give the same bytes.
        Memory beside the result: a few decoded blocks, and of an eden codec the encoded block of every payload.
        Raises ValueError for unequal lengths.
        """

    def energy_block(self, payload: memoryview, layout: Layout, block: Block, seed: bytes) -> float:
        """The sum of squares, in float64, of what is encoded in a block: not finite if a decoded value is not.

        To 1e-6 that of `decode_block`, or more: eden pads a tensor's last block, and what a payload has in the padding
        counts, because it takes part in `sum_block` before it is cut off.
        """


CODECS: Mapping[str, Codec] = MappingProxyType({known.name: known for known in (F32, F32Z, Q8, *EDEN, UQZ)})


def codec(name: str) -> Codec:
    """The codec of this name. Raises PeerError (UNKNOWN_CODEC)."""
    if name not in CODECS:
        raise PeerError(RejectReason.UNKNOWN_CODEC, f"not one of {', '.join(CODECS)}")
    return CODECS[name]


def check_payload(payload: bytes | memoryview, codec: Codec, layout: Layout) -> None:
    """Raise PeerError (LAYOUT_MISMATCH) unless size and index are those of a payload of this layout."""
    codec.check(memoryview(payload).cast("B"), layout)


def decode(payload: bytes | memoryview, codec: Codec, layout: Layout, seed: bytes) -> Vector:
    """Payload -> (P,) float32, finite or not. Raises PeerError as `check_payload` and `decode_block` do."""
    check_payload(payload, codec, layout)
    view = memoryview(payload).cast("B")
    vector_P = np.empty(layout.size, np.float32)
    for block in layout.blocks:
        vector_P[block.start : block.stop] = codec.decode_block(view, layout, block, seed)
    return vector_P


def norm(payload: bytes | memoryview, codec: Codec, layout: Layout, seed: bytes) -> float:
    """L2 norm of what is encoded, summed in float64: of the decoded vector to 1e-6, or more (see `energy_block`).

    No more than one block is held. Raises PeerError as `check_payload` and `decode_block` do, and NOT_FINITE if any
    decoded value is NaN or infinite.
    """
    check_payload(payload, codec, layout)
    view = memoryview(payload).cast("B")
    energy = 0.0
    for block in layout.blocks:
        energy += codec.energy_block(view, layout, block, seed)
        if not math.isfinite(energy):
            name = layout.segments[block.segment].name
            raise PeerError(RejectReason.NOT_FINITE, f"a decoded value of segment {name} is not finite")
    return math.sqrt(energy)
