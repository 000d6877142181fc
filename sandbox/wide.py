"""A federation that is nearly always on the way: a wide network, few drawn records, one step a version."""

import json
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

from fedward.modelfile import load_model, save_model
from sandbox.datasets import SiteData, Split, site_name
from sandbox.federation import Federation, Plan

NUM_FEATURES = 8
NUM_RECORDS = 64
WORK = {"local_epochs": 1, "batch_size": 16, "local_lr": 0.01, "max_steps": 1}


def wide_federation(folder: Path, hidden: Sequence[int], rng: Random, num_sites: int, **plan: Any) -> Federation:
    """A federation with its records and initial model, float32 updates, not started; `plan`, as of Plan, goes before.

    The model's file names no seed, so the sites have to download it. In float32, an update has 4 bytes for each
    parameter of a network with these hidden layers.
    """
    columns, records = write_records(folder, hidden, rng, num_sites)
    usual: dict[str, Any] = {"codec": "f32", "work": WORK}
    federation = Federation(Plan(folder=folder, task="tabular", records=records, **{**usual, **plan}))
    options = json.dumps({"columns": str(columns)})
    arguments = ("--task", "tabular", "--options", options, "--out", str(federation.model_path))
    federation.fedward("agent", "init-model", *arguments)
    save_model(federation.model_path, *load_model(federation.model_path), metadata={})
    return federation


def write_records(folder: Path, hidden: Sequence[int], rng: Random, num_sites: int) -> tuple[Path, Split]:
    """A column map for a network with these hidden layers, and drawn records of so many sites that fit it."""
    names = [f"x{index}" for index in range(NUM_FEATURES)]
    columns = folder / "columns.yaml"
    columns.parent.mkdir(parents=True, exist_ok=True)
    features = {name: {"center": 0, "scale": 1} for name in names}
    columns.write_text(  # JSON is YAML
        json.dumps({"label": {"name": "y", "positive_above": 0}, "features": features, "hidden": list(hidden)})
    )
    sites = []
    for index in range(num_sites):
        rows = [[round(rng.gauss(), 4) for _ in names] for _ in range(NUM_RECORDS)]
        lines = [",".join([*names, "y"]), *(",".join(map(str, [*row, int(sum(row) > 0)])) for row in rows)]
        path = folder / f"{site_name(index)}.csv"
        path.write_text("\n".join(lines) + "\n")
        options: dict[str, object] = {"columns": str(columns), "train": str(path)}
        sites.append(SiteData(site_name(index), options, NUM_RECORDS, NUM_RECORDS // 4))
    return columns, Split(tuple(sites), {})
