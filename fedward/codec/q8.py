"""q8: 8 bits and one scale for every 256 elements, 8.125 bits a parameter.

In each group of at most 256 elements, s = max|x| / 127, q = rint(x / s), x^ = q * s, so that

    |x^ - x| <= (1/2 + 2^-15) s     for every element (`test_q8_is_off_by_at_most_half_a_step`)

where 2^-15 covers the float32 rounding of x / s and of q * s, each at most 2^-24 of a number up to 127 s.
Two scales are not max|x| / 127. A group of zeros has s = 0. And s is never below the smallest normal float32,
2^-126, so that decoding meets no subnormal number: a process that flushes those to zero decodes the same bits.

Decoding is one elementwise multiplication: the same bits on every machine.

A block of B elements: ceil(B / 256) scales as little-endian float32, then B codes as int8.
Shape letters: B elements of a block, G its groups.
"""

import numpy as np
import numpy.typing as npt

from fedward.codec.blocks import BlockCodec, Planes, Quantizer, energy_of, peaks, rows
from fedward.layout import Block, Vector

GROUP = 256
LEVELS = 127

SMALLEST_STEP = np.finfo(np.float32).smallest_normal
LARGEST_STEP = np.nextafter(np.finfo(np.float32).max / np.float32(LEVELS), np.float32(0))
"""The largest s for which 127 s is still finite: one step below max / 127, which is rounded up."""


_LARGEST_STEP_OF_ANY_CODE = np.finfo(np.float32).max / np.float32(128)
"""A code of -128 is never encoded, but may come: up to this step it decodes to a finite value too."""


def _groups(size: int) -> int:
    return -(-size // GROUP)


def _most_bytes(size: int) -> int:
    return 4 * _groups(size) + size


def _steps(groups: npt.NDArray[np.float32]) -> Vector:
    """(G, 256) -> (G,) the scale s of each group."""
    highest = peaks(groups)
    steps: Vector = np.clip(highest / np.float32(LEVELS), SMALLEST_STEP, LARGEST_STEP)
    steps[highest == 0] = 0
    return steps


def _encode(values_B: Vector, _block: Block, _seed: bytes) -> Planes:
    groups = rows(values_B, GROUP)
    steps = _steps(groups)
    divisors = np.where(steps == 0, np.float32(1), steps)
    scaled = groups / divisors[:, None]
    codes_B = np.rint(scaled, out=scaled).astype(np.int8).reshape(-1)[: values_B.size]
    return [steps.astype("<f4", copy=False), codes_B]


def _planes(raw: memoryview, block: Block) -> tuple[Vector, npt.NDArray[np.float32]]:
    """(G,) the scales, and (G, 256) the codes as float32, zeros after the last."""
    count = _groups(block.size)
    codes = np.zeros(count * GROUP, np.float32)
    codes[: block.size] = np.frombuffer(raw, np.int8, block.size, 4 * count)
    return np.frombuffer(raw, "<f4", count).astype(np.float32), codes.reshape(count, GROUP)


def _decode(raw: memoryview, block: Block, _seed: bytes) -> Vector:
    steps, groups = _planes(raw, block)
    with np.errstate(over="ignore", invalid="ignore"):  # the scales come from the other side: `norm` refuses these
        np.multiply(groups, steps[:, None], out=groups)
    return groups.reshape(-1)[: block.size]


def _energy(raw: memoryview, block: Block, seed: bytes) -> float:
    steps, groups = _planes(raw, block)
    if not (np.abs(steps) <= _LARGEST_STEP_OF_ANY_CODE).all():
        return energy_of(_decode(raw, block, seed))
    squares = np.vecdot(groups, groups)  # exact: 256 whole numbers of at most 128^2 stay below 2^24
    return float(np.vecdot(squares.astype(np.float64), np.square(steps, dtype=np.float64)))


Q8 = BlockCodec(
    "q8",
    bits=8,
    deterministic=True,
    carries_updates=True,
    quantizer=Quantizer(_most_bytes, _encode, _decode, energy=_energy),
)
