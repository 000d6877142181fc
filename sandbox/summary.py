"""The summary of a finished demo: a table in a terminal, lines elsewhere."""

from rich.console import Console
from rich.table import Table

from fedward.errors import RejectReason
from sandbox.metric import label
from sandbox.report import Report, SiteFigures
from sandbox.traffic import human_bytes

COLUMNS = ("hospital", "records", "updates", "staleness", "weight", "up", "down")

EXPECTED = (RejectReason.FINISHED, RejectReason.UNKNOWN_BASE)
"""Refusals that are no news: of what was under way at the end, and of requests for a version just replaced."""


def print_summary(report: Report, metric: str, console: Console) -> None:
    """Tell what came out, and where it is."""
    for line in _outcome(report, metric):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    rows = [site_row(site) for site in report.sites]
    if console.is_terminal:
        table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
        for index, column in enumerate(COLUMNS):
            table.add_column(column, justify="right" if index else "left", no_wrap=True)
        for row in rows:
            table.add_row(*row)
        console.print(table)
    else:
        for row in rows:
            pairs = [f"{column} {cell}" for column, cell in zip(COLUMNS[1:], row[1:], strict=True)]
            console.print(f"{row[0]}: {', '.join(pairs)}", highlight=False, markup=False, soft_wrap=True)
    for name, path in report.files.items():
        console.print(f"{name:10} {path}", highlight=False, markup=False, soft_wrap=True)


def site_row(site: SiteFigures) -> tuple[str, ...]:
    """A hospital's figures under COLUMNS; staleness and weight are means over its updates."""
    slow = f" ({site.slowness:g}x slower)" if site.slowness != 1 else ""
    return (
        site.name + slow,
        str(site.num_train),
        str(site.updates),
        "-" if site.mean_staleness is None else f"{site.mean_staleness:.1f}",
        "-" if site.mean_weight is None else f"{site.mean_weight:.2f}",
        human_bytes(site.traffic.up_bytes),
        human_bytes(site.traffic.down_bytes),
    )


def _outcome(report: Report, metric: str) -> list[str]:
    moved = report.traffic
    others = ", ".join(f"{label(name)} {value:.4f}" for name, value in report.final_metrics.items() if name != metric)
    unexpected = {name: count for name, count in report.refused.items() if name not in EXPECTED}
    refused = ", ".join(f"{count} {name}" for name, count in unexpected.items())
    return [
        "",
        f"{label(metric):<10} {report.final_metrics[metric]:.4f} on the pooled held-out records ({others})",
        f"versions   {report.versions[-1].version}, made of {len(report.contributions)} updates",
        f"time       {report.wall_s:.0f} s; {report.ended_by}",
        f"up         {human_bytes(moved.up_bytes)}, as float32 {human_bytes(moved.up_float32_bytes)}",
        f"down       {human_bytes(moved.down_bytes)}, as float32 {human_bytes(moved.down_float32_bytes)}",
        f"saved      {human_bytes(report.saved_bytes)}, {report.saved_ratio:.0%}",
        *([f"refused    {refused}"] if refused else []),
        "",
    ]
