"""A model on disk: one safetensors file that carries the tensors, their kinds, and free text about its making.

Anyone can read it with the safetensors package; nothing in it is code.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from fedward.errors import ConfigError, PeerError
from fedward.layout import Kind, Layout, Tensor, Vector
from fedward.limits import MAX_SEED

STATISTICS_KEY = "fedward.statistics"
"""Metadata key: JSON list of the tensors that are statistics; all others are weights."""

TASK_KEY = "fedward.task"
"""Metadata key: the task whose model it is."""

SEED_KEY = "fedward.seed"
"""Metadata key: the seed that an initial model was made with, in decimal."""


def save_model(path: Path, layout: Layout, vector_P: Vector, metadata: Mapping[str, str]) -> None:
    """Write (P,) float32 as named tensors with metadata. Raises ValueError for a vector of another layout."""
    tensors = {tensor.name: np.require(array, requirements="C") for tensor, array in layout.split(vector_P)}
    statistics = [tensor.name for tensor in layout.tensors if tensor.kind is Kind.STATISTIC]
    save_file(tensors, path, metadata={STATISTICS_KEY: json.dumps(statistics), **metadata})


def load_model(path: Path) -> tuple[Layout, Vector]:
    """Read what `save_model` wrote, or any safetensors file of float tensors -> layout and (P,) float32.

    Raises ConfigError for a file that is missing, is no safetensors file or holds no float tensors.
    """
    with _problems_told(path):
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        statistics = set(json.loads(metadata.get(STATISTICS_KEY, "[]")))
        layout = Layout.of(
            Tensor(name, array.shape, Kind.STATISTIC if name in statistics else Kind.WEIGHT)
            for name, array in arrays.items()
            if np.issubdtype(array.dtype, np.floating)
        )
        return layout, layout.join(arrays)


def load_seed(path: Path, task: str) -> int | None:
    """The seed that this model of `task` was made with; None where the file names none, or another task.

    Raises ConfigError for a file that is missing or no safetensors file, or a seed that `checked_seed` refuses.
    """
    with _problems_told(path):
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
        if metadata.get(TASK_KEY) != task or SEED_KEY not in metadata:
            return None
        return checked_seed(int(metadata[SEED_KEY]))


def checked_seed(seed: int) -> int:
    """The seed itself. Raises ValueError unless an announcement may carry it."""
    if not 0 <= seed <= MAX_SEED:
        raise ValueError(f"a seed from 0 to {MAX_SEED} was expected, not {seed}")
    return seed


@contextmanager
def _problems_told(path: Path) -> Iterator[None]:
    """What reading the file may raise inside -> ConfigError."""
    try:
        yield
    except FileNotFoundError as error:
        raise ConfigError(f"model file {path}: not found; make it with `fedward agent init-model`") from error
    except (OSError, SafetensorError, ValueError, TypeError, PeerError) as error:
        raise ConfigError(f"model file {path}: expected a safetensors file of float tensors, got: {error}") from error
