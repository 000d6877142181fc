"""`fedward` on a machine whose wall clock is wrong: `python -m sandbox.skew SECONDS ARGUMENTS`.

The program is the real one; what it is told of the time of day is off by so many seconds, and by as many more after
JUMP_S, as when somebody sets the clock.
"""

import sys
import time

from fedward import cli

JUMP_S = 8.0


def skew(seconds: float) -> None:
    """Make the wall clock of this process wrong from now on."""
    true_time, began_s = time.time, time.monotonic()
    time.time = lambda: true_time() + seconds * (2 if time.monotonic() > began_s + JUMP_S else 1)


if __name__ == "__main__":
    skew(float(sys.argv[1]))
    sys.exit(cli.main(sys.argv[2:]))
