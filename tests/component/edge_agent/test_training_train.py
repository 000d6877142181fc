"""Local training and evaluation on a tiny task, on the CPU."""

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

from edge_agent.training.encode import encode
from edge_agent.training.evaluate import evaluate
from edge_agent.training.metrics import Sums
from edge_agent.training.module import initial_model
from edge_agent.training.order import Shuffled
from edge_agent.training.task import Batch, Task
from edge_agent.training.tasks.tabular import breast_cancer
from edge_agent.training.train import FailureKind, Progress, Trained, TrainingFailed, TrainingStopped, train
from fedward.codec import CODECS, decode
from fedward.errors import ConfigError
from fedward.layout import QUANTIZED_FROM, Vector
from fedward.messages import LocalOptimizer, Ratio, Work
from tests.support.hospital import CPU


class Line(Task):
    """y = 2x + 1 by least squares; `broken` replaces the loss."""

    def __init__(self, records: int = 20, broken: Callable[[Tensor], Tensor] = lambda loss: loss) -> None:
        inputs = torch.linspace(-1, 1, records)[:, None]
        self.records = TensorDataset(inputs, 2 * inputs + 1)
        self.broken = broken

    def model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(1, 4), nn.Dropout(0.1), nn.Linear(4, 1))

    def train_data(self) -> Dataset[Batch]:
        return self.records

    def held_out_data(self) -> Dataset[Batch]:
        return self.records

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        inputs, targets = batch
        return self.broken(((model(inputs) - targets) ** 2).mean())


def run(
    task: Task,
    work: Work,
    *,
    seed: int = 1,
    share: float = 1.0,
    min_examples: int = 1,
    on_step: Callable[[Progress], None] = lambda _: None,
    stop: threading.Event | None = None,
) -> tuple[Vector, Trained]:
    layout, vector_P = initial_model(task, seed=0)
    delta_P, trained = train(
        task, layout, vector_P, work,
        capability=CPU, seed=seed, share=share, min_examples=min_examples,
        on_step=on_step, stop=stop or threading.Event(),
    )  # fmt: skip
    return delta_P.numpy(), trained


def sgd(**changes: object) -> Work:
    return Work(**{"local_epochs": 2, "batch_size": 5, "local_lr": 0.05, **changes})  # type: ignore[arg-type]


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not() -> None:
    first, again, other = (run(Line(), sgd(), seed=seed)[0].tobytes() for seed in (3, 3, 4))
    assert first == again
    assert first != other


def test_training_for_the_asked_epochs_reports_steps_examples_and_time() -> None:
    seen: list[Progress] = []
    delta_P, trained = run(Line(records=20), sgd(local_epochs=3), on_step=seen.append)
    assert (trained.num_steps, trained.num_examples) == (12, 20)
    assert [progress.step for progress in seen] == list(range(1, 13))
    assert all(progress.num_steps == 12 for progress in seen)
    assert trained.train_loss == pytest.approx(np.mean([progress.loss for progress in seen]))
    assert trained.work_s >= sum(progress.step_s for progress in seen)
    assert delta_P.dtype == np.float32


@pytest.mark.parametrize("optimizer", list(LocalOptimizer))
def test_each_optimizer_lowers_the_loss(optimizer: LocalOptimizer) -> None:
    seen: list[Progress] = []
    run(Line(), sgd(local_epochs=30, optimizer=optimizer), on_step=seen.append)
    assert seen[-1].loss < seen[0].loss / 2


def test_plain_sgd_moves_by_the_learning_rate_times_the_gradient() -> None:
    class Straight(Line):
        def model(self) -> nn.Module:
            return nn.Linear(1, 1)

    task = Straight(records=5)
    _, (bias, weight) = initial_model(task, seed=0)
    inputs, targets = (tensor.numpy().ravel() for tensor in task.records.tensors)
    errors = weight * inputs + bias - targets
    expected = [-0.05 * 2 * errors.mean(), -0.05 * 2 * (errors * inputs).mean()]
    delta_P, _ = run(task, sgd(local_epochs=1))
    np.testing.assert_allclose(delta_P, expected, rtol=1e-5)


def test_weight_decay_and_momentum_reach_the_optimizer() -> None:
    plain, _ = run(Line(), sgd())
    assert not np.array_equal(plain, run(Line(), sgd(momentum=0.9))[0])
    assert not np.array_equal(plain, run(Line(), sgd(weight_decay=0.1))[0])


@pytest.mark.parametrize("bound", [{"max_steps": 1}, {"max_seconds": 0.001}])
@pytest.mark.parametrize(("batch_size", "num_steps"), [(1, 12), (5, 3), (20, 1)])
def test_no_order_makes_an_update_of_fewer_records_than_the_hospital_allows(
    bound: dict[str, object], batch_size: int, num_steps: int
) -> None:
    """An update of one record tells the record: its gradient in the first layer is the record, times a number."""
    slow = Line(broken=lambda loss: (time.sleep(0.002), loss)[1])
    told: list[Progress] = []
    _, trained = run(slow, sgd(batch_size=batch_size, **bound), min_examples=12, on_step=told.append)
    assert trained.num_steps == num_steps
    assert told[-1].step <= told[-1].num_steps


def test_max_steps_cuts_training_short() -> None:
    assert run(Line(), sgd(local_epochs=100, max_steps=7))[1].num_steps == 7


def test_a_time_limit_that_is_over_at_once_still_allows_one_step() -> None:
    class Slow(Line):
        def train_data(self) -> Dataset[Batch]:
            threading.Event().wait(0.002)  # longer than the limit
            return self.records

    assert run(Slow(), sgd(max_seconds=0.001))[1].num_steps == 1


def test_a_smaller_share_makes_training_take_longer_and_changes_no_byte() -> None:
    whole_P, whole = run(Line(), sgd(local_epochs=10))
    tenth_P, tenth = run(Line(), sgd(local_epochs=10), share=0.1)
    assert tenth.work_s > 3 * whole.work_s
    assert tenth_P.tobytes() == whole_P.tobytes()


def test_a_stop_during_a_pause_ends_it_at_once() -> None:
    stop = threading.Event()
    timer = threading.Timer(0.02, stop.set)
    started_s = time.monotonic()
    with pytest.raises(TrainingStopped):
        # A share of a millionth: the pause after a step of 0.2 ms is minutes long.
        run(Line(), sgd(local_epochs=10_000), share=1e-6, stop=stop, on_step=lambda _: timer.start())
    assert time.monotonic() - started_s < 5


def test_a_stop_during_a_step_ends_training_after_that_step() -> None:
    stop, seen = threading.Event(), list[Progress]()

    def stop_at_three(progress: Progress) -> None:
        seen.append(progress)
        if progress.step == 3:
            stop.set()

    with pytest.raises(TrainingStopped):
        run(Line(), sgd(), stop=stop, on_step=stop_at_three)
    assert len(seen) == 3


@pytest.mark.parametrize("share", [0.0, -0.5, 1.5, float("nan")])
def test_a_share_out_of_bounds_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="share"):
        run(Line(), sgd(), share=share)


@pytest.mark.parametrize("factor", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_fails_and_tells_no_value(factor: float) -> None:
    with pytest.raises(TrainingFailed) as caught:
        run(Line(broken=lambda loss: loss * factor), sgd())
    assert caught.value.kind is FailureKind.NOT_FINITE
    assert str(caught.value) == "training failed: not_finite"


def test_a_delta_that_is_not_finite_fails_though_the_loss_was_finite() -> None:
    with pytest.raises(TrainingFailed) as caught:
        run(Line(broken=lambda loss: loss * 1e36), sgd(max_steps=1, local_lr=1e6))
    assert caught.value.kind is FailureKind.NOT_FINITE


def test_the_gradients_are_gone_when_the_delta_is_made_of_which_a_gpu_has_no_room_for_both() -> None:
    class Watched(nn.Linear):
        def state_dict(self, *args: Any, **kwargs: Any) -> Any:  # each reading of the model begins with this
            with_gradients.append(self.weight.grad is not None)
            return super().state_dict(*args, **kwargs)

    class Watching(Line):
        def model(self) -> nn.Module:
            return Watched(1, 1)

    with_gradients: list[bool] = []
    steps: list[int] = []
    run(Watching(), sgd(max_steps=1), on_step=lambda _: steps.append(len(with_gradients)))
    assert len(with_gradients) > steps[0]
    assert not any(with_gradients[steps[0] :])


def test_batchnorm_statistics_small_and_tied_weights_travel_alike_under_every_codec() -> None:
    class Model(nn.Module):
        """A weight that is quantized, tied to another name; what is exact; what does not travel."""

        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.Linear(64, 64)
            self.norm = nn.BatchNorm1d(64)
            self.decoder = nn.Linear(64, 64, bias=False)
            self.decoder.weight = self.encoder.weight
            self.frozen = nn.Linear(64, 64).requires_grad_(False)
            self.head = nn.Linear(64, 1)

        def forward(self, inputs: Tensor) -> Tensor:
            return self.head(self.frozen(self.decoder(self.norm(self.encoder(inputs.expand(-1, 64))))))

    class Deep(Line):
        def model(self) -> nn.Module:
            return Model()

    layout, _ = initial_model(Deep(), seed=0)
    assert layout.size == 64 * 64 + (64 + 2 * 64 + 64 + 1) + 2 * 64  # the tied weight once; nothing frozen, no integer
    delta_P, _ = run(Deep(), sgd())
    before = dict(layout.split(delta_P))
    for name, known in CODECS.items():
        payload = encode(torch.from_numpy(delta_P), layout, name, b"seed")
        for tensor, arrived in layout.split(decode(payload, known, layout, b"seed")):
            if tensor.size < QUANTIZED_FROM:
                assert arrived.tobytes() == before[tensor].tobytes(), (name, tensor.name)
                assert arrived.any(), f"{tensor.name} did not move"


def test_an_exception_of_the_task_is_told_by_its_class_only() -> None:
    def raise_with_a_record(loss: Tensor) -> Tensor:
        raise KeyError("patient 4711")

    with pytest.raises(TrainingFailed) as caught:
        run(Line(broken=raise_with_a_record), sgd())
    assert caught.value.kind is FailureKind.EXCEPTION
    assert caught.value.exception_class == "KeyError"
    assert "4711" not in str(caught.value)
    assert caught.value.__suppress_context__, "a printed traceback would show the record"


def test_an_exception_of_the_caller_is_not_blamed_on_the_task() -> None:
    def raise_here(_: Progress) -> None:
        raise KeyError("ours")

    with pytest.raises(KeyError, match="ours"):
        run(Line(), sgd(), on_step=raise_here)


def test_a_vector_of_another_layout_is_refused() -> None:
    layout, vector_P = initial_model(breast_cancer(), seed=0)
    with pytest.raises(ValueError, match="layout"):
        train(
            Line(), layout, vector_P, sgd(),
            capability=CPU, seed=1, on_step=lambda _: None, stop=threading.Event(),
        )  # fmt: skip
    with pytest.raises(ValueError, match="layout"):
        evaluate(Line(), layout, vector_P, CPU)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, MemoryError])
def test_running_out_of_memory_is_a_kind_of_its_own(error: type[Exception]) -> None:
    def out_of_memory(loss: Tensor) -> Tensor:
        raise error("tried to allocate")

    with pytest.raises(TrainingFailed) as caught:
        run(Line(broken=out_of_memory), sgd())
    assert caught.value.kind is FailureKind.OUT_OF_MEMORY


def test_a_site_without_records_is_told_so() -> None:
    with pytest.raises(ConfigError, match="no records"):
        run(Line(records=0), sgd())


def test_a_last_batch_of_one_record_is_left_out() -> None:
    assert [len(batch) for batch in Shuffled(11, 5, seed=1).epoch(0)] == [5, 5]


def test_evaluation_without_metrics_of_its_own_gives_the_mean_loss_over_records() -> None:
    task = Line(records=300)  # more than one batch of evaluation, of unequal sizes
    layout, vector_P = initial_model(task, seed=0)
    weights = {tensor.name: view for tensor, view in layout.split(vector_P)}
    inputs, targets = (tensor.numpy() for tensor in task.records.tensors)
    outputs = (inputs @ weights["0.weight"].T + weights["0.bias"]) @ weights["2.weight"].T + weights["2.bias"]
    count, metrics = evaluate(task, layout, vector_P, CPU)
    assert count == 300
    assert metrics["loss"].denominator == 300
    assert metrics["loss"].numerator == pytest.approx(float(((outputs - targets) ** 2).sum()), rel=1e-4)


def test_evaluation_of_no_records_gives_nothing() -> None:
    task = Line(records=0)
    assert evaluate(task, *initial_model(task, seed=0), CPU) == (0, {})


def test_a_metric_that_is_not_finite_is_a_failure() -> None:
    class Broken(Line):
        def metrics(self, model: nn.Module, batches: object) -> Sums:
            return {"loss": (float("nan"), 1.0)}

    with pytest.raises(TrainingFailed):
        evaluate(Broken(), *initial_model(Broken(), seed=0), CPU)


def test_metrics_of_a_task_become_ratios() -> None:
    class Counted(Line):
        def metrics(self, model: nn.Module, batches: object) -> Sums:
            return {"training": (float(model.training), 1.0), "gradients": (float(torch.is_grad_enabled()), 1.0)}

    _, metrics = evaluate(Counted(), *initial_model(Counted(), seed=0), CPU)
    assert metrics["training"] == metrics["gradients"] == Ratio(numerator=0.0, denominator=1.0)
