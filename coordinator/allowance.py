"""How much one site may send: a token bucket for its messages and one for its bytes. Pure.

What is above is not handled. Nothing is lost by it: a site offers again, asks again and sends again until it has its
receipt, and what is chatter, such as telemetry, comes anew. So one site can't keep the coordinator from the others.
"""

from dataclasses import dataclass

from fedward.limits import CHUNK_BYTES

BURST_S = 10.0
"""So many seconds of its rate a site may send at once, after a silence."""


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


class Allowances:
    """The buckets of all sites, in memory: a new process begins with full ones."""

    def __init__(self, each: Allowance) -> None:
        self._each = each
        self._buckets: dict[str, Bucket] = {}
        self.over: set[str] = set()
        """The sites whose last message was too much."""

    def admit(self, site: str, size_bytes: int, chunk: bool, now_s: float) -> bool:
        """Whether a message of this site is handled, by a clock that never goes back; it is counted if so."""
        known = self._buckets.get(site)
        bucket = self._each.refilled(known, now_s) if known else self._each.full(now_s)
        after = taken(bucket, size_bytes, chunk)
        self._buckets[site] = after or bucket
        (self.over.discard if after else self.over.add)(site)
        return after is not None
