"""Ctrl-C and SIGTERM as an exception, so that every `with` and `finally` on the way cleans up."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

NUMBERS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(BaseException):
    """A request to stop. Not an Exception: nothing on the way may take it for a failure of its own."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number
        """130 for SIGINT, 143 for SIGTERM, as a shell reports them."""


@contextmanager
def signals_raised() -> Iterator[None]:
    """The first SIGINT or SIGTERM raises Interrupted; later ones are ignored, so that they can't cut the cleaning up.

    Main thread only.
    """

    def interrupt(number: int, _frame: FrameType | None) -> None:
        for each in NUMBERS:
            signal.signal(each, signal.SIG_IGN)
        raise Interrupted(number)

    before = {number: signal.signal(number, interrupt) for number in NUMBERS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def signals_held() -> Iterator[None]:
    """SIGINT and SIGTERM wait until the block is over: nothing comes between a process's start and the note of it.

    A process that is started inside has them held, too, until it lets go of them.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, NUMBERS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
