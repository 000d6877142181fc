"""How much travelled, and what float32 would have cost."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

FLOAT32_BYTES = 4


@dataclass(frozen=True)
class Traffic:
    """Payload bytes of every MQTT message of a site, or of all, and of the same models and updates as bare float32.

    What was sent and received holds the protocol's messages too; the float32 figures hold none, which favours them.
    """

    up_bytes: int = 0
    down_bytes: int = 0
    up_float32_bytes: int = 0
    down_float32_bytes: int = 0

    def __add__(self, other: "Traffic") -> "Traffic":
        return Traffic(
            self.up_bytes + other.up_bytes,
            self.down_bytes + other.down_bytes,
            self.up_float32_bytes + other.up_float32_bytes,
            self.down_float32_bytes + other.down_float32_bytes,
        )

    @property
    def saved_bytes(self) -> int:
        """Bytes less than with float32; negative when there are more."""
        return self.up_float32_bytes + self.down_float32_bytes - self.up_bytes - self.down_bytes

    @property
    def saved_ratio(self) -> float:
        """The saved part of what float32 would have cost; 0 while nothing would have travelled."""
        return self.saved_bytes / max(1, self.up_float32_bytes + self.down_float32_bytes)


def traffic(site: Mapping[str, Any], num_parameters: int) -> Traffic:
    """Of a site's page, as the coordinator shows it."""
    vector_bytes = FLOAT32_BYTES * num_parameters
    return Traffic(
        site["bytes_sent"],
        site["bytes_received"],
        site["num_accepted"] * vector_bytes,
        site["num_fetched"] * vector_bytes,
    )


def total_traffic(state: Mapping[str, Any]) -> Traffic:
    """Of all sites of a coordinator's state."""
    return sum((traffic(site, state["num_parameters"]) for site in state["sites"].values()), Traffic())


def human_bytes(count: float) -> str:
    """At most four digits and a unit: 812 B, 20.5 kB, 1.2 MB."""
    if abs(count) < 1000:
        return f"{count:.0f} B"
    for unit in ("kB", "MB"):
        count /= 1000
        if abs(count) < 999.95:
            return f"{count:.1f} {unit}"
    return f"{count / 1000:.1f} GB"
