"""Checks of the options of the tasks that ship. Messages name the option, never its value."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fedward.errors import ConfigError

HELD_OUT_SEED = 7
"""Fixed, so that a record that is held out once is held out at every start."""


def existing_path(option: str, value: object, problems: list[str]) -> Path | None:
    """The path of a file or folder that exists; None if the option is not set. Adds to `problems` otherwise."""
    if value is None:
        return None
    if not isinstance(value, str | Path):
        problems.append(f"option {option}: got a {type(value).__name__}, expected a path")
        return None
    path = Path(value)
    if not path.exists():
        problems.append(f"option {option}: there is no such file")
    return path


def fraction(option: str, value: float, problems: list[str]) -> float:
    """A number strictly between 0 and 1. Adds to `problems` otherwise."""
    if isinstance(value, bool) or not 0 < value < 1:
        problems.append(f"option {option}: expected a path or a fraction between 0 and 1")
    return float(value)


def raise_if_any(problems: Sequence[str]) -> None:
    """Raise ConfigError that lists the problems, if there are any."""
    if problems:
        raise ConfigError("; ".join(problems))


def split_order(count: int, held_out: float) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Indices of the held-out records and of the others: the same for the same count and fraction."""
    order = np.random.default_rng(HELD_OUT_SEED).permutation(count)
    cut = round(count * held_out)
    return np.sort(order[:cut]), np.sort(order[cut:])
