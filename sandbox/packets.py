"""MQTT packets in a stream of bytes, counted as they pass. Pure."""

PUBLISH = 3
"""Packet type, the high half of a packet's first byte (MQTT 5, 2.1.2)."""


class PacketCounter:
    """Finds the packets in one direction of one connection, wherever the stream was cut into pieces."""

    def __init__(self) -> None:
        self._header = bytearray()  # type byte and length bytes of the packet that begins
        self._body_bytes = 0  # of the current packet, still to come

    def feed(self, piece: bytes) -> int:
        """How many PUBLISH packets begin in this piece."""
        published = at = 0
        while at < len(piece):
            skipped = min(self._body_bytes, len(piece) - at)
            self._body_bytes -= skipped
            at += skipped
            if at < len(piece):
                self._header.append(piece[at])
                at += 1
                published += self._begins()
        return published

    def _begins(self) -> bool:
        """Whether the header is whole, and that of a PUBLISH: its length ends with a byte below 128 (MQTT 5, 1.5.5)."""
        if len(self._header) < 2 or self._header[-1] & 0x80:
            return False
        self._body_bytes = sum((byte & 0x7F) << 7 * place for place, byte in enumerate(self._header[1:]))
        kind = self._header[0] >> 4
        self._header.clear()
        return kind == PUBLISH
