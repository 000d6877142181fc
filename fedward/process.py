"""What every long-running program of Fedward does at its edges: clock, log, signals."""

import fcntl
import json
import logging
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedward.errors import ConfigError, TransientError
from fedward.files import write_durably

_STANDARD = frozenset(vars(logging.LogRecord("", 0, "", 0, "", None, None))) | {"message", "taskName"}


class SystemClock:
    """The machine's clocks."""

    def now_s(self) -> float:
        return time.time()

    def monotonic_s(self) -> float:
        return time.monotonic()


def utc_text(now_s: float) -> str:
    """A time in seconds since 1970 as text that sorts, to the millisecond: 2026-11-24T17:00:00.123Z."""
    whole, thousandths = divmod(int(now_s * 1000), 1000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole)) + f".{thousandths:03d}Z"


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, where, the constant event name, and its fields."""

    def format(self, record: logging.LogRecord) -> str:
        fields = {name: value for name, value in vars(record).items() if name not in _STANDARD}
        line = {
            "at": utc_text(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            **fields,
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


@contextmanager
def only_process_in(folder: Path) -> Iterator[None]:
    """Hold the folder's lock inside the block. Raises TransientError when another process works there.

    The kernel lets go of the lock when the process ends, however it ends.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TransientError(f"{folder}: another process works in this state folder; stop it first") from None
        yield


def is_worked_in(folder: Path) -> bool:
    """Whether a process holds the folder's lock. Asking shares the lock for an instant."""
    try:
        with (folder / ".lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False  # nobody has begun there, or it was another user, who is asked by `only_process_in`
    return False


def claim_folder(folder: Path, owner: str) -> None:
    """Write down whose state this is, once. Raises ConfigError when it is another's: nothing of it may be sent on."""
    label = folder / "owner"
    if not label.exists():
        write_durably(label, owner.encode())
    elif label.read_text() != owner:
        raise ConfigError(
            f"state_folder {folder}: belongs to {label.read_text()}, the configuration says {owner}; "
            "use another state_folder, or correct the configuration"
        )


def log_to_stderr(level: str = "INFO") -> None:
    """Send this process's log to standard error, where a container's log is read from."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=level, handlers=[handler], force=True)


def stop_on_signals() -> threading.Event:
    """An event that SIGTERM and SIGINT set: the loop sees it, finishes what it has in hand, and returns."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stop.set())
    return stop
