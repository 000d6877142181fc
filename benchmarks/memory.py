"""What a coordinator holds in memory: `python -m benchmarks.memory [--parameters N] [--pending K ...] [--json FILE]`.

For each number of pending updates a process of its own opens a real ledger and real blobs, begins, checks one update
as if it had just come, and makes a version of all that are pending, in the codecs that a federation has by default.
Judged is the most that was ever resident (VmHWM of /proc): the process's own memory and the mapped pages of files.
The bar: at most 150 MB and 3 times the model, and the same within 5 % for every number of updates.

It needs disk: half a byte a parameter for each update of the largest version, and some 20 bytes for the model.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from coordinator.blobs import BlobFolder
from coordinator.clock import Moment
from coordinator.config import FederationConfig
from coordinator.engine.settings import EngineSettings
from coordinator.ledger import Ledger
from coordinator.making import Settings
from coordinator.verify import check_update
from coordinator.versions import Versions
from fedward.chunks import manifest_of
from fedward.codec import codec
from fedward.identity.names import update_id_of, update_seed
from fedward.layout import Kind, Layout, Tensor
from fedward.messages import Manifest, Offer

PARAMETERS = 110_000_000
PENDING = (8, 32, 64)
FEDERATION, SITE = "memory", "site"
FIXED_MB, MODELS, SPREAD = 150.0, 3.0, 0.05
MB = 1_000_000
UP = codec(FederationConfig.model_fields["codec"].default)
DOWN: str = FederationConfig.model_fields["model_codec"].default


@dataclass(frozen=True, kw_only=True)
class Peak:
    """What one process held at most, in MB (10^6 bytes)."""

    pending: int
    begun_mb: float  # when it had begun, and made nothing yet
    peak_mb: float
    making_s: float


def layout_of(parameters: int) -> Layout:
    """Weights of a million elements each and one of the rest, with two statistics; no torch, as a coordinator."""
    full, rest = divmod(parameters - 2, MB)
    sizes = [MB] * full + ([rest] if rest else [])
    weights = [Tensor(f"layer{number}.weight", (size,)) for number, size in enumerate(sizes)]
    return Layout.of([*weights, Tensor("norm.running_mean", (2,), Kind.STATISTIC)])


def bar_mb(parameters: int) -> float:
    """The most that may be resident while versions of a model of so many parameters are made."""
    return FIXED_MB + MODELS * 4 * parameters / MB


def spread(peaks: Sequence[Peak]) -> float:
    """How far the peaks lie apart, as a share of the lowest."""
    held = [peak.peak_mb for peak in peaks]
    return max(held) / min(held) - 1


def prepare(folder: Path, layout: Layout, pending: Sequence[int]) -> None:
    """Version 0, and as many updates as the versions to be made take. Those of one version differ in every blob."""
    ledger, blobs = Ledger.in_folder(folder), BlobFolder(folder / "blobs")
    rng = np.random.default_rng(1)
    initial_P = np.float32(0.1) * rng.standard_normal(layout.size, np.float32)
    Versions(ledger, blobs, layout, Settings(EngineSettings(), DOWN)).begin(initial_P, now_s=1.0)
    delta_P = np.float32(0.001) * rng.standard_normal(layout.size, np.float32)
    payload = bytearray(UP.encode(delta_P, layout, update_seed(UP, 0, bytes(32))))
    manifests = []
    for number in range(max(pending)):
        payload[-4:] = np.float32(0.001 * number).tobytes()  # the last value of an exact segment
        manifests.append(manifest_of(memoryview(payload)))
        blobs.put(memoryview(payload))
    for sequence in range(sum(pending)):
        at = Moment(float(sequence), float(sequence))
        offer = offer_of(sequence, manifests[sequence % len(manifests)], layout)
        ledger.add_update(offer, SITE, at, 1.0, None)
    ledger.close()


def offer_of(sequence: int, manifest: Manifest, layout: Layout) -> Offer:
    """An update from version 0."""
    return Offer(
        federation=FEDERATION,
        update_id=update_id_of(FEDERATION, SITE, 0, sequence),
        sequence=sequence,
        base_version=0,
        codec=UP.name,
        layout_digest=layout.digest,
        num_examples=100,
        num_steps=10,
        work_s=1.0,
        manifest=manifest,
    )


def make_version(folder: Path, layout: Layout, pending: int) -> Peak:
    """Begin, check an update, make a version of the oldest pending ones: all in this process, whose peak it tells."""
    ledger, blobs = Ledger.in_folder(folder), BlobFolder(folder / "blobs")
    versions = Versions(ledger, blobs, layout, Settings(EngineSettings(), DOWN))
    versions.begin(np.zeros(0, np.float32), now_s=2.0)
    begun_mb = resident_mb("VmRSS")
    rows = ledger.buffered()[:pending]
    view = blobs.view(rows[0].digest)
    check_update(view, offer_of(rows[0].sequence, manifest_of(view), layout), layout)
    view.release()
    began_s = time.perf_counter()
    versions.make(rows, [1.0] * pending, now_s=3.0)
    making_s = time.perf_counter() - began_s
    ledger.close()
    return Peak(pending=pending, begun_mb=begun_mb, peak_mb=resident_mb("VmHWM"), making_s=making_s)


def resident_mb(line: str) -> float:
    """A line of this process's /proc status, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(found for found in lines if found.startswith(line)).split()[1]) * 1024 / MB


def measure(folder: Path, parameters: int, pending: Sequence[int]) -> tuple[Peak, ...]:
    """A process for each number of pending updates, one after another, in a folder that has nothing yet."""
    prepare(folder, layout_of(parameters), pending)
    command = [sys.executable, "-m", "benchmarks.memory", "--parameters", str(parameters), "--inside", str(folder)]
    ended = [
        subprocess.run([*command, "--pending", str(number)], capture_output=True, text=True, check=True)
        for number in pending
    ]
    return tuple(Peak(**json.loads(one.stdout)) for one in ended)


def meets_bar(peaks: Sequence[Peak], parameters: int) -> bool:
    return spread(peaks) <= SPREAD and max(peak.peak_mb for peak in peaks) <= bar_mb(parameters)


def show(peaks: Sequence[Peak], parameters: int) -> None:
    """Print the table and the verdict."""
    print(f"{parameters:,} parameters, {4 * parameters / MB:,.0f} MB as float32; updates {UP.name}, model {DOWN}")
    print(f"{'pending':>8}{'begun MB':>10}{'peak MB':>10}{'at most':>10}{'s':>8}")
    for peak in peaks:
        print(
            f"{peak.pending:>8}{peak.begun_mb:>10,.0f}{peak.peak_mb:>10,.0f}{bar_mb(parameters):>10,.0f}"
            f"{peak.making_s:>8.1f}"
        )
    verdict = "met" if meets_bar(peaks, parameters) else "missed"
    print(f"the peaks lie {100 * spread(peaks):.1f} % apart, at most {100 * SPREAD:.0f} %: {verdict}")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Exit code 1 where the bar is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description="Peak memory of a coordinator.")
    parser.add_argument("--parameters", type=int, default=PARAMETERS, help="size of the model (default: %(default)s)")
    parser.add_argument("--pending", type=int, nargs="+", default=list(PENDING), help="updates of each version")
    parser.add_argument("--folder", type=Path, help="where to work; default: a temporary one")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)  # the process that is measured
    options = parser.parse_args(arguments)
    if options.inside:
        layout = layout_of(options.parameters)
        print(json.dumps(asdict(make_version(options.inside, layout, options.pending[0]))))
        return 0
    with tempfile.TemporaryDirectory(prefix="fedward-memory-", dir=options.folder) as folder:
        peaks = measure(Path(folder), options.parameters, options.pending)
    show(peaks, options.parameters)
    if options.json:
        rows = [asdict(peak) for peak in peaks]
        document = {"parameters": options.parameters, "bar_mb": bar_mb(options.parameters), "peaks": rows}
        options.json.write_text(json.dumps(document, indent=2) + "\n")
    return 0 if meets_bar(peaks, options.parameters) else 1


if __name__ == "__main__":
    sys.exit(main())
