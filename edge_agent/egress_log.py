"""The egress log on disk: files of lines, `egress/000000000001.jsonl` named by their first line, and `head.json`.

What is promised, and what not:
- A line is in its file before its message is handed on. A process that is killed loses none.
- Lines are synced within a second, by the next line or `sync_if_due`, and where the writer asks for it. After a power
  cut the lines of the last second may be missing; the next start says that this may be so.
- The disk that it takes is bounded: the oldest files are deleted, and a line says which lines were in them.
- `head.json` names a line that was synced. It shows later that lines were cut off at the end.
"""

import errno
import json
import logging
import os
import weakref
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from edge_agent.egress_lines import Chain, Facts, Head, What, line_of
from fedward import __version__
from fedward.errors import IntegrityError, TransientError
from fedward.files import sync_folder, write_durably
from fedward.limits import MIB
from fedward.ports import Clock
from fedward.process import utc_text

EGRESS = "egress"
"""The log's folder in the agent's state folder."""

LOG = logging.getLogger(__name__)

SYNC_S = 0.7
"""Seconds after which a line is to be synced; with what the agent's loop takes, a power cut costs a second of lines."""

FILE_BYTES = 8 * MIB
"""Size from which on a next file is begun: some 25,000 lines."""

MACHINE = Path("/proc/sys/kernel/random/boot_id")
"""Another text after every start of the machine."""


class EgressLog:
    """The log of one process at a time, and of one thread of it."""

    def __init__(self, folder: Path, limit_bytes: int, clock: Clock) -> None:
        """Nothing is read or written before `open`."""
        self._folder = folder
        self._limit_bytes = limit_bytes
        self._clock = clock
        self._unsynced_since_s: float | None = None
        self._machine = MACHINE.read_text().strip() if MACHINE.exists() else ""
        self._head = Head()

    def open(self, *first: Facts) -> None:
        """Go on after the last line, with a line that says so and these, all synced.

        Raises IntegrityError when what is there is not as it was written, TransientError without room to write.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            for rest in self._folder.glob(".*.part"):
                rest.unlink()
            self._head, ended, torn = self._recover()
            self._begin_file((files_of(self._folder) or [self._folder / name_of(1)])[-1])
            if torn:
                self.write({"what": What.TORN, "size": torn})
            self.write({"what": What.START, "software": f"fedward {__version__}", "ended": ended})
            for facts in first:
                self.write(facts)
            self.sync()
        except OSError as error:
            if not is_full(error):
                raise
            raise TransientError(
                f"{self._folder}: no room on the disk for the egress log, so nothing leaves"
            ) from error

    def write(self, facts: Facts) -> int:
        """Append a line and return its number. Raises OSError, and leaves the log as it was, when it does not fit."""
        self.sync_if_due()
        if self._size >= FILE_BYTES:
            self._next_file()
        return self._append(facts)

    def sync(self) -> None:
        """Make all lines survive a power cut. Raises OSError, but not where only the head finds the disk full."""
        os.fdatasync(self._file)
        self._unsynced_since_s = None
        try:
            self._save_head(self._head)
        except OSError as error:
            if not is_full(error):
                raise
            LOG.error("egress_head_not_saved", extra={"problem": error.strerror})

    def sync_if_due(self) -> None:
        """Sync what has waited for SYNC_S. Raises OSError."""
        since_s = self._unsynced_since_s
        if since_s is not None and self._clock.monotonic_s() >= since_s + SYNC_S:
            self.sync()

    def close(self) -> None:
        """Say that this process ended in order, and write no more."""
        try:
            self.write({"what": What.STOP})
            self.sync()
        except OSError as error:
            LOG.error("egress_log_not_closed", extra={"problem": error.strerror})
        self._close_file()

    def _append(self, facts: Facts) -> int:
        line, head = line_of(self._head, utc_text(self._clock.now_s()), facts)
        rest = line
        try:
            while rest:  # a disk that becomes full in the middle takes a part
                rest = rest[os.write(self._file, rest) :]
        except OSError:
            os.ftruncate(self._file, self._size)
            raise
        self._size += len(line)
        self._head = head
        if self._unsynced_since_s is None:
            self._unsynced_since_s = self._clock.monotonic_s()
        return head.n

    def _next_file(self) -> None:
        """Go on in a next file, and delete what is beyond the limit, after a line has said so."""
        self.sync()
        close_before = self._close_file
        self._begin_file(self._folder / name_of(self._head.n + 1))
        close_before()
        files = files_of(self._folder)
        sizes = [path.stat().st_size for path in files]
        num_old = next(number for number in range(len(files)) if sum(sizes[number:]) + FILE_BYTES <= self._limit_bytes)
        if num_old:
            through = _before(files[num_old], self._head)
            self._append({"what": What.CUT, "through": through.n, "head": through.digest})
            self.sync()
            for path in files[:num_old]:
                path.unlink()

    def _begin_file(self, path: Path) -> None:
        """Append to this file from now on."""
        is_new = not path.exists()
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._close_file = weakref.finalize(self, os.close, self._file)
        self._size = path.stat().st_size
        if is_new:
            sync_folder(self._folder)

    def _recover(self) -> tuple[Head, str, int]:
        """The last line, how the process before ended, and how many bytes of a torn line were removed."""
        files, saved = files_of(self._folder), read_head(self._folder)
        if saved is None and files:
            raise IntegrityError(f"{self._folder}: head.json is missing, so nobody can say what was cut off at the end")
        if saved is None:
            self._save_head(Head())  # first, so that there is never a line without it
            return Head(), "new", 0
        head, machine = saved
        chain, ended, torn = Chain(head), "killed" if head.n else "new", 0
        for path in files[-2:]:  # the last one may hold few lines, or none
            content = path.read_bytes()
            whole = 0
            for line in content.splitlines(keepends=True):
                try:
                    if not line.endswith(b"\n"):
                        break
                    ended = _ended(chain.follow(line[:-1]), same_machine=machine == self._machine)
                except IntegrityError:
                    if chain.head is None or chain.head.n < head.n:
                        raise
                    break  # not synced before a power cut
                whole += len(line)
            torn += len(content) - whole
            if torn:
                os.truncate(path, whole)
        chain.check_end()
        return chain.head or Head(), ended, torn

    def _save_head(self, head: Head) -> None:
        content = {"n": head.n, "digest": head.digest, "machine": self._machine}
        write_durably(self._folder / "head.json", json.dumps(content).encode())


def is_full(error: OSError) -> bool:
    """Does the error say that the disk has no room, or this user none left of it?"""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def files_of(folder: Path) -> list[Path]:
    """The files of lines, the oldest first."""
    return sorted(folder.glob("*.jsonl"))


def name_of(first_line: int) -> str:
    return f"{first_line:012d}.jsonl"


def read_head(folder: Path) -> tuple[Head, str] | None:
    """The head that was saved, and on which start of the machine; None when there is none.

    Raises IntegrityError for one that can't be read.
    """
    try:
        content = json.loads((folder / "head.json").read_bytes())
        return Head(int(content["n"]), str(content["digest"])), str(content["machine"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):  # an infinity, brackets in brackets
        raise IntegrityError(f"{folder}/head.json: not as it was written") from None


def lines_in(folder: Path) -> Iterator[bytes]:
    """Every line, without its end, the oldest first; the last one without an end of line when it is torn.

    The agent may write meanwhile: files that it deletes are read to their end.
    """
    with ExitStack() as stack:
        while True:
            try:
                files = [stack.enter_context(path.open("rb")) for path in files_of(folder)]
                break
            except FileNotFoundError:
                stack.close()
        for file in files:
            yield from file


def _before(path: Path, head: Head) -> Head:
    """The line before the first one of this file; `head` when it has none yet."""
    with path.open("rb") as file:
        first = file.readline()
    if not first:
        return head
    fields = Chain().follow(first[:-1])
    return Head(fields["n"] - 1, fields["previous"])


def _ended(last: Facts, *, same_machine: bool) -> str:
    """How a process whose last line this is has ended."""
    if last["what"] == What.STOP:
        return "in order"
    return "killed" if same_machine else "killed, or the power was cut: lines of its last second may be missing"
