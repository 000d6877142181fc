"""The coordinator's HTTP pages: health, metrics and read-only state."""

import json

from coordinator.metrics import exposition
from coordinator.service import Service
from fedward.http import Page, Pages
from fedward.ports import Clock

STUCK_AFTER_S = 120.0
"""A loop that did not turn for this long is stuck: the supervisor should restart the process."""


def pages(service: Service, clock: Clock) -> Pages:
    """/healthz: the loop turns. /readyz: and the broker is there. /metrics, /v1/state: what is known."""

    def healthz() -> Page:
        silent_s = clock.monotonic_s() - service.looped_at_s
        return Page("ok\n") if silent_s < STUCK_AFTER_S else Page(f"stuck for {silent_s:.0f} s\n", status=503)

    def readyz() -> Page:
        return Page("ok\n") if service.connected else Page("not connected to the broker\n", status=503)

    return {
        "/healthz": healthz,
        "/readyz": readyz,
        "/metrics": lambda: Page(exposition(service.page()), "text/plain; version=0.0.4; charset=utf-8"),
        "/v1/state": lambda: Page(json.dumps(service.page()), "application/json"),
    }
