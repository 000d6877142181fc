"""A process of ours that stands still."""

import os
import signal


def pause(pid: int) -> None:
    """Return when none of its threads runs any more: after the signal alone, those on another core go on."""
    os.kill(pid, signal.SIGSTOP)
    os.waitid(os.P_PID, pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
