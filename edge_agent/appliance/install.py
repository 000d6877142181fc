"""What the verbs have in common: the configuration, the image, the checks before, and the commands in a container."""

import json
import os
import re
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_agent.appliance.carry import Carrier
from edge_agent.appliance.config import CONFIG_MOUNT, ApplianceConfig
from edge_agent.appliance.engine import Engine, Errand, Outcome
from edge_agent.appliance.machine import (
    AGENT,
    GpuFacts,
    Mounted,
    gpus_for,
    granted_by,
    judge_engine,
    judge_gpu,
    judge_groups,
    judge_mounts,
    judge_paths,
)
from edge_agent.appliance.plan import Plan, once_options, problems_of, run_options, volume_of
from edge_agent.appliance.steps import Container, Release
from edge_agent.config import SiteConfig
from fedward.doctor.check import Check, Verdict, failed
from fedward.errors import ConfigError
from fedward.process import only_process_in
from fedward.settings import load_settings

SITE_FILE = "site.yaml"
SITE_CONFIG = str(CONFIG_MOUNT / SITE_FILE)
"""As the container sees it."""

DOCTOR = ["agent", "doctor", "--config", SITE_CONFIG, "--json"]

DRIVER = Path("/proc/driver/nvidia/version")
TOOLKIT = ("nvidia-container-runtime-hook", "nvidia-container-toolkit")


@dataclass(frozen=True)
class Appliance:
    """One agent on this machine: its settings, and the engine."""

    config: ApplianceConfig
    engine: Engine
    environment: Mapping[str, str]

    def site(self) -> SiteConfig:
        """site.yaml, as the container will read it. Raises ConfigError with every problem."""
        return load_settings(SiteConfig, self.config.config_folder / SITE_FILE, {})

    @contextmanager
    def carrier(self) -> Iterator[Carrier]:
        """The right to change something.

        Raises TransientError while another process has it, ConfigError where this user may not write there.
        """
        folder = self.config.home
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise ConfigError(f"folder {folder}: {error.strerror}; run this as root, or set another `folder`") from None
        if not os.access(folder, os.W_OK | os.X_OK):
            raise ConfigError(f"folder {folder}: belongs to another user; run this as root")
        with only_process_in(folder):
            yield Carrier(folder, self.engine, self.config.health_s, self.config.stop_s, print)

    def options(self, release: Release) -> dict[str, Any]:
        """How this image is run here."""
        return run_options(Plan(self.config, release, gpus_for(self.config.gpu, self.gpus())))

    def gpus(self) -> GpuFacts:
        """The NVIDIA driver of this machine, and whether its engine can pass GPUs."""
        try:
            text = DRIVER.read_text()
        except OSError:
            text = ""
        version = re.search(r"\b\d+\.\d+(\.\d+)?\b", text)
        runtimes = self.engine.facts().get("Runtimes") or {}
        toolkit = "nvidia" in runtimes or any(shutil.which(name) for name in TOOLKIT)
        return GpuFacts((version[0] if version else "unknown") if text else None, toolkit)

    def container(self) -> Container | None:
        """The one that runs."""
        return next((each for each in self.engine.containers() if each.status == "running" and each.generation), None)

    # checks

    def check_machine(self) -> list[Check]:
        """What can be told before there is an image. Raises ConfigError for a site.yaml that can't be read."""
        info = self.engine.facts()
        return [
            judge_engine(info),
            judge_groups(info, self.config.memory_gib),
            judge_gpu(self.config.gpu, self.gpus()),
            judge_paths(problems_of(self.config, self.site())),
            judge_mounts(list(self._mounted())),
        ]

    def check_agent(self, options: dict[str, Any]) -> list[Check]:
        """What the agent's own doctor says in a container with these options, which may be of an image that is new."""
        outcome, _ = self.engine.run_once(once_options(options, DOCTOR), Errand())
        return checks_of(outcome)

    def check_running(self, container: Container) -> list[Check]:
        """What the agent's own doctor says in the container that runs."""
        return checks_of(self.engine.execute(container, ["fedward", *DOCTOR]))

    def _mounted(self) -> Iterator[Mounted]:
        config = self.config
        yield _mounted(config.config_folder)
        for name in sorted(config.config_folder.glob("*.yaml")):
            yield _mounted(name)
        for path in config.data.values():
            yield _mounted(path)
        if config.secrets_folder is not None:
            yield _mounted(config.secrets_folder)
            for path in sorted(config.secrets_folder.glob("*")):
                yield _mounted(path, is_secret=True)


def _mounted(path: Path, *, is_secret: bool = False) -> Mounted:
    try:
        found = path.stat()
    except OSError:
        return Mounted(str(path))
    is_folder = stat.S_ISDIR(found.st_mode)
    mode = stat.S_IMODE(found.st_mode)
    return Mounted(str(path), found.st_uid, found.st_gid, mode, is_folder, is_secret, _granted(path))


def _granted(path: Path) -> int | None:
    try:
        return granted_by(os.getxattr(path, "system.posix_acl_access"))
    except OSError:  # no list, or a file system without
        return None


def checks_of(outcome: Outcome) -> list[Check]:
    """The lines of a doctor that ran elsewhere."""
    try:
        return [
            Check(line["name"], Verdict(line["verdict"]), line["found"], line["remedy"])
            for line in json.loads(outcome.stdout)
        ]
    except (ValueError, KeyError, TypeError):
        last = (outcome.stderr or outcome.stdout).strip().splitlines()[-1:] or ["no word"]
        found = f"the agent's doctor ended with {outcome.exit_code}: {last[0][:300]}"
        return [failed(AGENT, found, "correct what it says; site.yaml must be readable by user 10001")]


def config_of(path: Path) -> ApplianceConfig:
    """A configuration file, with what the environment says. Raises ConfigError with every problem."""
    return load_settings(ApplianceConfig, path, os.environ).resolved(path.absolute().parent)


@contextmanager
def appliance_of(path: Path) -> Iterator[Appliance]:
    """The appliance that a configuration file describes."""
    config = config_of(path)
    engine = Engine(config.name, volume_of(config))
    try:
        yield Appliance(config, engine, os.environ)
    finally:
        engine.close()
