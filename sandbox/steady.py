"""`fedward` whose interpreter keeps nothing for later: `python -m sandbox.steady SECONDS ARGUMENTS`.

The program is the real one. CPython keeps memory that nobody holds, up to bounds that a program of ours reaches in
hours or days: garbage in cycles, free tuples, and a table of names that doubles because names pass through it (pathlib
interns every part of a path). Here it reaches them in minutes or gives the memory back, so what still grows is
held by somebody.
"""

import gc
import sys
import threading

from fedward import cli

NAMES = 20_000
"""That pass through the table of names each time: it has doubled after some 300,000 in a program that loads torch."""


def keep_steady(seconds: float) -> threading.Event:
    """Every so many seconds, from a thread of this process, until the event is set or the process ends."""
    stop = threading.Event()

    def steady() -> None:
        while not stop.wait(seconds):
            for number in range(NAMES):
                sys.intern(f"a name that passes {number}")
            gc.collect()  # a full one clears the lists of free objects, too

    threading.Thread(target=steady, name="steady", daemon=True).start()
    return stop


if __name__ == "__main__":
    keep_steady(float(sys.argv[1]))
    sys.exit(cli.main(sys.argv[2:]))
