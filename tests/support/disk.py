"""A disk that really is full: a small file system of its own."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fedward.disk import RESERVE_BYTES, free_bytes
from fedward.limits import MIB

DISK_BYTES = RESERVE_BYTES + 48 * MIB


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """Mount a file system of DISK_BYTES on the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("needs the right to mount a small file system: run as root to run this test")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Leave no more than the reserve: less than anything that is begun anew needs."""
    filler = folder / "filler"
    filler.write_bytes(bytes(free_bytes(folder) - RESERVE_BYTES))
    return filler


def break_open_file(path: Path) -> None:
    """Every sync of what this process holds open there fails from now on: its descriptors are those of a pipe."""
    reader, writer = os.pipe()
    for descriptor in Path("/proc/self/fd").iterdir():
        if os.path.realpath(descriptor) == os.path.realpath(path):
            os.dup2(writer, int(descriptor.name))
    os.close(reader)
    os.close(writer)
