"""Asks a real Prometheus every query of every dashboard, and names those that have no answer.

    python -m monitoring.prove --prometheus http://127.0.0.1:9090 --minutes 60

A panel with a wrong name in it looks like one of a federation in which nothing happened. So a query must answer
without its `or vector(0)`, and so must each series that it names, alone.
"""

import argparse
import sys
import time
from collections.abc import Iterator

from fedward.errors import FedwardError
from monitoring.prometheus import Prometheus, QueryRefusedError
from monitoring.reading import Json, Panel, filled, panels, selectors, without_fallback
from monitoring.shown import NAMES, NothingToChooseError, Shown, load


def faults(board: Json, shown: Shown) -> list[str]:
    """What a reader of this dashboard would miss.

    Raises TransientError when Prometheus is not there.
    """
    try:
        shown = shown.choosing(board)
    except NothingToChooseError as error:
        return [f"{board['title']}: {error}"]
    return [
        f"{board['title']} / {panel.title}: {fault}" for panel in panels(board) for fault in _of_panel(panel, shown)
    ]


def _of_panel(panel: Panel, shown: Shown) -> Iterator[str]:
    for asked in panel.asked:
        expr = without_fallback(asked.expr)
        try:
            if not shown.answers(asked, expr):
                yield f"{asked.ref} has no data: {filled(expr, shown.values())}"
            for series in selectors(expr):
                if not shown.ever(filled(series, shown.values())):
                    yield f"{asked.ref} names what is not there: {filled(series, shown.values())}"
        except (QueryRefusedError, KeyError) as error:
            yield f"{asked.ref} can't be asked: {error}"


def moved(board: Json, shown: Shown, before_s: float, after_s: float) -> set[str]:
    """The titles of tiles that showed something else at these two times."""
    shown = shown.choosing(board)

    def values(panel: Panel, at_s: float) -> list[tuple[str, float]]:
        answers = [one for asked in panel.asked for one in shown.at(at_s).answers(asked)]
        return sorted((str(sorted(series.labels.items())), series.values[-1]) for series in answers)

    tiles = [panel for panel in panels(board) if panel.kind == "stat"]
    return {panel.title for panel in tiles if values(panel, before_s) != values(panel, after_s)}


def main() -> None:
    parser = argparse.ArgumentParser(description="Ask a Prometheus every query of every dashboard.")
    parser.add_argument("--prometheus", required=True, metavar="URL")
    parser.add_argument("--minutes", type=float, default=60, help="that a dashboard shows, up to now; 60 unless given")
    parser.add_argument("--scrape-s", type=float, default=15, help="Prometheus' scrape interval; 15 unless given")
    parser.add_argument("--job", help="of the coordinator; the first by name unless given")
    options = parser.parse_args()
    now_s = time.time()
    choice = {"job": options.job} if options.job else {}
    source = Prometheus(options.prometheus)
    shown = Shown(source, now_s - 60 * options.minutes, now_s, options.scrape_s, choice)
    try:
        found = [fault for name in NAMES for fault in faults(load(name), shown)]
    except FedwardError as error:
        sys.exit(f"prove: {error}")
    print(*found, f"{len(found)} faults", sep="\n")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
