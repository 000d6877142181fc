"""`fedward` with a task that hurts it: `python -m tests.integration.hurt_in_training HARM STEP SECONDS ARGUMENTS`.

The program and its task are the real ones, but for the loss of the tabular task: `die` ends the process with SIGKILL
in call STEP of a process, as the kernel does when memory runs out; `dawdle` makes every call from STEP on last SECONDS.
"""

import os
import signal
import sys
import time
from typing import Any

from torch import Tensor, nn

from edge_agent.training.tasks.tabular import TabularTask
from fedward import cli


def arm(harm: str, step: int, seconds: float) -> None:
    """Wrap the loss. Evaluation calls it not at all: this task has metrics of its own."""
    calls, loss = 0, TabularTask.loss

    def hurting(task: TabularTask, model: nn.Module, batch: Any) -> Tensor:
        nonlocal calls
        calls += 1
        if harm == "die" and calls == step:
            os.kill(os.getpid(), signal.SIGKILL)
        if harm == "dawdle" and calls >= step:
            time.sleep(seconds)
        return loss(task, model, batch)

    TabularTask.loss = hurting  # type: ignore[method-assign]


if __name__ == "__main__":
    arm(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
    sys.exit(cli.main(sys.argv[4:]))
