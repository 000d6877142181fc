"""Why training ended without an update. A failure says what kind it was and nothing of the records."""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum

import torch

from fedward.errors import FedwardError


class FailureKind(StrEnum):
    """A closed list that is also the metric label."""

    NOT_FINITE = "not_finite"  # the loss, the delta or a metric is NaN or infinite
    OUT_OF_MEMORY = "out_of_memory"
    TOO_FEW_RECORDS = "too_few_records"  # fewer than the hospital's policy asks for
    CRASHED = "crashed"  # the process died while it trained: killed, or out of the machine's memory
    EXCEPTION = "exception"  # the task's code raised: `exception_class` names its class


class TrainingStopped(FedwardError):  # noqa: N818 - not an error: it was asked for
    """Training was asked to stop; what it had done is in the checkpoint, where there is one."""


class TrainingFailed(FedwardError):  # noqa: N818 - reads as what happened, beside TrainingStopped
    """A step failed. The text names kind and class only: an exception's own text may quote a record.

    The original is in `__context__` for whoever stays inside the hospital; a printed traceback leaves it out.
    """

    def __init__(self, kind: FailureKind, exception_class: str | None = None) -> None:
        super().__init__(f"training failed: {kind}" + (f" ({exception_class})" if exception_class else ""))
        self.kind = kind
        self.exception_class = exception_class


@contextmanager
def out_of_memory_named() -> Iterator[None]:
    """Memory that runs out inside, the machine's or the GPU's -> TrainingFailed (OUT_OF_MEMORY)."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise TrainingFailed(FailureKind.OUT_OF_MEMORY, type(error).__name__) from None


@contextmanager
def failures_named() -> Iterator[None]:
    """Any exception of a task's code inside -> TrainingFailed. Fedward's own errors pass unchanged."""
    try:
        with out_of_memory_named():
            yield
    except FedwardError:
        raise
    except Exception as error:  # noqa: BLE001 - a task is the hospital's code and may raise anything; its text stays here
        raise TrainingFailed(FailureKind.EXCEPTION, type(error).__name__) from None
