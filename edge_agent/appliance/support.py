"""A file for those who help: what runs here and how, without a secret, a record or a path of the hospital."""

import io
import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edge_agent.appliance.config import ApplianceConfig
from edge_agent.appliance.doctor import examine
from edge_agent.appliance.install import Appliance
from edge_agent.appliance.journal import JournalFile
from edge_agent.appliance.redact import kept_check, kept_line, kept_settings, private_texts, scrubbed
from edge_agent.appliance.state import state_of
from edge_agent.appliance.steps import Container
from fedward import __version__
from fedward.doctor.check import as_json
from fedward.errors import FedwardError
from fedward.files import write_durably

LOG_LINES = 2000
PRIVATE = 0o600
SHORTEST_SECRET = 4
"""Letters of a line of a secret's file that is looked for in all texts."""

ENGINE_FACTS = (
    "ServerVersion", "Driver", "CgroupVersion", "CgroupDriver", "KernelVersion", "OperatingSystem", "Architecture",
    "NCPU", "MemTotal", "MemoryLimit", "SwapLimit", "CpuCfsQuota", "PidsLimit", "SecurityOptions", "DefaultRuntime",
)  # fmt: skip
HOST_FACTS = (
    "ReadonlyRootfs", "CapDrop", "SecurityOpt", "Memory", "MemorySwap", "NanoCpus", "PidsLimit", "LogConfig",
    "RestartPolicy", "DeviceRequests", "Privileged",
)  # fmt: skip


def collect(appliance: Appliance) -> dict[str, str]:
    """Name and text of every file of the bundle, redacted."""
    known = _secrets(appliance.config)
    return {name: scrubbed(text, known) for name, text in _texts(appliance)}


def _texts(appliance: Appliance) -> Iterator[tuple[str, str]]:
    config, engine = appliance.config, appliance.engine
    journal, containers = JournalFile(config.home / "journal.json").load(), engine.containers()
    state = state_of(config.name, journal, containers)
    yield "status.json", _json({"fedward": __version__} | state | {"failure": bool(state["failure"])})
    yield "appliance.json", _json(kept_settings(config.model_dump()))
    try:
        site = appliance.site().model_dump()
        yield "site.json", _json(kept_settings(site))
        private = {text for text in private_texts(site) if len(text) >= SHORTEST_SECRET}
        yield "doctor.json", as_json(kept_check(check, private) for check in examine(config))
    except FedwardError as error:  # site.yaml can't be used: it is what help is needed with, perhaps
        yield "site.txt", type(error).__name__
    yield "engine.json", _json({name: engine.facts().get(name) for name in ENGINE_FACTS})
    for container in containers:
        name = f"container-{container.generation or 'once'}"
        yield f"{name}.json", _json(_container(engine.inspect(container)))
        yield f"{name}.log", _log(appliance, container)


def _log(appliance: Appliance, container: Container) -> str:
    lines = b"".join(appliance.engine.logs(container, LOG_LINES)).decode(errors="replace").splitlines()
    return "\n".join(map(kept_line, lines)) + "\n"


def _container(shown: dict[str, Any]) -> dict[str, Any]:
    """Of what `docker inspect` shows: no environment, no path of the host, no output of a health check."""
    state = shown["State"]
    probes = (state.get("Health") or {}).get("Log") or []
    return {
        "image": shown["Image"],
        "created": shown["Created"],
        "restarts": shown["RestartCount"],
        "state": {name: state.get(name) for name in ("Status", "ExitCode", "OOMKilled", "StartedAt", "FinishedAt")},
        "health": {"status": (state.get("Health") or {}).get("Status"), "codes": [each["ExitCode"] for each in probes]},
        "host": {name: shown["HostConfig"].get(name) for name in HOST_FACTS},
        "mounts": [{"to": each["Destination"], "kind": each["Type"], "rw": each["RW"]} for each in shown["Mounts"]],
        "variables": sorted(each.partition("=")[0] for each in shown["Config"]["Env"] or ()),
    }


def _secrets(config: ApplianceConfig) -> set[str]:
    """All that must not be in any text: lines and names of secret files, and paths of this hospital's folders."""
    folders = (*config.data.values(), config.config_folder, config.secrets_folder, config.folder)
    found = {str(path) for path in folders if path}
    for path in config.secrets_folder.rglob("*") if config.secrets_folder else ():
        found.add(str(path))
        if path.is_file() and os.access(path, os.R_OK):
            found |= {line.strip() for line in path.read_text(errors="replace").splitlines()}
    return {text for text in found if len(text) >= SHORTEST_SECRET}


def write(files: dict[str, str], out: Path) -> None:
    """The bundle as a compressed tar, for its owner alone."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(f"fedward-support/{name}")
            content = text.encode()
            member.size, member.mode = len(content), PRIVATE
            archive.addfile(member, io.BytesIO(content))
    write_durably(out, buffer.getvalue(), PRIVATE)


def _json(value: object) -> str:
    return json.dumps(value, indent=2, default=str)
