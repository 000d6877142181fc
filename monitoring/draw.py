"""Draws the dashboards from a Prometheus' answers, without Grafana: `python -m monitoring.draw --out docs/pictures`.

Runs the trial to have something to draw. The grid, the words, the colours and the answers are the dashboards' own; the
looks are matplotlib's, and only as near to Grafana's as a picture in a document needs.
"""

import argparse
import io
import tempfile
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator
from PIL import Image

from monitoring.reading import Asked, Json, Panel, Series, filled, panels
from monitoring.shown import NAMES, Shown, load
from monitoring.tables import rows_of
from monitoring.trial import LOST, Trial
from monitoring.written import number, written

COLUMNS, DPI = 24, 80
CELL_INCHES = (0.62, 0.42)
GAP_INCHES = 0.05
PALETTE = ("#5794F2", "#FF9830", "#73BF69", "#B877D9", "#F2495C", "#FADE2A", "#8AB8FF", "#A0522D", "#37872D", "#555555")
NAMED = {
    "green": "#2E9E4F",
    "orange": "#E0752D",
    "red": "#D4384A",
    "blue": "#3D71D9",
    "purple": "#8F5FC4",
    "yellow": "#C9A800",
}
LEGEND_COLUMNS = 4
NUM_COLOURS = 64
"""In a file: a picture of lines and letters needs no more, and stays small."""

SETTLE_S, RUN_S = 120.0, 150.0


def draw(board: Json, shown: Shown, path: Path) -> None:
    """A PNG of the dashboard as it is shown."""
    shown = shown.choosing(board)
    found = panels(board)
    num_rows = max(y + height for _, y, _, height in (panel.place for panel in found))
    wide, high = COLUMNS * CELL_INCHES[0], num_rows * CELL_INCHES[1] + 0.5
    figure = Figure((wide, high), DPI, facecolor="#EDEEF0")
    figure.text(0.006, 1 - 0.17 / high, board["title"], fontsize=13, weight="bold", va="center")
    said = f"{board['description']}  Drawn from Prometheus' answers, not by Grafana."
    figure.text(0.994, 1 - 0.17 / high, said, fontsize=8, ha="right", va="center", color="#555555")
    for panel in found:
        x, y, width, height = panel.place
        left, top = x * CELL_INCHES[0] + GAP_INCHES, 0.4 + y * CELL_INCHES[1] + GAP_INCHES
        inner = (width * CELL_INCHES[0] - 2 * GAP_INCHES, height * CELL_INCHES[1] - 2 * GAP_INCHES)
        box = (left / wide, 1 - (top + inner[1]) / high, inner[0] / wide, inner[1] / high)
        DRAWN[panel.kind](_Frame(figure, box, inner), panel, shown)
    _write(figure, path)


class _Frame:
    """The place of one panel: an empty axes over all of it, and one inside for what has scales."""

    def __init__(self, figure: Figure, box: tuple[float, float, float, float], inches: tuple[float, float]) -> None:
        self._figure, self._box, self._inches = figure, box, inches
        self.whole = figure.add_axes(box)
        self.whole.set_axis_off()
        self.whole.set(xlim=(0, 1), ylim=(0, 1))

    def fill(self, colour: str) -> None:
        self.whole.add_patch(Rectangle((0, 0), 1, 1, color=colour, zorder=-1))

    def title(self, text: str, colour: str = "#222222") -> None:
        self.whole.text(
            0.06 / self._inches[0], 1 - 0.13 / self._inches[1], text, fontsize=8.5, va="center", color=colour
        )

    def inches(self, axes: Axes) -> float:
        """How wide an axes of the same figure is."""
        return axes.get_position().width * self._figure.get_figwidth()

    def inner(self, left: float, bottom: float, right: float = 0.1, top: float = 0.28) -> Axes:
        """Margins in inches."""
        x, y, width, height = self._box
        a, b = width / self._inches[0], height / self._inches[1]
        return self._figure.add_axes(
            (x + left * a, y + bottom * b, width - (left + right) * a, height - (bottom + top) * b)
        )


def _row(frame: _Frame, panel: Panel, shown: Shown) -> None:
    frame.whole.text(0.003, 0.45, filled(panel.title, shown.values()), fontsize=10, weight="bold", va="center")


def _tile(frame: _Frame, panel: Panel, shown: Shown) -> None:
    looks = panel.json["fieldConfig"]["defaults"]
    values = [series.values[-1] for asked in panel.asked for series in shown.answers(asked)]
    text, colour = written(values[0] if values else None, looks)
    frame.fill(_rgb(colour or "#8E8E8E"))
    frame.title(panel.title, "white")
    size = 19 if len(text) < 10 else 14
    frame.whole.text(0.5, 0.42, text, fontsize=size, weight="bold", color="white", ha="center", va="center")


def _chart(frame: _Frame, panel: Panel, shown: Shown) -> None:
    frame.fill("white")
    frame.title(filled(panel.title, shown.values()))
    custom = panel.json["fieldConfig"]["defaults"].get("custom", {})
    lines = [(_name(asked, series, shown), series) for asked in panel.asked for series in shown.answers(asked)]
    axes = frame.inner(0.62, 0.28 + 0.15 * (1 + (len(lines) - 1) // LEGEND_COLUMNS))
    if custom.get("stacking", {}).get("mode") == "normal":
        _stack(axes, lines, shown)
    else:
        for index, (name, series) in enumerate(lines):
            colour = PALETTE[index % len(PALETTE)]
            axes.plot(_minutes(series, shown), series.values, color=colour, linewidth=1.2, label=name)
    unit = panel.json["fieldConfig"]["defaults"]["unit"]
    lowest = custom.get("axisSoftMin", 0)
    axes.set_ylim(bottom=min(lowest, axes.get_ylim()[0]) if lowest < axes.get_ylim()[1] else None)
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value, unit)))
    _time_axis(axes, shown)
    axes.grid(alpha=0.3, linewidth=0.5)
    if lines:
        axes.legend(
            ncols=LEGEND_COLUMNS, loc="upper left", bbox_to_anchor=(-0.5 / frame.inches(axes), -0.07), fontsize=7,
            frameon=False, handlelength=1.0, columnspacing=1.0, borderaxespad=0.2,
        )  # fmt: skip


def _stack(axes: Axes, lines: Sequence[tuple[str, Series]], shown: Shown) -> None:
    times = sorted({at_s for _, series in lines for at_s in series.times})
    known = [(name, dict(zip(series.times, series.values, strict=True))) for name, series in lines]
    values = [[points.get(at_s, 0.0) for at_s in times] for _, points in known]
    minutes = [(at_s - shown.from_s) / 60 for at_s in times]
    axes.stackplot(minutes, values, labels=[name for name, _ in known], colors=PALETTE, alpha=0.75)


def _timeline(frame: _Frame, panel: Panel, shown: Shown) -> None:
    frame.fill("white")
    frame.title(filled(panel.title, shown.values()))
    axes = frame.inner(1.1, 0.55)
    looks = panel.json["fieldConfig"]["defaults"]
    names: list[str] = []
    seen: dict[str, str] = {}
    for asked in panel.asked:
        for series in shown.answers(asked):
            for at_s, value in zip(series.times, series.values, strict=True):
                text, colour = written(value, looks)
                seen[text] = _rgb(colour or "#8E8E8E")
                start = (at_s - shown.from_s) / 60
                axes.barh(len(names), shown.step_s / 60, left=start, height=0.8, color=seen[text], linewidth=0)
            names.append(_name(asked, series, shown))
    axes.set_yticks(range(len(names)), names, fontsize=8)
    _time_axis(axes, shown)
    patches = [Patch(color=colour, label=text) for text, colour in seen.items()]
    axes.legend(
        handles=patches, ncols=len(seen) or 1, loc="upper left", bbox_to_anchor=(0, -0.18),
        fontsize=7, frameon=False,
    )  # fmt: skip


def _table(frame: _Frame, panel: Panel, shown: Shown) -> None:
    frame.fill("white")
    frame.title(panel.title)
    answers = {asked.ref: shown.answers(asked) for asked in panel.asked}
    headings, rows = rows_of(panel.json, answers)
    axes = frame.inner(0.1, 0.1, top=0.3)
    axes.set_axis_off()
    texts, colours = [], []
    for row in rows:
        cells = [written(row.get(name), _looks(panel.json, name)) for name in headings]
        texts.append(
            [text if row.get(name) is not None else "" for name, (text, _) in zip(headings, cells, strict=True)]
        )
        colours.append([_cell_colour(panel.json, name, cell[1]) for name, cell in zip(headings, cells, strict=True)])
    if not rows:
        return
    shown_headings = ["\n".join(textwrap.wrap(name, 14)) for name in headings]
    table = axes.table(
        texts, cellColours=colours, colLabels=shown_headings, loc="upper center", cellLoc="left", edges="horizontal"
    )
    table.auto_set_font_size(False)
    table.set_fontsize(8)
    table.scale(1, 1.6)
    for (at_row, at_column), cell in table.get_celld().items():
        cell.set_edgecolor("#DDDDDD")
        cell.get_text().set_fontweight("bold" if at_row == 0 else "normal")
        if at_row and colours[at_row - 1][at_column] != "white":
            cell.get_text().set_color(colours[at_row - 1][at_column])
            cell.get_text().set_fontweight("bold")


DRAWN = {"row": _row, "stat": _tile, "timeseries": _chart, "state-timeline": _timeline, "table": _table}


def _looks(json: Json, name: str) -> Json:
    """Of one column: the panel's, with what the column has in their place."""
    own = [one["properties"] for one in json["fieldConfig"]["overrides"] if one["matcher"]["options"] == name]
    return {**json["fieldConfig"]["defaults"], **{one["id"]: one["value"] for found in own for one in found}}


def _cell_colour(json: Json, name: str, colour: str | None) -> str:
    return _rgb(colour) if colour and "custom.cellOptions" in _looks(json, name) else "white"


def _name(asked: Asked, series: Series, shown: Shown) -> str:
    text = filled(asked.legend, shown.values())
    for label, value in series.labels.items():
        text = text.replace(f"{{{{{label}}}}}", value)
    return text


def _minutes(series: Series, shown: Shown) -> list[float]:
    return [(at_s - shown.from_s) / 60 for at_s in series.times]


def _time_axis(axes: Axes, shown: Shown) -> None:
    axes.set_xlim(0, (shown.to_s - shown.from_s) / 60)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} min"))
    axes.tick_params(labelsize=7, length=2)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _rgb(colour: str) -> str:
    return NAMED.get(colour, colour)


def _write(figure: Figure, path: Path) -> None:
    drawn = io.BytesIO()
    figure.savefig(drawn, facecolor=figure.get_facecolor())
    with Image.open(drawn) as image:
        image.convert("RGB").quantize(NUM_COLOURS).save(path, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Run a federation for some minutes, and draw its dashboards.")
    parser.add_argument("--out", type=Path, required=True, help="the folder of the pictures")
    out = parser.parse_args().out
    with tempfile.TemporaryDirectory(prefix="fedward-pictures-") as folder, Trial(Path(folder)) as trial:
        trial.settle(SETTLE_S)
        trial.provoke(SETTLE_S)
        trial.pause(SETTLE_S)
        trial.go_on(RUN_S)
        choices: Mapping[str, Mapping[str, str]] = {"hospitals": {"site": LOST}, "federation": {"metric": "auc"}}
        for name in NAMES:
            draw(load(name), trial.shown(**choices.get(name, {})), out / f"dashboard-{name}.png")


if __name__ == "__main__":
    main()
