"""Yes or no from a table of records: a small network over the inputs that a column map describes.

In shapes: F inputs of the model, B records of a batch.
"""

from collections.abc import Iterable
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.data import Dataset, TensorDataset

from edge_agent.training.metrics import Sums, binary_metrics, gather
from edge_agent.training.task import Batch, Task
from edge_agent.training.tasks.columns import load_column_map
from edge_agent.training.tasks.options import existing_path, fraction, raise_if_any, split_order
from edge_agent.training.tasks.table import read_table
from fedward.errors import ConfigError


class TabularTask(Task):
    """Binary classification of a CSV or Parquet table.

    `columns` is a shipped column map's name or a map's path. `train` is the file with the records. `held_out` is
    another file, or the fraction of `train` to hold out (the same records at every start, chosen at random).
    Without `train` or `held_out` there is a model but no records of that sort. Each file is read once, when it is
    first asked for.
    Raises ConfigError with every problem of the options.
    """

    def __init__(
        self, columns: str | Path, train: str | Path | None = None, held_out: str | Path | float = 0.25
    ) -> None:
        self._columns = load_column_map(columns)
        problems: list[str] = []
        self._train_path = existing_path("train", train, problems)
        self._held_out_share: float | None = None  # None: the held-out records have a file of their own
        self._held_out_path: Path | None = None
        if isinstance(held_out, int | float):
            self._held_out_share = fraction("held_out", held_out, problems)
        else:
            self._held_out_path = existing_path("held_out", held_out, problems)
        raise_if_any(problems)

    def model(self) -> nn.Module:
        """A multilayer perceptron with one logit: (B, F) -> (B, 1)."""
        widths = [self._columns.num_inputs, *self._columns.hidden]
        hidden = [layer for wide in pairwise(widths) for layer in (nn.Linear(*wide), nn.ReLU())]
        return nn.Sequential(*hidden, nn.Linear(widths[-1], 1))

    def train_data(self) -> Dataset[Batch]:
        return self._records[0]

    def held_out_data(self) -> Dataset[Batch]:
        return self._records_held_out

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        inputs, labels = batch
        return binary_cross_entropy_with_logits(model(inputs).squeeze(1).float(), labels)

    def metrics(self, model: nn.Module, batches: Iterable[Batch]) -> Sums:
        """Loss, accuracy and AUC."""
        outputs = [(model(inputs).squeeze(1), labels) for inputs, labels in batches]
        logits, labels = gather(logits for logits, _ in outputs), gather(labels for _, labels in outputs)
        total = binary_cross_entropy_with_logits(logits, labels, reduction="sum")
        return {"loss": (float(total), float(len(labels))), **binary_metrics(logits, labels, threshold=0.0)}

    @cached_property
    def _records(self) -> tuple[TensorDataset, TensorDataset]:
        """The file `train`: what is trained on, and what of it is held out."""
        whole = self._read(self._train_path, "train")
        held_out, train = split_order(len(whole), self._held_out_share or 0.0)
        return TensorDataset(*whole[train]), TensorDataset(*whole[held_out])

    @cached_property
    def _records_held_out(self) -> TensorDataset:
        if self._held_out_share is None:
            return self._read(self._held_out_path, "held_out")
        return self._records[1]

    def _read(self, path: Path | None, option: str) -> TensorDataset:
        if path is None:
            raise ConfigError(f"option {option} is not set: there are no records to read")
        inputs, labels = read_table(path, self._columns, option)
        return TensorDataset(torch.from_numpy(inputs), torch.from_numpy(labels))


def breast_cancer(train: str | Path | None = None, held_out: str | Path | float = 0.25) -> TabularTask:
    """Malignant or benign, from 30 measurements of cell nuclei (Wisconsin Diagnostic Breast Cancer)."""
    return TabularTask("breast-cancer", train, held_out)


def heart_disease(train: str | Path | None = None, held_out: str | Path | float = 0.25) -> TabularTask:
    """Coronary heart disease or none, from the 13 features of the UCI Heart Disease records."""
    return TabularTask("heart-disease", train, held_out)
