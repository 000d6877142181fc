"""A federation to look at: real processes, a mosquitto with rights, and a Prometheus that scrapes them every second.

What an operator hopes for happens in it, and what he fears: versions, refusals, a hospital that is lost.
"""

import shutil
import time
from contextlib import ExitStack
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Any, Self

import yaml

from fedward.errors import TransientError
from monitoring.prometheus import Prometheus
from monitoring.shown import Shown
from sandbox.child import start_child
from sandbox.federation import COORDINATOR, START_S
from sandbox.ports import HOST, free_port
from sandbox.wide import wide_federation

RULES = Path(__file__).parent / "rules"
SCRAPE_S = 1
SLOW, LOST = "hospital-c", "hospital-b"
"""Whose updates come too late for this federation, and who is killed."""

HIDDEN = (1024, 640)
"""Of the model: an update of 330 kB in eden4, more than fits into its offer."""


def find_prometheus() -> str | None:
    """Path of the Prometheus server, None where it is not installed."""
    return shutil.which("prometheus")


class Trial:
    """Runs the plan with a Prometheus beside it in a `with` block; afterwards nothing of it is left running."""

    def __init__(self, folder: Path, num_sites: int = 4) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.federation = wide_federation(
            folder / "federation",
            HIDDEN,
            Random(3),  # noqa: S311 - records, not keys
            num_sites,
            work={"local_epochs": 1, "batch_size": 16, "local_lr": 0.01, "momentum": 0.9},
            codec="eden4",
            engine={"preset": "default", "max_staleness": 2},
            slow={SLOW: 25.0},
            tls=True,
            rights=True,
            finish={"version": 100_000},
        )
        self.prometheus = Prometheus(f"http://{HOST}:{free_port(HOST)}")
        self.began_s = 0.0
        self._folder = folder
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self.federation)
            self._start_prometheus(stack)
            self.began_s = time.time()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def shown(self, **choice: str) -> Shown:
        """All of it up to now, on a dashboard with these variables chosen."""
        return Shown(self.prometheus, self.began_s, time.time(), SCRAPE_S, {"job": COORDINATOR, **choice})

    def settle(self, seconds: float) -> float:
        """When, by Prometheus' word, all were there, versions came and all but the slow one had taken part."""
        busy = len(self.federation.sites) - 1
        self._wait(f"fed_sites_online == {busy + 1}", seconds)
        self._wait(f"count(fed_site_updates_accepted_total > 1) >= {busy} and on() fed_model_version > 3", seconds)
        self._wait("fed_broker_uptime_seconds", seconds)  # the broker tells its figures every ten seconds
        return time.time()

    def provoke(self, seconds: float) -> float:
        """Have updates refused, lose a hospital, replay the versions; when Prometheus knew all of it."""
        refused = f'fed_site_updates_refused_total{{site="{SLOW}"}}'
        self._wait(f"{refused} > {self._now(refused)}", seconds)
        self.federation.kill(LOST)
        self._wait(f'fed_site_phase{{site="{LOST}",phase="offline"}} == 1', seconds)
        self._command("replay")
        self._wait("fed_replay_matches", seconds)
        self._wait(f"fed_model_version > {self._now('fed_model_version') + 2}", seconds)
        return time.time()

    def pause(self, seconds: float) -> float:
        """When Prometheus knew that the federation was paused."""
        self._command("pause")
        self._wait('fed_federation_state{state="paused"} == 1', seconds)
        return time.time()

    def go_on(self, seconds: float) -> None:
        """Bring the lost hospital back, and let all of them train for so long."""
        self.federation.start(LOST)
        self._command("resume")
        until_s = time.time() + seconds
        self.federation.wait_for(lambda _: time.time() > until_s, 2 * seconds, "the time to be over")

    def _command(self, verb: str) -> None:
        self.federation.fedward("coordinator", verb, "--config", str(self.federation.config_path(COORDINATOR)))

    def _now(self, series: str) -> float:
        return self.prometheus.instant(series, time.time())[0].values[0]

    def _wait(self, expr: str, seconds: float) -> None:
        """Until this has an answer. Raises TransientError after `seconds`."""
        self.federation.wait_for(lambda _: bool(self.prometheus.instant(expr, time.time())), seconds, expr)

    def _start_prometheus(self, stack: ExitStack) -> None:
        program = find_prometheus()
        if program is None:
            raise TransientError("prometheus is not installed: `apt-get install prometheus`")
        folder = self._folder / "prometheus"
        folder.mkdir()
        rules = [str(_impatient(path, folder)) for path in sorted(RULES.glob("*.rules.yml"))]
        config = folder / "prometheus.yml"
        config.write_text(yaml.safe_dump(_config(self.federation.http_port, rules)))
        address = self.prometheus.url.removeprefix("http://")
        command = [program, f"--config.file={config}", f"--storage.tsdb.path={folder}/data"]
        command += [f"--web.listen-address={address}", "--log.level=warn"]
        child = start_child(command, folder / "prometheus.log", self.prometheus.is_ready, START_S)
        stack.callback(child.kill)


def _config(port: int, rules: list[str]) -> dict[str, Any]:
    every = f"{SCRAPE_S}s"
    return {
        "global": {"scrape_interval": every, "scrape_timeout": every, "evaluation_interval": every},
        "rule_files": rules,
        "scrape_configs": [{"job_name": COORDINATOR, "static_configs": [{"targets": [f"{HOST}:{port}"]}]}],
    }


def _impatient(path: Path, folder: Path) -> Path:
    """The same rules, but no alert waits before it fires: a trial has minutes."""
    rules = yaml.safe_load(path.read_text())
    for group in rules["groups"]:
        group.pop("interval", None)
        for rule in group["rules"]:
            rule.pop("for", None)
    made = folder / path.name
    made.write_text(yaml.safe_dump(rules))
    return made
