"""What a hospital brings: a model, its records, a loss. Everything else of Fedward works for any task.

A task in full, in a hospital's own package:

    class Sepsis(Task):
        def __init__(self, records: str) -> None:
            self._train, self._held_out = read_stays(records)

        def model(self) -> nn.Module:
            return nn.Sequential(nn.Linear(40, 64), nn.ReLU(), nn.Linear(64, 1))

        def train_data(self) -> Dataset[Batch]:
            return self._train

        def held_out_data(self) -> Dataset[Batch]:
            return self._held_out

        def loss(self, model: nn.Module, batch: Batch) -> Tensor:
            vitals, died = batch
            return binary_cross_entropy_with_logits(model(vitals).squeeze(1), died)

and in that package's pyproject.toml, so that `task: sepsis` finds it:

    [project.entry-points."fedward.tasks"]
    sepsis = "our_hospital.sepsis:Sepsis"
"""

import hashlib
import inspect
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sized
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn
from torch.utils.data import Dataset

from edge_agent.training.metrics import Sums, mean_loss
from fedward.errors import ConfigError
from fedward.layout import Layout

TASK_GROUP = "fedward.tasks"
"""The entry-point group in which installed packages offer their tasks."""

SOURCES = (".py", ".yaml")
"""Suffixes of the files whose content decides what a task does."""

Batch = Any
"""What torch's default collation makes of the dataset's items: a tensor, or tuples, lists and dicts of them."""


class Task(ABC):
    """One thing to learn, and one hospital's records of it.

    The constructor takes keyword options from the site's config file, as plain Python values, and raises
    ConfigError for any that it cannot use. It should be quick: `model` is also asked for where there are no records.
    """

    @abstractmethod
    def model(self) -> nn.Module:
        """A fresh model on the CPU. Its architecture must not depend on the records: all sites must agree on it."""

    @abstractmethod
    def train_data(self) -> Dataset[Batch]:
        """The records to train on: a dataset with a length and an index. Raises ConfigError if they can't be read."""

    @abstractmethod
    def held_out_data(self) -> Dataset[Batch]:
        """Records that are never trained on, for measuring. Raises ConfigError if they can't be read."""

    @abstractmethod
    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The mean loss over the batch, a scalar. The batch lies on the model's device."""

    def metrics(self, model: nn.Module, batches: Iterable[Batch]) -> Sums:
        """Metric name -> (numerator, denominator), which add up over sites; names of a-z, 0-9 and '-'.

        These numbers leave the hospital. `batches` can be read once. Unless overridden: the mean loss.
        """
        return mean_loss(self.loss, model, batches)


def num_records(records: Dataset[Batch]) -> int:
    """Length of a dataset, which torch's own type does not promise."""
    return len(cast(Sized, records))


def load_task(name: str, options: Mapping[str, object]) -> Task:
    """The installed task of this name, built with the site's options.

    Raises ConfigError for a task that is not installed (the message lists those that are), for an option that
    it does not know or lacks, and for whatever the task itself finds wrong. No option's value is in the message
    unless the task puts it there.
    """
    factory = _installed(name).load()
    accepted = inspect.signature(factory)
    try:
        accepted.bind(**options)
    except TypeError as error:
        known = ", ".join(accepted.parameters) or "none"
        raise ConfigError(f"task {name}: {error}; its options are: {known}") from error
    task = factory(**options)
    if not isinstance(task, Task):
        raise ConfigError(f"task {name}: its entry point makes a {type(task).__name__}, expected a Task")
    return task


@dataclass(frozen=True)
class Installed:
    """What brings a task: the package with its release, and a digest of the task's own source, hexadecimal."""

    release: str
    source_digest: str

    def task_digest(self, layout: Layout) -> str:
        """SHA-256, hexadecimal, over source, release and the model's layout: what a hospital's policy names it by."""
        return hashlib.sha256(json.dumps([self.source_digest, self.release, layout.digest.hex()]).encode()).hexdigest()


def installed(name: str) -> Installed:
    """What brings this task. Raises ConfigError for a task that is not installed."""
    entry_point = _installed(name)
    package = entry_point.dist
    return Installed(f"{package.name} {package.version}" if package else "", source_digest(entry_point))


def source_digest(entry_point: EntryPoint) -> str:
    """SHA-256, hexadecimal, over the entry point and the source files that the task's module lies among.

    These are the module's own file, or where it is part of a package, every .py and .yaml file in its folder. Other
    code that they import is named by the release only. Raises ConfigError for a module that is no file.
    """
    spec = find_spec(entry_point.module)
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():
        raise ConfigError(f"task {entry_point.name}: the source of {entry_point.module} is not there to be digested")
    origin = Path(spec.origin)
    files = [path for path in origin.parent.iterdir() if path.suffix in SOURCES] if spec.parent else [origin]
    digests = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    return hashlib.sha256(json.dumps([entry_point.value, sorted(digests.items())]).encode()).hexdigest()


def _installed(name: str) -> EntryPoint:
    offered = entry_points(group=TASK_GROUP)
    if name not in offered.names:
        raise ConfigError(f"task {name!r} is not installed; installed: {', '.join(sorted(offered.names)) or 'none'}")
    return offered[name]
