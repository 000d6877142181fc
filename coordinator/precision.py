"""How precisely what leads from a version to the next one travels: the updates up, the model's delta down. Pure.

Early deltas are large and steer all that follows, and nothing comes after the last ones that would even their errors
out. So the first versions and the last ones travel at 8 bits, at least, whatever the federation takes otherwise.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from fedward.codec import codec

AUTO = "auto"
"""Setting of the updates' codec: PRECISE for a small model, whose bytes hardly matter, and USUAL else."""

PRECISE = "q8"
USUAL = "eden4"

FEW_PARAMETERS = 1_000_000
"""A model below this is small: an update of a megabyte at most, in PRECISE."""


@dataclass(frozen=True)
class Precision:
    """Which versions travel precisely: so many first ones, and so many last ones where the last one is known."""

    num_versions: int = 0
    last_version: int | None = None

    def codec(self, usual: str, version: int) -> str:
        """Of what leads from `version` to the next one, in a federation that usually takes `usual`."""
        first = version < self.num_versions
        last = self.last_version is not None and 0 < self.last_version - version <= self.num_versions
        return max(usual, PRECISE, key=lambda name: codec(name).bits) if first or last else usual


@dataclass(frozen=True)
class UpdateCodecs:
    """What updates may come in, `allowed`, the most precise first; and what is asked for where links are fast."""

    usual: str
    allowed: tuple[str, ...]
    precision: Precision

    @classmethod
    def of(cls, usual: str, allowed: Sequence[str], precision: Precision, num_parameters: int) -> Self:
        """As configured: `usual` a codec or AUTO, and always among the allowed ones."""
        if usual == AUTO:
            usual = PRECISE if num_parameters < FEW_PARAMETERS else USUAL
        ordered = sorted({usual, *allowed}, key=lambda name: (-codec(name).bits, name))
        return cls(usual, tuple(ordered), precision)

    def asked(self, version: int) -> str:
        """The codec that the announcement of `version` asks for: a precise one only where it is allowed."""
        precise = self.precision.codec(self.usual, version)
        return precise if precise in self.allowed else self.usual
