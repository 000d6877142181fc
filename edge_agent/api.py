"""The agent's HTTP pages, for the hospital's own monitoring: health, metrics and read-only state."""

import json

from edge_agent.agent import Agent
from edge_agent.metrics import exposition
from fedward.http import Page, Pages
from fedward.ports import Clock

STUCK_AFTER_S = 120.0
"""A loop that did not turn for this long is stuck: the supervisor should restart the process."""


def pages(agent: Agent, clock: Clock) -> Pages:
    """/healthz: the loop turns. /readyz: and the broker is there. /metrics, /v1/state: what is known."""

    def healthz() -> Page:
        silent_s = clock.monotonic_s() - agent.looped_at_s
        return Page("ok\n") if silent_s < STUCK_AFTER_S else Page(f"stuck for {silent_s:.0f} s\n", status=503)

    def readyz() -> Page:
        return Page("ok\n") if agent.connected else Page("not connected to the broker\n", status=503)

    return {
        "/healthz": healthz,
        "/readyz": readyz,
        "/metrics": lambda: Page(exposition(agent.page()), "text/plain; version=0.0.4; charset=utf-8"),
        "/v1/state": lambda: Page(json.dumps(agent.page()), "application/json"),
    }
