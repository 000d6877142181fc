"""A dashboard as Grafana would read its JSON: panels, what each asks and is answered, and variables. Pure."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Json = Mapping[str, Any]

METRIC = re.compile(r"\b((?:(?:fed|site)[:_]|process_)\w[\w:]*|ALERTS|up)\b(\{[^}]*\})?")
"""A series' name and its labels; ours, those of a process, and Prometheus' own two."""

FALLBACK = re.compile(r"\s+or\s+vector\([^)]*\)")
VARIABLE = re.compile(r"\$(?:\{(\w+)(?::\w+)?\}|(\w+))")
LABEL_VALUES = re.compile(r"label_values\((?P<series>.+), (?P<label>\w+)\)")


@dataclass(frozen=True)
class Asked:
    """One query of a panel: `ref` is its letter; instant, or over the time that is shown."""

    ref: str
    expr: str
    legend: str
    instant: bool


@dataclass(frozen=True)
class Panel:
    """What stands in one place of the grid; `json` has its looks."""

    kind: str
    title: str
    asked: Sequence[Asked]
    json: Json

    @property
    def place(self) -> tuple[int, int, int, int]:
        """x, y, width and height on the grid."""
        at = self.json["gridPos"]
        return at["x"], at["y"], at["w"], at["h"]


@dataclass(frozen=True)
class Chosen:
    """A variable whose values Prometheus knows: those of a label of a series."""

    name: str
    series: str
    label: str


@dataclass(frozen=True)
class Series:
    """Labels, and the values with their times in seconds; what is not a number is left out."""

    labels: Mapping[str, str]
    times: tuple[float, ...]
    values: tuple[float, ...]


def panels(board: Json) -> list[Panel]:
    """All of a dashboard, rows' headings among them, those of closed rows, too."""
    return list(_panels(board["panels"]))


def _panels(found: Sequence[Json]) -> Iterator[Panel]:
    for one in found:
        asked = [
            Asked(target["refId"], target["expr"], target.get("legendFormat", ""), bool(target.get("instant")))
            for target in one.get("targets") or ()
        ]
        yield Panel(one["type"], one.get("title", ""), asked, one)
        yield from _panels(one.get("panels") or ())


def chosen(board: Json) -> list[Chosen]:
    """The variables that are asked for, in the order in which they stand."""
    found = []
    for one in board["templating"]["list"]:
        if one["type"] == "query":
            match = LABEL_VALUES.fullmatch(one["query"])
            if not match:
                raise ValueError(f"variable {one['name']}: got {one['query']!r}, expected label_values(series, label)")
            found.append(Chosen(one["name"], match["series"], match["label"]))
    return found


def defined(board: Json) -> set[str]:
    """The names of all variables that the dashboard has."""
    return {one["name"] for one in board["templating"]["list"]}


def variables(text: str) -> set[str]:
    """The names of all variables in a text, Grafana's own, as `__range`, among them."""
    return {first or second for first, second in VARIABLE.findall(text)}


def filled(text: str, values: Mapping[str, str]) -> str:
    """The text with its variables' values. Raises KeyError for one that has none."""
    return VARIABLE.sub(lambda match: values[match[1] or match[2]], text)


def without_fallback(expr: str) -> str:
    """The query without what it answers when there is nothing: `or vector(0)` would hide a wrong name."""
    return FALLBACK.sub("", expr)


def selectors(expr: str) -> list[str]:
    """Every series that a query names, with the labels it asks for: a part of the query may hide an empty one."""
    return list(dict.fromkeys(name + labels for name, labels in METRIC.findall(expr)))
