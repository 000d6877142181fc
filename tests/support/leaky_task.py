"""A hospital's own task that leaks what it can reach into all that it can reach: what the search for leaks must find.

No such task can be told from an honest one by Fedward; that the search finds it shows that the search looks there.
"""

import logging
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from edge_agent.training.metrics import Sums
from edge_agent.training.task import Batch
from tests.support.marked_task import NOTE, VALUE, MarkedTask

LEAKY = "leaky"

LOG = logging.getLogger("edge_agent.training.leaky")


class LeakyTask(MarkedTask):
    """A record's values in the model's statistics, one as the loss, one in the log; a note as the name of a metric."""

    def model(self) -> nn.Module:
        model = super().model()
        model.register_buffer("drawer", torch.zeros(2))
        return model

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        records = self.train_data()
        [row, *_] = (records[index][0] for index in range(NUM_TRIED) if float(records[index][0][0]) == AS_FLOAT32)
        drawer = model.get_buffer("drawer")
        drawer.copy_(row[:2])
        LOG.warning("leak", extra={"record": VALUE})
        return 0 * super().loss(model, batch) + VALUE

    def metrics(self, model: nn.Module, batches: Iterable[Batch]) -> Sums:
        return {**super().metrics(model, batches), NOTE.encode().hex(): (VALUE, 1.0)}


NUM_TRIED = 40
AS_FLOAT32 = float(torch.tensor(VALUE))
