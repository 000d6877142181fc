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

import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sized
from importlib.metadata import EntryPoint, entry_points
from typing import Any, cast

from torch import Tensor, nn
from torch.utils.data import Dataset

from edge_agent.training.metrics import Sums, mean_loss
from fedward.errors import ConfigError

TASK_GROUP = "fedward.tasks"
"""The entry-point group in which installed packages offer their tasks."""

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


def release_of(name: str) -> str:
    """The package that brings a task, and its release. Raises ConfigError for a task that is not installed."""
    package = _installed(name).dist
    return f"{package.name} {package.version}" if package else ""


def _installed(name: str) -> EntryPoint:
    offered = entry_points(group=TASK_GROUP)
    if name not in offered.names:
        raise ConfigError(f"task {name!r} is not installed; installed: {', '.join(sorted(offered.names)) or 'none'}")
    return offered[name]
