"""MQTT packets are counted wherever the stream is cut."""

import pytest

from sandbox.packets import PacketCounter

CONNECT = bytes.fromhex("1014 0004 4d515454 05 02 000a 00 0007") + b"fedward"
PING = bytes.fromhex("c000")


def publish(size: int) -> bytes:
    """A PUBLISH packet with a body of so many bytes, all of them the first byte of a PUBLISH."""
    length, rest = bytearray(), size
    while True:
        rest, low = divmod(rest, 128)
        length.append(low | (0x80 if rest else 0))
        if not rest:
            return b"\x32" + bytes(length) + b"\x32" * size


STREAM = CONNECT + publish(3) + PING + publish(0) + publish(127) + publish(128) + PING + publish(20_000) + publish(1)


@pytest.mark.parametrize("cut", [1, 2, 3, 7, 1000, len(STREAM)])
def test_each_message_counts_once_and_nothing_inside_one_does(cut: int) -> None:
    counter = PacketCounter()
    assert sum(counter.feed(STREAM[at : at + cut]) for at in range(0, len(STREAM), cut)) == 6


def test_a_message_counts_when_its_header_has_passed() -> None:
    counter = PacketCounter()
    assert [counter.feed(bytes([byte])) for byte in publish(2)] == [0, 1, 0, 0]
