"""Waiting for something that another thread or process brings about, and that nobody announces."""

import time
from collections.abc import Callable

LOOK_EVERY_S = 0.02


def wait_for(holds: Callable[[], object], seconds: float, what: str, every_s: float = LOOK_EVERY_S) -> None:
    """Return when it is so; fails after `seconds`. Looking may be dear: then `every_s` is longer."""
    deadline_s = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline_s, f"{what}: not within {seconds:g} s"
        time.sleep(every_s)  # between two looks: no condition
