"""How precisely what leads from a version to the next one travels: the updates up, the model's delta down. Pure.

Early updates are large and steer all that follows; nothing comes after the last ones that would even their errors out.
So the first versions and the last ones ask for updates one step more precise than the federation takes otherwise.

What a delta on the way down loses, the coordinator carries to the next one (`making.py`), so the first deltas need no
more than others: their error is gone a version later. Only what the last ones lose is never carried, and stays in the
model that everybody ends with; they travel in PRECISE at least.
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
    """Which versions are precise: so many first ones, and so many last ones where the last one is known."""

    num_versions: int = 0
    last_version: int | None = None

    def update_codec(self, usual: str, allowed: Sequence[str], version: int) -> str:
        """Of the updates from `version`: `usual`, or at a precise version the next more precise one of those allowed.

        None goes above PRECISE, so what is as precise itself stays.
        """
        if not (version < self.num_versions or self._is_last(version)):
            return usual
        bits, most = codec(usual).bits, codec(PRECISE).bits
        finer = [name for name in allowed if bits < codec(name).bits <= most]
        return min(finer, key=lambda name: codec(name).bits, default=usual)

    def delta_codec(self, usual: str, version: int) -> str:
        """Of the model's delta from `version` to the next one: PRECISE at the last ones, unless `usual` is finer."""
        return max(usual, PRECISE, key=lambda name: codec(name).bits) if self._is_last(version) else usual

    def _is_last(self, version: int) -> bool:
        return self.last_version is not None and 0 < self.last_version - version <= self.num_versions


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
        """The codec that the announcement of `version` asks for."""
        return self.precision.update_codec(self.usual, self.allowed, version)
