"""The chart of a finished federation: the metric as it climbed, and who contributed when."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from sandbox.metric import label
from sandbox.report import Contribution, Report, VersionFigures, mean

SIZE_INCHES = (9.0, 5.6)
DPI = 110
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#7A7A00", "#555555")
"""Okabe and Ito's, which colour-blind readers tell apart; used again from the ninth hospital on."""

MEAN_AREA = 60.0
"""Points squared, of an update of mean weight: a marker's area is in proportion to the weight."""


def write_chart(report: Report, metric: str, path: Path) -> None:
    """A PNG file: `metric` of the pooled held-out records over seconds since the start, contributions below."""
    figure = Figure(SIZE_INCHES, DPI, layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2.4, 1))
    draw_metric(above, report.versions, metric)
    draw_contributions(below, [site.name for site in report.sites], report.contributions)
    value = report.final_metrics[metric]
    figure.suptitle(
        f"{report.task}: {label(metric)} {value:.4f} after {report.versions[-1].version} versions "
        f"of {len(report.sites)} hospitals",
        fontsize=12,
    )
    figure.savefig(path)


def draw_metric(axes: Axes, versions: Sequence[VersionFigures], metric: str) -> None:
    """A step a version: the value holds until the next one."""
    at_s = [row.at_s for row in versions]
    values = [row.metrics[metric] for row in versions]
    axes.step(at_s, values, where="post", color="#222222", linewidth=1.6)
    axes.plot(at_s, values, "o", color="#222222", markersize=3)
    axes.set_ylabel(f"{label(metric)} of the pooled held-out records")
    axes.grid(alpha=0.25)
    ticks = axes.secondary_xaxis("top")
    shown = _spread(versions, axes.get_xlim())
    ticks.set_xticks([row.at_s for row in shown], [str(row.version) for row in shown], fontsize=8)
    ticks.set_xlabel("version", fontsize=9)


def draw_contributions(axes: Axes, sites: Sequence[str], contributions: Sequence[Contribution]) -> None:
    """A row a hospital, a marker an update that was folded in."""
    mean_weight = mean([update.weight for update in contributions]) or 1.0
    for row, site in enumerate(sites):
        own = [update for update in contributions if update.site == site]
        areas = [MEAN_AREA * update.weight / mean_weight for update in own]
        colour = COLOURS[row % len(COLOURS)]
        axes.scatter([update.at_s for update in own], [row] * len(own), s=areas, color=colour, alpha=0.7, linewidth=0)
    axes.set_yticks(range(len(sites)), sites)
    axes.set_ylim(len(sites) - 0.4, -0.6)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("seconds since the start")
    axes.grid(axis="x", alpha=0.25)
    axes.legend(
        handles=[_weight_marker(times, times * mean_weight) for times in (0.5, 1.0, 2.0)],
        title="weight of\nan update",
        loc="center left",
        bbox_to_anchor=(1.0, 0.5),
        frameon=False,
        fontsize=8,
        title_fontsize=8,
    )


def _weight_marker(times: float, weight: float) -> Line2D:
    diameter = (MEAN_AREA * times) ** 0.5
    return Line2D([], [], marker="o", linestyle="", color="#777777", markersize=diameter, label=f"{weight:.3g}")


def _spread(versions: Sequence[VersionFigures], limits: tuple[float, float]) -> list[VersionFigures]:
    """The versions whose labels have room beside each other."""
    room_s = (limits[1] - limits[0]) / 25
    shown: list[VersionFigures] = []
    for row in versions:
        if not shown or row.at_s - shown[-1].at_s >= room_s:
            shown.append(row)
    return shown
