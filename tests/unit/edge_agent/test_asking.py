"""When chunks are asked for: a slow link carries the model once, and whatever was lost comes soon on a normal one."""

from itertools import pairwise

import pytest

from edge_agent.asking import ASK_AGAIN_S, LONGEST_ASK_S, SLOWEST_CHUNK_S, Asking, first_wait_s
from fedward.chunks import ranges_of
from fedward.limits import CHUNK_BYTES
from fedward.messages import Manifest
from tests.support.wire import DAY_S, GATHER_S, Wire, part

RATES_KBIT_S = [30, 60, 120, 250, 450, 1_000, 10_000, 100_000]
NORMAL_KBIT_S = [10_000, 100_000]
SIZES = [1, 2, 5, 9, 10, 19, 20, 37, 40, 100, 400]


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


class Talk:
    """One download of 100 chunks, event by event."""

    def __init__(self) -> None:
        self.asking = Asking()
        self.model = part(100)
        self.lacked = {self.model.digest: ranges_of(range(100))}
        self.asking.begin([self.model])
        self.asked(0.0)

    def came(self, index: int, now_s: float) -> None:
        self.asking.came(self.model.digest, index, now_s)

    def asked(self, now_s: float) -> list[int]:
        """How many chunks of each part are asked for now."""
        asks = self.asking.due(now_s, lambda: self.lacked)
        return [sum(chunks.stop - chunks.start for chunks in ranges) for ranges in asks.values()]


def test_a_burst_of_chunks_does_not_make_a_slow_link_a_fast_one() -> None:
    """The agent may be busy while chunks come, and take them in at once."""
    talk = Talk()
    for index, now_s in enumerate([70.0, 210.0, 210.0]):
        talk.came(index, now_s)
    assert talk.asked(280.0) == []


def test_days_of_silence_do_not_count_as_pace() -> None:
    talk = Talk()
    talk.came(0, 3 * DAY_S)
    assert talk.asked(3 * DAY_S + 240) == [1]


def test_the_time_without_a_link_does_not_count_as_pace() -> None:
    talk = Talk()
    talk.came(0, 0.5)
    talk.asking.ask_now()
    talk.asked(60.0)
    talk.came(1, 60.5)
    assert talk.asked(60.5 + ASK_AGAIN_S) == [1]


def test_an_answer_on_the_old_link_says_nothing_of_what_the_new_one_lost() -> None:
    talk = Talk()
    talk.came(0, 0.5)
    assert talk.asked(5.0) == [1]
    talk.came(99, 5.5)
    talk.asking.ask_now()
    assert talk.asked(5.6) == [1]


def test_an_answer_before_new_parts_were_asked_for_says_nothing_of_them() -> None:
    talk = Talk()
    talk.came(0, 0.5)
    talk.asked(5.0)
    talk.came(99, 5.5)
    more = part(4, 1)
    talk.lacked[more.digest] = ranges_of(range(4))
    talk.asking.begin([talk.model, more])
    assert talk.asked(5.6) == [4]
    assert talk.asked(20.0) == [1]


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
