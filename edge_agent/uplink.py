"""How fast this site's link carries messages up: pure, with the time and the window's room as arguments.

What was handed to the link is on the broker's side once its acknowledgement makes room in the window again. A *run*
lasts from the first message until nothing is on its way; its bytes over its seconds are one measurement. So neither
what the operating system buffers nor a coordinator that thinks for a while counts as speed or slowness of the link.
"""

import math
from collections import deque

from fedward.limits import CHUNK_BYTES

LEAST_RUN_BYTES = CHUNK_BYTES
"""A run of fewer bytes is mostly waiting for answers: it tells how fast the link is at least."""

SHORTEST_RUN_S = 0.05
"""A run counts as no shorter: the agent's loop does not look more often."""


class Uplink:
    """The rate of what leaves, over the uploads so far; None before the first that tells it."""

    def __init__(self, bytes_s: float | None) -> None:
        """`bytes_s`: what an earlier process knew."""
        self.bytes_s = bytes_s
        self._in_flight: deque[int] = deque()  # bytes of each message, the oldest first
        self._free = 0  # places in the window before the run
        self._began_s = self._moved_s = 0.0
        self._arrived_bytes = 0

    def sent(self, size_bytes: int, room: int, now_s: float) -> None:
        """A message was handed to the link; `room` is that of the window just before."""
        if not self._in_flight:
            self._free, self._began_s, self._moved_s, self._arrived_bytes = room, now_s, now_s, 0
        self._in_flight.append(size_bytes)

    def look(self, room: int, now_s: float) -> None:
        """Take in what was acknowledged since the last look; the run ends when nothing is on its way."""
        if not self._in_flight:
            return
        while len(self._in_flight) > max(0, self._free - room):
            self._arrived_bytes += self._in_flight.popleft()
            self._moved_s = now_s
        if not self._in_flight:
            self._conclude()

    def lost(self) -> None:
        """The connection is another: what was on its way may not have arrived, what had arrived counts."""
        if self._in_flight:
            self._in_flight.clear()
            self._conclude()

    def _conclude(self) -> None:
        if self._arrived_bytes:
            measured = self._arrived_bytes / max(self._moved_s - self._began_s, SHORTEST_RUN_S)
            self.bytes_s = blended(self.bytes_s, measured, self._arrived_bytes)


def blended(known: float | None, measured: float, size_bytes: int) -> float | None:
    """The rate in bytes/s after one more run of so many bytes.

    The geometric mean of old and new: a link that became ten times slower, or faster, is known within a factor of
    two after three or four uploads, and one strange upload moves little. A small run only shows that a link is faster.
    """
    if size_bytes < LEAST_RUN_BYTES:
        return None if known is None else max(known, measured)
    return measured if known is None else math.sqrt(known * measured)
