"""eden4, eden2, eden1: 4, 2 or 1 bits and a share of a scale a parameter, unbiased, nearly the same loss on any input.

EDEN (Vargaftik et al. 2022, arXiv:2108.08842): rotate at random, so that the coordinates look Gaussian whatever
the input was; round each to the nearest level of the best quantizer of a Gaussian with 2^bits levels; choose the scale
that makes it unbiased. It keeps no state. For every rotation block x of 4096 elements, with H the orthonormal 64 x 64
Hadamard matrix, random signs s, and codebook levels c:

    y = H (s * x) H             as 64 x 64 matrices: this is the Hadamard transform of 4096 elements
    c = the level nearest to y / rms(y)
    S = ||x||^2 / sum(y c)     x^ = s * (H c H) S

What it promises, and the test that holds it:
    <x^, x> = ||x||^2 per rotation block, to float32 rounding   `test_eden_keeps_the_length_along_the_input`
    the mean of x^ over seeds is x                              `test_eden_is_unbiased_over_seeds`
    NMSE = ||x^ - x||^2 / ||x||^2 = D / (1 - D), where D is what the quantizer loses of a standard normal variable:
    0.0096 with 4 bits, 0.133 with 2, 0.571 with 1, for normal, heavy-tailed, sparse and constant inputs alike
                                                                `test_eden_loses_the_same_share_whatever_the_input`
A block with only a handful of elements that are not zero does not look Gaussian after the rotation; eden4 may lose
up to 0.02 of it (`test_eden4_loses_at_most_two_percent_of_a_few_elements`). Below an rms of 1e-38 the scale is
subnormal and holds fewer bits. A rotation block of rms 1e36 or more is refused (ValueError): x^ could be infinite.

Decoding goes through BLAS, whose last bits differ from machine to machine: not for what must be equal everywhere.

The rotation is linear, so a weighted sum of blocks of one seed is summed before it is rotated back, once. And it keeps
lengths: ||x^||^2 = S^2 sum(c^2), without decoding. With 4 bits the updates from one base version share their seed;
with fewer, errors that are alike where the updates are would cost half as much again (docs/codecs.md).

A block of B elements, padded with zeros to R rotation blocks: R scales S as little-endian float32, then R x 512 x bits
bytes of codes, the earlier element in the lower bits of a byte. A code is the index of the level's magnitude, and above
it a bit that is 1 for a negative level. Shape letters: B elements of a block, R its rotation blocks.
"""

import itertools
from collections.abc import Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from fedward.codec.blocks import BlockCodec, Planes, Quantizer, energy_of, peaks, rows
from fedward.codec.seed import seed_of
from fedward.layout import Block, Vector

SIDE = 64
ROTATION = SIDE * SIDE

MAGNITUDES = {
    1: (0.79788,),
    2: (0.45278, 1.51042),
    4: (0.12840, 0.38805, 0.65676, 0.94234, 1.25623, 1.61805, 2.06902, 2.73259),
}
"""Of each number of bits, those of the Lloyd-Max quantizer of a standard normal variable; a test derives them again."""

LARGEST_SCALE = np.float32(1e36)
"""|x^| is at most 64 * 2.74 S (every term of both sums with one sign), which must stay below 3.4e38."""

_SMALLEST_SCALE = np.float32(1e-30)
"""Far enough above the subnormal numbers that no decoded value of weight loses bits to them."""

_TOGETHER = 8
"""Payloads whose levels are held at once in a sum: 2 MiB for a block of 65,536 elements."""

Matrices = npt.NDArray[np.float32]
Codes = npt.NDArray[np.uint8]


def hadamard(side: int) -> Matrices:
    """(side, side) float32: the orthonormal Hadamard matrix in Sylvester's order; `side` is a power of two."""
    matrix: Matrices = np.full((1, 1), side**-0.5, np.float32)
    while len(matrix) < side:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return matrix


_HADAMARD = hadamard(SIDE)
_BYTES = np.arange(256)
SIGNS_OF_BYTE: Matrices = (1 - 2 * ((_BYTES[:, None] >> np.arange(8)) & 1)).astype(np.float32)
"""(256, 8): the signs that the bits of a byte stand for, low bit first."""


class Codebook:
    """The levels of one number of bits, and how their codes lie in bytes."""

    def __init__(self, bits: int) -> None:
        magnitudes = MAGNITUDES[bits]
        self.bits = bits
        self.bytes_a_rotation = ROTATION * bits // 8
        self.boundaries = tuple(np.float32((low + high) / 2) for low, high in itertools.pairwise(magnitudes))
        """Between magnitudes that are neighbours: half way."""
        self._negative = len(magnitudes)
        level_of_code = np.array([*magnitudes, *(-magnitude for magnitude in magnitudes)], np.float32)
        shifts = np.arange(0, 8, bits)
        self._levels_of_byte: Matrices = level_of_code[
            _BYTES[:, None] >> shifts & (2**bits - 1)
        ]  # (256, codes of a byte)
        self._energy_of_byte = np.square(self._levels_of_byte, dtype=np.float64).sum(axis=1)

    def nearest(self, gaussian: Matrices) -> Codes:
        """(R, 4096) -> the same shape: the code of the level nearest to each element."""
        outside = np.signbit(gaussian)
        codes = outside.view(np.uint8) * np.uint8(self._negative)
        if self.boundaries:
            magnitudes = np.abs(gaussian)
            for boundary in self.boundaries:
                np.greater(magnitudes, boundary, out=outside)
                np.add(codes, outside.view(np.uint8), out=codes)
        return codes

    def packed(self, codes: Codes) -> Codes:
        """(R, 4096) codes -> (R, bytes_a_rotation)."""
        if self.bits == 1:
            return np.packbits(codes, axis=1, bitorder="little")
        words: npt.NDArray[np.unsignedinteger] = codes.view(f"<u{8 // self.bits}")  # one code in each byte
        packed = words.copy()
        for place in range(1, 8 // self.bits):
            packed |= words >> place * (8 - self.bits)
        return packed.astype(np.uint8)

    def levels(self, packed: Codes, out: Matrices | None = None) -> Matrices:
        """(R, bytes_a_rotation) -> (R, 4096) the levels of the codes, in `out` where it is given."""
        if out is None:
            out = np.empty((len(packed), ROTATION), np.float32)
        # Other modes than "clip" would go through a buffer.
        self._levels_of_byte.take(packed, axis=0, mode="clip", out=out.reshape(*packed.shape, -1))
        return out

    def energies(self, packed: Codes) -> npt.NDArray[np.float64]:
        """(R, bytes_a_rotation) -> (R,) the sum of squares of the levels of the codes."""
        energies: npt.NDArray[np.float64] = self._energy_of_byte.take(packed, mode="clip").sum(axis=1)
        return energies


def sign_bytes(seed: bytes, block: Block) -> Codes:
    """(R, 512): one bit for each element of a block, low bit first, 1 for a minus; from the seed and the block's place.

    They are Philox 4x64's raw 64-bit words, least significant byte first: unlike numpy's `Generator` methods, this
    stream is the same everywhere. The key is the first half of a SHA-256.
    """
    rotations = _rotations(block.size)
    key = int.from_bytes(seed_of(seed, block.segment, block.offset)[:16], "little")
    words = np.random.Philox(key=key).random_raw(rotations * ROTATION // 64)
    return words.astype("<u8", copy=False).view(np.uint8).reshape(rotations, -1)


def signs(seed: bytes, block: Block) -> Matrices:
    """(R, 4096) float32 of +1 and -1 for a block, as `sign_bytes` says."""
    return SIGNS_OF_BYTE.take(sign_bytes(seed, block), axis=0, mode="clip").reshape(-1, ROTATION)


def _rotations(size: int) -> int:
    return -(-size // ROTATION)


def _most_bytes(book: Codebook, size: int) -> int:
    return _rotations(size) * (4 + book.bytes_a_rotation)


def _rotated(values: Matrices) -> Matrices:
    """(R, 4096) -> H x H of each; its own inverse."""
    half = values.reshape(-1, SIDE) @ _HADAMARD
    return (_HADAMARD @ half.reshape(-1, SIDE, SIDE)).reshape(-1, ROTATION)


def _units(values: Matrices) -> Vector:
    """(R,) a power of two near each row's peak: dividing by it is exact and keeps squares in float32's range."""
    _, exponents = np.frexp(peaks(values))
    units: Vector = np.ldexp(np.float32(1), np.clip(exponents, -100, 100))
    return units


def _encode(book: Codebook, values_B: Vector, block: Block, seed: bytes) -> Planes:
    values = rows(values_B, ROTATION)
    units = _units(values)
    scaled = values * signs(seed, block)
    scaled *= (1 / units)[:, None]
    rms = np.sqrt(np.vecdot(scaled, scaled) / ROTATION)
    gaussian = _rotated(scaled)
    gaussian *= (1 / np.where(rms == 0, np.float32(1), rms))[:, None]
    packed = book.packed(book.nearest(gaussian))
    return [_scales(rms, np.vecdot(gaussian, book.levels(packed)), units).astype("<f4", copy=False), packed]


def _scales(rms: Vector, overlap: Vector, units: Vector) -> Vector:
    """(R,) S = units * 4096 rms^2 / (rms * overlap), 0 for a row of zeros; overlap = sum(y c) / rms."""
    with np.errstate(over="ignore"):
        scales = units * np.divide(ROTATION * rms, overlap, out=np.zeros_like(rms), where=overlap > 0)
    if not (scales <= LARGEST_SCALE).all():
        raise ValueError(f"values of rms {LARGEST_SCALE:.0e} or more could not be decoded in float32")
    return scales


def _planes(raw: memoryview, block: Block) -> tuple[Vector, Codes]:
    """(R,) the scales and (R, bytes_a_rotation) the packed codes of a block."""
    rotations = _rotations(block.size)
    scales = np.frombuffer(raw, "<f4", rotations).astype(np.float32)
    return scales, np.frombuffer(raw, np.uint8, offset=4 * rotations).reshape(rotations, -1)


def _decode(book: Codebook, raw: memoryview, block: Block, seed: bytes) -> Vector:
    return _weighted_sum(book, [raw], [1.0], block, seed)


def _weighted_sum(
    book: Codebook, raws: Sequence[memoryview], weights: Sequence[float], block: Block, seed: bytes
) -> Vector:
    return _padded_sum(book, raws, weights, block, seed).reshape(-1)[: block.size]


def _padded_sum(
    book: Codebook, raws: Sequence[memoryview], weights: Sequence[float], block: Block, seed: bytes
) -> Matrices:
    """(R, 4096), with the padding of the last rotation block."""
    scales, packed = zip(*(_planes(raw, block) for raw in raws), strict=True)
    with np.errstate(over="ignore", invalid="ignore"):  # `norm` refuses what this makes
        factors = np.stack(scales) * np.asarray(weights, np.float32)[:, None]
        levels, units = _rotated_sum(book, packed, factors)
        values = _rotated(levels)  # the units come last: how large the other side's scales are stays out of BLAS
        values *= signs(seed, block)
        values *= units[:, None]
    return values


def _rotated_sum(book: Codebook, packed: Sequence[Codes], factors: Matrices) -> tuple[Matrices, Vector]:
    """Codes and (K, R) factors of K payloads -> (R, 4096) and (R,) units, whose product is the sum before rotation."""
    if len(packed) == 1:
        return book.levels(packed[0]), factors[0]
    peak = np.abs(factors).max(axis=0)
    units: Vector = np.where(peak == 0, np.float32(1), peak)
    factors = factors / units
    levels = np.zeros((units.size, 1, ROTATION), np.float32)
    held = np.empty((min(len(packed), _TOGETHER), units.size, ROTATION), np.float32)
    for first in range(0, len(packed), _TOGETHER):
        together = packed[first : first + _TOGETHER]
        for codes, out in zip(together, held, strict=False):
            book.levels(codes, out)
        shares = np.ascontiguousarray(factors[first : first + _TOGETHER].T)
        levels += shares[:, None, :] @ held[: len(together)].transpose(1, 0, 2)
    return levels[:, 0], units


def _energy(book: Codebook, raw: memoryview, block: Block, seed: bytes) -> float:
    """With what is in the padding. Decoding cuts that off, but a sum takes it in before: it must be bounded too."""
    scales, packed = _planes(raw, block)
    magnitudes = np.abs(scales)
    if not ((magnitudes == 0) | (magnitudes >= _SMALLEST_SCALE) & (magnitudes <= LARGEST_SCALE)).all():
        return energy_of(_padded_sum(book, [raw], [1.0], block, seed))
    return float(np.vecdot(book.energies(packed), np.square(scales, dtype=np.float64)))


def _codec(bits: int) -> BlockCodec:
    book = Codebook(bits)
    quantizer = Quantizer(
        partial(_most_bytes, book),
        partial(_encode, book),
        partial(_decode, book),
        weighted_sum=partial(_weighted_sum, book),
        energy=partial(_energy, book),
    )
    return BlockCodec(
        f"eden{bits}",
        bits=bits,
        deterministic=False,
        carries_updates=True,
        quantizer=quantizer,
        shared_seed=bits == 4,
    )


EDEN: Sequence[BlockCodec] = tuple(_codec(bits) for bits in (4, 2, 1))
