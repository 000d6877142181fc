"""What each codec costs and loses: `python -m benchmarks.codecs [--json FILE] [--parameters N] [--seeds N]`.

Loss is NMSE = ||x^ - x||^2 / ||x||^2 over the tensors that are quantized, of normal values, of Student-t(3) values,
whose tails are heavier than those of most deltas, and of a real delta (benchmarks.codec_inputs): with FEDWARD_DATA
that of a network trained on X-rays. Beside it stands what the theory says, and how far off it is.

A codec is unbiased when the mean over seeds is what was encoded. Two figures tell: the length of that mean along x,
which is to be 1, and the loss of the mean of N decodings times N, over the loss of one, which stays 1 where
only noise is left to average and grows to N where every seed errs alike.

Speed counts float32 bytes, is the median of several runs, and stands next to that of copying the same vector, which
nothing that reads and writes it can beat. Set OPENBLAS_NUM_THREADS=1 (or your BLAS's own setting) for one thread.

The exit code is 1 when a bar is missed.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.codec_inputs import Input, heavy_tailed, normal, trained_delta
from benchmarks.codec_loss import NUM_UPDATES, SEED, Bias, Loss, Sharing, bias, loss, sharing
from fedward.codec import CODECS, Codec, decode
from fedward.layout import Kind, Layout, Tensor

RESNET18 = 11_200_000
WIDTHS = (64, 128, 256, 512)
"""Channels of the four stages; two residual blocks each make a ResNet-18."""

UNBIASED = ("f32", "f32z", "eden4", "eden2", "eden1")
"""The codecs that claim it."""

SIMILARITIES = (0.0, 0.5, 1.0)

NMSE_BAR = 0.03
"""How far the loss may be above the theory's, as a share of it; below is no harm, and common with heavy tails."""

BIAS_BAR = 1e-3
"""How far the length along x of the mean over seeds may be from 1."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """One codec. `bits` and `losses` by name of the input; speeds are MB (10^6 bytes) of float32 a second."""

    name: str
    bits: Mapping[str, float]
    losses: Mapping[str, Loss]
    bias: Bias | None  # where the codec claims to have none
    sharing: Mapping[float, Sharing]  # by similarity of the updates; of codecs that draw from a seed
    encode_mb_s: float
    decode_mb_s: float


def _stage(stage: int, before: int, width: int, residual_blocks: int) -> Iterator[Tensor]:
    """The tensors of one stage: two 3x3 convolutions with batch norm in each residual block, and the shortcut."""
    for index in range(residual_blocks):
        inputs = before if index == 0 else width
        name = f"layer{stage}.{index}"
        yield Tensor(f"{name}.conv1.weight", (width, inputs, 3, 3))
        yield Tensor(f"{name}.conv2.weight", (width, width, 3, 3))
        if inputs != width:
            yield Tensor(f"{name}.shortcut.weight", (width, inputs, 1, 1))
        for norm in ("bn1", "bn2"):
            yield Tensor(f"{name}.{norm}.weight", (width,))
            yield Tensor(f"{name}.{norm}.bias", (width,))
            yield Tensor(f"{name}.{norm}.running_mean", (width,), Kind.STATISTIC)
            yield Tensor(f"{name}.{norm}.running_var", (width,), Kind.STATISTIC)


def resnet_like(parameters: int) -> Layout:
    """A ResNet-18 whose widths are scaled to have about this many parameters."""
    scale = (parameters / RESNET18) ** 0.5
    widths = [max(1, round(width * scale)) for width in WIDTHS]
    tensors = [Tensor("stem.weight", (widths[0], 3, 7, 7)), Tensor("head.weight", (2, widths[-1]))]
    for stage, (before, width) in enumerate(zip([widths[0], *widths], widths, strict=False), start=1):
        tensors += _stage(stage, before, width, residual_blocks=2)
    return Layout.of(tensors)


def median_s(run: Callable[[], object], repeats: int) -> float:
    """Median seconds of `run`, after one run that does not count."""
    run()
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        run()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def measure(codec: Codec, inputs: Sequence[Input], repeats: int, num_seeds: int) -> Result:
    """The row of one codec; speeds are those on the first input, bias that on the last."""
    first, last = inputs[0], inputs[-1]
    payload = codec.encode(first.vector_P, first.layout, SEED)
    megabytes = first.vector_P.nbytes / 1e6
    sizes = {given.name: len(codec.encode(given.vector_P, given.layout, SEED)) for given in inputs}
    return Result(
        name=codec.name,
        bits={given.name: 8 * sizes[given.name] / given.layout.size for given in inputs},
        losses={given.name: loss(codec, given) for given in inputs},
        bias=bias(codec, last, num_seeds) if codec.name in UNBIASED else None,
        sharing={} if codec.deterministic else {given: sharing(codec, given) for given in SIMILARITIES},
        encode_mb_s=megabytes / median_s(lambda: codec.encode(first.vector_P, first.layout, SEED), repeats),
        decode_mb_s=megabytes / median_s(lambda: decode(payload, codec, first.layout, SEED), repeats),
    )


def measure_copy(layout: Layout, repeats: int) -> Result:
    """The bound: the same vector copied into memory that is already there."""
    source_P, target_P = np.ones((2, layout.size), np.float32)
    speed = source_P.nbytes / 1e6 / median_s(lambda: np.copyto(target_P, source_P), repeats)
    return Result(name="copy", bits={}, losses={}, bias=None, sharing={}, encode_mb_s=speed, decode_mb_s=speed)


def show(results: Sequence[Result], inputs: Sequence[Input]) -> bool:
    """Print the tables and the verdicts; whether every bar is met."""
    for given in inputs:
        print(f"{given.name}: {given.layout.size:,} parameters, kurtosis {given.kurtosis:.3g}")
    names = [given.name for given in inputs]
    print(f"{'codec':<7}" + "".join(f"{'bits':>8}{'NMSE ' + name:>14}{'off by':>8}" for name in names))
    for row in results:
        if row.losses:
            print(f"{row.name:<7}" + "".join(f"{row.bits[name]:>8.3f}{_loss(row.losses[name])}" for name in names))
    print(f"{'codec':<7}{'encode MB/s':>13}{'decode MB/s':>13}{'mean along x':>15}{'noise left':>12}")
    for row in results:
        told = f"{row.bias.along:>15.6f}{row.bias.noise_left:>12.3f}" if row.bias else ""
        print(f"{row.name:<7}{row.encode_mb_s:>13,.0f}{row.decode_mb_s:>13,.0f}{told}")
    print(f"error of the mean of {NUM_UPDATES} updates by their similarity, with seeds of their own / with one seed")
    for row in results:
        if row.sharing:
            errors = (f"{given:g}: {found.own:.2e} / {found.shared:.2e}" for given, found in row.sharing.items())
            print(f"{row.name:<7}{'   '.join(errors)}")
    missed = misses(results)
    print(f"NMSE at most {NMSE_BAR:.0%} above the theory's, bias within {BIAS_BAR:g}: {'; '.join(missed) or 'met'}")
    return not missed


def _loss(found: Loss) -> str:
    return f"{found.nmse:>14.3e}" + ("       -" if found.deviation is None else f"{found.deviation:>+8.1%}")


def misses(results: Sequence[Result]) -> list[str]:
    """What is outside its bar, in words."""
    return [
        f"{row.name} on {name} is off by {found.deviation:+.1%}"
        for row in results
        for name, found in row.losses.items()
        if found.deviation is not None and found.deviation > NMSE_BAR
    ] + [
        f"{row.name} is biased: {row.bias.along:.4f}"
        for row in results
        if row.bias and abs(row.bias.along - 1) > BIAS_BAR
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 1 when a bar is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.codecs", description="Cost and loss of each codec.")
    data = os.environ.get("FEDWARD_DATA")
    parser.add_argument("--data", type=Path, default=data and Path(data), help="folder with pneumoniamnist.npz")
    parser.add_argument("--parameters", type=int, default=RESNET18, help="size of the model (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="timed runs, 3 or more (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=8, help="over which bias is looked for (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    options = parser.parse_args(arguments)
    if options.repeats < 3 or options.parameters < 1 or options.seeds < 1:
        parser.error("needs --repeats of at least 3, --parameters and --seeds of at least 1")
    layout = resnet_like(options.parameters)
    images = options.data / "pneumoniamnist.npz" if options.data else None
    inputs = [normal(layout), heavy_tailed(layout), trained_delta(images)]
    results = [measure(codec, inputs, options.repeats, options.seeds) for codec in CODECS.values()]
    results.append(measure_copy(layout, options.repeats))
    met = show(results, inputs)
    if options.json:
        document = {"parameters": layout.size, "numpy": np.__version__, "codecs": [asdict(row) for row in results]}
        options.json.write_text(json.dumps(document, indent=2) + "\n")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
