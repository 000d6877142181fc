"""The rows of a table, as Grafana makes them of a panel's answers by its transformations. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from monitoring.reading import Series

Json = Mapping[str, Any]
Row = dict[str, float | str | None]
Answers = Mapping[str, Sequence[Series]]


def rows_of(panel: Json, answers: Answers) -> tuple[list[str], list[Row]]:
    """Headings, and the rows by heading. Raises KeyError for a transformation that is not known here."""
    kinds = [one["id"] for one in panel["transformations"]]
    options = {one["id"]: one["options"] for one in panel["transformations"]}
    if kinds == ["groupingToMatrix", "organize"]:
        headings, rows = _matrix(options["groupingToMatrix"], answers["A"])
        named = {name: options["organize"]["renameByName"].get(name, name) for name in headings}
        return list(named.values()), [{named[name]: value for name, value in row.items()} for row in rows]
    return _arranged(options["organize"], _joined(options["joinByField"]["byField"], answers))


def _joined(field: str, answers: Answers) -> list[Row]:
    """One row for each value of the label, with the other labels and, as `Value #A`, the values."""
    rows: dict[str, Row] = {}
    for ref, found in answers.items():
        for series in found:
            row = rows.setdefault(series.labels[field], {})
            row.update(series.labels)
            row[f"Value #{ref}"] = series.values[-1]
    return [rows[key] for key in sorted(rows)]


def _arranged(options: Json, rows: Sequence[Row]) -> tuple[list[str], list[Row]]:
    order: Mapping[str, int] = options["indexByName"]
    names = sorted((name for name in order if not options["excludeByName"].get(name)), key=order.__getitem__)
    headings: Mapping[str, str] = options["renameByName"]
    return [headings[name] for name in names], [{headings[name]: row.get(name) for name in names} for row in rows]


def _matrix(options: Json, found: Sequence[Series]) -> tuple[list[str], list[Row]]:
    corner = f"{options['rowField']}\\{options['columnField']}"
    columns = sorted({series.labels[options["columnField"]] for series in found})
    rows: dict[str, Row] = {}
    for series in found:
        name = series.labels[options["rowField"]]
        row = rows.setdefault(name, {corner: name, **dict.fromkeys(columns, 0.0)})
        row[series.labels[options["columnField"]]] = series.values[-1]
    return [corner, *columns], [rows[name] for name in sorted(rows)]
