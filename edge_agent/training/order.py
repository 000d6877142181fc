"""In which order records are trained on: the batch of any step is known without the ones before it."""

import math
from collections.abc import Iterator
from itertools import count

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from edge_agent.training.task import Batch
from fedward.errors import ConfigError


class Shuffled:
    """Batches of record numbers, epoch after epoch, each in an order that seed and epoch alone fix.

    So the batch of any step is known without the ones before. Raises ConfigError for no records.
    """

    def __init__(self, num_examples: int, batch_size: int, seed: int) -> None:
        if num_examples == 0:
            raise ConfigError("the site has no records to train on")
        self._num_examples = num_examples
        self._batch_size = batch_size
        self._seed = seed
        # BatchNorm can't train on one record: when the last batch would hold only one, each epoch leaves one out.
        lonely = num_examples > batch_size > 1 and num_examples % batch_size == 1
        self.num_batches = math.ceil(num_examples / batch_size) - lonely  # of an epoch

    def epoch(self, number: int) -> list[list[int]]:
        """The batches of one epoch, in order."""
        order = np.random.default_rng((self._seed, number)).permutation(self._num_examples).tolist()
        starts = range(0, self.num_batches * self._batch_size, self._batch_size)
        return [order[start : start + self._batch_size] for start in starts]


class FromStep(Sampler[list[int]]):
    """The batches from a step on, without end."""

    def __init__(self, order: Shuffled, step: int) -> None:
        self._order = order
        self._step = step

    def __iter__(self) -> Iterator[list[int]]:
        first, done = divmod(self._step, self._order.num_batches)
        yield from self._order.epoch(first)[done:]
        for number in count(first + 1):
            yield from self._order.epoch(number)


def loader(records: Dataset[Batch], order: Shuffled, start: int) -> DataLoader[Batch]:
    """The batches from step `start` on; those before are not read. Draws from no generator that training uses."""
    return DataLoader(
        records,
        batch_sampler=FromStep(order, start),
        generator=torch.Generator(),
        num_workers=0,  # forking from a thread of the agent is unsafe
    )
