"""What must not be found, in every form that it could travel in, and where to look for it.

msgpack writes texts and bytes as they are and numbers big-endian, however deep they lie: what looks through the raw
bytes of a message looks through its body, too.
"""

import struct
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import zstandard

ZSTD_MAGIC = bytes.fromhex("28b52ffd")

LEAST_BASE64 = 8
"""Fewer bytes have a middle of four letters, which a digest or a certificate has by chance."""

Needles = Mapping[str, bytes]
"""A form, in words -> the bytes to look for."""


def text_needles(text: str) -> Needles:
    encodings = ("utf-8", "utf-16-le", "utf-16-be")
    return _all_forms(text, {name: text.encode(name) for name in encodings})


def number_needles(value: float) -> Needles:
    """Of its text, and of its bytes as float64, float32 and, if it is one, int64; of both byte orders.

    Also of what a tensor makes of a float: its nearest float32, written as a float64.
    """
    kinds = ("<d", ">d", "<f", ">f") if isinstance(value, float) else ("<q", ">q")
    values = {value, float(np.float32(value))} if isinstance(value, float) else {value}
    needles: dict[str, bytes] = {}
    for one in values:
        needles |= text_needles(repr(one)) | _all_forms(repr(one), {kind: struct.pack(kind, one) for kind in kinds})
    return needles


def row_needles(*values: float) -> Needles:
    """Of values that lie beside each other in a record, as a tensor holds them."""
    kinds = (f"<{len(values)}f", f">{len(values)}f")
    return _all_forms(repr(values), {kind: struct.pack(kind, *values) for kind in kinds})


def found_in(content: bytes, needles: Needles) -> set[str]:
    """The forms that are in these bytes, or in what they hold compressed."""
    places = [content, *_decompressed(content)]
    return {form for form, needle in needles.items() if any(needle in place for place in places)}


def found_anywhere(contents: Iterable[tuple[str, bytes]], needles: Needles) -> list[tuple[str, str]]:
    """Where, and in which form; `contents` are names and bytes, and a name is looked through as well."""
    return [
        (name, form)
        for name, content in contents
        for form in sorted(found_in(content, needles) | found_in(name.encode(), needles))
    ]


def _all_forms(name: str, encoded: Mapping[str, bytes]) -> dict[str, bytes]:
    return {f"{name} {kind} {form}": needle for kind, data in encoded.items() for form, needle in _forms(data)}


def _forms(data: bytes) -> Iterator[tuple[str, bytes]]:
    yield "raw", data
    yield "hex", data.hex().encode()
    yield "HEX", data.hex().upper().encode()
    if len(data) >= LEAST_BASE64:
        for before in range(3):
            middle = _base64_middle(data, before)
            yield f"base64 after {before}", middle
            yield f"urlsafe base64 after {before}", middle.translate(bytes.maketrans(b"+/", b"-_"))


def _base64_middle(data: bytes, before: int) -> bytes:
    """The letters that depend on nothing but `data`, where so many bytes modulo 3 come before it."""
    first = -(-8 * before // 6)
    last = 8 * (before + len(data)) // 6
    return b64encode(bytes(before) + data)[first:last]


def _decompressed(content: bytes) -> Iterator[bytes]:
    """What each zstd frame in it holds: as it is, and as float32 whose bytes travel lowest first (f32z)."""
    at = content.find(ZSTD_MAGIC)
    while at >= 0:
        try:
            plain = zstandard.ZstdDecompressor().decompressobj().decompress(content[at:])
        except zstandard.ZstdError:
            pass  # four bytes that look like it
        else:
            yield plain
            if len(plain) % 4 == 0:
                yield np.frombuffer(plain, np.uint8).reshape(4, -1).T.tobytes()
        at = content.find(ZSTD_MAGIC, at + 1)
