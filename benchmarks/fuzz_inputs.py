"""Hostile inputs made of valid ones: bytes that are changed, and values inside msgpack, JSON and PEM."""

import json
from base64 import b64decode, encodebytes
from collections.abc import Callable
from random import Random
from typing import Any

import msgpack

Change = Callable[[bytearray, Random], None]

HEADERS = (
    b"\xdf\xff\xff\xff\xff",  # msgpack: a map, an array, text and bytes of 4 GiB, of 64 KiB, and an extension
    b"\xdd\xff\xff\xff\xff",
    b"\xdb\xff\xff\xff\xff",
    b"\xc6\xff\xff\xff\xff",
    b"\xde\xff\xff",
    b"\xdc\xff\xff",
    b"\xda\xff\xff",
    b"\xc5\xff\xff",
    b"\xc9\xff\xff\xff\xff\x05",
)
NESTS = (b"\x91", b"\x81\xa1a", b"[", b'{"a":', b"(", b"0\x80")
STRANGE: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    2**53,
    2**63,
    -(2**63),
    1e308,
    -0.0,
    float("nan"),
    float("inf"),
    "",
    "\x00",
    "é" * 70,
    "a/+/#",
    "north",
    [],
    {},
    [[[]]],
    {"a": {"b": None}},
)
"""Values in the place of others, as msgpack and JSON both have them."""

MOST_BYTES = 64 * 1024
"""Of an input, unless the valid one is longer: what matters is where it is wrong, and many are wanted."""


def changed(valid: bytes, other: bytes, rng: Random) -> bytes:
    """A valid input after one to four changes, or its beginning with the end of another one."""
    if valid and other and rng.random() < 0.08:
        return valid[: rng.randrange(len(valid))] + other[rng.randrange(len(other)) :]
    content = bytearray(valid)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 4))):
        rng.choice(CHANGES)(content, rng)
    return bytes(content[: max(MOST_BYTES, len(valid))])


def with_strange_value(value: Any, rng: Random, depth: int = 0) -> Any:
    """The value with one of the values inside it missing, doubled or replaced; what is returned is a copy."""
    if isinstance(value, dict) and value and (depth == 0 or rng.random() < 0.8):
        name = rng.choice(list(value))
        match rng.randrange(8):
            case 0:
                return {key: item for key, item in value.items() if key != name}
            case 1:
                return {**value, "unknown": value[name]}
            case _:
                return {**value, name: with_strange_value(value[name], rng, depth + 1)}
    if isinstance(value, list | tuple) and value and (depth == 0 or rng.random() < 0.8):
        at = rng.randrange(len(value))
        if rng.random() < 0.1:
            return [*value, *value][:8192]
        return [*value[:at], with_strange_value(value[at], rng, depth + 1), *value[at + 1 :]]
    if isinstance(value, bytes):
        return rng.choice((value[:-1], value + b"\0", b"", rng.randbytes(len(value)), str(len(value)), bytes(33)))
    if isinstance(value, str) and rng.random() < 0.5:
        return rng.choice((value.upper(), value * 70, value[1:], value + "\n", value.encode()))
    return rng.choice(STRANGE)


def changed_body(envelope: bytes, other: bytes, rng: Random) -> bytes:
    """An envelope whose own form is valid, around a body that was changed as bytes or as values."""
    fields = msgpack.unpackb(envelope)
    if rng.random() < 0.5:
        body = changed(fields["b"], msgpack.unpackb(other)["b"], rng)
    else:
        body = msgpack.packb(with_strange_value(msgpack.unpackb(fields["b"]), rng))
    return bytes(msgpack.packb({**fields, "b": body}))


def changed_json(text: bytes, other: bytes, rng: Random) -> bytes:
    """JSON that was changed as bytes or as values."""
    if rng.random() < 0.5:
        return changed(text, other, rng)
    return json.dumps(with_strange_value(json.loads(text), rng), default=repr, separators=(",", ":")).encode()


def changed_pem(pem: bytes, other: bytes, rng: Random) -> bytes:
    """PEM that was changed as text, or in what the text stands for."""
    if rng.random() < 0.2:
        return changed(pem, other, rng)
    lines = pem.strip().splitlines()
    inside, others = (b64decode(b"".join(text.strip().splitlines()[1:-1])) for text in (pem, other))
    if rng.random() < 0.5:  # one byte: more would mostly break the lengths, and hide what is read after them
        damaged = bytearray(inside)
        rng.choice((_flip, _replace))(damaged, rng)
        inside = bytes(damaged)
    else:
        inside = changed(inside, others, rng)
    return b"\n".join((lines[0], encodebytes(inside).strip(), lines[-1])) + b"\n"


def _flip(content: bytearray, rng: Random) -> None:
    if content:
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)


def _replace(content: bytearray, rng: Random) -> None:
    if content:
        content[rng.randrange(len(content))] = rng.choice((0, 0x7F, 0x80, 0xFF, rng.randrange(256)))


def _cut(content: bytearray, rng: Random) -> None:
    if content:
        del content[rng.randrange(len(content)) :]


def _delete(content: bytearray, rng: Random) -> None:
    if content:
        at = rng.randrange(len(content))
        del content[at : at + rng.randrange(1, 9)]


def _insert(content: bytearray, rng: Random) -> None:
    at = rng.randrange(len(content) + 1)
    content[at:at] = rng.randbytes(rng.randrange(1, 9))


def _inflate(content: bytearray, rng: Random) -> None:
    at, header = rng.randrange(len(content) + 1), rng.choice(HEADERS)
    content[at : at + rng.choice((0, 1, len(header)))] = header


def _nest(content: bytearray, rng: Random) -> None:
    at = rng.randrange(len(content) + 1)
    content[at:at] = rng.choice(NESTS) * rng.choice((2, 20, 200, 2000))


def _repeat(content: bytearray, rng: Random) -> None:
    if content:
        at = rng.randrange(len(content))
        size = rng.randrange(1, 33)
        content[at:at] = content[at : at + size] * rng.choice((1, 2, 8, 64))


CHANGES: tuple[Change, ...] = (_flip, _flip, _replace, _replace, _cut, _delete, _insert, _inflate, _nest, _repeat)
