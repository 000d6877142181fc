"""A delta to its payload, computed where it is against copied to the host: `python -m benchmarks.encoding`.

Speed counts float32 bytes; both ways alternate in one run, and the ratio is the median over the rounds of one way's
time by the other's of the same round. With the CPU as the device it shows why the codec itself encodes there; set
OMP_NUM_THREADS=1 and OPENBLAS_NUM_THREADS=1 (or your BLAS's own setting) to measure one thread of it.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.codec_loss import SEED
from benchmarks.codecs import RESNET18, resnet_like
from edge_agent.training.encode import TWINS, encode_on_device
from fedward.codec import codec
from fedward.layout import Layout


@dataclass(frozen=True, kw_only=True)
class Result:
    """One codec. `ratio` is the host's time by the device's; `bytes_equal_ratio` of the two payloads, up to 1."""

    name: str
    on_device_mb_s: float
    on_host_mb_s: float
    ratio: float
    bytes_equal_ratio: float


def measure(name: str, layout: Layout, delta_P: Tensor, rounds: int) -> Result:
    """The row of one codec: both ways in turn, after one round that does not count."""

    def on_device() -> bytes:
        return encode_on_device(delta_P, layout, name, SEED)

    def on_host() -> bytes:
        return codec(name).encode(delta_P.cpu().numpy(), layout, SEED)

    ours, theirs = (np.frombuffer(way(), np.uint8) for way in (on_device, on_host))
    times = [(timed_s(on_device), timed_s(on_host)) for _ in range(rounds)]
    megabytes = delta_P.nbytes / 1e6
    return Result(
        name=name,
        on_device_mb_s=megabytes / statistics.median(device_s for device_s, _ in times),
        on_host_mb_s=megabytes / statistics.median(host_s for _, host_s in times),
        ratio=statistics.median(host_s / device_s for device_s, host_s in times),
        bytes_equal_ratio=float(np.mean(ours == theirs)),
    )


def timed_s(way: Callable[[], bytes]) -> float:
    """Seconds until the payload is on the host."""
    begin = time.perf_counter()
    way()
    return time.perf_counter() - begin


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.encoding", description="Encoding on a device.")
    gpu = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", default=gpu, help="where the delta is (default: %(default)s)")
    parser.add_argument("--parameters", type=int, default=RESNET18, help="size of the model (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds, 3 or more (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    options = parser.parse_args(arguments)
    if options.rounds < 3 or options.parameters < 1:
        parser.error("needs --rounds of at least 3 and --parameters of at least 1")
    layout = resnet_like(options.parameters)
    delta_P = torch.from_numpy(np.random.default_rng(1).standard_normal(layout.size, np.float32)).to(options.device)
    results = [measure(name, layout, delta_P, options.rounds) for name in TWINS]
    print(f"{layout.size:,} parameters on {options.device}; MB/s of float32")
    print(f"{'codec':<8}{'on device MB/s':>15}{'on host MB/s':>14}{'times faster':>14}{'equal bytes':>13}")
    for row in results:
        print(
            f"{row.name:<8}{row.on_device_mb_s:>15,.0f}{row.on_host_mb_s:>14,.0f}"
            f"{row.ratio:>14.2f}{row.bytes_equal_ratio:>13.6f}"
        )
    if options.json:
        document = {"parameters": layout.size, "device": options.device, "codecs": [asdict(row) for row in results]}
        options.json.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
