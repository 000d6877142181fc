"""A value as Grafana writes it: word or number, and its colour, by a panel's mappings, thresholds and unit. Pure."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

Json = Mapping[str, Any]

SECONDS = ((86_400 * 7, "weeks"), (86_400, "days"), (3600, "hours"), (60, "min"), (1, "s"), (1e-3, "ms"), (1e-6, "µs"))
BYTES = ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))
DECIMAL_BYTES = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))
SUFFIX = "suffix:"


def written(value: float | str | None, looks: Json) -> tuple[str, str | None]:
    """Text and colour; `looks` are a field's, as `fieldConfig.defaults`. None stands for what has no value.

    The colour is None where no mapping and no threshold gives one.
    """
    for mapping in looks.get("mappings") or ():
        result = _mapped(value, mapping)
        if result:
            return result["text"], result.get("color")
    if value is None or isinstance(value, str):
        return value or looks.get("noValue") or "No data", None
    return number(value, looks.get("unit", "none"), looks.get("decimals")), _colour(value, looks)


def number(value: float, unit: str, decimals: float | None = None) -> str:
    """With its unit, to three digits unless `decimals` says how many stand behind the point."""
    if unit.startswith(SUFFIX):
        return f"{_digits(value, decimals)}{unit.removeprefix(SUFFIX)}"
    if unit == "percentunit":
        return f"{_digits(100 * value, decimals)}%"
    if unit == "s":
        return _scaled(value, SECONDS, "s", decimals)
    if unit == "bytes":
        return _scaled(value, BYTES, "B", decimals)
    if unit == "Bps":
        return f"{_scaled(value, DECIMAL_BYTES, 'B', decimals)}/s"
    return f"{_digits(value, decimals)}{' /s' if unit == 'ops' else ''}"


def _mapped(value: float | str | None, mapping: Json) -> Json | None:
    options = mapping["options"]
    result: Json | None = None
    if mapping["type"] == "value":
        result = options.get(value if isinstance(value, str) else "" if value is None else f"{value:g}")
    elif mapping["type"] == "range" and isinstance(value, float):
        lowest, highest = options.get("from"), options.get("to")
        if (lowest is None or value >= lowest) and (highest is None or value <= highest):
            result = options["result"]
    elif mapping["type"] == "special" and value is None:
        result = options["result"]
    return result


def _colour(value: float, looks: Json) -> str | None:
    steps: Sequence[Json] = (looks.get("thresholds") or {}).get("steps") or ()
    reached = [step["color"] for step in steps if step["value"] is None or value >= step["value"]]
    return reached[-1] if reached else None


def _scaled(value: float, units: Sequence[tuple[float, str]], least: str, decimals: float | None) -> str:
    for size, unit in units:
        if abs(value) >= size:
            return f"{_digits(value / size, decimals)} {unit}"
    return f"{_digits(value, decimals)} {least}"


def _digits(value: float, decimals: float | None) -> str:
    if decimals is not None:
        return f"{value:.{decimals:.0f}f}"
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    behind = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{min(behind, 6)}f}".rstrip("0").rstrip(".") if behind else f"{value:.0f}"
