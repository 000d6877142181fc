"""The chain: what was written to the ledger, as a sequence of digests that each hold all before them. Pure.

    digest = SHA-256(canonical(kind, key, row))        head = SHA-256(head before || digest)

Whoever changes, removes, inserts or moves a row would have to compute every later head anew. Then only a head that
is kept elsewhere, such as that of a model card, tells: `contains` looks for it.
"""

import hashlib
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

GENESIS = bytes(32)
"""The head before the first entry."""

Value = None | int | float | str | bytes | Sequence["Value"]


class Kind(StrEnum):
    """What an entry is of. A row's key is unique within its kind."""

    FACT = "fact"  # what the ledger is of: federation, task, layout
    UPDATE = "update"  # an update and its end, without what became of it later
    VERSION = "version"
    PART = "part"  # one payload that leads to a version
    FOLD = "fold"  # which updates a version is made of, with their weights


@dataclass(frozen=True)
class Entry:
    """One link of the chain."""

    entry: int  # from 1, without gaps
    kind: str
    key: str
    digest: bytes
    head: bytes

    @property
    def name(self) -> str:
        return f"{self.kind} {self.key}"


def canonical(value: Value) -> bytes:
    """The one way to write a value: type byte, length as 8 little-endian bytes, content; a list is its items."""
    match value:
        case None:
            kind, content = b"n", b""
        case bool():
            raise TypeError("a row holds no bool")
        case bytes():
            kind, content = b"b", value
        case str():
            kind, content = b"s", value.encode()
        case int():
            kind, content = b"i", str(value).encode()
        case float():
            kind, content = b"f", struct.pack("<d", value)
        case _:
            kind, content = b"l", b"".join(canonical(item) for item in value)
    return kind + len(content).to_bytes(8, "little") + content


def digest_of(kind: str, key: str, row: Value) -> bytes:
    """What an entry says of a row: 32 bytes."""
    return hashlib.sha256(canonical((kind, key, row))).digest()


def next_head(head: bytes, digest: bytes) -> bytes:
    return hashlib.sha256(head + digest).digest()


def next_entry(newest: Entry | None, kind: Kind, key: str, row: Value) -> Entry:
    """The entry that records `row` after `newest`."""
    digest = digest_of(kind, key, row)
    head = next_head(newest.head if newest else GENESIS, digest)
    return Entry(newest.entry + 1 if newest else 1, kind.value, key, digest, head)


def first_fault(entries: Iterable[Entry], rows: Mapping[tuple[str, str], Value]) -> str | None:
    """What is wrong with the first row or entry that is not as it was written; None when all are.

    `rows` are the tables as they are now, by kind and key.
    """
    head, unseen = GENESIS, dict(rows)
    for number, entry in enumerate(entries, 1):
        if entry.entry != number:
            return f"chain entry {number} is missing, before {entry.name}"
        if next_head(head, entry.digest) != entry.head:
            return f"chain entry {number}, of {entry.name}: does not follow from the entry before it"
        if (entry.kind, entry.key) not in unseen:
            return f"{entry.name}: recorded in chain entry {number}, and removed since"
        if digest_of(entry.kind, entry.key, unseen.pop((entry.kind, entry.key))) != entry.digest:
            return f"{entry.name}: changed since chain entry {number} recorded it"
        head = entry.head
    for kind, key in unseen:
        return f"{kind} {key}: no chain entry records it"
    return None


def contains(entries: Iterable[Entry], head: bytes) -> bool:
    """Whether the chain has been at this head: what it stood for then is still there."""
    return any(entry.head == head for entry in entries)
