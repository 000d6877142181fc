"""The four dashboards. `python -m monitoring.dashboards` writes the JSON that Grafana loads beside this file."""

from collections.abc import Callable, Mapping

from grafana_foundation_sdk.builders import dashboard as boards

from monitoring.dashboards import coordinator, egress, federation, hospitals

DASHBOARDS: Mapping[str, Callable[[], boards.Dashboard]] = {
    "federation": federation.dashboard,
    "hospitals": hospitals.dashboard,
    "coordinator": coordinator.dashboard,
    "egress": egress.dashboard,
}
"""By the name of their file."""
