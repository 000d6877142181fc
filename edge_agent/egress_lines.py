"""A line of the egress log, and the chain that holds the lines together. Pure.

A line is one JSON object: its number, when, what, and the digest of the line before it. So no line can be changed,
left out, put in or moved without the lines after it showing that; what was written down elsewhere about the last one,
the head, shows what was cut off at the end.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from fedward.errors import IntegrityError

GENESIS = "0" * 64
"""The digest that the first line names as that of the line before it."""

Facts = Mapping[str, str | int]


class What(StrEnum):
    """What a line says."""

    START = "start"  # a process began to write; `ended` is how the one before it ended
    STOP = "stop"  # and ended in order
    MESSAGE = "message"  # a message, written down before it was handed to the broker
    WILL = "will"  # what the broker says, in this site's name, if the connection of this process ends without a word
    UNSENT = "unsent"  # the message of the line before was not taken: there was no connection
    CUT = "cut"  # the lines up to `through`, whose digest is `head`, were deleted to bound the disk
    TORN = "torn"  # a process died while it wrote: what it left of its last line was removed, `size` bytes


FIELDS: Mapping[str, Mapping[str, type]] = {
    What.START: {"ended": str},
    What.MESSAGE: {"kind": str, "size": int, "sha256": str},
    What.WILL: {"kind": str, "size": int, "sha256": str},
    What.UNSENT: {"of": int},
    What.CUT: {"through": int, "head": str},
    What.TORN: {"size": int},
}
"""What a line must have beside what each has; it may have more."""


@dataclass(frozen=True)
class Head:
    """The last line, by number and digest; 0 and GENESIS when there is none."""

    n: int = 0
    digest: str = GENESIS


def line_of(after: Head, at: str, facts: Facts) -> tuple[bytes, Head]:
    """The next line's bytes, with its end of line, and the head that it makes. `at` is UTC, as text that sorts."""
    fields = {"n": after.n + 1, "at": at, **facts, "previous": after.digest}
    line = json.dumps(fields, separators=(",", ":")).encode()
    return line + b"\n", Head(after.n + 1, digest_of(line))


def digest_of(line: bytes) -> str:
    """SHA-256, hexadecimal, of a line without its end."""
    return hashlib.sha256(line).hexdigest()


class Chain:
    """Follows lines one after another. What is not as it was written is raised as IntegrityError.

    The lines may begin anywhere, at a file of the log, for instance; `check_begin` asks for more.
    """

    def __init__(self, head: Head = Head()) -> None:
        """`head` is what is known of the last line, or of one shortly before it."""
        self._known = head
        self.head: Head | None = None
        """The last line so far."""
        self.num_lines = 0
        self._first: tuple[int, str] = (0, GENESIS)
        self._cuts: dict[int, str] = {}

    def follow(self, line: bytes) -> dict[str, Any]:
        """The next line, without its end, as its fields."""
        fields = _parsed(line)
        if fields is None:
            after = f" after line {self.head.n}" if self.head else ""
            raise IntegrityError(f"egress log: what stands{after} is no line of this log: it was changed")
        n, previous = fields["n"], fields["previous"]
        if self.head is None:
            self._first = (n, previous)
        elif n > self.head.n + 1:
            raise IntegrityError(f"egress log: lines {self.head.n + 1} to {n - 1} are missing")
        elif n != self.head.n + 1:
            raise IntegrityError(f"egress log: line {n} stands after line {self.head.n}: moved or put in")
        elif previous != self.head.digest:
            raise IntegrityError(f"egress log: line {n - 1} is not as it was written, or line {n} is not")
        if fields.get("what") == What.CUT:
            self._cuts[fields["through"]] = fields["head"]
        self.head = Head(n, digest_of(line))
        self.num_lines += 1
        if n == self._known.n and self.head != self._known:
            raise IntegrityError(f"egress log: line {n} is not as it was written")
        return fields

    def check_end(self) -> None:
        """After the last line: was anything cut off after it?"""
        last = self.head.n if self.head else 0
        if last < self._known.n:
            raise IntegrityError(f"egress log: lines {last + 1} to {self._known.n} are missing at the end")

    def check_begin(self) -> None:
        """After the last line: do the lines begin with the first ever written, or with what a cut left?"""
        n, previous = self._first
        if n == 1 and previous != GENESIS:
            raise IntegrityError("egress log: line 1 is not as it was written")
        if n > 1 and self._cuts.get(n - 1, previous) != previous:
            raise IntegrityError(f"egress log: line {n} is not the one that the cut before it left")
        if n > 1 and max(self._cuts, default=0) < n - 1:
            raise IntegrityError(f"egress log: lines 1 to {n - 1} are missing, and no line records that they were cut")


def messages_left(lines: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """The lines of messages that were handed to the broker, and of wills."""
    waiting: Mapping[str, Any] | None = None
    for fields in lines:
        if waiting and not (fields["what"] == What.UNSENT and fields["of"] == waiting["n"]):
            yield waiting
        waiting = fields if fields["what"] in (What.MESSAGE, What.WILL) else None
    if waiting:
        yield waiting


@dataclass(frozen=True)
class Total:
    """What left on a day (UTC) of one kind."""

    day: str
    kind: str
    count: int
    size: int  # bytes of payload


def totals(messages: Iterable[Mapping[str, Any]]) -> list[Total]:
    """By day, and of a day by kind; a will counts as a kind of its own, for it only may leave."""
    sums: dict[tuple[str, str], tuple[int, int]] = {}
    for fields in messages:
        key = (fields["at"][:10], "will" if fields["what"] == What.WILL else fields["kind"])
        count, size = sums.get(key, (0, 0))
        sums[key] = (count + 1, size + fields["size"])
    return [Total(day, kind, *sums[day, kind]) for day, kind in sorted(sums)]


def _parsed(line: bytes) -> dict[str, Any] | None:
    """The fields of what has the form of a line."""
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(fields, dict) or not isinstance(fields.get("what"), str):
        return None
    needed = {"n": int, "at": str, "previous": str, **FIELDS.get(fields["what"], {})}
    return fields if all(type(fields.get(name)) is kind for name, kind in needed.items()) else None
