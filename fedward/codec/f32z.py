"""f32z: lossless. x^ = x bit for bit (`test_the_lossless_codecs_bring_back_every_bit`), in about 28 bits a parameter.

The four bytes of a float32 are as different as can be: sign and exponent repeat, the last bits of the fraction look
random. So the block's first bytes come first, then its second ones, and so on: the repeating ones meet each other, and
the entropy coder finds them. Normal values come out an eighth smaller; values that repeat, or zeros, much more.

A block of B elements: one zstd frame of 4 B bytes, the lowest byte of every element, then the next one, to the highest.
"""

import numpy as np

from fedward.codec import frame
from fedward.codec.blocks import BlockCodec, Planes, Quantizer
from fedward.layout import Block, Vector


def _most_bytes(size: int) -> int:
    return frame.most_bytes(4 * size)


def _encode(values_B: Vector, _block: Block, _seed: bytes) -> Planes:
    byte_rows = values_B.astype("<f4", copy=False).view(np.uint8).reshape(-1, 4)
    return [frame.packed(np.ascontiguousarray(byte_rows.T))]


def _decode(raw: memoryview, block: Block, _seed: bytes) -> Vector:
    planes = frame.unpacked(raw, 4 * block.size).reshape(4, block.size)
    return np.ascontiguousarray(planes.T).reshape(-1).view("<f4").astype(np.float32, copy=False)


F32Z = BlockCodec(
    "f32z", deterministic=True, quantizer=Quantizer(_most_bytes, _encode, _decode, varies=True), exact=True
)
