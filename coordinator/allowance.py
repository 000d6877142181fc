"""How much one site may send: a token bucket for its messages and one for its bytes. Pure.

What is above is not handled. Nothing is lost by it: a site offers again, asks again and sends again until it has its
receipt, and what is chatter, such as telemetry, comes anew. So one site can't keep the coordinator from the others.
One that goes on and on is a flood: even to drop it costs, so it is to be kept out for a while.
"""

from dataclasses import dataclass

from fedward.limits import CHUNK_BYTES, MAX_PAYLOAD_BYTES

BURST_S = 10.0
"""So many seconds of its rate a site may send at once, after a silence."""

CALM_S = 10.0
"""After so long a time in which nothing of a site was too much, what was too much before is forgotten."""

OUT_S = 60.0
"""How long a site is out after a flood."""


@dataclass(frozen=True)
class Bucket:
    """What a site may still send at `at_s`, in messages and in bytes. Below zero: it waits until that has filled."""

    messages: float
    size_bytes: float
    at_s: float


@dataclass(frozen=True)
class Allowance:
    """The rates of one site."""

    messages_s: float
    bytes_s: float

    def full(self, now_s: float) -> Bucket:
        """That of a site that was silent for BURST_S."""
        return Bucket(BURST_S * self.messages_s, BURST_S * self.bytes_s, now_s)

    def refilled(self, bucket: Bucket, now_s: float) -> Bucket:
        """The same bucket at `now_s`, which is not before its own time."""
        passed_s, full = now_s - bucket.at_s, self.full(now_s)
        return Bucket(
            min(full.messages, bucket.messages + passed_s * self.messages_s),
            min(full.size_bytes, bucket.size_bytes + passed_s * self.bytes_s),
            now_s,
        )


def taken(bucket: Bucket, size_bytes: int, chunk: bool) -> Bucket | None:
    """The bucket after a message of that size; None, and nothing is taken, where one of both is used up.

    A chunk is counted by bytes alone, as a whole one however short it is; anything else as a message, too. The last
    message may overdraw the bucket: otherwise one that is larger than a burst could never come.
    """
    if bucket.size_bytes <= 0 or (bucket.messages < 1 and not chunk):
        return None
    cost = max(size_bytes, CHUNK_BYTES) if chunk else size_bytes
    return Bucket(bucket.messages - (0 if chunk else 1), bucket.size_bytes - cost, bucket.at_s)


@dataclass(frozen=True)
class Excess:
    """What was too much of a site since it was last calm: messages that are no chunks, and bytes of all of them."""

    messages: int
    size_bytes: int
    at_s: float

    def is_flood(self, each: Allowance) -> bool:
        """Whether it is more than any site can come to that does what it should: a burst again, or a whole update.

        An agent sends an update's chunks as they were granted, which a fast link carries above every rate.
        """
        return self.messages > BURST_S * each.messages_s or self.size_bytes > MAX_PAYLOAD_BYTES


class Allowances:
    """The buckets of all sites, in memory: a new process begins with full ones."""

    def __init__(self, each: Allowance) -> None:
        self._each = each
        self._buckets: dict[str, Bucket] = {}
        self.over: set[str] = set()
        """The sites whose last message was too much."""
        self._excess: dict[str, Excess] = {}
        self._out_until_s: dict[str, float] = {}

    def admit(self, site: str, size_bytes: int, chunk: bool, now_s: float) -> bool:
        """Whether a message of this site is handled, by a clock that never goes back; it is counted if so."""
        known = self._buckets.get(site)
        bucket = self._each.refilled(known, now_s) if known else self._each.full(now_s)
        after = taken(bucket, size_bytes, chunk)
        self._buckets[site] = after or bucket
        (self.over.discard if after else self.over.add)(site)
        if after is None:
            self._note(site, size_bytes, chunk, now_s)
        return after is not None

    def out(self, now_s: float) -> frozenset[str]:
        """The sites that flooded, for OUT_S."""
        return frozenset(site for site, until_s in self._out_until_s.items() if now_s < until_s)

    def _note(self, site: str, size_bytes: int, chunk: bool, now_s: float) -> None:
        known = self._excess.get(site)
        before = known if known and now_s - known.at_s <= CALM_S else Excess(0, 0, now_s)
        excess = Excess(before.messages + (not chunk), before.size_bytes + size_bytes, now_s)
        if excess.is_flood(self._each):
            self._out_until_s[site], excess = now_s + OUT_S, Excess(0, 0, now_s)
        self._excess[site] = excess
