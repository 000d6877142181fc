"""`fedward`, killed just before or just after a named step: `python -m sandbox.die STEP SIDE ARGUMENTS`.

The program is the real one. One function of it is wrapped, and a call of it ends the process with SIGKILL,
which nothing in it can see coming.
"""

import importlib
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from fedward import cli
from sandbox.steps import AGENT_STEPS, BACKUP_STEPS, COORDINATOR_STEPS, KEY_STEPS, RESTORE_STEPS, Step


def arm(step: Step, side: str) -> None:
    """Wrap the step: the process dies just `before` or just `after` it."""
    *classes, name = step.name.split(".")
    owner: Any = importlib.import_module(step.module)
    for part in classes:
        owner = getattr(owner, part)
    setattr(owner, name, _dying(getattr(owner, name), step, side))


def _dying(function: Callable[..., Any], step: Step, side: str) -> Callable[..., Any]:
    calls = 0

    def wrapped(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        if not any(step.text in str(argument) for argument in arguments if not isinstance(argument, bytes)):
            return function(*arguments, **options)
        calls += 1
        if calls == step.nth and side == "before":
            _die()
        result = function(*arguments, **options)
        if calls == step.nth and side == "after":
            _die()
        return result

    return wrapped


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    steps = {**AGENT_STEPS, **COORDINATOR_STEPS, **KEY_STEPS, **RESTORE_STEPS, **BACKUP_STEPS}
    arm(steps[sys.argv[1]], sys.argv[2])
    sys.exit(cli.main(sys.argv[3:]))
