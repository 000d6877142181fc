"""`fedward appliance doctor`: this machine and its engine, then what the agent's own doctor says in its container."""

import os
from pathlib import Path

from edge_agent.appliance.config import ApplianceConfig
from edge_agent.appliance.engine import Engine
from edge_agent.appliance.install import Appliance
from edge_agent.appliance.journal import JournalFile
from edge_agent.appliance.machine import AGENT, ENGINE, judge_container, judge_snapshots
from edge_agent.appliance.plan import volume_of
from edge_agent.appliance.state import state_of
from edge_agent.appliance.steps import Journal
from fedward.disk import free_bytes
from fedward.doctor.check import Check, failed, skipped
from fedward.errors import ConfigError, TransientError

NO_ENGINE = "start Docker (systemctl start docker); run this as root, or as a user in the group docker"
OLD_ENGINE = "install Docker 20.10 or newer"


def examine(config: ApplianceConfig) -> list[Check]:
    """Every check of an appliance. Raises ConfigError for a site.yaml that can't be read."""
    try:
        engine = Engine(config.name, volume_of(config))
    except TransientError as error:
        return [failed(ENGINE, str(error).partition(";")[0], NO_ENGINE)]
    except ConfigError as error:
        return [failed(ENGINE, str(error).partition(":")[0], OLD_ENGINE)]
    try:
        appliance = Appliance(config, engine, os.environ)
        journal = JournalFile(config.home / "journal.json").load()
        state = state_of(config.name, journal, engine.containers())
        nearest = next(each for each in (config.home, *config.home.parents) if each.is_dir())
        return [
            *appliance.check_machine(),
            judge_snapshots(str(config.folder), free_bytes(nearest), _state_bytes(engine)),
            judge_container(state),
            *_inside(appliance, journal),
        ]
    finally:
        engine.close()


def _inside(appliance: Appliance, journal: Journal) -> list[Check]:
    """In the container that runs; otherwise in one like it, or like the one that was to be."""
    if container := appliance.container():
        return appliance.check_running(container)
    if journal.current is None:
        return [
            skipped(AGENT, "nothing is installed yet; `fedward appliance install` runs the agent's own doctor first")
        ]
    with appliance.carrier():
        return appliance.check_agent(journal.current.options)


def _state_bytes(engine: Engine) -> int | None:
    """Size of the state on the disk, where this user may look at the volume's folder."""
    folder = engine.state_folder()
    if folder is None or not os.access(folder, os.R_OK | os.X_OK):
        return None
    return sum(path.lstat().st_size for path in Path(folder).rglob("*") if path.is_file())
