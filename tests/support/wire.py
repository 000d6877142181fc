"""A link in virtual time: a rate, a latency, one queue in the order of the requests, a coordinator that gathers."""

from collections import deque
from collections.abc import Callable

from edge_agent.asking import Asking
from fedward.chunks import indices_of, num_chunks, ranges_of
from fedward.limits import CHUNK_BYTES
from fedward.messages import Manifest

GATHER_S = 0.25
TICK_S = 0.25
DAY_S = 86_400.0


def part(chunks: int, name: int = 0, last_bytes: int = CHUNK_BYTES) -> Manifest:
    size_bytes = (chunks - 1) * CHUNK_BYTES + last_bytes
    return Manifest(size_bytes=size_bytes, digest=bytes([name]) * 32, chunk_digests=bytes(32 * chunks))


class Wire:
    """One site that downloads parts, and all that lies between it and their bytes."""

    def __init__(self, kbit_s: float, latency_s: float = 0.05) -> None:
        self.asking = Asking()
        self.now_s = 0.0
        self.sent_bytes = 0
        self.request_times_s: list[float] = []
        self.requests_to_lose = 0
        self.stalled_until_s = 0.0
        self.lacked: dict[bytes, set[int]] = {}
        self._rate_bytes_s = kbit_s * 125
        self._latency_s = latency_s
        self._parts: dict[bytes, Manifest] = {}
        self._flight: deque[tuple[float, bytes, int]] = deque()
        self._free_at_s = 0.0

    def fetch(self, *parts: Manifest) -> "Wire":
        """Begin with these parts; what was collected of them before is kept."""
        self._parts = {manifest.digest: manifest for manifest in parts}
        before = self.lacked
        self.lacked = {digest: before.get(digest, set(range(num_chunks(m)))) for digest, m in self._parts.items()}
        self.asking.begin([m for digest, m in self._parts.items() if self.lacked[digest]])
        return self

    @property
    def num_missing(self) -> int:
        return sum(map(len, self.lacked.values()))

    @property
    def num_in_flight(self) -> int:
        return len(self._flight)

    def run(self, until: Callable[[], bool]) -> "Wire":
        while not until():
            assert self.now_s < 10 * DAY_S, "it never ends"
            self._ask()
            self._go_on()
        return self

    def finish(self) -> "Wire":
        """Go on until nothing is missing; what else is on its way keeps the link busy, and is not looked at."""
        self.run(lambda: not self.num_missing)
        self._flight.clear()
        self.lacked.clear()
        self.asking.begin(())
        return self

    def wait(self, seconds: float) -> "Wire":
        until_s = self.now_s + seconds
        return self.run(lambda: self.now_s >= until_s)

    def stall(self, seconds: float) -> None:
        """Nothing gets through for a while; nothing is lost."""
        self.stalled_until_s = self.now_s + seconds
        self._flight = deque((at_s + seconds, *chunk) for at_s, *chunk in self._flight)  # type: ignore[misc]
        self._free_at_s += seconds

    def lose_all_in_flight(self) -> None:
        self._flight.clear()
        self._free_at_s = self.now_s

    def _ask(self) -> None:
        if not self.num_missing:
            return
        asks = self.asking.due(
            self.now_s, lambda: {digest: ranges_of(sorted(lacked)) for digest, lacked in self.lacked.items() if lacked}
        )
        self.request_times_s += [self.now_s] if asks else []
        for digest, ranges in asks.items():
            if self.requests_to_lose:
                self.requests_to_lose -= 1
                continue
            for index in indices_of(ranges, self._parts[digest]):
                self._send(digest, index)

    def _send(self, digest: bytes, index: int) -> None:
        size_bytes = min(CHUNK_BYTES, self._parts[digest].size_bytes - index * CHUNK_BYTES)
        reached_s = max(self.now_s, self.stalled_until_s) + self._latency_s + GATHER_S
        self._free_at_s = max(self._free_at_s, reached_s) + size_bytes / self._rate_bytes_s
        self._flight.append((self._free_at_s + self._latency_s, digest, index))
        self.sent_bytes += size_bytes

    def _go_on(self) -> None:
        tick_s = self.now_s + TICK_S
        if not self._flight or self._flight[0][0] > tick_s:
            self.now_s = tick_s
            return
        self.now_s, digest, index = self._flight.popleft()
        if self.lacked.get(digest):
            self.asking.came(digest, index, self.now_s)
            self.lacked[digest].discard(index)
