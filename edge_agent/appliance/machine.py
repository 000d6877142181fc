"""This machine as a place for the agent's container, judged. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fedward.doctor.check import Check, failed, ok, skipped, warning
from fedward.doctor.machine import size

ENGINE, GPU, GROUPS, SETTINGS, FOLDERS, SNAPSHOTS, AGENT = (
    "engine",
    "gpu",
    "cgroups",
    "settings",
    "folders",
    "snapshots",
    "agent",
)


@dataclass(frozen=True)
class GpuFacts:
    """`driver` is the version of the loaded NVIDIA driver; `toolkit` whether the engine can pass GPUs to containers."""

    driver: str | None
    toolkit: bool


def gpus_for(choice: str, facts: GpuFacts) -> str:
    """Which GPUs are passed, by the setting `gpu`: all, numbers, or none."""
    if choice != "auto":
        return choice
    return "all" if facts.driver and facts.toolkit else "none"


def judge_gpu(choice: str, facts: GpuFacts) -> Check:
    """Whether the GPUs that the setting asks for can be passed. A GPU that `auto` can't pass only costs time."""
    if choice == "none":
        return skipped(GPU, "gpu is none")
    if facts.driver and facts.toolkit:
        return ok(GPU, f"driver {facts.driver}, and the engine can pass GPUs")
    if facts.driver is None:
        if choice == "auto":
            return ok(GPU, "no NVIDIA driver is loaded: training runs on the CPU")
        return failed(
            GPU, f"gpu is {choice}, and no NVIDIA driver is loaded", "install the NVIDIA driver, or set gpu: none"
        )
    found = f"driver {facts.driver}, and the engine can't pass GPUs to containers"
    remedy = "install the NVIDIA Container Toolkit (nvidia-ctk runtime configure --runtime=docker), restart Docker"
    return warning(GPU, found, remedy) if choice == "auto" else failed(GPU, found, f"{remedy}, or set gpu: none")


def judge_engine(info: Mapping[str, Any]) -> Check:
    """The engine, and that it is the kind that was tried."""
    found = f"Docker {info.get('ServerVersion')}, {info.get('Driver')}, cgroup v{info.get('CgroupVersion', '?')}"
    if info.get("OSType") != "linux":
        return failed(ENGINE, f"{found}, on {info.get('OSType')}", "run this on Linux")
    if "name=rootless" in info.get("SecurityOptions", ()):
        return warning(ENGINE, f"{found}, rootless: limits may not hold", "use the engine that runs as root")
    return ok(ENGINE, found)


def judge_groups(info: Mapping[str, Any], memory_gib: float) -> Check:
    """Whether the limits of memory, CPU and processes that the container is given will hold, and fit this machine."""
    names = {"MemoryLimit": "memory", "SwapLimit": "swap", "CpuCfsQuota": "CPU", "PidsLimit": "processes"}
    missing = [name for key, name in names.items() if not info.get(key)]
    total = int(info.get("MemTotal", 0))
    if missing:
        return warning(
            GROUPS,
            f"this kernel limits no {', no '.join(missing)} of containers",
            "boot with cgroup_enable=memory swapaccount=1, or accept that the agent may take more than its share",
        )
    if memory_gib * 2**30 > total:
        return warning(
            GROUPS, f"memory_gib is {memory_gib:g}, this machine has {size(total)}", "lower memory_gib, or add memory"
        )
    return ok(GROUPS, f"limits of memory, CPU and processes hold; this machine has {size(total)}")


def judge_settings(problems: list[str]) -> Check:
    """Whether appliance.yaml and site.yaml fit each other."""
    if problems:
        return failed(SETTINGS, "; ".join(problems), "correct site.yaml, or what appliance.yaml mounts")
    return ok(SETTINGS, "appliance.yaml and site.yaml fit each other")


def judge_folders(missing: list[str]) -> Check:
    """Whether what is to be mounted is on this machine."""
    if missing:
        return failed(FOLDERS, f"not on this machine: {', '.join(missing)}", "correct the paths in appliance.yaml")
    return ok(FOLDERS, "all that is to be mounted is there")


def judge_snapshots(folder: str, free_bytes: int, state_bytes: int | None) -> Check:
    """Whether a copy of the state fits, which each upgrade makes first; None where its size can't be told yet."""
    if state_bytes is None:
        return ok(SNAPSHOTS, f"{folder}: {size(free_bytes)} free")
    found = f"{folder}: {size(free_bytes)} free, the state has {size(state_bytes)}"
    if free_bytes < state_bytes:
        return warning(SNAPSHOTS, found, f"free disk space below {folder}: an upgrade copies the state first")
    return ok(SNAPSHOTS, found)
