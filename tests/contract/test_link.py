"""What every Link promises, held against the fake and against paho with two brokers."""

from collections.abc import Iterable
from typing import Protocol, TypeVar

import pytest

from fedward.limits import MAX_MESSAGE_BYTES
from fedward.ports import Connected, Delivery, Disconnected, Link, LinkEvent, Room, Will

E = TypeVar("E", bound=LinkEvent)


class Station(Protocol):
    link: Link

    def expect(self, kind: type[E], deadline_s: float = ...) -> E: ...

    def connect(self, *filters: str) -> Connected: ...


class Network(Protocol):
    kind: str

    def station(self, client_id: str, *, window: int = ..., will: Will | None = ...) -> Station: ...

    def stop(self) -> None: ...

    def start(self) -> None: ...

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def kill_a_client(self, will: Will) -> None: ...


def payloads_until(station: Station, last: bytes) -> list[bytes]:
    """Payloads in order of arrival up to `last`, each acknowledged."""
    payloads: list[bytes] = []
    while last not in payloads:
        delivery = station.expect(Delivery)
        station.link.acknowledge(delivery)
        payloads.append(delivery.payload)
    return payloads


def publish_all(station: Station, topic: str, payloads: Iterable[bytes], *, retain: bool = False) -> None:
    for payload in payloads:
        assert station.link.publish(topic, payload, retain=retain)


def test_a_message_reaches_a_subscriber_of_a_matching_filter_only(network: Network) -> None:
    sender, one, other = network.station("sender"), network.station("one"), network.station("other")
    sender.connect()
    one.connect("f/+/up/#")
    other.connect("f/+/down/#", "f/x/up")
    publish_all(sender, "f/x/up/y/z", [b"hello"])
    publish_all(sender, "f/x/down/y", [b"fence"])
    delivery = one.expect(Delivery)
    assert (delivery.topic, delivery.payload, delivery.qos) == ("f/x/up/y/z", b"hello", 1)
    assert payloads_until(other, b"fence") == [b"fence"]
    assert (sender.link.bytes_sent, one.link.bytes_received) == (10, 5)


def test_a_message_of_qos_0_arrives_and_takes_no_place_in_the_window(network: Network) -> None:
    sender, receiver = network.station("sender", window=1), network.station("receiver")
    sender.connect()
    receiver.connect("t")
    network.pause()
    for number in range(3):
        assert sender.link.publish("t", b"%d" % number, qos=0)
    assert sender.link.room() == 1
    network.resume()
    assert payloads_until(receiver, b"2") == [b"0", b"1", b"2"]
    assert sender.link.room() == 1


def test_a_retained_message_reaches_who_subscribes_later(network: Network) -> None:
    sender, receiver = network.station("sender"), network.station("receiver")
    sender.connect()
    publish_all(sender, "news", [b"old", b"new"], retain=True)
    receiver.connect("fence")
    publish_all(sender, "fence", [b"fence"])
    assert payloads_until(receiver, b"fence") == [b"fence"]
    receiver.link.subscribe("news")
    assert payloads_until(receiver, b"new") == [b"new"]


def test_an_empty_retained_payload_clears_the_topic(network: Network) -> None:
    sender, receiver = network.station("sender"), network.station("receiver")
    sender.connect("news/#")
    publish_all(sender, "news/a", [b"kept", b""], retain=True)
    publish_all(sender, "news/b", [b"fence"], retain=True)
    assert payloads_until(sender, b"fence") == [b"kept", b"", b"fence"]
    receiver.connect("news/#")
    assert payloads_until(receiver, b"fence") == [b"fence"]


def test_what_came_in_waits_until_it_is_acknowledged(network: Network) -> None:
    sender, receiver = network.station("sender"), network.station("receiver")
    sender.connect()
    receiver.connect("t")
    publish_all(sender, "t", [b"one", b"second"])
    first, second = receiver.expect(Delivery), receiver.expect(Delivery)
    assert (receiver.link.num_waiting, receiver.link.bytes_waiting) == (2, 9)
    receiver.link.acknowledge(first)
    assert (receiver.link.num_waiting, receiver.link.bytes_waiting) == (1, 6)
    receiver.link.acknowledge(second)
    assert (receiver.link.num_waiting, receiver.link.bytes_waiting) == (0, 0)


def test_what_was_not_acknowledged_comes_again_and_what_was_does_not(network: Network) -> None:
    sender, first = network.station("sender"), network.station("receiver")
    sender.connect()
    first.connect("t")
    publish_all(sender, "t", [b"acknowledged", b"read only"])
    first.link.acknowledge(first.expect(Delivery))
    assert first.expect(Delivery).payload == b"read only"
    first.link.close()
    second = network.station("receiver")
    second.connect("t")
    publish_all(sender, "t", [b"fence"])
    assert payloads_until(second, b"fence") == [b"read only", b"fence"]


def test_messages_wait_for_a_client_that_is_away(network: Network) -> None:
    sender, first = network.station("sender"), network.station("receiver")
    sender.connect()
    first.connect("t")
    first.link.close()
    sent = [b"%d" % number for number in range(50)]
    publish_all(sender, "t", sent)
    second = network.station("receiver")
    second.connect("t")
    assert payloads_until(second, b"49") == sent


def test_a_link_comes_back_from_a_broker_restart_with_its_subscriptions(network: Network) -> None:
    station = network.station("station")
    before = station.connect("t")
    network.stop()
    station.expect(Disconnected)
    assert station.link.room() == 0
    network.start()
    after = station.expect(Connected)
    publish_all(station, "t", [b"again"])
    assert station.expect(Delivery).payload == b"again"
    assert after.generation > before.generation


def test_a_link_that_is_opened_before_the_broker_is_there_connects_when_it_comes(network: Network) -> None:
    network.stop()
    station = network.station("station")
    station.link.open()
    network.start()
    assert station.expect(Connected).generation == 1


def test_an_acknowledgement_of_an_older_connection_acknowledges_nothing(network: Network) -> None:
    sender, first = network.station("sender"), network.station("receiver")
    sender.connect()
    first.connect("t")
    publish_all(sender, "t", [b"old"])
    old = first.expect(Delivery)
    network.stop()
    network.start()
    for station in (first, sender):
        station.expect(Disconnected)
        station.expect(Connected)
    publish_all(sender, "t", [b"new"])
    new = first.expect(Delivery)
    assert new.packet_id == old.packet_id, "the case is about a packet id that is used again"
    first.link.acknowledge(old)
    first.link.close()
    second = network.station("receiver")
    second.connect("t")
    assert second.expect(Delivery).payload == b"new"


def test_the_window_fills_and_room_is_announced_when_it_empties(network: Network) -> None:
    station = network.station("station", window=2)
    station.connect()
    assert station.link.room() == 2
    network.pause()
    publish_all(station, "t", [b"1"])
    assert station.link.room() == 1
    publish_all(station, "t", [b"2", b"small ones may go beyond"])
    assert station.link.room() == 0
    network.resume()
    station.expect(Room)
    assert station.link.room() > 0


def test_a_payload_beyond_the_limit_is_refused_and_harms_nothing(network: Network) -> None:
    station = network.station("station")
    station.connect("t")
    assert station.link.max_payload_bytes == MAX_MESSAGE_BYTES
    with pytest.raises(ValueError, match="1048577 bytes"):
        station.link.publish("t", bytes(MAX_MESSAGE_BYTES + 1))
    publish_all(station, "t", [bytes(MAX_MESSAGE_BYTES)])
    assert len(station.expect(Delivery).payload) == MAX_MESSAGE_BYTES


def test_a_quality_of_service_that_is_not_used_is_refused(network: Network) -> None:
    with pytest.raises(ValueError, match="qos 2"):
        network.station("station").link.publish("t", b"", qos=2)


def test_what_is_published_while_the_link_is_down_is_refused_and_never_arrives(network: Network) -> None:
    station = network.station("station")
    assert not station.link.publish("t", b"not opened yet")
    station.connect("t")
    network.stop()
    station.expect(Disconnected)
    assert not station.link.publish("t", b"down")
    network.start()
    station.expect(Connected)
    publish_all(station, "t", [b"fence"])
    assert payloads_until(station, b"fence") == [b"fence"]


def test_what_was_in_flight_when_the_broker_died_is_not_sent_again(network: Network) -> None:
    station = network.station("station")
    station.connect("t")
    network.pause()
    publish_all(station, "t", [b"in flight"])
    network.stop()
    station.expect(Disconnected)
    network.start()
    station.expect(Connected)
    assert station.link.room() == 8
    publish_all(station, "t", [b"fence"])
    assert payloads_until(station, b"fence") == [b"fence"]


def test_a_will_is_published_when_the_process_is_killed(network: Network) -> None:
    witness = network.station("witness")
    witness.connect("status/doomed")
    network.kill_a_client(Will("status/doomed", b"offline", delay_s=0))
    assert witness.expect(Delivery).payload == b"offline"
    late = network.station("late")
    late.connect("status/doomed")
    assert late.expect(Delivery).payload == b"offline"


def test_a_will_is_not_published_after_a_goodbye(network: Network) -> None:
    witness, leaver = network.station("witness"), network.station("leaver", will=Will("status", b"offline", 0))
    witness.connect("status")
    leaver.connect()
    publish_all(leaver, "status", [b"goodbye"])
    leaver.link.close()
    publish_all(witness, "status", [b"fence"])
    assert payloads_until(witness, b"fence") == [b"goodbye", b"fence"]


def test_a_filter_that_an_earlier_process_left_in_the_session_can_be_removed(network: Network) -> None:
    if network.kind == "iotcore":
        pytest.skip("iotcore goes on delivering a filter of a resumed session after its unsubscription")
    earlier = network.station("station")
    earlier.connect("chunks/+", "t")
    earlier.link.close()
    station = network.station("station")
    station.link.unsubscribe("chunks/+")
    station.connect("t")
    publish_all(station, "chunks/1", [b"chunk"])
    publish_all(station, "t", [b"fence"])
    assert payloads_until(station, b"fence") == [b"fence"]


def test_unsubscribing_holds_now_and_after_a_reconnection(network: Network) -> None:
    station = network.station("station")
    station.connect("a", "b")
    station.link.unsubscribe("a")
    publish_all(station, "a", [b"lost"])
    publish_all(station, "b", [b"fence 1"])
    assert payloads_until(station, b"fence 1") == [b"fence 1"]
    network.stop()
    station.expect(Disconnected)
    network.start()
    station.expect(Connected)
    publish_all(station, "a", [b"lost"])
    publish_all(station, "b", [b"fence 2"])
    assert payloads_until(station, b"fence 2") == [b"fence 2"]


def test_a_connection_is_given_up_for_another_when_asked(network: Network) -> None:
    station = network.station("station")
    assert station.connect("t") == Connected(1)
    station.link.reconnect()
    station.expect(Disconnected)
    assert station.expect(Connected) == Connected(2)
    publish_all(station, "t", [b"fence"])
    assert payloads_until(station, b"fence") == [b"fence"]
