"""What the compute thread is asked to do, and what comes of it. Shape letter: P parameters."""

from collections.abc import Iterator
from dataclasses import dataclass

from edge_agent.download import Download
from edge_agent.models import Held, ModelFolder
from edge_agent.training.checkpoint import Order
from edge_agent.training.failures import FailureKind
from edge_agent.training.train import Trained
from fedward.chunks import chunks_of
from fedward.errors import PeerError
from fedward.identity.sealing import Seal, sealed_chunks
from fedward.layout import Layout, Vector
from fedward.messages import Evaluation, Initial, Work


@dataclass(frozen=True)
class AssembleJob:
    """Make the version that a complete download leads to, and save it."""

    download: Download


@dataclass(frozen=True)
class InitialJob:
    """Make version 0 with the installed task, as the announcement says that it was made, and save it."""

    task: str
    initial: Initial
    folder: ModelFolder


@dataclass(frozen=True)
class TrainJob:
    """Train a task from this version, and encode the delta under this id."""

    task: str
    version: int
    vector_P: Vector
    base_digest: bytes  # of the vector
    work: Work
    codec: str
    update_id: bytes
    share: float
    min_examples: int = 1
    sealing_key: bytes | None = None  # of the coordinator; None: the update travels unsealed
    num_done: int = 0  # steps that the checkpoint holds, from which this job goes on

    def order(self, layout: Layout) -> Order:
        """What tells this update from others; the hospital's own conditions may change on the way."""
        return Order(self.update_id.hex(), self.task, self.version, layout.digest.hex(), self.work, self.codec)


@dataclass(frozen=True)
class EvaluateJob:
    """Measure this version on the records that the site holds out."""

    task: str
    federation: str
    version: int
    vector_P: Vector
    model_digest: bytes  # of the vector


TaskJob = InitialJob | EvaluateJob | TrainJob
"""What runs the hospital's own code."""


@dataclass(frozen=True)
class Assembled:
    """A version is complete, proved by its digest, and on disk."""

    held: Held


@dataclass(frozen=True)
class Unfit:
    """A complete download did not lead to what was announced."""

    version: int
    error: PeerError


@dataclass(frozen=True)
class Made:
    """Version 0 was made here, proved by its digest, and is on disk; None where another model came out."""

    held: Held | None


@dataclass(frozen=True)
class Evaluated:
    """A version was measured; None where this site holds no records out."""

    job: EvaluateJob
    evaluation: Evaluation | None


@dataclass(frozen=True)
class Encoded:
    """A job is done: what training brought, and the encoded delta."""

    job: TrainJob
    trained: Trained
    payload: bytes | memoryview
    seal: Seal | None = None  # None: it travels as it is

    def chunks(self) -> Iterator[memoryview]:
        """As they travel, each valid until the next one."""
        return sealed_chunks(self.seal, self.payload) if self.seal else chunks_of(self.payload)


@dataclass(frozen=True)
class Paused:
    """A training was asked to stop within a step, and can go on from its checkpoint."""

    job: TrainJob


@dataclass(frozen=True)
class Failed:
    """A job ended without a result; what is known of it stays in the log of the hospital."""

    job: TaskJob
    kind: FailureKind


Job = AssembleJob | TaskJob
ComputeEvent = Assembled | Unfit | Made | Evaluated | Encoded | Paused | Failed
