"""Facts of this machine: disk, memory, control groups, limits, clock. Nothing is changed by asking."""

import ctypes
import os
import resource
import shutil
import time
from pathlib import Path

from fedward.disk import free_bytes
from fedward.doctor.facts import Folder, Limits, Memory

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUP = Path("/proc/self/cgroup")
MEMORY_OF_MACHINE = Path("/proc/meminfo")
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - asked for its size

NOT_SYNCHRONISED = 0x0040
"""STA_UNSYNC of adjtimex(2)."""

TIMEX_BYTES = 256
"""More than the kernel's struct timex has."""


def measure_folder(path: Path) -> Folder:
    """A folder that may not be there yet: then the nearest one above it says what could be made."""
    nearest = next(each for each in (path.absolute(), *path.absolute().parents) if _is_folder(each))
    writable = os.access(nearest, os.W_OK | os.X_OK)
    used = sum(_size(each) for each in path.rglob("*")) if nearest == path.absolute() and writable else 0
    return Folder(path, nearest, writable, free_bytes(nearest), used)


def measure_memory() -> Memory:
    """Of the machine and the container. Raises OSError where /proc is not there."""
    lines = (line.split() for line in MEMORY_OF_MACHINE.read_text().splitlines())
    kibibytes = {words[0].rstrip(":"): int(words[1]) for words in lines if len(words) > 1}
    total = 1024 * kibibytes["MemTotal"]
    limits = [int(text) for text in memory_limits() if text.isdigit()]
    return Memory(total, 1024 * kibibytes["MemAvailable"], min((each for each in limits if each < total), default=None))


def measure_limits() -> Limits:
    """CPUs as a number that may be fractional; limits of this process, which those of the service may differ from."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return Limits(
        cpus=min(cpu_limits(), default=None),
        num_cores=len(os.sched_getaffinity(0)),
        open_files=None if soft == resource.RLIM_INFINITY else soft,
        shared_memory_bytes=shutil.disk_usage(SHARED_MEMORY).total if SHARED_MEMORY.is_dir() else None,
    )


def clock_is_synchronised() -> bool | None:
    """The kernel's word on whether somebody keeps its clock right; None where it may not be asked."""
    library = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(TIMEX_BYTES)  # modes is 0: read only
    if library.adjtimex(buffer) < 0:
        return None
    return not _status(buffer.raw) & NOT_SYNCHRONISED


def memory_limits(groups: Path = CGROUPS, own: Path = OWN_CGROUP) -> list[str]:
    """Bytes, by either version of control groups; where there is no limit a word, or more than any machine has."""
    return group_limits("memory.max", "", groups, own) + group_limits("memory.limit_in_bytes", "memory", groups, own)


def cpu_limits(groups: Path = CGROUPS, own: Path = OWN_CGROUP) -> list[float]:
    """CPUs, by either version of control groups."""
    quotas = [text.split() for text in group_limits("cpu.max", "", groups, own)]
    before = (group_limits(f"cpu.cfs_{name}_us", "cpu", groups, own) for name in ("quota", "period"))
    quotas += [list(pair) for pair in zip(*before, strict=True)]
    return [int(quota) / int(period) for quota, period in quotas if quota not in ("max", "-1")]


def group_limits(name: str, controller: str, groups: Path = CGROUPS, own: Path = OWN_CGROUP) -> list[str]:
    """What this process's control group and all above it say under a name, in a container or outside.

    Version 1 has a hierarchy of groups for each controller, version 2 one for all: that of no controller. The smallest
    counts. Inside a container the file system begins at the container's own group.
    """
    lines = (line.split(":", 2) for line in own.read_text().splitlines())
    group = next((path for _, controllers, path in lines if controller in controllers.split(",")), "/")
    top = groups / controller
    here = top / group.lstrip("/")
    files = [folder / name for folder in (here, *here.parents) if folder.is_relative_to(top)]
    return [file.read_text().strip() for file in files if file.is_file()]


def now_s() -> float:
    """Seconds since 1970 by this machine's clock."""
    return time.time()


def _status(timex: bytes) -> int:
    """struct timex: modes, then four longs (offset, freq, maxerror, esterror), then status."""
    word = ctypes.sizeof(ctypes.c_long)
    return int.from_bytes(timex[5 * word : 5 * word + 4], "little")


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except PermissionError:
        return False  # it lies in a folder that this user may not enter, which is told of that one


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size if path.is_file() else 0
    except OSError:
        return 0  # deleted since it was listed, or in a folder that this user may not enter
