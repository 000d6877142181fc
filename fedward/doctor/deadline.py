"""Time for the doctor's probes: none may hang, and all together end within a minute."""

import threading
import time
from collections.abc import Callable
from queue import Empty, Queue
from typing import TypeVar

RUN_S = 60.0
"""The whole examination takes no longer."""

T = TypeVar("T")


class Deadline:
    """What is left of the time of one examination."""

    def __init__(self, run_s: float = RUN_S) -> None:
        self._ends_s = time.monotonic() + run_s

    def left_s(self, limit_s: float) -> float:
        """Seconds that a probe with this limit of its own may take now."""
        return max(0.0, min(limit_s, self._ends_s - time.monotonic()))

    def within(self, limit_s: float, work: Callable[[], T], otherwise: T) -> T:
        """What `work` returns, or `otherwise` when that takes too long.

        A name server or a network disk that does not answer can't be interrupted: such work is left behind in a
        thread that ends with the process. Raises RuntimeError when `work` raised, which is a bug: probes return facts.
        """
        outcome: Queue[list[T]] = Queue(1)

        def probe() -> None:
            result: list[T] = []
            try:
                result.append(work())
            finally:
                outcome.put(result)

        threading.Thread(target=probe, daemon=True).start()
        try:
            result = outcome.get(timeout=self.left_s(limit_s))
        except Empty:
            return otherwise
        if not result:
            raise RuntimeError("a probe of the doctor failed, see above")
        return result[0]
