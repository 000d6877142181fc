"""The thread that assembles, measures, trains and encodes, so that the agent's loop never waits for a GPU or a disk.

One job at a time. What comes of it goes to the agent's inbox as an event; nothing is sent from here, and nothing saved
but the version that was assembled or made and the checkpoint of the training in progress.

It is the same thread for every job. MKL, which multiplies matrices for torch, keeps 64 bytes of each thread that ever
used it, in a table that doubles: a thread for each job was a leak, of 1 MB at once after 16,384 of them.
"""

import logging
import statistics
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from queue import SimpleQueue

from edge_agent.jobs import (
    Assembled,
    AssembleJob,
    ComputeEvent,
    Encoded,
    Evaluated,
    EvaluateJob,
    Failed,
    InitialJob,
    Job,
    Made,
    Paused,
    TaskJob,
    TrainJob,
    Unfit,
)
from edge_agent.models import Held
from edge_agent.training.capability import Capability
from edge_agent.training.checkpoint import CheckpointFile, Resumable
from edge_agent.training.encode import encode
from edge_agent.training.evaluate import evaluate
from edge_agent.training.failures import (
    FailureKind,
    TrainingFailed,
    TrainingStopped,
    failures_named,
    out_of_memory_named,
)
from edge_agent.training.module import initial_model, layout_of
from edge_agent.training.task import Installed, Task
from edge_agent.training.train import Progress as StepProgress
from edge_agent.training.train import train
from fedward.codec import codec
from fedward.errors import ConfigError, PeerError
from fedward.identity.names import update_seed
from fedward.identity.sealing import new_seal
from fedward.layout import Layout, vector_digest
from fedward.messages import Evaluation
from fedward.pack import pack, unpack

LOG = logging.getLogger(__name__)

RECENT_STEPS = 20
"""Steps of which the median duration is told."""


class Compute:
    """Runs the jobs of the allowed tasks; `deliver` is called from its thread with each event."""

    def __init__(
        self,
        tasks: Mapping[str, Task],
        installed: Mapping[str, Installed],
        capability: Capability,
        deliver: Callable[[ComputeEvent], None],
        checkpoints: CheckpointFile,
    ) -> None:
        self.layouts: Mapping[str, Layout] = {name: layout_of(task.model()) for name, task in tasks.items()}
        self.installed = installed
        """What brings a task, by task."""
        self.digests = {name: installed[name].task_digest(layout) for name, layout in self.layouts.items()}
        """By task, hexadecimal: see Installed.task_digest."""
        self.job: Job | None = None
        """The job that runs, or whose event was not taken yet."""
        self._tasks = tasks
        self._capability = capability
        self._deliver = deliver
        self._checkpoints = checkpoints
        self._leaving = False
        self._stop = threading.Event()  # of the job that runs
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()  # None: no job will come any more
        self._thread: threading.Thread | None = None
        self._step_times_s: tuple[float, ...] = ()  # replaced, never changed: other threads read it
        self.last_step: StepProgress | None = None

    @property
    def device(self) -> str:
        """What it trains on: cpu or cuda."""
        return self._capability.device_type

    @property
    def step_s(self) -> float | None:
        """Median duration of the recent steps, None before the first."""
        step_times_s = self._step_times_s
        return statistics.median(step_times_s) if step_times_s else None

    def unfinished(self, share: float, min_examples: int) -> TrainJob | None:
        """The job that a process before this one left unfinished, if it can still be done here.

        Its codec may be one that this release does not know: look before it begins.
        """
        self._checkpoints.tidy()
        checkpoint = self._checkpoints.load()
        if checkpoint is None:
            return None
        order, layout = checkpoint.order, self.layouts.get(checkpoint.order.task)
        if layout is None or layout.digest.hex() != order.layout_digest:
            return None
        return TrainJob(
            task=order.task,
            version=order.version,
            vector_P=checkpoint.vector_P,
            base_digest=vector_digest(checkpoint.vector_P),
            work=order.work,
            codec=order.codec,
            update_id=bytes.fromhex(order.update_id),
            share=share,
            min_examples=min_examples,
            num_done=len(checkpoint.snapshot.losses),
        )

    def taken_up(self, job: TrainJob) -> TrainJob:
        """The job as far as a checkpoint of this very update has brought it; one of another update is deleted.

        No training may be running.
        """
        snapshot = self._resumable(job).load()
        if snapshot is None:
            self.forget_unfinished()
            return job
        return replace(job, num_done=len(snapshot.losses))

    def forget_unfinished(self) -> None:
        """Delete the checkpoint: its update is in the outbox, or will never be. No training may be running."""
        self._checkpoints.delete()

    def begin(self, job: Job) -> None:
        """Start a job; the event of the one before must have been taken."""
        self.job = job
        self.last_step = None
        if not self._leaving:
            self._stop = threading.Event()
        self._jobs.put(job)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="compute", daemon=True)
            self._thread.start()

    def taken(self) -> None:
        """The event of the job has been taken from the inbox: another one may begin."""
        self.job = None

    def check(self) -> None:
        """Raises RuntimeError when the thread ended unasked: a bug, and the agent would wait for ever."""
        if self._thread and not self._thread.is_alive() and not self._leaving:
            raise RuntimeError("the compute thread has died, and this process can't go on")

    def pause(self) -> None:
        """Ask the running training to stop within a step and be saved; its event is `Paused`, or that of its end."""
        self._stop.set()

    def stop(self, timeout_s: float) -> None:
        """Ask the running job to stop within a step and wait for it; training that was not finished is saved."""
        self._leaving = True
        self._stop.set()
        self._jobs.put(None)
        if self._thread:
            self._thread.join(timeout_s)

    def _run(self) -> None:
        while self._run_job(self._jobs.get()):  # without a name: while it waits for a job, it keeps none in memory
            pass

    def _run_job(self, job: Job | None) -> bool:
        """Whether another job may come."""
        if job is None:
            return False
        event = assemble(job) if isinstance(job, AssembleJob) else self._run_task(job)
        if event is not None:
            self._deliver(event)
        return True

    def _run_task(self, job: TaskJob) -> ComputeEvent | None:
        """What needs the hospital's own code. None: it was asked to stop, because the agent leaves."""
        try:
            with out_of_memory_named():
                match job:
                    case InitialJob():
                        return self._make(job)
                    case EvaluateJob():
                        return self._evaluate(job)
                    case TrainJob():
                        return self._train(job)
        except TrainingStopped:
            return Paused(job) if isinstance(job, TrainJob) and not self._leaving else None
        except TrainingFailed as error:
            LOG.error("compute_failed", extra={"kind": error.kind, "exception_class": error.exception_class})
            return Failed(job, error.kind)
        except ConfigError as error:
            LOG.error("records_unusable", extra={"problem": str(error)})
            return Failed(job, FailureKind.EXCEPTION)

    def _make(self, job: InitialJob) -> Made:
        """The digest decides whether this is version 0. Seeds are other ones afterwards: a training sets its own."""
        with failures_named():
            _, vector_P = initial_model(self._tasks[job.task], job.initial.seed)
        held = Held(0, vector_digest(vector_P), vector_P)
        if held.digest != job.initial.model_digest:
            return Made(None)
        job.folder.save(held)
        return Made(held)

    def _evaluate(self, job: EvaluateJob) -> Evaluated:
        count, metrics = evaluate(self._tasks[job.task], self.layouts[job.task], job.vector_P, self._capability)
        if count == 0 or not metrics:
            return Evaluated(job, None)
        evaluation = Evaluation(
            federation=job.federation,
            version=job.version,
            num_examples=count,
            metrics=metrics,
            model_digest=job.model_digest,
        )
        return Evaluated(job, as_sent(evaluation))

    def _train(self, job: TrainJob) -> Encoded:
        layout = self.layouts[job.task]
        delta_P, trained = train(
            self._tasks[job.task],
            layout,
            job.vector_P,
            job.work,
            capability=self._capability,
            seed=int.from_bytes(job.update_id[:7], "little"),  # the same update, trained again, is the same bytes
            share=job.share,
            min_examples=job.min_examples,
            on_step=self._on_step,
            stop=self._stop,
            checkpoint=self._resumable(job),
        )
        try:
            payload = encode(delta_P, layout, job.codec, update_seed(codec(job.codec), job.version, job.update_id))
        except ValueError:  # finite, but too large for the codec: as useless as infinite
            raise TrainingFailed(FailureKind.NOT_FINITE) from None
        seal = new_seal(job.sealing_key, job.update_id, len(payload)) if job.sealing_key else None
        return Encoded(job, trained, payload, seal)

    def _resumable(self, job: TrainJob) -> Resumable:
        return Resumable(self._checkpoints, job.order(self.layouts[job.task]), job.vector_P)

    def _on_step(self, progress: StepProgress) -> None:
        self._step_times_s = (*self._step_times_s, progress.step_s)[-RECENT_STEPS:]
        self.last_step = progress


def assemble(job: AssembleJob) -> Assembled | Unfit:
    """The download as a version, on disk and held, or why it is none."""
    try:
        return Assembled(job.download.assemble())
    except PeerError as error:
        return Unfit(job.download.announcement.version, error)


def as_sent(evaluation: Evaluation) -> Evaluation:
    """The evaluation as the coordinator will read it.

    Raises TrainingFailed for names, numbers or types that no message can hold: a task's metrics are the hospital's
    own code, and must fail here and not in the agent's loop.
    """
    try:
        return unpack(pack(evaluation), Evaluation)
    except (PeerError, TypeError, ValueError) as error:
        raise TrainingFailed(FailureKind.EXCEPTION, type(error).__name__) from None
