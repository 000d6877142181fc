"""The rate of the link, from what was sent and what made room again."""

import math

import pytest

from edge_agent.uplink import LEAST_LONG_RUN_BYTES, LONG_RUN_S, SHORTEST_RUN_S, Uplink, blended
from fedward.limits import CHUNK_BYTES

WINDOW = 8


def uploaded(uplink: Uplink, chunks: int, chunk_s: float, start_s: float = 0.0, chunk_bytes: int = CHUNK_BYTES) -> None:
    """So many chunks through a window of 8, one acknowledged every `chunk_s`."""
    on_the_way, sent, now_s = 0, 0, start_s
    while sent < chunks or on_the_way:
        while sent < chunks and on_the_way < WINDOW:
            uplink.sent(chunk_bytes, WINDOW - on_the_way, now_s)
            sent, on_the_way = sent + 1, on_the_way + 1
        now_s, on_the_way = now_s + chunk_s, on_the_way - 1
        uplink.look(WINDOW - on_the_way, now_s)


@pytest.mark.parametrize("chunks", [1, 3, 40])
def test_an_upload_tells_the_rate_of_its_acknowledged_bytes(chunks: int) -> None:
    uplink = Uplink(None)
    uploaded(uplink, chunks, chunk_s=2.0)
    assert uplink.bytes_s == pytest.approx(CHUNK_BYTES / 2.0)


def test_time_in_which_nothing_is_on_its_way_does_not_count() -> None:
    uplink = Uplink(None)
    uploaded(uplink, 4, chunk_s=1.0)
    uplink.look(WINDOW, 5000.0)
    uploaded(uplink, 4, chunk_s=1.0, start_s=9000.0)
    assert uplink.bytes_s == pytest.approx(CHUNK_BYTES)


def test_of_a_connection_that_ends_what_had_arrived_counts_until_it_arrived() -> None:
    uplink = Uplink(None)
    for place in range(WINDOW):
        uplink.sent(CHUNK_BYTES, WINDOW - place, 0.0)
    uplink.look(4, 8.0)
    uplink.look(4, 120.0)  # a stall, and then a new connection
    uplink.lost()
    assert uplink.bytes_s == pytest.approx(4 * CHUNK_BYTES / 8.0)


def test_a_connection_that_ends_before_anything_arrived_tells_nothing() -> None:
    uplink = Uplink(None)
    uplink.sent(CHUNK_BYTES, WINDOW, 0.0)
    uplink.look(WINDOW - 1, 50.0)
    uplink.lost()
    uplink.look(WINDOW, 51.0)
    assert uplink.bytes_s is None


def test_a_link_that_is_down_has_acknowledged_nothing() -> None:
    uplink = Uplink(None)
    uplink.sent(CHUNK_BYTES, WINDOW, 0.0)
    uplink.look(0, 1.0)  # no room: down
    uplink.lost()
    assert uplink.bytes_s is None


def test_an_acknowledged_message_of_somebody_else_is_not_taken_for_one_of_ours() -> None:
    uplink = Uplink(None)
    uplink.look(WINDOW, 0.0)
    uplink.sent(CHUNK_BYTES, WINDOW - 3, 0.0)  # three small messages were sent just before
    uplink.look(WINDOW - 1, 0.25)  # theirs are acknowledged, ours is not
    assert uplink.bytes_s is None
    uplink.look(WINDOW, 75.0)
    assert uplink.bytes_s == pytest.approx(CHUNK_BYTES / 75.0)


def test_a_run_is_no_shorter_than_the_loop_can_see() -> None:
    uplink = Uplink(None)
    uploaded(uplink, 8, chunk_s=0.0)
    assert uplink.bytes_s == pytest.approx(8 * CHUNK_BYTES / SHORTEST_RUN_S)


def test_what_an_earlier_process_knew_is_gone_on_from() -> None:
    uplink = Uplink(CHUNK_BYTES / 100)
    uploaded(uplink, 8, chunk_s=1.0)
    assert uplink.bytes_s == pytest.approx(CHUNK_BYTES / 10)


def test_a_link_ten_times_slower_is_known_within_a_factor_of_two_after_four_uploads() -> None:
    known: float | None = 1e6
    for _ in range(4):
        known = blended(known, CHUNK_BYTES, CHUNK_BYTES / 1e5)
    assert known is not None
    assert known < 2e5


def test_a_short_run_of_few_bytes_shows_only_that_a_link_is_faster_than_known() -> None:
    assert blended(None, 1000, 0.2) is None
    assert blended(1e6, 1000, 0.2) == 1e6
    assert blended(1e3, 1000, 0.2) == 5e3
    assert blended(1e6, CHUNK_BYTES - 1, LONG_RUN_S - 0.1) == 1e6
    assert blended(1e6, CHUNK_BYTES, 1.0) == pytest.approx(math.sqrt(1e6 * CHUNK_BYTES))


def test_a_long_run_tells_the_rate_of_a_link_that_became_slow_whatever_its_bytes() -> None:
    uplink = Uplink(3500.0)
    for _ in range(20):
        uploaded(uplink, 1, chunk_s=150.0, chunk_bytes=90_000)
    assert uplink.bytes_s == pytest.approx(600.0, rel=0.01)
    assert blended(None, LEAST_LONG_RUN_BYTES, LONG_RUN_S) == LEAST_LONG_RUN_BYTES / LONG_RUN_S


def test_an_offer_without_its_payload_never_makes_a_link_slow() -> None:
    assert blended(None, 500, 30.0) is None
    assert blended(1e6, 500, 30.0) == 1e6
