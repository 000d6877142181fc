"""When chunks are asked for: a slow link carries the model once, and whatever was lost comes soon on a normal one.

A link in virtual time: a rate, a latency, one queue in the order of the requests, and a coordinator that gathers.
"""

from collections import deque
from collections.abc import Callable
from itertools import pairwise

import pytest

from edge_agent.asking import ASK_AGAIN_S, LONGEST_ASK_S, SLOWEST_CHUNK_S, Asking, first_wait_s
from fedward.chunks import indices_of, num_chunks, ranges_of
from fedward.limits import CHUNK_BYTES
from fedward.messages import Manifest

GATHER_S = 0.25
TICK_S = 0.25
DAY_S = 86_400.0
RATES_KBIT_S = [30, 60, 120, 250, 450, 1_000, 10_000, 100_000]
NORMAL_KBIT_S = [10_000, 100_000]
SIZES = [1, 2, 5, 9, 10, 19, 20, 37, 40, 100, 400]


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


@pytest.mark.parametrize("latency_s", [0.02, 0.6])
@pytest.mark.parametrize("chunks", SIZES)
@pytest.mark.parametrize("kbit_s", RATES_KBIT_S)
def test_the_first_download_of_a_process_costs_the_link_at_most_a_tenth_more_than_the_model(
    kbit_s: int, chunks: int, latency_s: float
) -> None:
    wire = Wire(kbit_s, latency_s).fetch(model := part(chunks)).finish()
    assert wire.sent_bytes <= 1.1 * model.size_bytes
    assert wire.now_s <= 1.1 * model.size_bytes / (kbit_s * 125) + 2 * latency_s + GATHER_S


@pytest.mark.parametrize("chunks", [1, 3, 40])
@pytest.mark.parametrize("kbit_s", RATES_KBIT_S)
def test_later_downloads_know_the_pace_and_cost_the_model_once(kbit_s: int, chunks: int) -> None:
    wire = Wire(kbit_s).fetch(part(chunks)).finish().wait(600.0)  # for what was asked for twice
    before_bytes = wire.sent_bytes
    for version in range(1, 6):
        wire.fetch(part(chunks, version)).finish()
    assert wire.sent_bytes == before_bytes + 5 * chunks * CHUNK_BYTES


@pytest.mark.parametrize("kbit_s", NORMAL_KBIT_S)
@pytest.mark.parametrize(("chunks", "heals_in_s"), [(1, 76), (9, 81), (10, 31), (20, 17), (40, 10), (400, 10)])
def test_a_first_request_that_is_lost_is_made_again_the_sooner_the_cheaper_a_probe_is(
    kbit_s: int, chunks: int, heals_in_s: float
) -> None:
    wire = Wire(kbit_s).fetch(model := part(chunks))
    wire.requests_to_lose = 1
    wire.finish()
    assert wire.now_s <= heals_in_s + model.size_bytes / (kbit_s * 125)
    assert wire.sent_bytes == model.size_bytes


@pytest.mark.parametrize("kbit_s", NORMAL_KBIT_S)
@pytest.mark.parametrize("chunks", SIZES)
def test_a_later_request_that_is_lost_heals_within_seconds(kbit_s: int, chunks: int) -> None:
    wire = Wire(kbit_s).fetch(part(chunks)).finish()
    began_s = wire.now_s
    wire.requests_to_lose = 1
    wire.fetch(model := part(chunks, 1)).finish()
    assert wire.now_s - began_s <= 20 + model.size_bytes / (kbit_s * 125)


@pytest.mark.parametrize("kbit_s", NORMAL_KBIT_S)
@pytest.mark.parametrize("chunks", [2, 10, 40, 400])
def test_chunks_that_are_lost_on_their_way_are_sent_again_within_seconds_and_nothing_else_is(
    kbit_s: int, chunks: int
) -> None:
    wire = Wire(kbit_s).fetch(model := part(chunks))
    wire.run(lambda: wire.num_missing <= chunks // 2)
    lost_bytes = CHUNK_BYTES * wire.num_in_flight
    wire.lose_all_in_flight()
    wire.finish()
    assert wire.now_s <= 20 + model.size_bytes / (kbit_s * 125)
    assert wire.sent_bytes == model.size_bytes + lost_bytes


@pytest.mark.parametrize("kbit_s", NORMAL_KBIT_S)
@pytest.mark.parametrize("chunks", SIZES)
def test_a_coordinator_that_was_restarted_or_a_broker_that_came_back_empty_costs_seconds(
    kbit_s: int, chunks: int
) -> None:
    wire = Wire(kbit_s).fetch(model := part(chunks))
    wire.requests_to_lose = 1
    wire.wait(1.0)
    wire.asking.ask_now()
    wire.finish()
    assert wire.now_s <= 7 + model.size_bytes / (kbit_s * 125)
    assert wire.sent_bytes == model.size_bytes


@pytest.mark.parametrize("kbit_s", [30, 120, 450, 10_000])
def test_a_new_link_to_a_broker_that_kept_its_queue_costs_one_chunk(kbit_s: int) -> None:
    wire = Wire(kbit_s).fetch(part(100))
    wire.run(lambda: wire.num_missing <= 90)
    before_bytes = wire.sent_bytes
    for still_missing in (80, 50, 20):
        wire.run(lambda at=still_missing: wire.num_missing <= at)  # type: ignore[misc]
        wire.asking.ask_now()
    wire.finish()
    assert wire.sent_bytes <= before_bytes + 3 * CHUNK_BYTES


@pytest.mark.parametrize("kbit_s", [30, 250, 10_000])
def test_a_link_that_stalls_for_a_minute_costs_a_few_probes(kbit_s: int) -> None:
    wire = Wire(kbit_s).fetch(model := part(100))
    wire.run(lambda: wire.num_missing <= 60)
    wire.stall(60.0)
    wire.finish()
    assert wire.sent_bytes <= model.size_bytes + 4 * CHUNK_BYTES


def test_a_newer_announcement_asks_for_its_new_parts_only_while_the_shared_one_is_on_its_way() -> None:
    wire = Wire(120).fetch(snapshot := part(40))
    deltas: list[Manifest] = []
    for version in range(1, 6):
        wire.wait(60.0)
        deltas.append(part(4, version))
        wire.fetch(snapshot, *deltas)
    wire.finish()
    assert wire.sent_bytes <= 1.1 * 60 * CHUNK_BYTES


def test_a_part_that_was_given_up_is_asked_for_whole_when_it_is_wanted_again() -> None:
    wire = Wire(10_000).fetch(part(40, 1))
    wire.wait(0.5)
    wire.lose_all_in_flight()
    wire.fetch(part(4, 2)).finish()
    before_s = wire.now_s
    wire.fetch(part(40, 1)).finish()
    assert wire.now_s - before_s < 40 * CHUNK_BYTES / 1_250_000 + 1


def test_a_burst_of_chunks_does_not_make_a_slow_link_a_fast_one() -> None:
    """The agent may be busy while chunks come, and take them in at once."""
    asking = Asking()
    asking.begin([model := part(100)])
    lacked = {model.digest: ranges_of(range(100))}
    asking.due(0.0, lambda: lacked)
    asking.came(model.digest, 0, 70.0)
    for index in (1, 2):
        asking.came(model.digest, index, 210.0)
    assert not asking.due(280.0, lambda: lacked)


def test_days_of_silence_do_not_count_as_pace() -> None:
    asking = Asking()
    asking.begin([model := part(100)])
    lacked = {model.digest: ranges_of(range(100))}
    asking.due(0.0, lambda: lacked)
    asking.came(model.digest, 0, 3 * DAY_S)
    assert asking.due(3 * DAY_S + 240, lambda: lacked)


def test_silence_is_probed_ever_later() -> None:
    wire = Wire(10_000).fetch(part(100))
    wire.requests_to_lose = 10**6
    wire.wait(600.0)
    first_s = first_wait_s([part(100)])
    assert first_s == ASK_AGAIN_S
    waits_s = [after - before for before, after in pairwise(wire.request_times_s)]
    assert waits_s == [min(first_s * 2**n, LONGEST_ASK_S) for n in range(len(waits_s))]


def test_a_small_payload_is_probed_for_soon() -> None:
    assert first_wait_s([part(1, last_bytes=10_000)]) == ASK_AGAIN_S
    assert first_wait_s([part(1)]) == SLOWEST_CHUNK_S
