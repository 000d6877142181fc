"""This machine as a place for the agent's container, judged. Pure."""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fedward.doctor.check import Check, failed, ok, skipped, warning
from fedward.doctor.machine import size

ENGINE, GROUPS, TOOLKIT, PATHS, MOUNTS, SNAPSHOTS, CONTAINER, AGENT = (
    "engine", "cgroups", "toolkit", "paths", "mounts", "snapshots", "container", "agent",
)  # fmt: skip

USER_ID = 10001

ACL_HEADER_BYTES = 4
ACL_USER, ACL_MASK = 0x02, 0x10
"""Kinds of an access list's entries: a user that it names, and the most that all whom it names are given."""


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
        return skipped(TOOLKIT, "gpu is none")
    if facts.driver and facts.toolkit:
        return ok(TOOLKIT, f"driver {facts.driver}, and the engine can pass GPUs")
    if facts.driver is None:
        if choice == "auto":
            return ok(TOOLKIT, "no NVIDIA driver is loaded: training runs on the CPU")
        return failed(
            TOOLKIT, f"gpu is {choice}, and no NVIDIA driver is loaded", "install the NVIDIA driver, or set gpu: none"
        )
    found = f"driver {facts.driver}, and the engine can't pass GPUs to containers"
    remedy = "install the NVIDIA Container Toolkit (nvidia-ctk runtime configure --runtime=docker), restart Docker"
    return (
        warning(TOOLKIT, found, remedy) if choice == "auto" else failed(TOOLKIT, found, f"{remedy}, or set gpu: none")
    )


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


def judge_paths(problems: list[str]) -> Check:
    """Whether appliance.yaml and site.yaml fit each other."""
    if problems:
        return failed(PATHS, "; ".join(problems), "correct site.yaml, or what appliance.yaml mounts")
    return ok(PATHS, "every path of site.yaml is in the container")


@dataclass(frozen=True)
class Mounted:
    """A folder or file that the container is given: its owner and rights as stat(2) tells them; None: not there.

    `granted` are the rights that an access list (setfacl) gives the image's user; None: it does not name it.
    """

    path: str
    owner: int = 0
    group: int = 0
    mode: int | None = None
    is_folder: bool = True
    is_secret: bool = False
    granted: int | None = None

    @property
    def is_readable(self) -> bool:
        """Whether the image's user may read it, and enter it where it is a folder."""
        if self.mode is None:
            return False
        needed = 0o5 if self.is_folder else 0o4
        if self.granted is not None and self.owner != USER_ID:
            return self.granted & needed == needed
        shift = 6 if self.owner == USER_ID else 3 if self.group == USER_ID else 0
        return self.mode >> shift & needed == needed


def granted_by(access_list: bytes) -> int | None:
    """The rights that a file's access list gives the image's user; None where it does not name it.

    The list is the kernel's `system.posix_acl_access`: a version, then entries of a kind, rights and an id.
    """
    entries = list(struct.iter_unpack("<HHI", access_list[ACL_HEADER_BYTES:]))
    named = next((rights for kind, rights, who in entries if (kind, who) == (ACL_USER, USER_ID)), None)
    mask = next((rights for kind, rights, _ in entries if kind == ACL_MASK), 0o7)
    return None if named is None else named & mask


def judge_mounts(mounted: list[Mounted]) -> Check:
    """Whether what is to be mounted is there, readable by the container's user, and secrets by nobody else."""
    missing = [each.path for each in mounted if each.mode is None]
    if missing:
        return failed(MOUNTS, f"not on this machine: {', '.join(missing)}", "correct the paths in appliance.yaml")
    closed = [each.path for each in mounted if not each.is_readable]
    if closed:
        return failed(
            MOUNTS,
            f"user {USER_ID} may not read {', '.join(closed)}",
            f"let it: chown -R {USER_ID}:{USER_ID} {' '.join(closed)} (or setfacl -R -m u:{USER_ID}:rX)",
        )
    open_ones = [each.path for each in mounted if each.is_secret and (each.mode or 0) & 0o007]
    if open_ones:
        return warning(MOUNTS, f"everybody here may read {', '.join(open_ones)}", f"chmod o= {' '.join(open_ones)}")
    return ok(MOUNTS, "all that is to be mounted is there, and may be read by the container's user")


def judge_snapshots(folder: str, free_bytes: int, state_bytes: int | None) -> Check:
    """Whether a copy of the state fits, which each upgrade makes first; None where its size can't be told."""
    found = f"{folder}: {size(free_bytes)} free"
    if state_bytes is None:
        return ok(SNAPSHOTS, found)
    found += f", the state has {size(state_bytes)}"
    if free_bytes < state_bytes:
        return warning(SNAPSHOTS, found, f"free disk space below {folder}: an upgrade copies the state first")
    return ok(SNAPSHOTS, found)


def judge_container(state: Mapping[str, Any]) -> Check:
    """The agent's container, by what `status` says of it."""
    found = f"{state['state']}, version {state['version']}"
    match state["state"]:
        case "absent":
            return skipped(CONTAINER, "nothing is installed yet")
        case "changing":
            return warning(CONTAINER, f"its {state['change']} was interrupted", f"run the {state['change']} again")
        case "stopped":
            return failed(CONTAINER, found, "start it: fedward appliance install")
        case "unhealthy":
            return failed(CONTAINER, found, "look at the lines that failed, and at fedward appliance logs")
        case _ if state["restarts"]:
            word = f"{found}, started again {state['restarts']} times"
            return warning(CONTAINER, word, "find out why: fedward appliance logs")
    return ok(CONTAINER, found)
