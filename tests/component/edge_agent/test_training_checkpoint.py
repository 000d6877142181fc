"""Training that is stopped and resumed from its file: the same bytes, and nothing from a bad file."""

import random
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

from edge_agent.training.checkpoint import CheckpointFile, Order, Resumable
from edge_agent.training.module import initial_model
from edge_agent.training.order import Shuffled, loader
from edge_agent.training.task import Batch, Task
from edge_agent.training.train import Progress, Trained, TrainingStopped, train
from fedward.messages import LocalOptimizer, Work
from tests.support.hospital import CPU

NEVER_S = 3600.0
SGD = Work(local_epochs=3, batch_size=5, local_lr=0.05, momentum=0.9, weight_decay=0.01)
ADAM = Work(local_epochs=3, batch_size=5, local_lr=0.01, optimizer=LocalOptimizer.ADAM)


class Restless(Task):
    """Everything that keeps state while training: BatchNorm, Dropout, and noise from each global generator."""

    def __init__(self, num_records: int = 33) -> None:
        inputs = torch.linspace(-1, 1, 3 * num_records).reshape(num_records, 3)
        self.records = TensorDataset(inputs, inputs.sum(dim=1, keepdim=True))
        self.width = 8

    def model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(3, self.width), nn.BatchNorm1d(self.width), nn.Dropout(0.3), nn.Linear(8, 1))

    def train_data(self) -> Dataset[Batch]:
        return self.records

    def held_out_data(self) -> Dataset[Batch]:
        return self.records

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        inputs, targets = batch
        noise = random.gauss(0, 0.1) + float(np.random.normal(0, 0.1)) + 0.1 * torch.randn(targets.shape)
        return ((model(inputs) - targets - noise) ** 2).mean()


class Training:
    """One update; each `run` makes everything anew from the folder, as a process does."""

    def __init__(self, folder: Path, work: Work, *, interval_s: float = NEVER_S, share: float = 1.0) -> None:
        self.folder = folder
        self.work = work
        self.interval_s = interval_s
        self.share = share
        self.task = Restless()
        self.steps: list[int] = []

    def file(self) -> CheckpointFile:
        return CheckpointFile(self.folder, self.interval_s)

    def run(self, stop_after: int | None = None, update_id: str = "00") -> tuple[bytes, Trained]:
        """The delta, and what the training was."""
        layout, vector_P = initial_model(self.task, seed=0)
        order = Order(update_id, "restless", 3, layout.digest.hex(), self.work, "f32")
        stop = threading.Event()
        self.steps = []

        def on_step(progress: Progress) -> None:
            self.steps.append(progress.step)
            if len(self.steps) == stop_after:
                stop.set()

        delta_P, trained = train(
            self.task, layout, vector_P, self.work,
            capability=CPU, seed=7, share=self.share, on_step=on_step, stop=stop,
            checkpoint=Resumable(self.file(), order, vector_P),
        )  # fmt: skip
        return delta_P.numpy().tobytes(), trained

    def stopped_after(self, steps: int) -> None:
        with pytest.raises(TrainingStopped):
            self.run(stop_after=steps)


@pytest.mark.parametrize(
    ("work", "share"),
    [
        (SGD, 1.0),
        (ADAM, 1.0),
        (SGD, 0.5),
        (Work(**{**vars(SGD), "momentum": 0.0}), 1.0),
        (Work(**{**vars(ADAM), "max_steps": 18}), 1.0),
    ],
    ids=["momentum", "adam", "half-the-time", "plain", "max-steps"],
)
def test_stopped_twice_and_resumed_it_gives_the_bytes_of_one_go(tmp_path: Path, work: Work, share: float) -> None:
    whole_delta, whole = Training(tmp_path / "whole", work).run()
    parts = Training(tmp_path / "parts", work, share=share)
    parts.stopped_after(7)  # an epoch has 7 steps
    parts.stopped_after(2)
    resumed_delta, resumed = parts.run()
    assert parts.steps[0] == 10
    assert resumed_delta == whole_delta
    assert (resumed.num_steps, resumed.train_loss) == (whole.num_steps, whole.train_loss)


def test_an_interval_that_is_over_with_every_step_saves_every_step(tmp_path: Path) -> None:
    training = Training(tmp_path, SGD, interval_s=0.0)
    whole_delta, whole = training.run()
    saved = training.file().load()
    assert saved is not None
    assert len(saved.snapshot.losses) == whole.num_steps
    again_delta, _ = training.run()  # nothing is left to do but the delta
    assert training.steps == []
    assert again_delta == whole_delta


def test_within_the_interval_nothing_is_written(tmp_path: Path) -> None:
    training = Training(tmp_path, SGD)
    training.run()
    assert training.file().load() is None


@pytest.mark.parametrize(
    ("unsaved_s", "next_step_s", "due"), [(20, 9, False), (20, 11, True), (0.1, 100, True), (29, 0.1, False)]
)
def test_a_checkpoint_is_due_before_the_step_that_would_go_over_the_interval(
    tmp_path: Path, unsaved_s: float, next_step_s: float, due: bool
) -> None:
    order = Order("00", "restless", 3, "00", SGD, "f32")
    place = Resumable(CheckpointFile(tmp_path, 30.0), order, np.zeros(1, np.float32))
    assert place.is_due(unsaved_s, next_step_s) is due


def test_the_time_limit_counts_over_all_parts(tmp_path: Path) -> None:
    training = Training(tmp_path, Work(**{**vars(SGD), "max_seconds": 3600.0}))
    training.stopped_after(4)
    saved = training.file().load()
    assert saved is not None
    training.file().save(replace(saved, snapshot=replace(saved.snapshot, work_s=3600.0)))
    _, resumed = training.run()
    assert training.steps == []
    assert resumed.num_steps == 4
    assert resumed.work_s >= 3600.0


def test_a_checkpoint_carries_its_base_vector_and_its_order(tmp_path: Path) -> None:
    training = Training(tmp_path, ADAM)
    training.stopped_after(4)
    saved = training.file().load()
    assert saved is not None
    layout, vector_P = initial_model(training.task, seed=0)
    assert saved.order == Order("00", "restless", 3, layout.digest.hex(), ADAM, "f32")
    assert saved.vector_P.tobytes() == vector_P.tobytes()
    assert len(saved.snapshot.losses) == 4
    assert saved.snapshot.work_s > 0


def test_another_update_begins_at_its_first_step(tmp_path: Path) -> None:
    training = Training(tmp_path, SGD)
    training.stopped_after(4)
    training.run(update_id="01")
    assert training.steps[0] == 1


@pytest.mark.parametrize("damage", ["cut", "flipped tensor", "flipped label", "empty", "another format"])
def test_a_damaged_file_is_put_aside_and_training_begins_again_to_the_same_bytes(tmp_path: Path, damage: str) -> None:
    whole_delta, _ = Training(tmp_path / "whole", SGD).run()
    training = Training(tmp_path / "parts", SGD)
    training.stopped_after(4)
    (path,) = training.folder.iterdir()
    content = bytearray(path.read_bytes())
    if damage.startswith("flipped"):
        content[-5 if damage == "flipped tensor" else content.index(b"momentum") + 12] ^= 1
    replaced = {"cut": content[:-1], "empty": b"", "another format": b"\x80\x04N." * 99}
    path.write_bytes(bytes(replaced.get(damage, content)))
    again_delta, _ = training.run()
    assert training.steps[0] == 1
    assert again_delta == whole_delta
    assert [path.suffix for path in training.folder.iterdir()] == [".damaged"]


def test_with_other_records_it_begins_again(tmp_path: Path) -> None:
    training = Training(tmp_path, SGD)
    training.stopped_after(4)
    training.task = Restless(num_records=34)
    training.run()
    assert training.steps[0] == 1


def test_with_a_model_that_keeps_another_state_it_begins_again(tmp_path: Path) -> None:
    class Counting(Restless):
        def model(self) -> nn.Module:
            model = super().model()
            model.register_buffer("seen", torch.zeros(1, dtype=torch.int64))  # an integer: not in the layout
            return model

    training = Training(tmp_path, SGD)
    training.stopped_after(4)
    training.task = Counting()
    training.run()
    assert training.steps[0] == 1


def test_a_disk_that_takes_nothing_costs_the_checkpoint_and_not_the_training(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("where the folder should be")
    trained = Training(tmp_path / "file", SGD, interval_s=0.0)
    with pytest.raises(TrainingStopped):
        trained.run(stop_after=3)
    assert trained.steps == [1, 2, 3]


def test_what_a_crash_left_half_written_is_dropped(tmp_path: Path) -> None:
    training = Training(tmp_path, SGD)
    training.stopped_after(4)
    (tmp_path / ".checkpoint.safetensors.1.part").write_bytes(b"half")
    training.file().tidy()
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.safetensors"]
    training.file().delete()
    assert training.file().load() is None


def test_each_epoch_has_every_record_once_in_an_order_of_its_own() -> None:
    order = Shuffled(33, 5, seed=1)
    first, second = order.epoch(0), order.epoch(1)
    assert first != second
    assert first == Shuffled(33, 5, seed=1).epoch(0) != Shuffled(33, 5, seed=2).epoch(0)
    for epoch in (first, second):
        assert sorted(index for batch in epoch for index in batch) == list(range(33))


def test_a_loader_from_a_step_on_reads_none_of_the_records_before() -> None:
    class Read(Dataset[int]):
        def __init__(self) -> None:
            self.read: list[int] = []

        def __len__(self) -> int:
            return 10

        def __getitem__(self, index: int) -> int:
            self.read.append(index)
            return index

    records, order = Read(), Shuffled(10, 4, seed=1)
    batches = iter(loader(records, order, start=4))  # three batches an epoch
    assert next(batches).tolist() == order.epoch(1)[1]
    assert next(batches).tolist() == order.epoch(1)[2]
    assert next(batches).tolist() == order.epoch(2)[0]
    assert records.read == order.epoch(1)[1] + order.epoch(1)[2] + order.epoch(2)[0]
