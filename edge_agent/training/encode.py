"""A delta where the model is -> the payload that travels.

On a CPU the codec of `fedward.codec` does it: with eden it takes less than half the time of what follows, with q8
about the same (`python -m benchmarks.encoding`). For a GPU the same steps are written in torch, with the same bytes in
the same places, so that only the payload crosses to the host: with eden4 an eighth of the float32 values.

What is equal to the codec's own payload, and the test that holds it:
    q8 and exact segments: every byte                           `test_q8_is_encoded_to_the_very_bytes_of_its_codec`
    eden: the size, scales to 1e-5, all codes but 1 in 10 000   `test_eden_is_encoded_like_its_codec_but_for_rare_ties`
A code differs where a value lies on a boundary, and the other machine's matrix product rounds it to the other side.

Shape letters: P parameters, N blocks of a run, B elements of each, R rotation blocks or groups of each.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import groupby
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from edge_agent.training.module import all_finite
from fedward.codec import codec
from fedward.codec.eden import LARGEST_SCALE, MAGNITUDES, ROTATION, SIDE, SIGNS_OF_BYTE, Codebook, hadamard, sign_bytes
from fedward.codec.q8 import GROUP, LARGEST_STEP, LEVELS, SMALLEST_STEP
from fedward.layout import BLOCK_ELEMENTS, Block, Layout

Encoder = Callable[[Tensor, Sequence[Block], bytes], Tensor]
"""(N, B) finite float32 values of a run of blocks, and the seed -> (N, bytes of a block) uint8 on the same device."""

RUN_ELEMENTS = 32 * BLOCK_ELEMENTS
"""What is encoded at once: a GPU is kept busy, and an intermediate result takes 8 MB of its memory."""


def encode(delta_P: Tensor, layout: Layout, name: str, seed: bytes) -> bytes:
    """(P,) float32 on any device -> a payload of the codec of this name.

    A codec that has no twin here encodes on the host, and then the whole delta crosses. Raises ValueError for a NaN,
    an infinity, values too large for the codec, another shape or another dtype, PeerError (UNKNOWN_CODEC).
    """
    if delta_P.device.type == "cpu" or name not in TWINS:
        return codec(name).encode(delta_P.cpu().numpy(), layout, seed)
    return encode_on_device(delta_P, layout, name, seed)


def encode_on_device(delta_P: Tensor, layout: Layout, name: str, seed: bytes) -> bytes:
    """`encode` for the codecs in TWINS, computed where the delta is."""
    if delta_P.shape != (layout.size,) or delta_P.dtype != torch.float32:
        raise ValueError(f"got {delta_P.dtype} {tuple(delta_P.shape)}, expected float32 ({layout.size},)")
    quantized = TWINS[name](delta_P.device)
    pieces = []
    with float32_products(delta_P.device):
        for run in runs(layout):
            segment = layout.segments[run[0].segment]
            values = delta_P.narrow(0, run[0].start, len(run) * run[0].size).reshape(len(run), -1)
            if not all_finite(values):
                raise ValueError(f"segment {segment.name} has a NaN or an infinity")
            encoded = (_exact if segment.exact else quantized)(values, run, seed)
            pieces.append(encoded.cpu().numpy().data)
    return b"".join(pieces)


def runs(layout: Layout) -> Iterator[list[Block]]:
    """The layout's blocks in order, cut into runs of equal size within a segment."""
    for _, run in groupby(layout.blocks, lambda block: (block.segment, block.size, block.offset // RUN_ELEMENTS)):
        yield list(run)


@contextmanager
def float32_products(device: torch.device) -> Iterator[None]:
    """Matrix products of float32 are computed in float32, whatever a task has switched on for its own; then it is back.

    TF32 keeps 10 bits of each factor: with eden4 one code in a thousand would be its neighbour's, and with bf16's 7
    bits six.
    """
    matmul = torch.backends.cuda.matmul
    # torch 2.9 brought the first, and refuses to read the second for a task that has written the first.
    switch, off = ("fp32_precision", "ieee") if hasattr(matmul, "fp32_precision") else ("allow_tf32", False)
    before = getattr(matmul, switch)
    setattr(matmul, switch, off)
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        setattr(matmul, switch, before)


def _exact(values: Tensor, _run: Sequence[Block], _seed: bytes) -> Tensor:
    return _bytes_of(values)


def _q8(values: Tensor, _run: Sequence[Block], _seed: bytes) -> Tensor:
    """As `fedward.codec.q8`, operation by operation."""
    groups = _rows(values, GROUP)
    highest = groups.abs().amax(dim=-1, keepdim=True)
    # By a tensor: a GPU divides by a number as it multiplies with the reciprocal, which rounds to another step.
    steps = (highest / torch.full_like(highest, LEVELS)).clamp(float(SMALLEST_STEP), float(LARGEST_STEP))
    steps = torch.where(highest == 0, 0, steps)
    codes = (groups / torch.where(steps == 0, 1, steps)).round_().to(torch.int8)
    return torch.cat([_bytes_of(steps), _bytes_of(codes).narrow(1, 0, values.shape[1])], dim=1)


class _Eden:
    """As `fedward.codec.eden`; what it looks up lies on the device."""

    def __init__(self, bits: int, device: torch.device) -> None:
        self._bits = bits
        self._hadamard = torch.from_numpy(hadamard(SIDE)).to(device)
        self._signs_of_byte = torch.from_numpy(SIGNS_OF_BYTE).to(device)
        self._boundaries = torch.from_numpy(np.array(Codebook(bits).boundaries, np.float32)).to(device)
        self._magnitudes = torch.from_numpy(np.array(MAGNITUDES[bits], np.float32)).to(device)

    def __call__(self, values: Tensor, run: Sequence[Block], seed: bytes) -> Tensor:
        scaled = _rows(values, ROTATION)
        units = _units(scaled)
        scaled = scaled * self._signs(run, seed)
        scaled *= 1 / units
        rms = scaled.square().mean(dim=-1, keepdim=True).sqrt()
        gaussian = self._rotated(scaled)
        gaussian *= 1 / torch.where(rms == 0, 1, rms)
        magnitudes = gaussian.abs()
        nearest = torch.bucketize(magnitudes, self._boundaries, out_int32=True)
        overlap = (magnitudes * _looked_up(self._magnitudes, nearest)).sum(dim=-1, keepdim=True)
        scales = units * torch.where(overlap > 0, ROTATION * rms / overlap, 0)
        if not bool((scales <= float(LARGEST_SCALE)).all()):
            raise ValueError(f"values of rms {LARGEST_SCALE:.0e} or more could not be decoded in float32")
        return torch.cat([_bytes_of(scales), self._packed(nearest, gaussian.signbit())], dim=1)

    def _signs(self, run: Sequence[Block], seed: bytes) -> Tensor:
        """(N, R, 4096) of +1 and -1. What crosses to the device is one bit an element."""
        signs = torch.from_numpy(np.stack([sign_bytes(seed, block) for block in run])).to(self._hadamard.device)
        return _looked_up(self._signs_of_byte, signs.int()).reshape(len(run), -1, ROTATION)

    def _rotated(self, values: Tensor) -> Tensor:
        """(N, R, 4096) -> H x H of each."""
        half = values.reshape(-1, SIDE) @ self._hadamard
        return (self._hadamard @ half.reshape(-1, SIDE, SIDE)).reshape(values.shape)

    def _packed(self, magnitudes: Tensor, negative: Tensor) -> Tensor:
        """(N, R, 4096) each: index of the level's magnitude, and whether the level is negative -> (N, bytes)."""
        codes = magnitudes.to(torch.uint8) | negative.to(torch.uint8) << self._bits - 1
        first, *others = codes.reshape(len(codes), -1, 8 // self._bits).unbind(dim=-1)
        packed = first.clone()
        for place, later in enumerate(others, start=1):
            packed |= later << place * self._bits
        return packed


def _looked_up(table: Tensor, indices: Tensor) -> Tensor:
    """Rows of the table, (..., K) int32 -> (..., K, width of the table)."""
    return table.index_select(0, indices.reshape(-1)).reshape(*indices.shape, *table.shape[1:])


def _rows(values: Tensor, width: int) -> Tensor:
    """(N, B) -> (N, ceil(B / width), width), the last row of each block filled up with zeros."""
    missing = -values.shape[1] % width
    return (pad(values, (0, missing)) if missing else values).reshape(len(values), -1, width)


def _units(rows: Tensor) -> Tensor:
    """(..., width) -> (..., 1): a power of two near each row's peak.

    Made of the peak's exponent bits: exact on every device, as a device's own power function need not be.
    """
    peaks = rows.abs().amax(dim=-1, keepdim=True)
    below = (peaks.view(torch.int32) & 0x7F800000).view(torch.float32)
    return (2 * below).clamp(2.0**-100, 2.0**100)


def _bytes_of(values: Tensor) -> Tensor:
    """(N, ...) -> (N, bytes) uint8, little-endian as every host of a GPU is."""
    return values.reshape(len(values), -1).view(torch.uint8)


def _q8_on(_device: torch.device) -> Encoder:
    return _q8


def _exact_on(_device: torch.device) -> Encoder:
    return _exact


TWINS: Mapping[str, Callable[[torch.device], Encoder]] = MappingProxyType(
    {"f32": _exact_on, "q8": _q8_on, **{f"eden{bits}": partial(_Eden, bits) for bits in MAGNITUDES}}
)
"""By name of the codec: its encoder, made for a device. A codec whose blocks vary in size has none."""
