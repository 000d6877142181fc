"""What each codec costs and loses: `python -m benchmarks.codecs [--json FILE] [--parameters N]`.

The model has the tensors of a ResNet. Loss is NMSE = ||x^ - x||^2 / ||x||^2, on normal values and on Student-t(3)
values, whose tails are heavier than those of most deltas. Speed counts float32 bytes, is the median of several runs,
and stands next to that of copying the same vector, which nothing that reads and writes it can beat.
Set OPENBLAS_NUM_THREADS=1 (or your BLAS's own setting) to measure one thread.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from fedward.codec import CODECS, Codec, decode, seed_of
from fedward.layout import Kind, Layout, Tensor, Vector

RESNET18 = 11_200_000
WIDTHS = (64, 128, 256, 512)
"""Channels of the four stages; two residual blocks each make a ResNet-18."""

SEED = seed_of("benchmarks.codecs")


@dataclass(frozen=True, kw_only=True)
class Result:
    """One row of the table. Speeds are MB (10^6 bytes) of float32 a second; `copy` has no loss and no decoder."""

    name: str
    bits_per_parameter: float
    nmse_normal: float
    nmse_student_t3: float
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


def nmse(codec: Codec, vector_P: Vector, layout: Layout) -> float:
    """||x^ - x||^2 / ||x||^2 after a round trip."""
    decoded_P = decode(codec.encode(vector_P, layout, SEED), codec, layout, SEED)
    lost = float(np.sum(np.square(decoded_P - vector_P), dtype=np.float64))
    return lost / float(np.sum(np.square(vector_P), dtype=np.float64))


def measure(codec: Codec, layout: Layout, repeats: int) -> Result:
    """The row of one codec."""
    rng = np.random.default_rng(1)
    normal_P = rng.standard_normal(layout.size, np.float32)
    heavy_P = rng.standard_t(3, layout.size).astype(np.float32)
    payload = codec.encode(normal_P, layout, SEED)
    megabytes = normal_P.nbytes / 1e6
    return Result(
        name=codec.name,
        bits_per_parameter=8 * len(payload) / layout.size,
        nmse_normal=nmse(codec, normal_P, layout),
        nmse_student_t3=nmse(codec, heavy_P, layout),
        encode_mb_s=megabytes / median_s(lambda: codec.encode(normal_P, layout, SEED), repeats),
        decode_mb_s=megabytes / median_s(lambda: decode(payload, codec, layout, SEED), repeats),
    )


def measure_copy(layout: Layout, repeats: int) -> Result:
    """The bound: the same vector copied into memory that is already there."""
    source_P, target_P = np.ones((2, layout.size), np.float32)
    speed = source_P.nbytes / 1e6 / median_s(lambda: np.copyto(target_P, source_P), repeats)
    return Result(
        name="copy", bits_per_parameter=32, nmse_normal=0, nmse_student_t3=0, encode_mb_s=speed, decode_mb_s=speed
    )


def show(results: Sequence[Result], layout: Layout) -> None:
    """Print the table."""
    print(f"{layout.size:,} parameters in {len(layout.tensors)} tensors; MB/s of float32")
    print(f"{'codec':<8}{'bits/param':>11}{'NMSE normal':>13}{'NMSE t(3)':>12}{'encode MB/s':>13}{'decode MB/s':>13}")
    for row in results:
        print(
            f"{row.name:<8}{row.bits_per_parameter:>11.3f}{row.nmse_normal:>13.2e}{row.nmse_student_t3:>12.2e}"
            f"{row.encode_mb_s:>13,.0f}{row.decode_mb_s:>13,.0f}"
        )


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.codecs", description="Cost and loss of each codec.")
    parser.add_argument("--parameters", type=int, default=RESNET18, help="size of the model (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="timed runs, 3 or more (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    options = parser.parse_args(arguments)
    if options.repeats < 3 or options.parameters < 1:
        parser.error("needs --repeats of at least 3 and --parameters of at least 1")
    layout = resnet_like(options.parameters)
    results = [measure(codec, layout, options.repeats) for codec in CODECS.values()]
    results.append(measure_copy(layout, options.repeats))
    show(results, layout)
    if options.json:
        document = {"parameters": layout.size, "numpy": np.__version__, "codecs": [asdict(row) for row in results]}
        options.json.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
