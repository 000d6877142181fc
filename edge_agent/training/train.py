"""Local training: a version's vector and a site's records -> a delta. Reads from top to bottom.

Runs in a thread of the agent: it touches no signals and no globals but torch's seeds, so only one training at a time.
"""

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer

from edge_agent.training.capability import Capability
from edge_agent.training.checkpoint import Resumable
from edge_agent.training.failures import FailureKind, TrainingFailed, TrainingStopped, failures_named
from edge_agent.training.module import all_finite, read_delta, write_vector
from edge_agent.training.order import Shuffled, loader
from edge_agent.training.snapshot import Moving, seed_all
from edge_agent.training.task import Batch, Task, num_records
from fedward.layout import Layout, Vector
from fedward.limits import MAX_STEPS
from fedward.messages import LocalOptimizer, Work

LOG = logging.getLogger(__name__)

__all__ = ["FailureKind", "Progress", "Trained", "TrainingFailed", "TrainingStopped", "train"]


@dataclass(frozen=True)
class Progress:
    """After each step: `step` of at most `num_steps` is done; its loss, and its duration without the pause."""

    step: int
    num_steps: int
    loss: float
    step_s: float


@dataclass(frozen=True)
class Trained:
    """What a training was, beside its delta.

    `num_examples` is the size of the training set; `work_s` wall-clock, pauses included, without what crashes cost;
    `train_loss` the mean over the steps.
    """

    num_examples: int
    num_steps: int
    work_s: float
    train_loss: float


def train(  # noqa: PLR0913 - what to train (four), and the hospital's conditions by name; one caller
    task: Task,
    layout: Layout,
    vector_P: Vector,
    work: Work,
    *,
    capability: Capability,
    seed: int,
    share: float = 1.0,
    min_examples: int = 1,
    on_step: Callable[[Progress], None],
    stop: threading.Event,
    checkpoint: Resumable | None = None,
) -> tuple[Tensor, Trained]:
    """Train from `vector_P` for `work.local_epochs`, or until `max_steps` or `max_seconds`, but on `min_examples`
    records at least: of an update of one step on one record anybody could tell the record.

    `share` in (0, 1] is the part of the time that training may use: after each step it pauses so long that steps
    take that share. With fewer than `min_examples` records, which is 1 or more, it does not begin. On a CPU the same
    seed, inputs and number of threads give the same bytes, whatever the share, unless `max_seconds` cuts. The optimizer
    starts fresh.

    What is done is saved to `checkpoint` so often that a crash costs at most its interval, or one step if that is
    longer, and before TrainingStopped. With the same arguments it goes on from there, to the same bytes on a CPU;
    `max_seconds` counts over all parts. Without one, what a stop or a crash ends is lost.

    Raises TrainingStopped within one step of `stop` being set, at once in a pause; TrainingFailed for an exception
    of the task's code, too few records, or a loss or delta that is not finite; ConfigError for records that can't be
    read or a site without any; ValueError for a share out of bounds or another layout.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share must be in (0, 1], got {share}")
    started_s = time.monotonic()
    with failures_named():
        seed_all(seed)
        model = task.model().to(capability.device).train()
        records = task.train_data()
        order = Shuffled(num_records(records), work.batch_size, seed)
        if num_records(records) < min_examples:
            raise TrainingFailed(FailureKind.TOO_FEW_RECORDS)
    write_vector(model, layout, vector_P)
    optimizer = build_optimizer(model, work)
    moving = Moving(model, optimizer, capability.grad_scaler(), capability.device, num_records(records))
    descent = Descent(task, moving, capability, checkpoint, started_s)

    batches = iter(loader(records, order, start=descent.num_steps))
    least_steps = -(-min_examples // work.batch_size)
    num_steps = max(least_steps, min(work.local_epochs * order.num_batches, work.max_steps or MAX_STEPS))
    pause_s, max_s = 0.0, work.max_seconds or math.inf
    while descent.num_steps < least_steps or (descent.num_steps < num_steps and descent.work_s < max_s):
        if stop.wait(pause_s):
            descent.save()
            raise TrainingStopped(f"stopped after {descent.num_steps} of {num_steps} steps")
        step_s = descent.step(batches)
        on_step(Progress(descent.num_steps, num_steps, descent.losses[-1], step_s))
        descent.save_if_due(step_s / share)
        pause_s = (1 / share - 1) * step_s
    return descent.trained(layout, vector_P)


class Descent:
    """One training under way: the steps so far, the seconds that they took, and where they are saved.

    It begins with what was saved of this very update, if anything.
    """

    def __init__(
        self, task: Task, moving: Moving, capability: Capability, checkpoint: Resumable | None, started_s: float
    ) -> None:
        self._task = task
        self._moving = moving
        self._capability = capability
        self._checkpoint = checkpoint
        self.losses, worked_s = resumed(checkpoint, moving)
        self._started_s = started_s - worked_s
        self._saved_s = time.monotonic()

    @property
    def num_steps(self) -> int:
        return len(self.losses)

    @property
    def work_s(self) -> float:
        """Wall-clock of all parts of this training."""
        return time.monotonic() - self._started_s

    def step(self, batches: Iterator[Batch]) -> float:
        """One step on the next batch; its duration in seconds. Raises TrainingFailed."""
        started_s = time.monotonic()
        with failures_named():
            batch = to_device(next(batches), self._capability.device)
            with self._capability.autocast():
                loss = self._task.loss(self._moving.model, batch)
            self.losses.append(finite(loss.item()))  # waits for the GPU: the price of seeing a NaN in its own step
            descend(loss, self._moving.optimizer, self._moving.scaler)
        return time.monotonic() - started_s

    def save(self) -> None:
        """Make the steps so far durable, if there are any."""
        if self._checkpoint and self.losses:
            self._checkpoint.save(self._moving.take(self.losses, self.work_s))

    def save_if_due(self, next_step_s: float) -> None:
        if self._checkpoint and self._checkpoint.is_due(time.monotonic() - self._saved_s, next_step_s):
            self.save()
            self._saved_s = time.monotonic()  # not before: a slow disk must not turn every step into a checkpoint

    def trained(self, layout: Layout, vector_P: Vector) -> tuple[Tensor, Trained]:
        """What the steps brought, against the vector that they began with. Raises TrainingFailed (NOT_FINITE)."""
        self._moving.optimizer.zero_grad(set_to_none=True)  # the delta takes the gradients' place in a GPU's memory
        delta_P = read_delta(self._moving.model, layout, vector_P)
        if not all_finite(delta_P):
            raise TrainingFailed(FailureKind.NOT_FINITE)
        mean_loss = math.fsum(self.losses) / self.num_steps
        return delta_P, Trained(self._moving.num_examples, self.num_steps, self.work_s, mean_loss)


def resumed(checkpoint: Resumable | None, moving: Moving) -> tuple[list[float], float]:
    """Put back what was saved of this very update, if anything: its losses, and the seconds that they took."""
    snapshot = checkpoint.load() if checkpoint else None
    if snapshot is None:
        return [], 0.0
    if not moving.fits(snapshot):
        LOG.warning("checkpoint_does_not_fit")  # other records, another device, or another release of the task
        return [], 0.0
    moving.put(snapshot)
    LOG.info("training_resumed", extra={"step": len(snapshot.losses)})
    return list(snapshot.losses), snapshot.work_s


def descend(loss: Tensor, optimizer: Optimizer, scaler: torch.amp.GradScaler) -> None:
    """One step down the gradient. In fp16, a step whose scaled gradients overflowed is left out."""
    optimizer.zero_grad(set_to_none=True)
    scaler.scale(loss).backward()  # type: ignore[no-untyped-call] # torch leaves it untyped
    scaler.step(optimizer)
    scaler.update()


def build_optimizer(model: nn.Module, work: Work) -> Optimizer:
    """The optimizer that the announcement asks for, over the parameters that train."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if work.optimizer is LocalOptimizer.ADAM:
        return Adam(parameters, lr=work.local_lr, weight_decay=work.weight_decay)
    return SGD(parameters, lr=work.local_lr, momentum=work.momentum, weight_decay=work.weight_decay)


def to_device(batch: Batch, device: str) -> Any:
    """The batch with every tensor in it on the device; other values unchanged."""
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, dict):
        return {key: to_device(value, device) for key, value in batch.items()}
    if isinstance(batch, list | tuple):
        return [to_device(value, device) for value in batch]
    return batch


def finite(loss: float) -> float:
    """The loss itself. Raises TrainingFailed (NOT_FINITE) for a NaN or an infinity."""
    if not math.isfinite(loss):
        raise TrainingFailed(FailureKind.NOT_FINITE)
    return loss
