"""Looks at a federation a few times a second, shows it, and ends it in time."""

import time
from collections.abc import Callable, Mapping
from typing import Any

from fedward.errors import TransientError
from sandbox.federation import Federation
from sandbox.view import Frame, Hospital, View

State = Mapping[str, Any]
"""The coordinator's page."""

LOOK_EVERY_S = 0.2
START_S = 90.0
"""Time in which training must begin."""
FINISH_S = 10.0
"""Time in which the coordinator must follow the wish to finish."""
LAST_LOOK_S = 8.0
"""Time for the hospitals to fetch and measure the last version; one that is training ends that first."""


def has_begun(state: State) -> bool:
    """Whether a hospital trains, or has."""
    return any(site["phase"] == "training" or site["num_accepted"] for site in state["sites"].values())


def is_finished(state: State) -> bool:
    """Whether the current version is the last."""
    return bool(state["state"] == "finished")


def has_settled(state: State) -> bool:
    """Whether every hospital that is online has measured the current version and told that it has no more to do."""
    online = [site for site in state["sites"].values() if site["online"]]
    return all(site["evaluated_version"] == state["version"] and site["phase"] == "idle" for site in online)


class Watch:
    """Shows a running federation until it has ended."""

    def __init__(self, federation: Federation, view: View, title: str, metric: str, started_s: float) -> None:
        """`started_s` on the monotonic clock is where the frames' time begins."""
        self._federation = federation
        self._view = view
        self._title = title
        self._metric = metric
        self._started_s = started_s
        self._climb: dict[int, float] = {}  # version -> the sites' metric when last seen
        self._hospitals = {
            site.name: Hospital(num_train=site.num_train, slowness=federation.plan.slow.get(site.name, 1.0))
            for site in federation.split
        }

    def run(self, seconds: Callable[[float], float]) -> tuple[bool, State]:
        """Let them train, then finish: whether the federation finished by itself, and its last state.

        They train for `seconds(began_s)`, where training began `began_s` after the frames' time. Raises
        TransientError when a process dies, or when training or the end does not come in time.
        """
        with self._view:
            self._require(has_begun, START_S, "starting")
            by_itself = self._look_until(is_finished, seconds(self._elapsed_s), "training") is not None
            if not by_itself:
                self._federation.fedward("coordinator", "finish", "--config", self._config)
            state = self._require(is_finished, FINISH_S, "finishing")
            return by_itself, self._look_until(has_settled, LAST_LOOK_S, "measuring the last version") or state

    @property
    def _elapsed_s(self) -> float:
        return time.monotonic() - self._started_s

    @property
    def _config(self) -> str:
        return str(self._federation.config_path("coordinator"))

    def _require(self, holds: Callable[[State], bool], seconds: float, stage: str) -> State:
        state = self._look_until(holds, seconds, stage)
        if state is None:
            raise TransientError(f"{stage}: not done within {seconds:g} s; see {self._federation.plan.folder / 'logs'}")
        return state

    def _look_until(self, holds: Callable[[State], bool], seconds: float, stage: str) -> State | None:
        """Show frames until one for which `holds`, and return its state; None when `seconds` are over."""
        deadline_s = time.monotonic() + seconds
        while True:
            self._federation.check_processes()
            state = self._look(stage)
            if state and holds(state):
                return state
            if time.monotonic() >= deadline_s:
                return None
            time.sleep(min(LOOK_EVERY_S, max(0.0, deadline_s - time.monotonic())))

    def _look(self, stage: str) -> State | None:
        state = self._federation.state()
        if state and self._metric in state["metrics"]:
            self._climb[state["version"]] = state["metrics"][self._metric]
        self._view.show(
            Frame(
                title=self._title,
                stage=stage,
                elapsed_s=self._elapsed_s,
                state=state,
                hospitals=self._hospitals,
                metric=self._metric,
                climb=tuple(self._climb.values()),
            )
        )
        return state
