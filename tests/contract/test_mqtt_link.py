"""What paho and real brokers add to the contract: their limits, their refusals, and a thread that can die."""

import gc
import random
import socket
import threading
import time
import weakref
from queue import Queue
from typing import Protocol

import pytest

from fedward import inflight
from fedward.limits import CHUNK_BYTES, MAX_PACKET_BYTES
from fedward.mqtt import MqttLink, MqttSettings
from fedward.ports import Connected, Delivery, Disconnected, LinkEvent, LinkInbox
from sandbox.ports import free_port
from tests.support.answering_port import AnsweringPort
from tests.support.waiting import wait_for

PATIENCE_S = 10.0


class BrokerNetwork(Protocol):
    kind: str

    def mqtt_link(
        self, client_id: str, inbox: LinkInbox, *, window: int = ..., acknowledge_s: float = ...
    ) -> MqttLink: ...

    def pause(self) -> None: ...

    def resume(self) -> None: ...


class BrokenInbox(Queue[LinkEvent]):
    """An inbox with a bug."""

    def put(self, item: LinkEvent, block: bool = True, timeout: float | None = None) -> None:
        raise ZeroDivisionError


def connected(link: MqttLink, inbox: LinkInbox, *filters: str) -> MqttLink:
    link.subscribe(*filters)
    link.open()
    assert isinstance(inbox.get(timeout=10.0), Connected)
    return link


def test_messages_that_found_the_inbox_full_come_again_when_there_is_room(broker_network: BrokerNetwork) -> None:
    inbox: LinkInbox = Queue(10)
    link = connected(broker_network.mqtt_link("station", inbox), inbox, "t")
    sender_inbox: LinkInbox = Queue(10)
    sender = connected(broker_network.mqtt_link("sender", sender_inbox), sender_inbox)
    sent = {b"%d" % number for number in range(40)}
    for payload in sent:
        assert sender.publish("t", payload)
    wait_for(lambda: link.dropped > 0, PATIENCE_S, "a message that found no room")
    seen: set[bytes] = set()
    while seen != sent:
        event = inbox.get(timeout=10.0)
        if isinstance(event, Delivery):
            link.acknowledge(event)
            seen.add(event.payload)


def test_the_window_is_no_larger_than_the_broker_allows(broker_network: BrokerNetwork) -> None:
    if broker_network.kind == "iotcore":
        pytest.skip("iotcore states no ReceiveMaximum")
    inbox: LinkInbox = Queue(10)
    link = connected(broker_network.mqtt_link("station", inbox, window=30), inbox)
    assert link.room() == 20


def test_the_broker_sends_no_more_unacknowledged_messages_than_we_allow(broker_network: BrokerNetwork) -> None:
    if broker_network.kind == "iotcore":
        pytest.skip("iotcore ignores ReceiveMaximum")
    inbox: LinkInbox = Queue(100)
    link = connected(broker_network.mqtt_link("station", inbox), inbox, "t")
    for _ in range(30):
        assert link.publish("t", b"x")
    wait_for(lambda: link.room() == 8, PATIENCE_S, "everything acknowledged")  # all of them have reached the broker
    assert link.publish("t", b"fence", qos=0)
    received = 0
    while inbox.get(timeout=10.0) != Delivery("t", b"fence", qos=0, packet_id=0, generation=1):
        received += 1
    assert received == 20 + 1, "the window of the other direction, and Room"


def test_a_publish_that_the_broker_denies_is_counted(broker_network: BrokerNetwork) -> None:
    if broker_network.kind == "iotcore":
        pytest.skip("iotcore has no access rules")
    inbox: LinkInbox = Queue(10)
    link = connected(broker_network.mqtt_link("station", inbox), inbox)
    assert link.publish("$SYS/forged", b"x")
    wait_for(lambda: link.denied == 1, PATIENCE_S, "the refusal")
    assert link.room() == 8


def test_an_acknowledgement_after_the_end_of_its_connection_is_counted(broker_network: BrokerNetwork) -> None:
    inbox: LinkInbox = Queue(10)
    link = connected(broker_network.mqtt_link("station", inbox), inbox, "t")
    assert link.publish("t", b"x")
    delivery = inbox.get(timeout=10.0)
    assert isinstance(delivery, Delivery)
    link.close()
    link.acknowledge(delivery)
    assert link.stale_acks == 1


def test_a_retained_message_is_gone_when_its_time_is_up(broker_network: BrokerNetwork) -> None:
    inbox: LinkInbox = Queue(10)
    link = connected(broker_network.mqtt_link("station", inbox), inbox, "fence")
    assert link.publish("news", b"short-lived", retain=True, expiry_s=1)

    def delivered_news() -> bool:
        link.subscribe("news")
        assert link.publish("fence", b"fence")
        payloads: list[bytes] = []
        while b"fence" not in payloads:
            event = inbox.get(timeout=10.0)
            assert isinstance(event, Delivery)
            link.acknowledge(event)
            payloads.append(event.payload)
        link.unsubscribe("news")
        return b"short-lived" in payloads

    assert delivered_news()
    wait_for(lambda: not delivered_news(), PATIENCE_S, "no further news")


def test_closing_takes_no_longer_than_its_bounds_when_the_broker_hangs(broker_network: BrokerNetwork) -> None:
    inbox: LinkInbox = Queue(10)
    link = connected(broker_network.mqtt_link("station", inbox), inbox)
    broker_network.pause()
    for _ in range(8):  # more than the sockets' buffers hold, so that the goodbye can't be written
        assert link.publish("t", bytes(link.max_payload_bytes))
    started_s = time.monotonic()
    link.close(drain_s=0.1, join_s=0.1)
    assert time.monotonic() - started_s < 5.0
    assert not link.publish("t", b"closed")
    broker_network.resume()


def test_a_connection_in_which_nothing_is_acknowledged_is_given_up_for_another(broker_network: BrokerNetwork) -> None:
    inbox: LinkInbox = Queue(10)
    link = connected(broker_network.mqtt_link("station", inbox, acknowledge_s=2.0), inbox)
    broker_network.pause()
    assert link.publish("t", b"x")
    wait_for(lambda: link.room() == 0, PATIENCE_S, "no room")  # a step of the worker's loop; the keepalive is 30 s
    broker_network.resume()
    events: list[LinkEvent] = []
    while Connected(2) not in events:
        link.room()
        events.append(inbox.get(timeout=10.0))
    assert Disconnected() in events
    assert link.publish("t", b"x")
    wait_for(lambda: link.room() == 8, PATIENCE_S, "everything acknowledged")


def test_a_connection_that_is_given_up_has_no_room_as_nothing_of_it_was_acknowledged(
    broker_network: BrokerNetwork,
) -> None:
    inbox: LinkInbox = Queue(10)
    link = connected(broker_network.mqtt_link("station", inbox, window=2, acknowledge_s=0.5), inbox)
    broker_network.pause()
    assert link.publish("t", b"x")
    assert link.publish("t", b"y")
    rooms = set[int]()

    def is_given_up() -> bool:
        rooms.add(link.room())
        return not inbox.empty()

    wait_for(is_given_up, PATIENCE_S, "the link gives up")
    assert inbox.get_nowait() == Disconnected()
    assert rooms == {0}


def test_what_the_worker_is_behind_with_is_left_to_the_broker_and_nothing_is_dropped(
    broker_network: BrokerNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inflight, "MAX_INBOX_BYTES", 4 * CHUNK_BYTES)
    inbox: LinkInbox = Queue(100)
    link = connected(broker_network.mqtt_link("station", inbox, window=20), inbox, "t")
    for number in range(20):
        assert link.publish("t", bytes([number]) * CHUNK_BYTES)
    seen: list[bytes] = []
    waiting: list[int] = []
    while len(seen) < 20:
        event = inbox.get(timeout=10.0)
        if isinstance(event, Delivery):
            waiting.append(sum(isinstance(other, Delivery) for other in list(inbox.queue)))
            seen.append(event.payload[:1])
            link.acknowledge(event)
    assert sorted(seen) == [bytes([number]) for number in range(20)]
    assert max(waiting) <= 4
    assert link.dropped == 0


def test_a_broker_that_sends_a_packet_beyond_our_limit_loses_the_connection_and_fills_no_memory(
    caplog: pytest.LogCaptureFixture,
) -> None:
    connack, publish_of_256_mib = bytes([0x20, 3, 0, 0, 0]), bytes([0x30, 0xFF, 0xFF, 0xFF, 0x7F])
    inbox: LinkInbox = Queue(10)
    with AnsweringPort(connack + publish_of_256_mib + bytes(MAX_PACKET_BYTES)) as broker:
        settings = MqttSettings(host="127.0.0.1", port=broker.port, client_id="station", session_expiry_s=60)
        link = MqttLink(settings, inbox, random.Random(1))
        connected(link, inbox)
        assert inbox.get(timeout=10.0) == Disconnected()
        link.close()
    assert link.bytes_received == 0
    assert "mqtt_packet_too_large" in caplog.messages


def test_closing_does_not_wait_for_a_name_that_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, answer = threading.Event(), threading.Event()

    def slow_lookup(*_: object, **__: object) -> list[object]:
        asked.set()
        answer.wait(60)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", slow_lookup)
    settings = MqttSettings(host="broker.example.org", port=1883, client_id="station", session_expiry_s=60)
    link = MqttLink(settings, Queue(10), random.Random(1))
    link.open()
    assert asked.wait(10)
    started_s = time.monotonic()
    link.close()
    assert time.monotonic() - started_s < 5.0
    answer.set()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_bug_in_the_network_thread_is_raised_by_the_next_call(broker_network: BrokerNetwork) -> None:
    link = broker_network.mqtt_link("station", BrokenInbox(10))
    link.open()
    with pytest.raises(RuntimeError) as raised:
        wait_for(lambda: link.room() < 0, PATIENCE_S, "an error")  # never: the error comes first
    assert isinstance(raised.value.__cause__, ZeroDivisionError)


def test_a_broker_that_is_away_for_long_costs_a_log_line_for_every_doubling_of_attempts(
    caplog: pytest.LogCaptureFixture,
) -> None:
    settings = MqttSettings(
        host="127.0.0.1",
        port=free_port("127.0.0.1"),
        client_id="station",
        session_expiry_s=60,
        reconnect_min_s=0.001,
        reconnect_max_s=0.002,
    )
    link = MqttLink(settings, Queue(10), random.Random(1))

    def attempts() -> list[int]:
        return [vars(record)["attempts"] for record in caplog.records if record.msg == "mqtt_unreachable"]

    link.open()
    wait_for(lambda: len(attempts()) >= 6, PATIENCE_S, "six attempts")
    link.close()
    assert attempts()[:6] == [1, 2, 4, 8, 16, 32]


def closed_link() -> "weakref.ref[MqttLink]":
    """One that has tried to reach a broker that is not there, and was closed."""
    inbox: LinkInbox = Queue(10)
    settings = MqttSettings(host="127.0.0.1", port=free_port("127.0.0.1"), client_id="st-anna", session_expiry_s=0)
    link = MqttLink(settings, inbox, random.Random(0))
    link.open()
    wait_for(lambda: link.failure is not None, PATIENCE_S, "an attempt")
    link.close()
    return weakref.ref(link)


def test_a_closed_link_is_freed_at_once_and_its_last_sockets_with_it() -> None:
    gc.disable()  # it would be late, and warn of sockets that nobody has closed
    try:
        assert closed_link()() is None
    finally:
        gc.enable()
