"""A model on disk: one safetensors file that carries the tensors, their kinds, and free text about its making.

Anyone can read it with the safetensors package; nothing in it is code.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from fedward.errors import ConfigError, PeerError
from fedward.layout import Kind, Layout, Tensor, Vector

STATISTICS_KEY = "fedward.statistics"
"""Metadata key: JSON list of the tensors that are statistics; all others are weights."""


def save_model(path: Path, layout: Layout, vector_P: Vector, metadata: Mapping[str, str]) -> None:
    """Write (P,) float32 as named tensors with metadata. Raises ValueError for a vector of another layout."""
    tensors = {tensor.name: np.require(array, requirements="C") for tensor, array in layout.split(vector_P)}
    statistics = [tensor.name for tensor in layout.tensors if tensor.kind is Kind.STATISTIC]
    save_file(tensors, path, metadata={STATISTICS_KEY: json.dumps(statistics), **metadata})


def load_model(path: Path) -> tuple[Layout, Vector]:
    """Read what `save_model` wrote, or any safetensors file of float tensors -> layout and (P,) float32.

    Raises ConfigError for a file that is missing, is no safetensors file or holds no float tensors.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        statistics = set(json.loads(metadata.get(STATISTICS_KEY, "[]")))
        layout = Layout.of(
            Tensor(name, array.shape, Kind.STATISTIC if name in statistics else Kind.WEIGHT)
            for name, array in arrays.items()
            if np.issubdtype(array.dtype, np.floating)
        )
    except FileNotFoundError as error:
        raise ConfigError(f"model file {path}: not found; make it with `fedward agent init-model`") from error
    except (OSError, SafetensorError, ValueError, TypeError, PeerError) as error:
        raise ConfigError(f"model file {path}: expected a safetensors file of float tensors, got: {error}") from error
    return layout, layout.join(arrays)
