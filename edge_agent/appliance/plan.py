"""How the agent's container is run, as the Docker SDK is told, and what site.yaml must say to fit it. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from edge_agent.appliance.config import CONFIG_MOUNT, DATA_MOUNT, SECRETS_MOUNT, STATE_MOUNT, ApplianceConfig
from edge_agent.appliance.steps import Release
from edge_agent.config import SiteConfig
from fedward.limits import MIB
from fedward.settings import DIRECT

GIB = 1024 * MIB

USER = "10001:10001"
"""The image's own: no user of the host's, and never root."""

NUM_PROCESSES = 512
"""Threads count, too: torch makes several pools of as many as there are cores."""

LOG_FILE_SIZE, NUM_LOG_FILES = "10m", "3"
HTTP_PORT = 9100
"""Of the agent's page in its container, as the image sets it."""

OWN_FILES = (CONFIG_MOUNT, SECRETS_MOUNT, STATE_MOUNT)


@dataclass(frozen=True)
class Plan:
    """What a container is made of. `gpus` says which are passed: all, numbers with commas between, or none."""

    config: ApplianceConfig
    release: Release
    gpus: str = "none"


def volume_of(config: ApplianceConfig) -> str:
    """Name of the volume that holds the agent's state, its key and its unsent updates."""
    return f"{config.name}-state"


def run_options(plan: Plan) -> dict[str, Any]:
    """What `docker.containers.create` is given, less name and labels; values are JSON's.

    Nothing is writable but the state and a small /tmp, in which nothing can be run; there is no capability, no way to
    one, and no user but the image's. No value here is a secret: the engine shows all of it to whoever asks.
    """
    config = plan.config
    memory = int(config.memory_gib * GIB)
    options: dict[str, Any] = {
        "image": plan.release.image,
        "user": USER,
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "pids_limit": NUM_PROCESSES,
        "mem_limit": memory,
        "memswap_limit": memory,
        "tmpfs": {"/tmp": f"rw,noexec,nosuid,nodev,size={64 * MIB},mode=1777"},  # noqa: S108 - the container's own
        "mounts": [_mount("volume", volume_of(config), STATE_MOUNT), *_read_only(config)],
        "environment": _environment(config),
        "network": config.network,
        "log_config": {"type": "json-file", "config": {"max-size": LOG_FILE_SIZE, "max-file": NUM_LOG_FILES}},
        "restart_policy": {"Name": "unless-stopped"},
    }
    if config.cpus is not None:
        options["nano_cpus"] = int(config.cpus * 1e9)
    if config.http_port is not None:
        options["ports"] = {f"{HTTP_PORT}/tcp": {"HostIp": "127.0.0.1", "HostPort": str(config.http_port)}}
    if plan.gpus != "none":
        chosen = {"count": -1} if plan.gpus == "all" else {"device_ids": plan.gpus.split(",")}
        options["device_requests"] = [{"driver": "nvidia", "capabilities": [["gpu"]], **chosen}]
    return options


def once_options(options: dict[str, Any], command: list[str]) -> dict[str, Any]:
    """The same container for one command: nobody starts it again, and no port and no health check are its."""
    left_out = ("ports", "restart_policy")
    kept = {name: value for name, value in options.items() if name not in left_out}
    return kept | {"command": command, "healthcheck": {"test": ["NONE"]}}


def _environment(config: ApplianceConfig) -> dict[str, str]:
    if config.proxy is None or config.proxy == DIRECT:
        return {}
    return {"https_proxy": config.proxy} | ({"no_proxy": config.no_proxy} if config.no_proxy else {})


def _read_only(config: ApplianceConfig) -> Iterator[dict[str, Any]]:
    yield _mount("bind", config.config_folder, CONFIG_MOUNT, read_only=True)
    if config.secrets_folder is not None:
        yield _mount("bind", config.secrets_folder, SECRETS_MOUNT, read_only=True)
    for inside, outside in sorted(config.data.items()):
        yield _mount("bind", outside, inside, read_only=True)


def _mount(kind: str, source: Path | str, target: PurePosixPath, *, read_only: bool = False) -> dict[str, Any]:
    """As the engine's API has it. Unlike `volumes`, it makes no empty folder where the source is missing."""
    return {"Type": kind, "Source": str(source), "Target": str(target), "ReadOnly": read_only}


def problems_of(config: ApplianceConfig, site: SiteConfig) -> list[str]:
    """What site.yaml says that can't be so in the container: every path there is one of the container's."""
    problems: list[str] = []

    def inside(setting: str, path: Path | None, *mounts: PurePosixPath) -> None:
        if path is not None and not _is_below(path, mounts):
            allowed = " or ".join(map(str, mounts))
            problems.append(f"site.yaml, {setting}: {path} is not in the container; expected a path in {allowed}")

    inside("state_folder", site.state_folder, STATE_MOUNT)
    inside("identity.folder", site.identity.folder if site.identity else None, STATE_MOUNT, SECRETS_MOUNT)
    inside("policy_file", site.policy_file, CONFIG_MOUNT)
    secrets = {"broker.password_file": site.broker.password_file}
    secrets["broker.proxy_password_file"] = site.broker.proxy_password_file
    for setting, path in secrets.items():
        inside(setting, path, SECRETS_MOUNT)
        if path is not None and config.secrets_folder is None:
            problems.append(
                f"site.yaml, {setting}: set secrets_folder in the appliance's file, the folder with {path.name}"
            )
    for name, path in (site.broker.tls.model_dump() if site.broker.tls else {}).items():
        inside(f"broker.tls.{name}", path, *OWN_FILES)
    for task, options in site.tasks.items():
        for option, value in options.items():
            if isinstance(value, str) and value.startswith("/"):
                problems += _unmounted(config, f"site.yaml, tasks.{task}.{option}", value)
    return problems


def _unmounted(config: ApplianceConfig, setting: str, path: str) -> list[str]:
    mounts = tuple(config.data)
    if _is_below(PurePosixPath(path), (*mounts, CONFIG_MOUNT)):
        return []
    found = ", ".join(map(str, mounts)) or "none"
    return [f"{setting}: {path} is not in the container; mounts of `data`: {found} (all below {DATA_MOUNT})"]


def _is_below(path: Path | PurePosixPath, mounts: tuple[PurePosixPath, ...]) -> bool:
    return any(PurePosixPath(path).is_relative_to(mount) for mount in mounts)
