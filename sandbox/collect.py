"""`fedward` that keeps no garbage: `python -m sandbox.collect SECONDS ARGUMENTS`.

The program is the real one. Every so many seconds a full garbage collection runs in it, which also gives back what
CPython keeps for reuse, such as up to 2000 tuples of each length: a program of ours fills that up in hours.
"""

import gc
import sys
import threading

from fedward import cli


def collect_every(seconds: float) -> threading.Event:
    """Collect from a thread of this process until the event is set, or the process ends."""
    stop = threading.Event()

    def collect() -> None:
        while not stop.wait(seconds):
            gc.collect()

    threading.Thread(target=collect, name="collect", daemon=True).start()
    return stop


if __name__ == "__main__":
    collect_every(float(sys.argv[1]))
    sys.exit(cli.main(sys.argv[2:]))
