"""A process that does not outlive the one that started it: `python -m sandbox.child PARENT_PID COMMAND ...`."""

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from fedward.errors import TransientError
from sandbox.interrupt import NUMBERS, signals_held

POLL_S = 0.02

PR_SET_PDEATHSIG = 1
"""Linux, prctl(2): the signal that the kernel sends to this process when its parent dies."""


class Child:
    """One command as a child process; what it prints goes to a log file.

    On Linux the kernel ends it with the *thread* that started it, also when that is killed: start it from one
    that stays.
    """

    def __init__(self, command: list[str], log: Path, environment: dict[str, str] | None = None) -> None:
        self.log = log
        wrapped = [sys.executable, "-m", "sandbox.child", str(os.getpid()), *command]
        with log.open("ab") as output:
            self.process = subprocess.Popen(  # noqa: S603 - our own command
                wrapped, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment, start_new_session=True
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def terminate(self) -> None:
        """Ask it to end (SIGTERM)."""
        self.process.terminate()

    def wait(self, patience_s: float) -> int:
        """Wait for its end, by force when patience is at its end; returns the exit code."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.process.wait(patience_s)
        self.kill()
        return self.process.returncode

    def kill(self) -> None:
        """End it as a crash or a power cut would (SIGKILL)."""
        self.process.kill()
        self.process.wait()


def start_child(command: list[str], log: Path, is_ready: Callable[[], bool], seconds: float) -> Child:
    """A child that is ready. Raises TransientError when it ends instead, or is not ready in time; it is gone then."""
    child = None
    try:
        with signals_held():
            child = Child(command, log)
        deadline_s = time.monotonic() + seconds
        while not is_ready():
            if not child.alive:
                raise TransientError(f"{Path(command[0]).name} ended with code {child.process.returncode}; see {log}")
            if time.monotonic() > deadline_s:
                raise TransientError(f"{Path(command[0]).name} did not answer within {seconds:g} s; see {log}")
            time.sleep(POLL_S)
    except BaseException:
        if child:
            child.kill()
        raise
    return child


def takes_connections(host: str, port: int) -> bool:
    """Whether somebody listens there."""
    try:
        with socket.create_connection((host, port), timeout=1.0):
            return True
    except OSError:
        return False


def _become(parent_pid: int, command: list[str]) -> None:
    """Arrange to die with the parent, which holds over an exec, and become the command."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, NUMBERS)  # the parent held them while it started us
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent_pid:  # it died before the line above
            sys.exit(1)
    os.execvp(command[0], command)  # noqa: S606 - no shell is what is wanted


if __name__ == "__main__":
    _become(int(sys.argv[1]), sys.argv[2:])
