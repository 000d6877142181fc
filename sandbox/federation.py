"""A whole federation on this machine, as real processes: broker, coordinator, and an agent for each hospital.

The processes are the real programs with configuration files like anybody's; nothing here reaches into them.
"""

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from coordinator.config import Authorisation, FederationConfig
from coordinator.ledger import Ledger
from coordinator.opening import engine_of
from fedward.errors import ConfigError, TransientError
from fedward.identity.certificates import FileAuthority
from fedward.settings import load_settings
from sandbox.broker import EmbeddedBroker, Kind
from sandbox.child import Child
from sandbox.datasets import Split, split
from sandbox.identities import BROKER, make_identities, tls_files
from sandbox.interrupt import signals_held
from sandbox.ports import HOST, free_port
from sandbox.secured import SecuredBroker

FEDERATION = "demo"
COORDINATOR, STANDBY = "coordinator", "standby"
START_S = 60.0
STOP_S = 10.0
POLL_S = 0.1
SHOWN = 500
"""Characters of the last line of a log."""
KEEP_ALL: Mapping[str, int] = {"versions": 1_000_000, "records": 1_000_000}
"""For reports and accounts, which look at every version and update of a run."""

RIGHTS = {True: Authorisation.DYNAMIC_SECURITY.value, False: Authorisation.NONE.value}

WORK: Mapping[str, Mapping[str, object]] = {
    "breast-cancer": {"local_epochs": 2, "batch_size": 16, "local_lr": 0.02, "momentum": 0.9},
    "heart-disease": {"local_epochs": 2, "batch_size": 16, "local_lr": 0.01, "momentum": 0.9, "weight_decay": 0.001},
    "pneumonia": {"local_epochs": 1, "batch_size": 32, "local_lr": 0.01, "momentum": 0.9},
}
"""Of each task, what a site does with a version."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to run."""

    folder: Path
    task: str = "breast-cancer"
    num_sites: int = 4
    data: Path | None = None
    engine: Mapping[str, object] = field(default_factory=lambda: {"preset": "default"})
    codec: str = "eden4"
    model_codec: str = "uqz"
    precise_versions: int = 1
    slow: Mapping[str, float] = field(default_factory=dict)  # site -> how many times slower
    retention: Mapping[str, int] = field(default_factory=lambda: KEEP_ALL)
    finish: Mapping[str, object] = field(default_factory=dict)
    work: Mapping[str, object] = field(default_factory=dict)  # in place of the task's own
    policy: Mapping[str, object] = field(default_factory=dict)  # of every site
    allowed: Mapping[str, Mapping[str, object]] = field(default_factory=dict)  # site -> its `tasks`, not the plan's
    records: Split | None = None  # in place of the task's own data set
    routes: Mapping[str, int] = field(default_factory=dict)  # site -> the port of its own way to the broker
    ledger: Mapping[str, object] = field(default_factory=dict)  # in place of a SQLite file
    api: Mapping[str, object] = field(default_factory=dict)  # of each coordinator, on a port of its own; empty: none
    standby: bool = False  # a second coordinator, for a ledger on a server
    broker: Kind | None = None
    broker_port: int = 0
    signed: bool = True  # messages are signed and updates sealed
    sealed_model: bool = False  # to the members; needs `signed`
    tls: bool = False  # with the broker, which is mosquitto then; needs `signed`
    rights: bool = False  # at the broker, which the coordinator gives; needs `tls`
    ways: Mapping[str, Mapping[str, object]] = field(default_factory=dict)  # site -> more of its broker's settings
    agent_http: bool = False
    threads: int = 1
    gather_s: float = 0.05
    telemetry_s: float = 0.5
    packages: Path | None = None  # a folder of installed packages beside the environment's: their tasks can be trained
    program: Sequence[str] = ("fedward.cli",)  # what stands before the arguments of both sides after `python -m`
    seed: int = 7


class Federation:
    """Runs a plan in a `with` block; afterwards nothing of it is left running."""

    def __init__(self, plan: Plan) -> None:
        """Cut the data, write the initial model and all configuration files. Raises ConfigError."""
        plan.folder.mkdir(parents=True, exist_ok=True)
        self.plan = plan
        self.split = plan.records or split(plan.task, plan.num_sites, plan.data, plan.folder / "data", plan.seed)
        self.sites = tuple(site.name for site in self.split)
        unknown = sorted(set(plan.slow) - set(self.sites))
        if unknown:
            raise ConfigError(f"--slow {', '.join(unknown)}: no such site; there are: {', '.join(self.sites)}")
        self._identities = plan.folder / "identities"
        self.coordinators = (COORDINATOR, STANDBY) if plan.standby else (COORDINATOR,)
        self._http_ports = {name: free_port(HOST) for name in self.coordinators}
        self.api_ports = {name: free_port(HOST) for name in self.coordinators} if plan.api else {}
        self.agent_ports = {site: free_port(HOST) for site in self.sites} if plan.agent_http else {}
        self.children: dict[str, Child] = {}
        (plan.folder / "logs").mkdir(exist_ok=True)
        if plan.signed:
            make_identities(self._identities, FEDERATION, self.sites, time.time())
        self.broker = self._make_broker()
        self._write_configs()

    def __enter__(self) -> Self:
        try:
            if not self.model_path.exists():
                self.fedward("agent", "init-model", "--task", self.plan.task, "--out", str(self.model_path))
            self.broker.start()
            for name in self.coordinators:
                self.start(name)
            for site in self.sites:
                self.start(site)
        except BaseException:  # Ctrl-C while half of them run
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def model_path(self) -> Path:
        return self.plan.folder / "initial.safetensors"

    @property
    def work(self) -> Mapping[str, object]:
        """What a site does with a version."""
        return self.plan.work or WORK[self.plan.task]

    def config_path(self, name: str) -> Path:
        """The configuration file of `coordinator` or a site."""
        return self.plan.folder / f"{name}.yaml"

    def policy_path(self, site: str) -> Path:
        """The file of a site's policy."""
        return self.plan.folder / f"{site}.policy.yaml"

    def write_policy(self, site: str, policy: Mapping[str, object]) -> None:
        """Give a site this policy; where it does not say otherwise, nobody is asked for approval."""
        defaults = {"approval": "automatic", "compute_share": 1 / self.plan.slow.get(site, 1.0)}
        self._write(f"{site}.policy", {**defaults, **policy})

    def state_folder(self, name: str) -> Path:
        return self.plan.folder / "state" / name

    def start(self, name: str, program: Sequence[str] = ()) -> None:
        """Start a coordinator or a site's agent; `program` in place of the plan's."""
        side = "coordinator" if name in self.coordinators else "agent"
        module = program or self.plan.program
        command = [sys.executable, "-m", *module, side, "run", "--config", str(self.config_path(name))]
        log = self.plan.folder / "logs" / f"{name}.log"
        with signals_held():
            self.children[name] = Child(command, log, self._environment())

    def kill(self, name: str) -> None:
        """End a process as a crash or a power cut would; `start` brings it back."""
        self.children.pop(name).kill()

    def stop(self) -> None:
        """End every process: the agents first, so that they can say goodbye. A second call ends what is left."""
        agents = [child for name, child in self.children.items() if name not in self.coordinators]
        for child in agents:
            child.terminate()
        for child in agents:
            child.wait(STOP_S)
        for name in reversed(self.coordinators):  # the one that stands by first, if it still does
            if name in self.children:
                self.children[name].terminate()
                self.children[name].wait(STOP_S)
        self.broker.stop()

    def fedward(self, *arguments: str) -> str:
        """Run a `fedward` command to its end and return what it printed. Raises ConfigError when it fails."""
        command = [sys.executable, "-m", "fedward.cli", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, env=self._environment(), check=False)  # noqa: S603 - ours
        if done.returncode != 0:
            raise ConfigError(
                f"`fedward {' '.join(arguments[:2])}` ended with {done.returncode}: {done.stderr.strip()}"
            )
        return done.stdout

    @property
    def http_port(self) -> int:
        """Of the first coordinator."""
        return self._http_ports[COORDINATOR]

    def page(self, path: str = "/v1/state", of: str = COORDINATOR) -> str | None:
        """A page of a coordinator; None while it does not answer."""
        try:
            with urllib.request.urlopen(f"http://{HOST}:{self._http_ports[of]}{path}", timeout=2) as answer:
                return str(answer.read().decode())
        except (OSError, HTTPException):  # not there, or killed while it answered
            return None

    def state(self) -> dict[str, Any] | None:
        """The state that the coordinator tells that works; None while none does."""
        for name in self.coordinators:
            page = self.page(of=name)
            state = json.loads(page) if page else {}
            if state.get("leads"):
                return dict(state)
        return None

    def leader(self) -> str | None:
        """Which coordinator works; None while none says so."""
        pages = {name: self.page(of=name) for name in self.coordinators}
        return next((name for name, page in pages.items() if page and json.loads(page)["leads"]), None)

    def ledger(self) -> Ledger:
        """The federation's ledger, beside the coordinator."""
        config = load_settings(FederationConfig, self.config_path(COORDINATOR), {})
        return Ledger(engine_of(config), create=False)

    def wait_for(self, holds: Callable[[dict[str, Any]], bool], seconds: float, what: str) -> dict[str, Any]:
        """The first state in which `holds` is true. Raises TransientError after `seconds`, or when a process dies."""
        deadline_s = time.monotonic() + seconds
        while time.monotonic() < deadline_s:
            self.check_processes()
            state = self.state()
            if state and holds(state):
                return state
            time.sleep(POLL_S)
        raise TransientError(f"{what}: not within {seconds} s; see {self.plan.folder / 'logs'}")

    def check_processes(self) -> None:
        """Raise TransientError when a process has ended that should run."""
        logs = {name: child.log for name, child in self.children.items() if not child.alive}
        if self.broker.pid is not None and not self.broker.alive:  # one that was stopped on purpose has no pid
            logs["the broker"] = self.broker.log_path
        if logs:
            raise TransientError("; ".join(_ended(name, log) for name, log in logs.items()))

    def _make_broker(self) -> EmbeddedBroker:
        plan = self.plan
        if plan.rights:
            authority = FileAuthority(self._identities / "authority")
            return SecuredBroker(plan.folder / "broker", [FEDERATION], HOST, plan.broker_port, authority)
        files = tls_files(self._identities, BROKER) if plan.tls else None
        return EmbeddedBroker(plan.folder, HOST, plan.broker_port, plan.broker, files)

    def _write_configs(self) -> None:
        plan = self.plan
        broker = {"host": HOST, "port": self.broker.port, "will_delay_s": 3, "reconnect_max_s": 2}
        for name, port in self._http_ports.items():
            self._write(
                name,
                {
                    "federation": FEDERATION,
                    "sites": list(self.sites),
                    "task": plan.task,
                    "model": str(self.model_path),
                    "work": dict(self.work),
                    "state_folder": str(self.state_folder(COORDINATOR)),
                    "broker": broker | self._tls(COORDINATOR) | {"authorisation": RIGHTS[plan.rights]},
                    **self._identity(COORDINATOR),
                    **({"authority": {"folder": str(plan.folder / "identities" / "authority")}} if plan.signed else {}),
                    "ledger": dict(plan.ledger),
                    "http": {"host": HOST, "port": port},
                    **({"api": {**plan.api, "port": self.api_ports[name]}} if plan.api else {}),
                    "engine": dict(plan.engine),
                    "codec": plan.codec,
                    "model_codec": plan.model_codec,
                    "precise_versions": plan.precise_versions,
                    "sealed_model": plan.sealed_model,
                    "gather_s": plan.gather_s,
                    "retention": dict(plan.retention),
                    "finish": dict(plan.finish),
                },
            )
        for site in self.split:
            self.write_policy(site.name, plan.policy)
            self._write(
                site.name,
                {
                    "site": site.name,
                    "federation": FEDERATION,
                    "tasks": dict(plan.allowed.get(site.name, {plan.task: site.options})),
                    "state_folder": str(self.state_folder(site.name)),
                    "broker": broker
                    | {"port": plan.routes.get(site.name, self.broker.port)}
                    | self._tls(site.name)
                    | dict(plan.ways.get(site.name, {})),
                    **self._identity(site.name),
                    "policy_file": str(self.policy_path(site.name)),
                    "http": {"host": HOST, "port": self.agent_ports.get(site.name)},
                    "device": "cpu",
                    "threads": plan.threads,
                    "telemetry_s": plan.telemetry_s,
                },
            )

    def _identity(self, name: str) -> dict[str, object]:
        return {"identity": {"folder": str(self._identities / name)}} if self.plan.signed else {}

    def _tls(self, name: str) -> dict[str, object]:
        return {"tls": tls_files(self._identities, name).model_dump(mode="json")} if self.plan.tls else {}

    def _environment(self) -> dict[str, str]:
        found = environment()
        if self.plan.packages:
            found["PYTHONPATH"] = os.pathsep.join(filter(None, [str(self.plan.packages), found.get("PYTHONPATH")]))
        return found

    def _write(self, name: str, config: Mapping[str, object]) -> None:
        self.config_path(name).write_text(yaml.safe_dump(dict(config), sort_keys=False))


def environment() -> dict[str, str]:
    """This process's environment without FEDWARD_ settings, which would reach into every program that is started."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FEDWARD_")}
    return kept | {"OMP_NUM_THREADS": "1"}  # many processes share this machine: a pool of threads in each would thrash


def _ended(name: str, log: Path) -> str:
    """What is told of a process that ended unexpectedly: where its log is, and how that ends."""
    last = log.read_text(errors="replace").strip().splitlines()[-1:]
    return f"{name} ended unexpectedly, see {log}" + "".join(f", which ends with: {line[-SHOWN:]}" for line in last)
