"""Metrics as (numerator, denominator), so that the coordinator may add them up over sites without seeing a record.

In shapes, N counts records.
"""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

Sums = dict[str, tuple[float, float]]
"""Metric name -> (numerator, denominator)."""


def binary_metrics(scores: npt.ArrayLike, labels: npt.ArrayLike, threshold: float = 0.5) -> Sums:
    """Accuracy and AUC of (N,) scores for (N,) labels in {0, 1}; a score above `threshold` predicts 1.

    accuracy = (correct, N). auc = (concordant pairs + half the ties, positives * negatives), the Mann-Whitney
    statistic: pairs are formed within the site only, so over sites it is the pair-weighted mean of their AUCs
    and not the AUC of the pooled records. A site with one class only has (0, 0): it adds nothing. The auc's
    denominator together with N tells how many of the held-out records are positive, and nothing else of them.
    Raises ValueError for lengths that differ or another label.

    >>> binary_metrics([0.1, 0.6, 0.6, 0.9], [0, 0, 1, 1])
    {'accuracy': (3.0, 4.0), 'auc': (3.5, 4.0)}
    """
    score, label = np.asarray(scores, np.float64), np.asarray(labels)
    if score.shape != label.shape or score.ndim != 1:
        raise ValueError(f"got scores {score.shape} and labels {label.shape}, expected (N,) twice")
    if not np.isin(label, (0, 1)).all():
        raise ValueError("labels must be 0 or 1")
    positive = label == 1
    correct = np.count_nonzero((score > threshold) == positive)
    return {"accuracy": (float(correct), float(score.size)), "auc": _concordance(score, positive)}


def mean_loss(loss: Callable[[nn.Module, Any], Tensor], model: nn.Module, batches: Iterable[Any]) -> Sums:
    """{"loss": (sum over records, records)} of a loss that is a mean over its batch."""
    total, count = 0.0, 0
    for batch in batches:
        size = batch_size(batch)
        total += float(loss(model, batch)) * size
        count += size
    return {"loss": (total, float(count))}


def batch_size(batch: Any) -> int:
    """Records of a collated batch: the length of its first tensor. Raises ValueError if it holds none."""
    if isinstance(batch, Tensor):
        return len(batch)
    parts = batch.values() if isinstance(batch, dict) else batch
    if isinstance(parts, str | bytes) or not isinstance(parts, Iterable):
        raise ValueError(f"a batch of {type(batch).__name__} holds no tensor")
    return batch_size(next(iter(parts), None))


def gather(outputs: Iterable[Tensor]) -> Tensor:
    """Per-batch tensors -> one float32 tensor on the CPU, along the first axis; empty for none."""
    collected = [output.detach().float().cpu() for output in outputs]
    return torch.cat(collected) if collected else torch.empty(0)


def _concordance(scores: npt.NDArray[np.float64], positive: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """Pairs (positive, negative) in the right order, ties as half; and all such pairs. O(N log N)."""
    num_positive = int(np.count_nonzero(positive))
    _, group, counts = np.unique(scores, return_inverse=True, return_counts=True)
    mean_rank = np.cumsum(counts) - (counts - 1) / 2  # of each group of equal scores, from 1
    rank_sum = float(mean_rank[group][positive].sum())
    concordant = rank_sum - num_positive * (num_positive + 1) / 2
    return concordant, float(num_positive * (scores.size - num_positive))
