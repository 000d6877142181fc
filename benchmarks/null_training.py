"""A federation whose training takes no time, so that what remains is Fedward itself: a task, and the plan around it.

The task is found as any hospital's own is: it is offered by an installed package, which is a folder here.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

from benchmarks.codecs import resnet_like
from edge_agent.training.metrics import Sums
from edge_agent.training.task import Batch, Task
from fedward.layout import Kind, Layout
from fedward.modelfile import save_model
from sandbox.datasets import SiteData, Split, site_name
from sandbox.faults import COORDINATOR
from sandbox.federation import Federation, Plan

TASK = "null-training"
WORK = {"local_epochs": 1, "batch_size": 1, "local_lr": 0.01, "max_steps": 1}
STEP = 1e-3
"""Standard deviation of what one training adds to each weight."""

WAIT_S = 300.0
PATIENT = {"telemetry_s": 15.0, "gather_s": 0.25}
"""The programs' own defaults, where a demo is impatient."""


class NullTask(Task):
    """A model with the tensors of a ResNet, whose training is one drawn step that is added to every weight.

    No gradient is computed for any weight but a small one, and that is zero. The deltas are normal values: of all of
    their size those that an entropy coder makes least of.
    """

    def __init__(self, parameters: int, seed: int = 0) -> None:
        self._layout = resnet_like(parameters)
        self._seed = seed
        self._steps: tuple[Tensor, ...] = ()

    def model(self) -> nn.Module:
        return model_of(self._layout)

    def train_data(self) -> Dataset[Batch]:
        return TensorDataset(torch.zeros(1))

    def held_out_data(self) -> Dataset[Batch]:
        return TensorDataset(torch.zeros(1))

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:  # noqa: ARG002 - of nothing
        parameters = tuple(model.parameters())
        if not self._steps:
            drawn = torch.Generator().manual_seed(self._seed)
            self._steps = tuple(STEP * torch.randn(each.shape, generator=drawn) for each in parameters)
        with torch.no_grad():
            for parameter, step in zip(parameters, self._steps, strict=True):
                parameter.add_(step)
        return 0 * min(parameters, key=Tensor.numel).sum()

    def metrics(self, model: nn.Module, batches: Iterable[Batch]) -> Sums:  # noqa: ARG002 - as above
        return {"loss": (1.0, 1.0)}


def model_of(layout: Layout) -> nn.Module:
    """A module of zeros with exactly these tensors under these names."""
    modules = {"": nn.Module()}
    for tensor in layout.tensors:
        path, _, leaf = tensor.name.rpartition(".")
        owner = _module(modules, path)
        if tensor.kind is Kind.WEIGHT:
            owner.register_parameter(leaf, nn.Parameter(torch.zeros(tensor.shape)))
        else:
            owner.register_buffer(leaf, torch.zeros(tensor.shape))
    return modules[""]


def _module(modules: dict[str, nn.Module], path: str) -> nn.Module:
    """The module of this path, made with those above it where it is missing."""
    if path not in modules:
        above, _, name = path.rpartition(".")
        modules[path] = nn.Module()
        _module(modules, above).add_module(name, modules[path])
    return modules[path]


def null_federation(folder: Path, parameters: int, num_sites: int, **plan: Any) -> Federation:
    """A federation of about so many parameters in which every site trains each version in no time; not started.

    A version is made of one update of every site. The initial model is drawn. `plan` as of `Plan`.
    """
    layout = resnet_like(parameters)
    sites = [site_name(index) for index in range(num_sites)]
    settings: dict[str, Any] = {
        "task": TASK,
        "records": Split(
            tuple(SiteData(site, {"parameters": parameters, "seed": at}, 1, 1) for at, site in enumerate(sites)), {}
        ),
        "work": WORK,
        "engine": {"preset": "default", "buffer_size": num_sites, "flush_after_s": WAIT_S},
        "retention": {},
        "packages": install(folder / "packages"),
        **PATIENT,
    }
    federation = Federation(Plan(folder=folder, **settings | plan))
    drawn_P = np.random.default_rng(1).standard_normal(layout.size, np.float32)
    save_model(federation.model_path, layout, drawn_P, {})
    return federation


def stand_still(running: Federation) -> dict[str, Any]:
    """Pause, and wait until every site has fetched and measured the newest version and delivered what it trained.

    The state then. A version that lies between two such moments has travelled whole.
    """
    running.fedward("coordinator", "pause", "--config", str(running.config_path(COORDINATOR)))
    return running.wait_for(stands_still, WAIT_S, "standing still")


def go_on(running: Federation) -> None:
    """Undo `stand_still`."""
    running.fedward("coordinator", "resume", "--config", str(running.config_path(COORDINATOR)))


def stands_still(state: Mapping[str, Any]) -> bool:
    """Has every site measured the newest version, and does it say that it has no more to do?"""
    sites = state["sites"].values()
    return all(site["phase"] == "paused" and site["evaluated_version"] == state["version"] for site in sites)


def install(folder: Path) -> Path:
    """The package that offers the task, as pip would leave it."""
    metadata = folder / "fedward_null_training-1.0.dist-info"
    metadata.mkdir(parents=True, exist_ok=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: fedward-null-training\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[fedward.tasks]\n{TASK} = benchmarks.null_training:NullTask\n")
    return folder
