"""This machine, judged: disk, memory, what a container bounds, the clock. Pure."""

from fedward.disk import RESERVE_BYTES
from fedward.doctor.check import Check, failed, ok, skipped, warning
from fedward.doctor.dates import moment
from fedward.doctor.facts import ClockFacts, Folder, Limits, Memory

DISK, MEMORY, LIMITS, CLOCK = "disk", "memory", "limits", "clock"

LEAST_CPUS = 1.0
LEAST_OPEN_FILES = 1024

SKEW_S, GROSS_SKEW_S = 60.0, 3600.0
"""Differences of clocks that are worth a line, and that can make valid certificates invalid."""


def judge_disk(folder: Folder | None, least_bytes: int, whole_bytes: int) -> Check:
    """Whether the state folder can be written and what is to be kept there fits.

    `least_bytes` is without what it holds already and stops the work when it is missing, `whole_bytes` is all that
    the folder will come to.
    """
    if folder is None:
        return failed(DISK, "state_folder: the file system does not answer", "repair the mount of the state folder")
    here = str(folder.nearest)
    if not folder.writable:
        return failed(
            DISK,
            f"state_folder {folder.path}: this user may not write to {here}",
            f"give the user of this program the right to write to {here}, or mount it writable",
        )
    free, least = folder.free_bytes, least_bytes + RESERVE_BYTES
    found = f"state_folder {folder.path}: {size(free)} free"
    if free < least:
        return failed(DISK, f"{found}, {size(least)} needed for the next step", f"free disk space below {here}")
    whole = whole_bytes + RESERVE_BYTES - folder.used_bytes
    if free < whole:
        return warning(DISK, f"{found}, it will grow by up to {size(whole)}", f"give {here} a larger disk")
    return ok(DISK, found)


def judge_memory(memory: Memory, needed_bytes: int, *, running: bool) -> Check:
    """Whether this side's memory fits the machine and the limit of its container. It is an estimate, and says so.

    What is free now says little while this side runs, for it has taken its own by then.
    """
    limit = memory.limit_bytes
    where = f"container limit {size(limit)}" if limit is not None else "no container limit"
    found = f"{size(memory.total_bytes)}, {size(memory.available_bytes)} available, {where}"
    if memory.capacity_bytes < needed_bytes:
        capped = limit is not None and limit < needed_bytes
        return failed(
            MEMORY,
            f"{found}; about {size(needed_bytes)} needed",
            "raise the memory limit of the container (docker: --memory, Kubernetes: resources.limits.memory)"
            if capped
            else "run this side on a machine with more memory",
        )
    if memory.available_bytes < needed_bytes and not running:
        return warning(MEMORY, f"{found}; about {size(needed_bytes)} needed", "end other programs on this machine")
    return ok(MEMORY, found)


def judge_limits(limits: Limits) -> Check:
    """What a container or a service manager allows beside memory. Nothing here stops the work for sure.

    Shared memory is only told: no program of ours needs it, but a hospital's own task may.
    """
    problems: list[tuple[str, str]] = []
    if limits.cpus is not None and limits.cpus < LEAST_CPUS:
        problems.append((f"{limits.cpus:.2f} CPUs", "give the container a whole CPU (docker: --cpus)"))
    if limits.open_files is not None and limits.open_files < LEAST_OPEN_FILES:
        problems.append(
            (f"{limits.open_files} open files", f"raise the limit of open files to {LEAST_OPEN_FILES} (ulimit -n)")
        )
    if problems:
        return warning(LIMITS, ", ".join(found for found, _ in problems), "; ".join(remedy for _, remedy in problems))
    cpus = f"{limits.num_cores} cores" if limits.cpus is None else f"{limits.cpus:.1f} of {limits.num_cores} cores"
    files = "any number of" if limits.open_files is None else str(limits.open_files)
    shared = limits.shared_memory_bytes
    return ok(
        LIMITS, f"{cpus}, {files} open files, /dev/shm {'is not there' if shared is None else f'of {size(shared)}'}"
    )


def judge_clock(clock: ClockFacts) -> Check:
    """Whether this machine's clock may be wrong, by all that can be told without asking a time server.

    A proxy's clock may be the wrong one of the two. Where the kernel says nothing and nobody else told the time, it
    can't be told.
    """
    ntp = "synchronise this machine's clock (NTP: chrony, systemd-timesyncd, or the host of the virtual machine)"
    now = f"it is {moment(clock.now_s)} here"
    if clock.not_before_s is not None:
        return failed(CLOCK, f"{now}, and a certificate begins at {moment(clock.not_before_s)}", ntp)
    skew_s = 0.0 if clock.proxy_date_s is None else clock.now_s - clock.proxy_date_s
    if abs(skew_s) > SKEW_S:
        side = "ahead of" if skew_s > 0 else "behind"
        found = f"{now}, {abs(skew_s):.0f} s {side} the proxy's clock"
        return failed(CLOCK, found, ntp) if abs(skew_s) > GROSS_SKEW_S else warning(CLOCK, found, ntp)
    if clock.synchronised is False:
        return warning(CLOCK, f"{now}, and the kernel says that nobody synchronises the clock", ntp)
    if clock.synchronised is None and clock.proxy_date_s is None:
        return skipped(CLOCK, f"nobody here can tell whether the time is right; {now}")
    witness = "synchronised" if clock.synchronised else "as the proxy says"
    return ok(CLOCK, f"{now}, {witness}")


def size(num_bytes: int) -> str:
    """Bytes as people write them."""
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.0f} MB"
