"""The first files of an appliance, from the token of an invitation and what only the hospital knows. Pure."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from edge_agent.appliance.config import CONFIG_MOUNT, DATA_MOUNT, STATE_MOUNT

APPLIANCE, SITE, POLICY = "appliance.yaml", "config/site.yaml", "config/policy.yaml"

BROKER_PORT = 8883


@dataclass(frozen=True)
class Beginning:
    """What a hospital says once: the federation and its name there, the broker, a task, its records, who approves.

    `options` are those of the task that name a file below the folder with the records.
    """

    federation: str
    site: str
    host: str
    task: str
    records: str
    port: int = BROKER_PORT
    options: Mapping[str, str] = field(default_factory=dict)
    release_key: str | None = None
    release_key_file: str | None = None
    image: str | None = None
    image_signature: str | None = None
    proxy: str | None = None
    approval: str = "by hand"


def files_of(begin: Beginning) -> dict[str, str]:
    """Name and text of each file."""
    return {APPLIANCE: _appliance(begin), SITE: _site(begin), POLICY: _policy(begin)}


def _appliance(begin: Beginning) -> str:
    lines = [
        "# The agent's container on this machine. `fedward appliance install --help` lists every setting.",
        f"name: {_quoted(f'fedward-{begin.federation}')}",
        "config_folder: config      # site.yaml and policy.yaml; the container reads it",
        "data:                      # records: path in the container, and on this machine; never written to",
        f"  {DATA_MOUNT}: {_quoted(begin.records)}",
        "memory_gib: 8",
        "gpu: auto                  # all GPUs that the engine can pass; or none, all, 0,1",
        "http_port: 9100            # on 127.0.0.1, for the hospital's own monitoring",
    ]
    lines += [f"release_key: {_quoted(begin.release_key)}"] if begin.release_key else []
    lines += [f"release_key_file: {_quoted(begin.release_key_file)}"] if begin.release_key_file else []
    lines += [f"image: {_quoted(begin.image)}"] if begin.image else []
    lines += [f"image_signature: {_quoted(begin.image_signature)}"] if begin.image_signature else []
    lines += [f"proxy: {_quoted(begin.proxy)}"] if begin.proxy else []
    return _text(lines)


def _site(begin: Beginning) -> str:
    lines = [
        "# This hospital in the federation. Every path is one of the container's.",
        f"site: {_quoted(begin.site)}",
        f"federation: {_quoted(begin.federation)}",
        "tasks:",
        f"  {_quoted(begin.task)}:{'' if begin.options else ' {}'}",
        *(f"    {name}: {_quoted(str(DATA_MOUNT / PurePosixPath(path)))}" for name, path in begin.options.items()),
        f"state_folder: {STATE_MOUNT}",
        "broker:",
        f"  host: {_quoted(begin.host)}",
        f"  port: {begin.port}",
        "identity:",
        f"  folder: {STATE_MOUNT / 'identity'}",
        f"policy_file: {CONFIG_MOUNT / 'policy.yaml'}",
    ]
    return _text(lines)


def _policy(begin: Beginning) -> str:
    lines = [
        "# What this hospital allows; nobody outside can change it, and a change counts within seconds: docs/policy.md",
        f"federations: [{_quoted(begin.federation)}]",
        "tasks:",
        f"  {_quoted(begin.task)}: any",
        f"approval: {begin.approval}          # by hand: fedward appliance agent pending, approve, deny",
    ]
    return _text(lines)


def _quoted(text: str) -> str:
    """As a YAML string, whatever is in it: JSON's are."""
    return json.dumps(text)


def _text(lines: list[str]) -> str:
    return "\n".join(lines) + "\n"
