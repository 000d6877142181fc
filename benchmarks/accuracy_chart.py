"""The chart of benchmarks.accuracy: bits a parameter both ways against the AUC, with error bars."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks.accuracy_figures import Row
from benchmarks.simulation import FLOAT32

SIZE_INCHES = (7.0, 4.2)
BAND = 0.003
"""What `eden4` and `eden2` may be off by."""

LEAST_HEIGHT = 0.008
"""Shown above and below float32's AUC at least: a smaller difference is not to look like one."""


def write_chart(found: Sequence[Row], path: Path) -> None:
    """An SVG file, the same bytes for the same rows: float32's mean AUC, and of each pair that and its difference.

    The error bars are standard errors of the difference to float32 under the same seed: the AUC itself varies more.
    """
    figure = Figure(SIZE_INCHES, layout="constrained")
    axes = figure.subplots()
    float32 = next(row.auc.mean for row in found if (row.up, row.down) == (FLOAT32.up, FLOAT32.down))
    axes.axhspan(float32 - BAND, float32 + BAND, color="#56B4E9", alpha=0.2, linewidth=0)
    axes.axhline(float32, color="#888888", linewidth=1, linestyle="--")
    for row in found:
        place = (row.bits_up + row.bits_down, float32 + row.difference.mean)
        axes.errorbar(*place, yerr=row.difference.standard_error, fmt="o", color="#0072B2", capsize=3)
        label = f"{row.up} up, {row.down} down"
        axes.annotate(label, place, (2, 8), textcoords="offset points", fontsize=8, rotation=35)
    lowest, highest = axes.get_ylim()
    axes.set_ylim(min(lowest, float32 - LEAST_HEIGHT), max(highest, float32 + LEAST_HEIGHT))
    axes.set_xscale("log", base=2)
    axes.set_xlim(2.8, 90)
    axes.set_xticks([4, 8, 16, 32, 64], ["4", "8", "16", "32", "64"])
    axes.set_xlabel("bits a parameter: of an update up and of a version's delta down, together")
    axes.set_ylabel(f"AUC on all test images; band: float32 ± {BAND}")
    axes.grid(alpha=0.25)
    with mpl.rc_context({"svg.hashsalt": "fedward", "svg.fonttype": "none"}):
        figure.savefig(path, format="svg", metadata={"Date": None})
