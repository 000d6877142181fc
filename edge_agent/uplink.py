"""How fast this site's link carries messages up: pure, with the time and the window's room as arguments.

What was handed to the link is on the broker's side once its acknowledgement makes room in the window again. A *run*
lasts from the first message until nothing is on its way; its bytes over its seconds are one measurement. So neither
what the operating system buffers nor a coordinator that thinks for a while counts as speed or slowness of the link.
"""

import math
from collections import deque

from fedward.limits import CHUNK_BYTES, KIB

LEAST_RUN_BYTES = CHUNK_BYTES
"""A short run of fewer bytes is mostly waiting for answers: it tells how fast the link is at least."""

LONG_RUN_S = 2.0
"""Longer than any round trip: a run that takes so long is slow because of its bytes, and tells the rate."""

LEAST_LONG_RUN_BYTES = 16 * KIB
"""But a few hundred bytes, an offer without its payload, tell nothing but that the broker was busy."""

SHORTEST_RUN_S = 0.05
"""A run counts as no shorter: the agent's loop does not look more often."""


class Uplink:
    """The rate of what leaves, over the uploads so far; None before the first that tells it."""

    def __init__(self, bytes_s: float | None) -> None:
        """`bytes_s`: what an earlier process knew."""
        self.bytes_s = bytes_s
        self._in_flight: deque[int] = deque()  # bytes of each message, the oldest first
        self._window = 0  # most room seen: with nothing on its way, ours or not
        self._began_s = self._moved_s = 0.0
        self._arrived_bytes = 0

    def sent(self, size_bytes: int, room: int, now_s: float) -> None:
        """A message was handed to the link; `room` is that of the window just before."""
        if not self._in_flight:
            self._began_s, self._moved_s, self._arrived_bytes = now_s, now_s, 0
        self._window = max(self._window, room)
        self._in_flight.append(size_bytes)

    def look(self, room: int, now_s: float) -> None:
        """Take in what was acknowledged since the last look; the run ends when nothing is on its way.

        Places may be held by messages of others, sent before ours or after: what may still be ours is taken to be.
        """
        self._window = max(self._window, room)
        if not self._in_flight:
            return
        while len(self._in_flight) > self._window - room:
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
            run_s = max(self._moved_s - self._began_s, SHORTEST_RUN_S)
            self.bytes_s = blended(self.bytes_s, self._arrived_bytes, run_s)


def blended(known: float | None, size_bytes: int, run_s: float) -> float | None:
    """The rate in bytes/s after one more run of so many bytes and seconds.

    The geometric mean of old and new: a link that became ten times slower, or faster, is known within a factor of
    two after three or four uploads, and one strange upload moves little. A run of few bytes and seconds only shows that
    a link is faster.
    """
    measured = size_bytes / run_s
    if size_bytes < (LEAST_LONG_RUN_BYTES if run_s >= LONG_RUN_S else LEAST_RUN_BYTES):
        return None if known is None else max(known, measured)
    return measured if known is None else math.sqrt(known * measured)
