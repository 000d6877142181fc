"""The thread that measures, trains and encodes, so that the agent's loop never waits for a GPU.

One job at a time. What comes of it goes to the agent's inbox as an event; nothing is saved or sent from here.
"""

import logging
import statistics
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from edge_agent.training.capability import Capability
from edge_agent.training.evaluate import evaluate
from edge_agent.training.failures import FailureKind, TrainingFailed, TrainingStopped
from edge_agent.training.task import Task
from edge_agent.training.train import Progress as StepProgress
from edge_agent.training.train import Trained, train
from fedward.codec import codec
from fedward.errors import ConfigError
from fedward.layout import Layout, Vector
from fedward.messages import Evaluation, Work

LOG = logging.getLogger(__name__)

RECENT_STEPS = 20
"""Steps of which the median duration is told."""


@dataclass(frozen=True)
class Evaluated:
    """A version was measured; None where this site holds no records out."""

    version: int
    evaluation: Evaluation | None


@dataclass(frozen=True)
class Encoded:
    """A version was trained from, and the delta encoded."""

    base_version: int
    update_id: bytes
    codec: str
    trained: Trained
    payload: bytes


@dataclass(frozen=True)
class Failed:
    """The job ended without a result. `kind` is None when it was stopped on purpose."""

    version: int
    training: bool
    kind: FailureKind | None


ComputeEvent = Evaluated | Encoded | Failed


@dataclass(frozen=True)
class TrainJob:
    """Train from this version, and encode under this id."""

    version: int
    vector_P: Vector
    work: Work
    codec: str
    update_id: bytes
    share: float


@dataclass(frozen=True)
class EvaluateJob:
    """Measure this version."""

    federation: str
    version: int
    vector_P: Vector


class Compute:
    """Runs jobs; `deliver` is called from its thread with each event."""

    def __init__(
        self, task: Task, layout: Layout, capability: Capability, deliver: Callable[[ComputeEvent], None]
    ) -> None:
        self._task = task
        self._layout = layout
        self._capability = capability
        self._deliver = deliver
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._step_times_s: deque[float] = deque(maxlen=RECENT_STEPS)
        self.last_step: StepProgress | None = None

    @property
    def step_s(self) -> float | None:
        """Median duration of the recent steps, None before the first."""
        return statistics.median(self._step_times_s) if self._step_times_s else None

    def begin(self, job: TrainJob | EvaluateJob) -> None:
        """Start a job; the event of the one before must have been delivered."""
        if self._thread:
            self._thread.join()
        self.last_step = None
        self._thread = threading.Thread(target=self._run, args=(job,), name="compute", daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """Ask the running job to stop within a step and wait for it; training that was not finished is dropped."""
        self._stop.set()
        if self._thread:
            self._thread.join(timeout_s)

    def _run(self, job: TrainJob | EvaluateJob) -> None:
        try:
            event: ComputeEvent = self._train(job) if isinstance(job, TrainJob) else self._evaluate(job)
        except TrainingStopped:
            event = Failed(job.version, isinstance(job, TrainJob), None)
        except TrainingFailed as error:
            LOG.error("compute_failed", extra={"kind": error.kind, "exception_class": error.exception_class})
            event = Failed(job.version, isinstance(job, TrainJob), error.kind)
        except ConfigError as error:
            LOG.error("records_unusable", extra={"problem": str(error)})  # stays in the hospital's own log
            event = Failed(job.version, isinstance(job, TrainJob), FailureKind.EXCEPTION)
        self._deliver(event)

    def _evaluate(self, job: EvaluateJob) -> Evaluated:
        count, metrics = evaluate(self._task, self._layout, job.vector_P, self._capability)
        if count == 0 or not metrics:
            return Evaluated(job.version, None)
        evaluation = Evaluation(federation=job.federation, version=job.version, num_examples=count, metrics=metrics)
        return Evaluated(job.version, evaluation)

    def _train(self, job: TrainJob) -> Encoded:
        trained = train(
            self._task,
            self._layout,
            job.vector_P,
            job.work,
            capability=self._capability,
            seed=int.from_bytes(job.update_id[:7], "little"),  # the same update, trained again, is the same bytes
            share=job.share,
            on_step=self._on_step,
            stop=self._stop,
        )
        try:
            payload = codec(job.codec).encode(trained.delta_P, self._layout, job.update_id)
        except ValueError:  # finite, but too large for the codec: as useless as infinite
            raise TrainingFailed(FailureKind.NOT_FINITE) from None
        return Encoded(job.version, job.update_id, job.codec, trained, payload)

    def _on_step(self, progress: StepProgress) -> None:
        self._step_times_s.append(progress.step_s)
        self.last_step = progress
