"""Prometheus' HTTP API, as much of it as Grafana uses for these dashboards."""

import json
import math
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from typing import Any

from fedward.errors import FedwardError, TransientError
from monitoring.reading import Series

PATIENCE_S = 30.0
SERVER_FAULT = 500


class QueryRefusedError(FedwardError):
    """Prometheus does not understand the query."""


@dataclass(frozen=True)
class Prometheus:
    """One server; `url` as http://127.0.0.1:9090."""

    url: str

    def instant(self, expr: str, at_s: float) -> list[Series]:
        """Each series with its one value at a time. Raises QueryRefusedError, TransientError."""
        answer = self._get("query", query=expr, time=at_s)
        if answer["resultType"] == "scalar":
            return _with_values([{"metric": {}, "values": [answer["result"]]}])
        return _with_values([{"metric": one["metric"], "values": [one["value"]]} for one in answer["result"]])

    def over(self, expr: str, from_s: float, to_s: float, step_s: float) -> list[Series]:
        """Each series over a time. Raises QueryRefusedError, TransientError."""
        answer = self._get("query_range", query=expr, start=from_s, end=to_s, step=step_s)
        return _with_values(answer["result"])

    def label_values(self, series: str, label: str, from_s: float, to_s: float) -> list[str]:
        """The values of a label, sorted, of the series that there were."""
        found = self._get(f"label/{label}/values", **{"match[]": series, "start": from_s, "end": to_s})
        return sorted(map(str, found))

    def is_ready(self) -> bool:
        """Whether it takes queries yet."""
        try:
            return bool(self.instant("vector(1)", 0.0))
        except TransientError:
            return False

    def _get(self, path: str, **parameters: object) -> Any:
        url = f"{self.url.rstrip('/')}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        if not url.startswith(("http://", "https://")):
            raise TransientError(f"got the address {self.url!r}, expected http:// or https://")
        try:
            with urllib.request.urlopen(url, timeout=PATIENCE_S) as answer:  # noqa: S310 - it was looked at
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            if error.code >= SERVER_FAULT:
                raise TransientError(f"{self.url} answered {error.code}") from error
            raise QueryRefusedError(f"{error.read(500).decode(errors='replace')}: {parameters}") from error
        except OSError as error:
            raise TransientError(f"no answer from {self.url}: {error}") from error


def _with_values(result: list[Any]) -> list[Series]:
    found = []
    for one in result:
        points = [(float(at_s), float(text)) for at_s, text in one["values"]]
        points = [point for point in points if math.isfinite(point[1])]
        if points:
            found.append(Series(one["metric"], *zip(*points, strict=True)))
    return found
