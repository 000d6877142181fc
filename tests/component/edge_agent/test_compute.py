"""The compute thread: one job at a time, each with one event, the same update always the same bytes."""

import queue
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edge_agent.compute import RECENT_STEPS, Compute, as_sent
from edge_agent.jobs import Encoded, Evaluated, EvaluateJob, Failed, TrainJob
from edge_agent.training.checkpoint import CheckpointFile
from edge_agent.training.failures import FailureKind, TrainingFailed
from edge_agent.training.module import initial_model
from edge_agent.training.task import Batch
from edge_agent.training.train import train
from fedward.codec import codec, decode
from fedward.errors import ConfigError
from fedward.identity.names import update_seed
from fedward.layout import vector_digest
from fedward.messages import Evaluation, Ratio, Work
from tests.support.hospital import CPU, Tiny

WORK = Work(local_epochs=2, batch_size=4, local_lr=0.1)


@pytest.fixture
def event_of(hospital: Any) -> Callable[..., Any]:
    """Run one job and return its event."""
    hospital.take_events()

    def run(job: TrainJob | EvaluateJob) -> Any:
        hospital.compute.begin(job)
        return hospital.inbox.get(timeout=10)

    return run


def train_job(hospital: Any, **changes: Any) -> TrainJob:
    fields = {
        "task": "tiny",
        "version": 3,
        "vector_P": hospital.office.vector_P,
        "base_digest": vector_digest(hospital.office.vector_P),
        "work": WORK,
        "codec": "eden4",
        "update_id": bytes(32),
        "share": 1.0,
    }
    return TrainJob(**{**fields, **changes})


def evaluate_job(hospital: Any) -> EvaluateJob:
    vector_P = hospital.office.vector_P
    return EvaluateJob("tiny", "ward", 3, vector_P, vector_digest(vector_P))


def test_training_ends_in_the_encoded_delta(hospital: Any, event_of: Callable[..., Any]) -> None:
    done = event_of(job := train_job(hospital))
    assert isinstance(done, Encoded)
    assert done.job == job
    decoded_P = decode(done.payload, codec("eden4"), hospital.office.layout, bytes(32))
    delta_P, _ = train(
        hospital.task, hospital.office.layout, job.vector_P, WORK,
        capability=CPU, seed=0, on_step=lambda _: None, stop=threading.Event(),
    )  # fmt: skip
    np.testing.assert_array_equal(decoded_P, delta_P.numpy())  # three parameters travel exactly
    assert hospital.compute.last_step.step == done.trained.num_steps == 4
    assert hospital.compute.step_s > 0


def test_the_same_id_is_the_same_bytes_and_another_id_is_not(hospital: Any, event_of: Callable[..., Any]) -> None:
    payloads = [event_of(train_job(hospital, update_id=id_)).payload for id_ in (bytes(32), bytes(32), b"1" * 32)]
    assert payloads[0] == payloads[1] != payloads[2]


def test_only_the_recent_steps_are_told(hospital: Any, event_of: Callable[..., Any]) -> None:
    event_of(train_job(hospital, work=Work(local_epochs=2 * RECENT_STEPS, batch_size=8, local_lr=0.0)))
    assert hospital.compute.last_step.step == 2 * RECENT_STEPS
    assert 0 < hospital.compute.step_s < 10


def test_an_evaluation_is_sums_and_counts(hospital: Any, event_of: Callable[..., Any]) -> None:
    measured = event_of(evaluate_job(hospital))
    assert isinstance(measured, Evaluated)
    assert measured.evaluation is not None
    assert measured.evaluation.num_examples == 8
    assert measured.evaluation.model_digest == vector_digest(hospital.office.vector_P)
    assert measured.evaluation.metrics["loss"].denominator == 8


@pytest.mark.parametrize("attribute", ["held_out", "measured"])
def test_without_records_or_metrics_there_is_nothing_to_tell(
    hospital: Any, event_of: Callable[..., Any], attribute: str
) -> None:
    setattr(hospital.task, attribute, {})
    job = evaluate_job(hospital)
    assert event_of(job) == Evaluated(job, None)


def raise_memory_error() -> None:
    raise MemoryError


def raise_config_error() -> None:
    raise ConfigError("records: a column is missing")


@pytest.mark.parametrize(
    ("fail", "kind"),
    [(raise_memory_error, FailureKind.OUT_OF_MEMORY), (raise_config_error, FailureKind.EXCEPTION)],
)
def test_a_failure_is_an_event_too(
    hospital: Any, event_of: Callable[..., Any], fail: Callable[[], None], kind: FailureKind
) -> None:
    hospital.task.before_loss = fail
    job = train_job(hospital)
    assert event_of(job) == Failed(job, kind)
    hospital.compute.check()


def test_training_that_runs_away_is_not_finite(hospital: Any, event_of: Callable[..., Any]) -> None:
    away = train_job(hospital, work=Work(local_epochs=50, batch_size=4, local_lr=1e6))
    assert event_of(away) == Failed(away, FailureKind.NOT_FINITE)


class Steep(Tiny):
    """4096 weights, each of which falls by 2e36 in a step: finite, and more than eden can bring back."""

    def model(self) -> nn.Module:
        return nn.Linear(4096, 1, bias=False)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        return 2e36 * next(model.parameters()).sum()


class Sloping(Tiny):
    """5000 weights, each of which falls by its own amount in a step."""

    slopes = torch.sin(torch.arange(5000.0))

    def model(self) -> nn.Module:
        return nn.Linear(5000, 1, bias=False)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        return (self.slopes * next(model.parameters())).sum()


class Fat(Tiny):
    """Its trained model finds no memory when it is read."""

    class Model(nn.Linear):
        def state_dict(self, *args: Any, **kwargs: Any) -> Any:
            if hasattr(self, "trained"):
                raise torch.OutOfMemoryError("tried to allocate 2.00 GiB for record 4711")
            return super().state_dict(*args, **kwargs)

    def model(self) -> nn.Module:
        return self.Model(2, 1)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        model.trained = True  # type: ignore[assignment]
        return super().loss(model, batch)


@pytest.mark.parametrize("name", ["eden4", "eden2"])
def test_the_delta_is_encoded_with_the_seed_that_its_codec_asks_for(hospital: Any, tmp_path: Path, name: str) -> None:
    events: queue.Queue[Any] = queue.Queue()
    checkpoints = CheckpointFile(tmp_path / "training", 3600.0)
    compute = Compute({"tiny": Sloping()}, {"tiny": "1"}, CPU, events.put, checkpoints)
    layout, vector_P = initial_model(Sloping(), seed=0)
    work = Work(local_epochs=1, batch_size=8, local_lr=1.0)
    compute.begin(train_job(hospital, vector_P=vector_P, work=work, codec=name))
    payload = events.get(timeout=10).payload
    decoded_P = decode(payload, codec(name), layout, update_seed(codec(name), 3, bytes(32)))
    delta_P = -Sloping.slopes.numpy()
    assert np.sum((decoded_P - delta_P) ** 2) < 0.2 * np.sum(delta_P**2)


@pytest.mark.parametrize(
    ("task", "kind"), [(Steep(), FailureKind.NOT_FINITE), (Fat(), FailureKind.OUT_OF_MEMORY)], ids=["steep", "fat"]
)
def test_a_training_whose_delta_cannot_be_encoded_has_failed(
    hospital: Any, tmp_path: Path, task: Tiny, kind: FailureKind
) -> None:
    events: queue.Queue[Any] = queue.Queue()
    compute = Compute({"tiny": task}, {"tiny": "1"}, CPU, events.put, CheckpointFile(tmp_path / "training", 3600.0))
    _, vector_P = initial_model(task, seed=0)
    job = train_job(hospital, vector_P=vector_P, work=Work(local_epochs=1, batch_size=8, local_lr=1.0))
    compute.begin(job)
    assert events.get(timeout=10) == Failed(job, kind)
    compute.check()


def test_every_job_runs_in_the_same_thread_which_ends_when_asked(hospital: Any, event_of: Callable[..., Any]) -> None:
    seen = list[threading.Thread]()
    hospital.task.before_loss = lambda: seen.append(threading.current_thread())
    for job in (train_job(hospital), evaluate_job(hospital), train_job(hospital)):
        event_of(job)
    assert len(seen) == 4 + 1 + 4
    assert len(set(seen)) == 1
    hospital.compute.stop(10.0)
    assert not seen[0].is_alive()


def test_a_job_that_is_done_is_not_kept_in_memory(hospital: Any, event_of: Callable[..., Any]) -> None:
    gone = threading.Event()
    job = train_job(hospital)
    weakref.finalize(job, gone.set)
    event_of(job)
    hospital.compute.taken()
    del job
    assert gone.wait(10)


def test_a_stopped_training_says_nothing(hospital: Any, event_of: Callable[..., Any]) -> None:
    in_step, may_go_on = threading.Event(), threading.Event()
    hospital.task.before_loss = lambda: in_step.set() or may_go_on.wait(10)
    hospital.compute.begin(train_job(hospital))
    assert in_step.wait(10)
    hospital.compute.stop(0.0)
    may_go_on.set()
    hospital.compute.stop(10.0)
    assert hospital.inbox.empty()
    hospital.compute.check()


@pytest.mark.parametrize(
    "metrics",
    [
        {"loss": Ratio(numerator=np.float32(1), denominator=1.0)},  # type: ignore[arg-type]
        {"Weber, 1951": Ratio(numerator=1.0, denominator=1.0)},
        {"loss": Ratio(numerator=1.0, denominator=-1.0)},
        {f"metric-{n}": Ratio(numerator=1.0, denominator=1.0) for n in range(40)},
        {"m" * 10_000: Ratio(numerator=1.0, denominator=1.0)},
    ],
)
def test_metrics_that_no_message_can_hold_fail_without_their_text(metrics: dict[str, Ratio]) -> None:
    with pytest.raises(TrainingFailed) as error:
        as_sent(Evaluation(federation="ward", version=1, num_examples=1, metrics=metrics))
    assert "Weber" not in str(error.value)
