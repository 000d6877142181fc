"""SQLite's write-ahead log, read for what SQLite does not say: that it would drop transactions. Pure.

A frame whose checksum is wrong ends the log for SQLite, silently, and with it goes every committed transaction after:
it takes the frame for the torn end of a write that power loss cut short. Only the last transaction can be torn so,
for each is synced before the next one begins. Layout: https://sqlite.org/fileformat2.html#the_write_ahead_log
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

MAGIC = 0x377F0682
"""The lowest bit says whether checksums are over big-endian words."""

HEADER, FRAME = struct.Struct(">8I"), struct.Struct(">6I")
WORD = 0xFFFFFFFF

Sums = tuple[int, int]


@dataclass(frozen=True)
class Frame:
    """Room for one page that was written."""

    number: int  # from 1
    whole: bool  # it and all before it are as they were written
    commits: bool  # it ends a transaction of this log, not of one that was here before it was begun anew


def wal_fault(wal: bytes) -> str | None:
    """What is damaged in the bytes of a log that nobody writes to; None when SQLite takes every transaction of it.

    A last transaction that was cut short is no damage: nobody was told of it.
    """
    if len(wal) <= HEADER.size:
        return None
    if not _is_header(wal):
        return "the header of its write-ahead log is not one"
    frames = list(_frames(wal))
    broken = next((frame for frame in frames if not frame.whole), None)
    lost = sum(frame.commits and not frame.whole for frame in frames)
    if broken is None or lost < 2:
        return None
    return f"frame {broken.number} of its write-ahead log is damaged, and {lost} transactions stand after it"


def _is_header(wal: bytes) -> bool:
    magic, *_, first, second = HEADER.unpack_from(wal)
    return magic & ~1 == MAGIC and _checksum(wal[: HEADER.size - 8], (0, 0), magic & 1) == (first, second)


def _frames(wal: bytes) -> Iterator[Frame]:
    """All that there are. Those left from before this log was begun anew have other salts."""
    magic, _, page_bytes, _, *salts, first, second = HEADER.unpack_from(wal)
    sums, whole = (first, second), True
    length = FRAME.size + page_bytes
    for number, start in enumerate(range(HEADER.size, len(wal) - length + 1, length), 1):
        _, pages_after_commit, *own_salts, first, second = FRAME.unpack_from(wal, start)
        if whole:
            content = wal[start : start + 8] + wal[start + FRAME.size : start + length]
            sums = _checksum(content, sums, magic & 1)
            whole = own_salts == salts and sums == (first, second)
        yield Frame(number, whole, own_salts == salts and pages_after_commit > 0)


def _checksum(content: bytes, sums: Sums, big_endian: int) -> Sums:
    """Of a multiple of 8 bytes, continued from the sums of what stands before."""
    first, second = sums
    words = struct.unpack(f"{'>' if big_endian else '<'}{len(content) // 4}I", content)
    for even, odd in zip(words[::2], words[1::2], strict=True):
        first = (first + even + second) & WORD
        second = (second + odd + first) & WORD
    return first, second
