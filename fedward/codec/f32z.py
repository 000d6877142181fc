"""f32z: lossless. x^ = x bit for bit (`test_the_lossless_codecs_bring_back_every_bit`), in about 27 bits a parameter.

The four bytes of a float32 are as different as can be: sign and exponent repeat, the last bits of the fraction look
random. So the block's first bytes come first, then its second ones, and so on: the repeating ones meet each other, and
the entropy coder finds them. Normal values come out a sixth smaller; values that repeat, or zeros, much more.

A block of B elements: one zstd frame of 4 B bytes, the lowest byte of every element, then the next one, to the highest.
"""

import numpy as np

from fedward.codec import frame
from fedward.codec.blocks import BlockCodec, Planes, Quantizer
from fedward.layout import Block, Vector

SHIFTS = tuple(np.uint32(shift) for shift in (0, 8, 16, 24))
"""Of the four bytes of a value, the lowest first."""


def _most_bytes(size: int) -> int:
    return frame.most_bytes(4 * size)


def _encode(values_B: Vector, _block: Block, _seed: bytes) -> Planes:
    words_B = values_B.astype("<f4", copy=False).view("<u4")
    return [frame.packed(*((words_B >> shift).astype(np.uint8) for shift in SHIFTS))]


def _decode(raw: memoryview, block: Block, _seed: bytes) -> Vector:
    planes = frame.unpacked(raw, 4 * block.size).reshape(4, block.size)
    words_B = np.zeros(block.size, np.uint32)
    for plane, shift in zip(planes, SHIFTS, strict=True):
        words_B |= plane.astype(np.uint32) << shift
    return words_B.view(np.float32)


F32Z = BlockCodec(
    "f32z",
    bits=32,
    deterministic=True,
    carries_updates=True,
    quantizer=Quantizer(_most_bytes, _encode, _decode, varies=True),
    exact=True,
)
