"""uqz: one uniform step a block, entropy coded: about 3.2 bits a parameter, fewer where many values are near zero.

In each block of at most 65536 elements, the step is s = STEP * rms(x), q = rint(x / s), x^ = q * s. The codes q are
mostly small, which is what the entropy coder lives on: the fewer bits, the more of the values are near zero. An element
whose |q| is above 127 is outside the codes and travels exactly, beside them.

What it promises, and the test that holds it:
    |x^ - x| <= (1/2 + 2^-15) s   for every element      `test_uqz_is_off_by_at_most_half_a_step`
    NMSE <= STEP^2 / 4            above an rms of 1e-37   `test_uqz_loses_at_most_a_quarter_of_a_step_squared`
    NMSE = STEP^2 / 12 = 0.0208   where values are spread over many steps, as normal ones are (Bennett, Spectra of
                                  Quantized Signals, 1948)  `test_uqz_loses_what_its_step_says_of_normal_values`

A block of rms 2.8e36 or more is refused (ValueError): 127 s could be infinite.
It is biased: what is below half a step is rounded to nothing, every time. So it carries the model down, where the
coordinator keeps what was left over and sends it with the next version, and never an update.
Decoding is one elementwise multiplication: the same bits on every machine.

A block of B elements: s as little-endian float32; the number E of elements outside the codes as uint32; their indices
in the block, rising, as E uint32; their values as E float32; one zstd frame of B codes as int8, 0 for those outside.
"""

import numpy as np
import numpy.typing as npt

from fedward.codec import frame
from fedward.codec.blocks import BlockCodec, Planes, Quantizer
from fedward.errors import PeerError, RejectReason
from fedward.layout import Block, Vector

STEP = np.float32(0.5)
"""Twice what eden4 loses, and what is lost goes down with the next version: a finer step would cost half a bit."""
LEVELS = 127

_HEAD_BYTES = 8
_SMALLEST_STEP = np.finfo(np.float32).smallest_normal
_LARGEST_STEP = np.float32(1e36)
"""|q * s| is at most 127 s, which must stay below 3.4e38."""


def _most_outside(size: int) -> int:
    """Elements of a block that can be outside: E of them, each of 127.5 STEP rms or more, hold E (127.5 STEP)^2 rms^2
    of the block's energy B rms^2, and (127.5 / 2)^2 = 4064; the rest down to 1024 is room for a finer step."""
    return size // 1024 + 1


def _most_bytes(size: int) -> int:
    return _HEAD_BYTES + 8 * _most_outside(size) + frame.most_bytes(size)


def _step(values_B: Vector) -> np.float32:
    """s; 0 for a block of zeros, and never subnormal, which a process that flushes those would decode otherwise."""
    energy = float(np.square(values_B, dtype=np.float64).sum())
    if energy == 0.0:
        return np.float32(0)
    step = float(STEP) * (energy / values_B.size) ** 0.5
    if step > _LARGEST_STEP:
        raise ValueError(f"values of rms {_LARGEST_STEP / STEP:.1e} or more could not be decoded in float32")
    return np.float32(max(step, _SMALLEST_STEP))


def _encode(values_B: Vector, _block: Block, _seed: bytes) -> Planes:
    step = _step(values_B)
    scaled = values_B / (step or np.float32(1))
    np.rint(scaled, out=scaled)
    outside = np.flatnonzero(np.abs(scaled) > LEVELS)
    scaled[outside] = 0
    return [
        np.array([step], "<f4").view(np.uint8),
        np.array([outside.size], "<u4").view(np.uint8),
        outside.astype("<u4"),
        values_B[outside].astype("<f4", copy=False),
        frame.packed(scaled.astype(np.int8).view(np.uint8)),
    ]


def _decode(raw: memoryview, block: Block, _seed: bytes) -> Vector:
    step, outside, exact, codes = _parsed(raw, block.size)
    with np.errstate(over="ignore", invalid="ignore"):  # the step comes from the other side: `norm` refuses these
        values: Vector = np.multiply(codes, step, dtype=np.float32)
    values[outside] = exact
    return values


def _parsed(raw: memoryview, size: int) -> tuple[np.float32, npt.NDArray[np.intp], Vector, npt.NDArray[np.int8]]:
    """Step, indices and values of the elements outside, codes. Raises PeerError (MALFORMED)."""
    if raw.nbytes < _HEAD_BYTES:
        raise PeerError(RejectReason.MALFORMED, f"a block of {raw.nbytes} bytes, expected {_HEAD_BYTES} or more")
    step = np.frombuffer(raw, "<f4", 1)[0].astype(np.float32)
    count = int(np.frombuffer(raw, "<u4", 1, 4)[0])
    start = _HEAD_BYTES + 8 * count
    if count > _most_outside(size) or start > raw.nbytes:
        raise PeerError(RejectReason.MALFORMED, f"a block with {count} elements outside its codes")
    outside = np.frombuffer(raw, "<u4", count, _HEAD_BYTES).astype(np.intp)
    if count and (int(outside[-1]) >= size or not (outside[1:] > outside[:-1]).all()):
        raise PeerError(RejectReason.MALFORMED, "elements that do not rise, or lie beyond their block")
    exact = np.frombuffer(raw, "<f4", count, _HEAD_BYTES + 4 * count).astype(np.float32)
    return step, outside, exact, frame.unpacked(raw[start:], size).view(np.int8)


UQZ = BlockCodec(
    "uqz",
    bits=4,
    deterministic=True,
    carries_updates=False,
    quantizer=Quantizer(_most_bytes, _encode, _decode, varies=True),
)
