"""Room on the disk, asked for before work begins: a full disk must stop intake, never break what is under way."""

import shutil
from pathlib import Path

from fedward.limits import MIB

RESERVE_BYTES = 64 * MIB
"""Left free by both sides, so that ledger, receipts and counters can still be written when payloads no longer fit."""


def free_bytes(folder: Path) -> int:
    """Bytes that can still be written below `folder`."""
    return shutil.disk_usage(folder).free


def used_bytes(folder: Path, pattern: str = "*") -> int:
    """Bytes of the files in `folder` whose names match; other threads may add and delete meanwhile."""
    total = 0
    for path in folder.glob(pattern):
        try:
            total += path.stat().st_size
        except FileNotFoundError:
            pass  # deleted since it was listed
    return total


def has_room(folder: Path, needed_bytes: int) -> bool:
    """Whether `needed_bytes` can be written below `folder` and RESERVE_BYTES stay free."""
    return free_bytes(folder) >= needed_bytes + RESERVE_BYTES
