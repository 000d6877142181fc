"""What a version is made of: one term of its sum for each update."""

from dataclasses import dataclass, field

from fedward.codec import Codec, Payload
from fedward.layout import Vector


@dataclass(frozen=True)
class EncodedDelta:
    """A delta as it travelled: a payload that has passed `check_payload`, and the seed it was encoded with.

    It stands for `scale` times what it decodes to: below 1 where it was longer than the norm bound (norms.py).
    """

    codec: Codec
    payload: Payload = field(repr=False)
    seed: bytes
    scale: float = 1.0


@dataclass(frozen=True)
class Contribution:
    """One term of the sum: a delta and its weight.

    `base` is the (P,) model it was trained from, for `pull` only; `site` whose it is, for a robust rule only.
    """

    weight: float
    delta: EncodedDelta
    base: Vector | None = None
    site: str | None = None
