"""A dashboard over a time, on a real Prometheus: what Grafana would ask, and the answers."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

from fedward.errors import FedwardError
from monitoring.prometheus import Prometheus
from monitoring.reading import Asked, Json, Series, chosen, filled

FOLDER = Path(__file__).parent / "dashboards"
NAMES = ("federation", "hospitals", "coordinator", "egress")
"""Of the dashboards' files, in the order in which they are read."""

STEPS = 240
"""Points of a chart, about as many as there is room for."""

RATE_SCRAPES = 4
"""Grafana's $__rate_interval spans as many scrapes: two are needed, and one may be missing."""


class NothingToChooseError(FedwardError):
    """A variable has no value: Prometheus knows none of its series."""


@dataclass(frozen=True)
class Shown:
    """From when to when, of which Prometheus, scraped how often, with which values of the variables."""

    prometheus: Prometheus
    from_s: float
    to_s: float
    scrape_s: float
    choice: Mapping[str, str] = field(default_factory=dict)

    @property
    def step_s(self) -> float:
        """Between two points of a chart."""
        return max(self.scrape_s, (self.to_s - self.from_s) / STEPS)

    def values(self) -> dict[str, str]:
        """Of all variables, Grafana's own among them."""
        rate_s = max(self.step_s + self.scrape_s, RATE_SCRAPES * self.scrape_s)
        own = {"__rate_interval": rate_s, "__interval": self.step_s, "__range": self.to_s - self.from_s}
        return {**self.choice, **{name: f"{max(seconds, 1):.0f}s" for name, seconds in own.items()}}

    def choosing(self, board: Json) -> Self:
        """The same with a value for each of the dashboard's variables, the first where none was chosen.

        Raises NothingToChooseError.
        """
        choice = dict(self.choice)
        for one in chosen(board):
            series = filled(one.series, choice)
            found = self.prometheus.label_values(series, one.label, self.from_s, self.to_s)
            if not found:
                raise NothingToChooseError(f"variable {one.name}: no series {series} with a label {one.label}")
            if choice.get(one.name) not in found:
                choice[one.name] = found[0]
        return replace(self, choice=choice)

    def answers(self, asked: Asked, expr: str | None = None) -> list[Series]:
        """Of a panel's query, or of `expr` asked in its place."""
        expr = filled(expr or asked.expr, self.values())
        return self.prometheus.instant(expr, self.to_s) if asked.instant else self.ever(expr)

    def ever(self, expr: str) -> list[Series]:
        """What there was at any time that is shown."""
        return self.prometheus.over(expr, self.from_s, self.to_s, self.step_s)

    def at(self, at_s: float) -> Self:
        """The same as it was shown then."""
        return replace(self, to_s=at_s)


def load(name: str) -> Json:
    """A dashboard as it is shipped."""
    board: Json = json.loads((FOLDER / f"{name}.json").read_text())
    return board
