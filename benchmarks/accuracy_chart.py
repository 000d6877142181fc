"""The chart of benchmarks.accuracy: bits a parameter both ways against the AUC, with error bars."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks.accuracy_figures import Row

SIZE_INCHES = (7.0, 4.2)


def write_chart(found: Sequence[Row], path: Path) -> None:
    """An SVG file of the same bytes for the same rows: the mean over seeds of each pair, with its standard error.

    The error bars are those of the difference to float32, which is paired; float32's own is drawn as a line.
    """
    figure = Figure(SIZE_INCHES, layout="constrained")
    axes = figure.subplots()
    for row in found:
        bits = row.bits_up + row.bits_down
        if row.up == "f32":
            axes.axhline(row.auc.mean, color="#888888", linewidth=1, linestyle="--")
        error = [[row.difference.standard_error]] * 2
        axes.errorbar([bits], [row.auc.mean], yerr=error, fmt="o", color="#0072B2", capsize=3)
        axes.annotate(
            f"{row.up} up, {row.down} down", (bits, row.auc.mean), (6, 6), textcoords="offset points", fontsize=8
        )
    axes.set_xscale("log", base=2)
    axes.set_xlabel("bits a parameter, an update up and a version's delta down together")
    axes.set_ylabel("AUC on all test images, mean of the last versions")
    axes.margins(x=0.2, y=0.2)
    axes.grid(alpha=0.25)
    axes.set_xticks([4, 8, 16, 32, 64], ["4", "8", "16", "32", "64"])
    with mpl.rc_context({"svg.hashsalt": "fedward", "svg.fonttype": "none"}):
        figure.savefig(path, format="svg", metadata={"Date": None})
