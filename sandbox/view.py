"""The live view of a federation: a frame goes in, text comes out. Terminals get a table, everything else lines."""

import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from sandbox.metric import label
from sandbox.traffic import Traffic, human_bytes, total_traffic, traffic

SPARKS = "▁▂▃▄▅▆▇█"
WIDEST = 100
CLIMBED = 12
LINE_EVERY_S = 0.5
"""Shortest time between two plain lines."""

PHASE_STYLES = {
    "training": "green",
    "fetching": "cyan",
    "publishing": "magenta",
    "offline": "red",
    "failed": "red",
    "paused": "yellow",
}


@dataclass(frozen=True, kw_only=True)
class Hospital:
    """What is known of a hospital before it starts."""

    num_train: int
    slowness: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Frame:
    """One look at the federation. `state` is the coordinator's page, None while it does not answer."""

    title: str
    stage: str  # what the demo does now
    elapsed_s: float
    state: Mapping[str, Any] | None
    hospitals: Mapping[str, Hospital]
    metric: str
    climb: Sequence[float] = field(default=())  # the metric at each version so far


class View(Protocol):
    """Shows frames between `with` and its end."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def show(self, frame: Frame) -> None: ...


class LiveView:
    """Redraws a table in place."""

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, auto_refresh=False)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def show(self, frame: Frame) -> None:
        self._live.update(draw(frame), refresh=True)


class PlainView:
    """A line when the stage or the version changes, at most one in LINE_EVERY_S."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._told: tuple[str, int | None] = ("", None)
        self._told_at_s = float("-inf")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def show(self, frame: Frame) -> None:
        news = (frame.stage, frame.state["version"] if frame.state else None)
        now_s = time.monotonic()
        if news != self._told and (news[0] != self._told[0] or now_s - self._told_at_s >= LINE_EVERY_S):
            self._told, self._told_at_s = news, now_s
            self._console.print(line(frame), highlight=False, markup=False, soft_wrap=True)


class PictureView:
    """Another view; at its end, the frame in which most hospitals trained is written as an SVG file.

    Frames count from CLIMBED versions on, so that there is something to see.
    """

    def __init__(self, inner: View, path: Path) -> None:
        self._inner = inner
        self._path = path
        self._best: Frame | None = None

    def __enter__(self) -> Self:
        self._inner.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._inner.__exit__(kind, error, trace)
        if self._best:
            self._path.write_text(picture(self._best))

    def show(self, frame: Frame) -> None:
        self._inner.show(frame)
        if len(frame.climb) < CLIMBED:
            return
        if self._best is None or _num_training(frame) > _num_training(self._best):
            self._best = frame


def view_for(console: Console, screenshot: Path | None) -> View:
    """A table where there is a terminal, lines elsewhere."""
    view: View = LiveView(console) if console.is_terminal else PlainView(console)
    return PictureView(view, screenshot) if screenshot else view


# --- lines


def line(frame: Frame) -> str:
    """A frame in one line."""
    words = [f"{frame.elapsed_s:5.1f} s", frame.stage]
    state = frame.state
    if state is None:
        return "  ".join(words)
    phases = Counter(site["phase"] for site in state["sites"].values())
    updates = " ".join(f"{site['num_accepted']}" for site in state["sites"].values())
    words += [f"version {state['version']}", f"buffer {state['buffer']}/{state['buffer_size']}"]
    if frame.metric in state["metrics"]:
        words += [f"{label(frame.metric)} {state['metrics'][frame.metric]:.4f}"]
    words += [", ".join(f"{count} {name}" for name, count in sorted(phases.items())), f"updates {updates}"]
    return "  ".join(words)


# --- the table


def draw(frame: Frame) -> Panel:
    """A frame as a panel of at most WIDEST columns."""
    body = Group(*_headlines(frame), Text(), _hospitals(frame), Text(), _traffic(frame))
    subtitle = f"{frame.stage}, {frame.elapsed_s:.0f} s"
    return Panel(body, title=f"[bold]{frame.title}[/bold]", subtitle=subtitle, width=WIDEST, padding=1)


def picture(frame: Frame) -> str:
    """A frame as SVG, which names no fonts of another host."""
    console = Console(record=True, width=WIDEST, file=StringIO(), force_terminal=True, color_system="truecolor")
    console.print(draw(frame))
    svg = console.export_svg(title="fedward demo", unique_id="live-view")
    return re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)


def sparkline(values: Sequence[float], width: int) -> str:
    """The last `width` values, from the lowest block for the smallest of them to the full one for the largest."""
    shown = values[-width:]
    if not shown:
        return ""
    lowest, span = min(shown), (max(shown) - min(shown)) or 1.0
    return "".join(SPARKS[round((value - lowest) / span * (len(SPARKS) - 1))] for value in shown)


def bar(done: int, total: int, width: int) -> str:
    """`done` of `total` as `width` blocks, never more than full."""
    filled = round(width * min(1.0, done / total)) if total else 0
    return "━" * filled + "╌" * (width - filled)


def _headlines(frame: Frame) -> list[Text]:
    state = frame.state
    if state is None:
        return [Text("the coordinator is starting", "dim")]
    value = state["metrics"].get(frame.metric)
    buffer = f"{bar(state['buffer'], state['buffer_size'], 12)} {state['buffer']} of {state['buffer_size']} updates"
    return [
        Text.assemble(("version  ", "dim"), (f"{state['version']:<6}", "bold"), ("   buffer  ", "dim"), buffer),
        Text.assemble(
            (f"{label(frame.metric):<7}  ", "dim"),
            (f"{value:.4f}" if value is not None else "-     ", "bold green"),
            ("   climb   ", "dim"),
            (sparkline(frame.climb, 64), "green"),
        ),
    ]


def _hospitals(frame: Frame) -> Table:
    table = Table(box=None, expand=True, padding=(0, 1, 0, 0), header_style="dim")
    table.add_column("hospital", no_wrap=True)
    table.add_column("records", justify="right", no_wrap=True)
    table.add_column("doing", no_wrap=True, width=24)
    for title in ("updates", "stale", "weight", "MB up/f32", "MB down/f32"):
        table.add_column(title, justify="right", no_wrap=True)
    for name, hospital in frame.hospitals.items():
        shown = Text.assemble(name, (f" {hospital.slowness:g}x slow" if hospital.slowness != 1 else "", "yellow"))
        site = frame.state["sites"].get(name) if frame.state else None
        cells = _site_cells(site, frame.state["num_parameters"]) if site and frame.state else [Text("starting", "dim")]
        table.add_row(shown, str(hospital.num_train), *cells)
    return table


def _site_cells(site: Mapping[str, Any], num_parameters: int) -> list[str | Text]:
    moved = traffic(site, num_parameters)
    return [
        doing(site),
        str(site["num_accepted"]),
        "-" if site["staleness"] is None else str(site["staleness"]),
        "-" if site["weight"] is None else f"{site['weight']:.2f}",
        megabytes(moved.up_bytes, moved.up_float32_bytes),
        megabytes(moved.down_bytes, moved.down_float32_bytes),
    ]


def megabytes(actual: int, as_float32: int) -> str:
    """Two sizes side by side, to a hundredth of a megabyte; to a tenth from 100 MB on."""
    return "/".join(f"{count / 1e6:.2f}" if count < 1e8 else f"{count / 1e6:.1f}" for count in (actual, as_float32))


def doing(site: Mapping[str, Any]) -> Text:
    """What a site does, with the step of its training."""
    phase = site["phase"]
    if phase == "offline" and site["heard_at_s"] is None:
        return Text("starting", "dim")
    style = PHASE_STYLES.get(phase, "dim")
    if phase != "training" or not site["num_steps"]:
        return Text(phase, style)
    step, num_steps = site["step"], site["num_steps"]
    return Text(f"training {bar(step, num_steps, 7)} {step}/{num_steps}", style)


def _traffic(frame: Frame) -> Text:
    moved = total_traffic(frame.state) if frame.state else Traffic()
    saved = f", {moved.saved_ratio:.0%} saved" if moved.saved_bytes > 0 else ""
    return Text.assemble(
        ("all hospitals  ", "dim"),
        f"up {human_bytes(moved.up_bytes)} (float32 {human_bytes(moved.up_float32_bytes)})   ",
        f"down {human_bytes(moved.down_bytes)} (float32 {human_bytes(moved.down_float32_bytes)})",
        (saved, "bold green"),
    )


def _num_training(frame: Frame) -> int:
    sites = frame.state["sites"].values() if frame.state else ()
    return sum(site["phase"] == "training" and bool(site["num_steps"] and site["step"]) for site in sites)
