"""Messages <-> msgpack bytes. The only importer of msgpack, and the only parser of what the other side sends.

On the wire a message is an envelope {"v": protocol version, "m": kind, "b": body, "s": signature, "n": counter}. The
body is a msgpack map packed once, and the signature covers exactly its bytes and what gives them their meaning
(identity/signing.py); a federation without identities leaves it empty, and the counter out.
Reading checks, in this order and before anything is believed: size, envelope, protocol version, kind, signature, then
every field's type and bound. Unknown fields are ignored.
"""

import dataclasses
import math
import re
import types
from collections.abc import Callable, Hashable
from enum import StrEnum
from functools import cache
from typing import Annotated, Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import msgpack
from annotated_types import Interval, Len

from fedward.errors import PeerError, RejectReason, UnprovenError
from fedward.limits import KIB, LEAST_BROKER_PAYLOAD, MAX_MESSAGE_BYTES, MAX_NAME, MAX_RANGES, MAX_VERSION
from fedward.messages import (
    Announcement,
    Control,
    Enrolled,
    Enrolment,
    Evaluation,
    Get,
    Grant,
    Name,
    Offer,
    Receipt,
    Renewal,
    Renewed,
    SealedKey,
    Status,
    Telemetry,
)

PROTOCOL_VERSION = 1

SIZE_LIMITS: dict[type, int] = {
    Announcement: MAX_MESSAGE_BYTES,  # 8192 chunk digests a part are 256 KiB
    Offer: LEAST_BROKER_PAYLOAD,  # chunk digests or the inline payload
    Get: 128 * KIB,
    Grant: 128 * KIB,
    Receipt: KIB,
    Control: KIB,
    Status: KIB,
    Telemetry: 4 * KIB,
    Evaluation: 8 * KIB,
    Enrolment: 8 * KIB,
    Enrolled: 16 * KIB,
    Renewal: 8 * KIB,
    Renewed: 8 * KIB,
    SealedKey: KIB,
}
"""Largest envelope of each kind, in bytes."""

MAX_FIELDS = 64
"""Keys of one map."""

NAME = re.compile(rf"[a-z0-9-]{{1,{MAX_NAME}}}")

Message = TypeVar("Message")
Reader = Callable[[object, str], object]


@dataclasses.dataclass(frozen=True)
class Envelope:
    """A message whose body is still closed."""

    kind: str
    body: bytes
    signature: bytes
    counter: int


Sign = Callable[[str, bytes], tuple[int, bytes]]
"""Kind and body -> the counter and the signature that the envelope carries."""

Check = Callable[[Envelope], None]
"""Raises PeerError unless the right party has signed the envelope, and never before."""


def pack(message: object, sign: Sign | None = None) -> bytes:
    """A message -> the bytes of its envelope. Raises ValueError when they exceed the kind's limit."""
    kind = type(message)
    body = msgpack.packb(_plain(message))
    envelope = {"v": PROTOCOL_VERSION, "m": kind.__name__.lower(), "b": body, "s": b""}
    if sign is not None:
        envelope["n"], envelope["s"] = sign(kind.__name__.lower(), body)
    packed: bytes = msgpack.packb(envelope)
    if len(packed) > SIZE_LIMITS[kind]:
        raise ValueError(f"{kind.__name__}: {len(packed)} bytes, the limit is {SIZE_LIMITS[kind]}")
    return packed


def unpack(data: bytes, kind: type[Message], check: Check | None = None) -> Message:
    """The bytes of an envelope -> a message of this kind, after `check` has found its signature good.

    Raises PeerError: TOO_LARGE, PROTOCOL_VERSION, or MALFORMED with the name of the field, what was got and
    what was expected; never with the content of a field; and what `check` raises. With `check`, all that is refused up
    to there is an UnprovenError: anybody may have sent it.
    """
    try:
        envelope = _open(data, kind)
        if check is not None:
            check(envelope)
    except PeerError as error:
        if check is None:
            raise
        raise UnprovenError(error.reason, error.detail) from None
    read = cast(Callable[[object, str], Message], _reader(cast(Hashable, kind)))
    return read(_parse(envelope.body), kind.__name__)


def _open(data: bytes, kind: type) -> Envelope:
    if len(data) > SIZE_LIMITS[kind]:
        raise PeerError(RejectReason.TOO_LARGE, f"{len(data)} bytes, the limit is {SIZE_LIMITS[kind]}")
    fields = _parse(data)
    version, counter = fields.get("v"), fields.get("n", 0)
    if version != PROTOCOL_VERSION or isinstance(version, bool):
        raise PeerError(RejectReason.PROTOCOL_VERSION, f"this side speaks protocol version {PROTOCOL_VERSION}")
    name, body, signature = kind.__name__.lower(), fields.get("b"), fields.get("s", b"")
    if fields.get("m") != name or not isinstance(body, bytes) or not isinstance(signature, bytes):
        raise PeerError(RejectReason.MALFORMED, f"expected an envelope of kind {name}")
    if type(counter) is not int or not 0 <= counter <= MAX_VERSION:
        raise PeerError(RejectReason.MALFORMED, f"n: expected an integer of 0 to {MAX_VERSION}")
    return Envelope(name, body, signature, counter)


def _parse(data: bytes) -> dict[str, Any]:
    try:
        value = msgpack.unpackb(data, use_list=False, max_map_len=MAX_FIELDS, max_array_len=MAX_RANGES)
    except (ValueError, msgpack.exceptions.UnpackException, RecursionError) as error:
        raise PeerError(RejectReason.MALFORMED, f"not msgpack within bounds: {type(error).__name__}") from None
    if not isinstance(value, dict):
        raise PeerError(RejectReason.MALFORMED, f"expected a map, got {type(value).__name__}")
    return value


def _plain(value: object) -> object:
    """A message's value as msgpack knows it; a field that is None is left out."""
    if dataclasses.is_dataclass(value):
        pairs = ((field.name, getattr(value, field.name)) for field in dataclasses.fields(value))
        return {name: _plain(item) for name, item in pairs if item is not None}
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, StrEnum) else value


def _malformed(where: str, expected: str, got: object) -> PeerError:
    return PeerError(RejectReason.MALFORMED, f"{where}: expected {expected}, got {type(got).__name__}")


@cache
def _reader(hint: Any) -> Reader:
    """The function that checks an untrusted value against a type and its bounds."""
    if get_origin(hint) is Annotated:
        inner, *bounds = get_args(hint)
        return _bounded(_reader(inner), bounds)
    if get_origin(hint) in (Union, types.UnionType):
        inner = next(arg for arg in get_args(hint) if arg is not type(None))
        if isinstance(inner, type) and issubclass(inner, StrEnum):
            return _known_or_none(inner)
        return _optional(_reader(inner))
    if get_origin(hint) is tuple:
        return _tuple_of(_reader(get_args(hint)[0]))
    if get_origin(hint) is dict:
        key, item = get_args(hint)
        return _dict_of(_reader(key), _reader(item))
    if dataclasses.is_dataclass(hint):
        return _dataclass(hint)  # type: ignore[arg-type]  # a class, not an instance
    if issubclass(hint, StrEnum):
        return _enum(hint)
    return _scalar(hint)


def _scalar(kind: type) -> Reader:
    def read(value: object, where: str) -> object:
        if kind is float and type(value) is int and abs(value) < 2**53:
            return float(value)
        if type(value) is not kind:
            raise _malformed(where, kind.__name__, value)
        return value

    return read


def _enum(kind: type[StrEnum]) -> Reader:
    def read(value: object, where: str) -> object:
        try:
            return kind(value)  # type: ignore[arg-type]  # anything else is the ValueError
        except ValueError:
            raise _malformed(where, f"one of {[member.value for member in kind]}", value) from None

    return read


def _known_or_none(kind: type[StrEnum]) -> Reader:
    """A word that only newer peers know reads as none, so that the rest of the message still counts."""
    known = {member.value for member in kind}

    def read(value: object, where: str) -> object:
        if value is not None and not isinstance(value, str):
            raise _malformed(where, "text", value)
        return kind(value) if value in known else None

    return read


def _optional(inner: Reader) -> Reader:
    return lambda value, where: None if value is None else inner(value, where)


def _tuple_of(item: Reader) -> Reader:
    def read(value: object, where: str) -> object:
        if not isinstance(value, tuple):
            raise _malformed(where, "an array", value)
        return tuple(item(element, where) for element in value)

    return read


def _dict_of(key: Reader, item: Reader) -> Reader:
    def read(value: object, where: str) -> object:
        if not isinstance(value, dict):
            raise _malformed(where, "a map", value)
        return {key(name, where): item(element, where) for name, element in value.items()}

    return read


def _bounded(inner: Reader, bounds: list[object]) -> Reader:
    def read(value: object, where: str) -> object:
        result = inner(value, where)
        for bound in bounds:
            _check(result, bound, where)
        return result

    return read


def _check(value: Any, bound: object, where: str) -> None:
    match bound:
        case Interval(ge=low, le=high):
            if not (math.isfinite(value) and low <= value <= high):
                raise PeerError(RejectReason.MALFORMED, f"{where}: expected a number from {low} to {high}")
        case Len(min_length=low, max_length=int(high)):
            if not low <= len(value) <= high:
                raise PeerError(
                    RejectReason.MALFORMED, f"{where}: expected a length of {low} to {high}, got {len(value)}"
                )
        case Name():
            if not NAME.fullmatch(value):
                raise PeerError(RejectReason.MALFORMED, f"{where}: expected a name like {NAME.pattern}")


def _dataclass(kind: type) -> Reader:
    hints = get_type_hints(kind, include_extras=True)
    fields = [(field, _reader(hints[field.name])) for field in dataclasses.fields(kind)]

    def read(value: object, where: str) -> object:
        if not isinstance(value, dict):
            raise _malformed(where, "a map", value)
        arguments = {}
        for field, reader in fields:
            if field.name in value:
                arguments[field.name] = reader(value[field.name], f"{where}.{field.name}")
            elif field.default is dataclasses.MISSING and not _may_be_none(hints[field.name]):
                raise PeerError(RejectReason.MALFORMED, f"{where}.{field.name}: missing")
            elif field.default is dataclasses.MISSING:
                arguments[field.name] = None
        return kind(**arguments)

    return read


def _may_be_none(hint: Any) -> bool:
    return type(None) in get_args(hint)
