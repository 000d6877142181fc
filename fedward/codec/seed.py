"""Seeds that both sides derive from public facts, so that no random bit has to travel."""

import hashlib
from collections.abc import Iterator


def seed_of(*parts: bytes | str | int) -> bytes:
    """32 bytes: SHA-256 over the parts, each with its type and length, so different parts never run together."""
    return hashlib.sha256(b"".join(_framed(parts))).digest()


def _framed(parts: tuple[bytes | str | int, ...]) -> Iterator[bytes]:
    """Per part: one byte of type (b, s, i), its length as 8 little-endian bytes, its bytes; an int in decimal."""
    for part in parts:
        if isinstance(part, bytes):
            tag, raw = b"b", part
        elif isinstance(part, str):
            tag, raw = b"s", part.encode()
        else:
            tag, raw = b"i", str(int(part)).encode("ascii")
        yield tag + len(raw).to_bytes(8, "little") + raw
