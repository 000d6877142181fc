"""What a codec loses, beside what the theory says, and whether it is unbiased. Shape letter: P parameters."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.codec_inputs import Input
from fedward.codec import Codec, decode, seed_of
from fedward.codec.eden import MAGNITUDES
from fedward.codec.q8 import GROUP, LEVELS
from fedward.codec.uqz import STEP
from fedward.layout import Layout, Tensor, Vector

SEED = seed_of("benchmarks.codecs")

NUM_UPDATES = 16
SHARING_LAYOUT = Layout.of([Tensor("weight", (64, 4096))])


@dataclass(frozen=True, kw_only=True)
class Loss:
    """What a codec loses of one input; `expected` is the theory's figure, None where it has none."""

    nmse: float
    expected: float | None

    @property
    def deviation(self) -> float | None:
        """From the theory, as a share of it."""
        return self.nmse / self.expected - 1 if self.expected else None


@dataclass(frozen=True, kw_only=True)
class Bias:
    """What the mean over seeds says: its length along x as a share of x, and its loss times seeds, over one's."""

    along: float
    noise_left: float


def energy(values_P: Vector) -> float:
    """The sum of squares."""
    return float(np.square(values_P, dtype=np.float64).sum())


def loss(codec: Codec, given: Input) -> Loss:
    """After a round trip, over the quantized tensors."""
    decoded_P = decode(codec.encode(given.vector_P, given.layout, SEED), codec, given.layout, SEED)
    error_P = given.quantized(decoded_P) - given.quantized(given.vector_P)
    return Loss(nmse=energy(error_P) / energy(given.quantized(given.vector_P)), expected=expected(codec.name, given))


def expected(name: str, given: Input) -> float | None:
    """The theory's NMSE.

    Of q8 and uqz s^2 / 12 an element, with s the step there: what even rounding loses. Of EDEN D / (1 - D) whatever
    the input, with D the loss of a standard normal variable to the levels (Vargaftik et al., arXiv:2108.08842).
    """
    if name == "q8":
        return _even_rounding(given)
    if name == "uqz":
        return float(STEP) ** 2 / 12
    bits = {f"eden{bits}": bits for bits in MAGNITUDES}.get(name)
    if bits is None:
        return 0.0 if name.startswith("f32") else None
    distortion = normal_distortion(MAGNITUDES[bits])
    return distortion / (1 - distortion)


def _even_rounding(given: Input) -> float:
    """Of the groups of each tensor, s = max|x| / 127; a tensor's last group may be smaller."""
    lost = 0.0
    for segment in given.layout.segments:
        if not segment.exact:
            magnitudes = np.abs(given.vector_P[segment.start : segment.stop])
            starts = np.arange(0, magnitudes.size, GROUP)
            steps = np.maximum.reduceat(magnitudes, starts).astype(np.float64) / LEVELS
            lost += float(np.diff(starts, append=magnitudes.size) @ steps**2) / 12
    return lost / energy(given.quantized(given.vector_P))


def normal_distortion(magnitudes: Sequence[float]) -> float:
    """Mean squared error of a standard normal variable rounded to the nearest of these levels and their negatives."""
    grid = np.linspace(0, 12, 1_200_001)
    density = np.exp(-(grid**2) / 2) * np.sqrt(2 / np.pi)
    boundaries = [(low + high) / 2 for low, high in itertools.pairwise(magnitudes)]
    nearest = np.array(magnitudes)[np.searchsorted(boundaries, grid)]
    return float(np.trapezoid((grid - nearest) ** 2 * density, grid))


def bias(codec: Codec, given: Input, num_seeds: int) -> Bias:
    """Over `num_seeds` encodings of one input."""
    seeds = [seed_of("benchmarks.codecs", number) for number in range(num_seeds)]
    x_P = given.quantized(given.vector_P)
    sum_P, single = np.zeros(x_P.size, np.float64), 0.0
    for seed in seeds:
        payload = codec.encode(given.vector_P, given.layout, seed)
        decoded_P = given.quantized(decode(payload, codec, given.layout, seed))
        sum_P += decoded_P
        single += energy(decoded_P - x_P) / num_seeds
    mean_P = sum_P / num_seeds
    return Bias(
        along=float(mean_P @ x_P.astype(np.float64)) / energy(x_P),
        noise_left=num_seeds * float(np.square(mean_P - x_P).sum()) / single if single else 1.0,
    )


@dataclass(frozen=True, kw_only=True)
class Sharing:
    """Error of the mean of NUM_UPDATES updates, as a share of one's energy: each with its own seed, or all with one."""

    own: float
    shared: float


def sharing(codec: Codec, similarity: float) -> Sharing:
    """Of normal updates that are this much the same: 0 not at all, 1 identical (the mean of x_i x_j over x_i^2)."""
    rng = np.random.default_rng(4)
    same_P = rng.standard_normal(SHARING_LAYOUT.size, np.float32)
    own_P, shared_P = np.zeros((2, SHARING_LAYOUT.size), np.float64)
    energies = 0.0
    for number in range(NUM_UPDATES):
        drawn_P = rng.standard_normal(SHARING_LAYOUT.size, np.float32)
        x_P = (similarity**0.5 * same_P + (1 - similarity) ** 0.5 * drawn_P).astype(np.float32)
        energies += energy(x_P)
        own_P += _error(codec, x_P, seed_of("own", number))
        shared_P += _error(codec, x_P, SEED)
    scale = NUM_UPDATES * energies  # the errors are sums, and the energies too
    return Sharing(own=float(own_P @ own_P) / scale, shared=float(shared_P @ shared_P) / scale)


def _error(codec: Codec, x_P: Vector, seed: bytes) -> Vector:
    return decode(codec.encode(x_P, SHARING_LAYOUT, seed), codec, SHARING_LAYOUT, seed) - x_P
