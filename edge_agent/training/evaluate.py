"""A version measured on the records that a site holds out: sums and counts, nothing of a record."""

import math

import torch
from torch.utils.data import DataLoader

from edge_agent.training.capability import Capability
from edge_agent.training.failures import FailureKind, TrainingFailed, failures_named
from edge_agent.training.metrics import Sums
from edge_agent.training.module import write_vector
from edge_agent.training.task import Task, num_records
from edge_agent.training.train import to_device
from fedward.layout import Layout, Vector
from fedward.messages import Ratio

EVALUATION_BATCH = 256
"""Records of a forward pass, which keeps no activations for a backward one."""


def evaluate(task: Task, layout: Layout, vector_P: Vector, capability: Capability) -> tuple[int, dict[str, Ratio]]:
    """(P,) float32 -> number of held-out records, and each metric of the task as a ratio; (0, {}) without records.

    Raises TrainingFailed for an exception of the task's code or a metric that is not finite, ConfigError for
    records that can't be read, ValueError for another layout.
    """
    with failures_named():
        records = task.held_out_data()
        count = num_records(records)
        if count == 0:
            return 0, {}
        model = task.model().to(capability.device).eval()
    write_vector(model, layout, vector_P)
    batches = (to_device(batch, capability.device) for batch in DataLoader(records, EVALUATION_BATCH))
    with failures_named(), torch.no_grad(), capability.autocast():
        return count, ratios(task.metrics(model, batches))


def ratios(sums: Sums) -> dict[str, Ratio]:
    """Sums as messages. Raises TrainingFailed (NOT_FINITE) for a NaN or an infinity among them."""
    if not all(math.isfinite(value) for pair in sums.values() for value in pair):
        raise TrainingFailed(FailureKind.NOT_FINITE)
    return {name: Ratio(numerator=top, denominator=bottom) for name, (top, bottom) in sums.items()}
