"""The chain: what was written to the ledger, as a sequence of digests that each hold all before them. Pure.

    digest = SHA-256(canonical(kind, key, row))        head = SHA-256(head before || digest)

Whoever changes, removes, inserts or moves a row would have to compute every later head anew. Then only a head that
is kept elsewhere, such as that of a model card, tells: `missing` looks for it.

Old entries are cut off at the beginning, with their rows. The last of them stays as the anchor, with its number and
head: checks begin there.
"""

import hashlib
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

GENESIS = bytes(32)
"""The head before the first entry."""

Value = None | int | float | str | bytes | Sequence["Value"]


class Kind(StrEnum):
    """What an entry is of. A row's key is unique within its kind."""

    ANCHOR = "anchor"  # no row: the last of the entries that were cut off at the beginning
    FACT = "fact"  # what the ledger is of: federation, task, layout
    UPDATE = "update"  # an update and its end, without what became of it later
    VERSION = "version"
    PART = "part"  # one payload that leads to a version
    FOLD = "fold"  # which updates a version is made of, with their weights
    EVALUATION = "evaluation"  # a site's measurement of a version, all its metrics
    WISH = "wish"
    VERDICT = "verdict"  # what the operator decided of a site in quarantine
    TOTAL = "total"  # what the rows of a site's updates that were deleted at one cut come to


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

    @property
    def mark(self) -> "Mark":
        return Mark(self.head, self.entry)


@dataclass(frozen=True)
class Mark:
    """A head, and the number of its entry where that is known: what is kept elsewhere to recognise a chain by."""

    head: bytes
    entry: int | None = None

    def __str__(self) -> str:
        return self.head.hex() if self.entry is None else f"{self.entry}:{self.head.hex()}"

    @classmethod
    def parse(cls, text: str) -> "Mark":
        """Raises ValueError."""
        match = re.fullmatch(r"(?:([0-9]{1,18}):)?([0-9a-fA-F]{64})", text)
        if match is None:
            raise ValueError(
                "expected 64 hexadecimal digits, after the number of the entry and ':' where that is known"
            )
        return cls(bytes.fromhex(match[2]), int(match[1]) if match[1] else None)


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


def next_entry(newest: Entry | None, kind: str, key: str, digest: bytes) -> Entry:
    """The entry after `newest` that records the row of this digest."""
    head = next_head(newest.head if newest else GENESIS, digest)
    return Entry(newest.entry + 1 if newest else 1, str(kind), key, digest, head)


def anchor_of(entries: Sequence[Entry]) -> Entry | None:
    """The last of the entries that were cut off; None while the chain begins with its first entry."""
    return entries[0] if entries and entries[0].kind == Kind.ANCHOR else None


def first_fault(entries: Sequence[Entry], digests: Mapping[tuple[str, str], bytes]) -> str | None:
    """What is wrong with the first row or entry that is not as it was written; None when all are.

    `digests` are those of the tables' rows as they are now, by kind and key.
    """
    anchor = anchor_of(entries)
    head, before, unseen = (anchor.head, anchor.entry, dict(digests)) if anchor else (GENESIS, 0, dict(digests))
    for number, entry in enumerate(entries[1:] if anchor else entries, before + 1):
        if entry.entry != number:
            return f"chain entry {number} is missing, before {entry.name}"
        if next_head(head, entry.digest) != entry.head:
            return f"chain entry {number}, of {entry.name}: does not follow from the entry before it"
        if (entry.kind, entry.key) not in unseen:
            return f"{entry.name}: recorded in chain entry {number}, and removed since"
        if unseen.pop((entry.kind, entry.key)) != entry.digest:
            return f"{entry.name}: changed since chain entry {number} recorded it"
        head = entry.head
    for kind, key in unseen:
        return f"{kind} {key}: no chain entry records it"
    return None


def missing(entries: Sequence[Entry], known: Mark) -> str | None:
    """Why what the chain stood for at a known head can't be shown to be there still; None when it can."""
    if any(entry.head == known.head and known.entry in (None, entry.entry) for entry in entries):
        return None
    anchor = anchor_of(entries)
    if anchor and known.entry is not None and known.entry < anchor.entry:
        return (
            f"the head {known} lies before entry {anchor.entry}: the rows up to there were deleted because they were "
            "old (retention.records), so the ledger can't show any more what that head stood for"
        )
    begins = (
        f"; it begins with entry {anchor.entry + 1}, and a head without a number may lie before it" if anchor else ""
    )
    return (
        f"its chain never had the head {known}; rows were removed at its end, all of it was written anew, "
        f"or the head is of another ledger{begins if known.entry is None else ''}"
    )
