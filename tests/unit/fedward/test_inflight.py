"""The link's bookkeeping, without a network."""

import threading
from queue import Queue

import pytest

from fedward.inflight import InFlight, Intake, ThreadWatch
from fedward.limits import MAX_INBOX_BYTES
from fedward.ports import Connected, Delivery, Disconnected, LinkInbox, Room


def drained(inbox: LinkInbox) -> list[object]:
    return [inbox.get_nowait() for _ in range(inbox.qsize())]


def test_room_grows_again_when_a_full_window_is_acknowledged() -> None:
    in_flight = InFlight(2)
    for packet_id in (1, 2, 3):
        in_flight.sent(packet_id, "t", counts=True, generation=0)
    assert in_flight.room() == 0
    assert [in_flight.acknowledged(packet_id) for packet_id in (1, 2, 3)] == [False, True, False]
    assert in_flight.room() == 2


def test_a_message_that_does_not_count_takes_no_room() -> None:
    in_flight = InFlight(1)
    in_flight.sent(1, "t", counts=False, generation=0)
    assert in_flight.room() == 1


def test_an_acknowledgement_may_overtake_the_note_that_its_message_was_sent() -> None:
    in_flight = InFlight(1)
    assert not in_flight.acknowledged(7)
    in_flight.sent(7, "t", counts=True, generation=0)
    assert in_flight.room() == 1
    in_flight.sent(7, "t", counts=True, generation=0)
    assert in_flight.room() == 0


def test_a_message_of_an_older_connection_takes_no_room_in_the_new_one() -> None:
    in_flight = InFlight(1)
    in_flight.sent(1, "t", counts=True, generation=0)
    in_flight.restart(generation=1, window=3)
    in_flight.sent(2, "t", counts=True, generation=0)
    assert in_flight.room() == 3
    assert in_flight.wait_until_empty(timeout_s=0)


def test_waiting_for_what_is_in_flight_ends_when_the_time_is_up() -> None:
    in_flight = InFlight(1)
    in_flight.sent(1, "t", counts=True, generation=0)
    assert in_flight.topic_of(1) == "t"
    assert not in_flight.wait_until_empty(timeout_s=0.001)


def test_it_is_stuck_only_while_something_is_in_flight_and_nothing_is_acknowledged() -> None:
    in_flight = InFlight(2)
    assert in_flight.stuck_s() == 0.0
    in_flight.sent(1, "t", counts=True, generation=0)
    in_flight.sent(2, "t", counts=True, generation=0)
    threading.Event().wait(0.02)
    assert (before_s := in_flight.stuck_s()) >= 0.02
    in_flight.acknowledged(1)
    assert 0.0 < in_flight.stuck_s() < before_s
    in_flight.acknowledged(2)
    assert in_flight.stuck_s() == 0.0


def test_a_message_that_does_not_count_is_no_sign_of_life() -> None:
    in_flight = InFlight(1)
    in_flight.sent(1, "telemetry", counts=False, generation=0)
    assert in_flight.stuck_s() == 0.0
    in_flight.sent(2, "chunk", counts=True, generation=0)
    before_s = in_flight.stuck_s()
    in_flight.acknowledged(1)
    in_flight.sent(3, "telemetry", counts=False, generation=0)
    assert in_flight.stuck_s() > before_s


def test_a_delivery_that_finds_the_inbox_full_is_dropped_and_counted() -> None:
    inbox: LinkInbox = Queue(1)
    intake = Intake(inbox)
    assert intake.offer(Delivery("t", b"1"))
    assert not intake.offer(Delivery("t", b"2"))
    assert intake.dropped == 1
    assert not intake.starved()
    assert drained(inbox) == [Delivery("t", b"1")]
    assert intake.starved()
    assert not intake.starved()


def test_a_new_connection_needs_no_other_one_for_what_was_dropped_before() -> None:
    inbox: LinkInbox = Queue(1)
    intake = Intake(inbox)
    intake.offer(Delivery("t", b"1"))
    intake.offer(Delivery("t", b"2"))
    intake.tell(Disconnected())
    drained(inbox)
    assert not intake.starved()


def test_a_dropped_message_of_qos_0_starves_nobody() -> None:
    inbox: LinkInbox = Queue(1)
    intake = Intake(inbox)
    intake.offer(Delivery("t", b"1", qos=0))
    assert not intake.offer(Delivery("t", b"2", qos=0))
    drained(inbox)
    assert not intake.starved()


def test_nothing_is_read_while_more_bytes_wait_than_the_limit() -> None:
    inbox: LinkInbox = Queue(10_000)
    intake = Intake(inbox)
    large = Delivery("t", bytes(MAX_INBOX_BYTES // 4))
    allowed = []
    for _ in range(5):
        allowed.append(intake.may_read())
        assert intake.offer(large), "what was read already is kept"
    assert allowed == [True] * 4 + [False]
    intake.handled(large)
    assert not intake.may_read()
    intake.handled(large)
    assert intake.may_read()


@pytest.mark.parametrize(("size", "num_taken"), [(MAX_INBOX_BYTES // 16, 4), (1, 25)])
def test_a_flood_of_qos_0_leaves_room_for_what_matters(size: int, num_taken: int) -> None:
    inbox: LinkInbox = Queue(100)
    intake = Intake(inbox)
    flood = Delivery("t", bytes(size), qos=0)
    assert [intake.offer(flood) for _ in range(200)].count(True) == num_taken
    assert all(intake.offer(Delivery("t", bytes(MAX_INBOX_BYTES // 64))) for _ in range(20))
    assert not intake.offer(flood)


def test_a_flood_does_not_push_out_what_the_broker_itself_says() -> None:
    intake = Intake(Queue(100))
    assert not all(intake.offer(Delivery("t", b"", qos=0)) for _ in range(200))
    assert intake.offer(Delivery("$CONTROL/dynamic-security/v1/response", b"", qos=0))


def test_news_that_found_the_inbox_full_goes_in_before_any_later_delivery() -> None:
    inbox: LinkInbox = Queue(2)
    intake = Intake(inbox)
    for payload in (b"1", b"2"):
        intake.offer(Delivery("t", payload))
    intake.tell(Disconnected())
    intake.tell(Connected(2))
    assert drained(inbox) == [Delivery("t", b"1"), Delivery("t", b"2")]
    assert not intake.offer(Delivery("t", b"3")), "the news takes both places"
    assert drained(inbox) == [Disconnected(), Connected(2)]


def test_of_news_that_waits_only_the_latest_state_is_kept() -> None:
    inbox: LinkInbox = Queue(1)
    intake = Intake(inbox)
    intake.offer(Delivery("t", b"1"))
    for generation in range(2, 100):
        intake.tell(Disconnected())
        intake.tell(Connected(generation))
        intake.tell(Room())
        intake.tell(Room())
    seen: list[object] = []
    while not inbox.empty():
        seen += drained(inbox)
        intake.flush()
    assert seen == [Delivery("t", b"1"), Disconnected(), Connected(99), Room()]


def test_what_a_callback_raises_wakes_the_worker_and_is_raised_there_too() -> None:
    woken: list[bool] = []
    watch = ThreadWatch(wake=lambda: woken.append(True))

    def divide() -> None:
        raise ZeroDivisionError

    watch.check()
    with pytest.raises(ZeroDivisionError):
        watch.guarded(divide)()
    assert woken == [True]
    with pytest.raises(RuntimeError) as raised:
        watch.check()
    assert isinstance(raised.value.__cause__, ZeroDivisionError)


def test_a_thread_that_ended_without_a_word_is_noticed() -> None:
    watch = ThreadWatch(wake=lambda: None)
    thread = threading.Thread(target=watch.begin)
    thread.start()
    thread.join()
    with pytest.raises(RuntimeError, match="network thread"):
        watch.check()
