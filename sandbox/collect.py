"""`fedward` that keeps nothing it doesn't use: `python -m sandbox.collect SECONDS ARGUMENTS`.

The program is the real one. Every so many seconds it gives back what fills up, or finds a new peak, more slowly than a
soak lasts, so that what remains is in use:

- a full garbage collection, which also empties what CPython keeps for reuse, such as 2000 tuples of each length;
- free pages of the C library's allocator, which otherwise keeps the peak of each thread's temporary arrays. Large
  blocks get pages of their own, which go when they are freed: by itself it would take each free one for a sign that it
  should keep more;
- names are interned and forgotten, until the interpreter's table of names has come to its last size. CPython makes a
  new table when the old one's places are used up, by names that are gone as well. Every path has such names: in an
  agent the table, 3.8 MB, is twice as large after about 6000 versions, and never again.
"""

import ctypes
import gc
import sys
import threading

from fedward import cli

M_MMAP_THRESHOLD = -3
"""Of glibc's malloc.h."""

LARGE_BYTES = 128 * 1024
"""A block with pages of its own: glibc's default, which stays what it is once it is set."""

NAMES = 50_000
"""A time. A table of 2^19 places, which an agent comes to, is used up after seven times."""


def collect_every(seconds: float) -> threading.Event:
    """Collect from a thread of this process until the event is set, or the process ends."""
    stop = threading.Event()
    libc = ctypes.CDLL(None)
    libc.mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)

    def collect() -> None:
        while not stop.wait(seconds):
            use_up_names()
            gc.collect()
            libc.malloc_trim(0)

    threading.Thread(target=collect, name="collect", daemon=True).start()
    return stop


def use_up_names() -> None:
    """Let NAMES places of the interpreter's table of names be used, each for a moment."""
    for number in range(NAMES):
        sys.intern(f"sandbox.collect {number}")


if __name__ == "__main__":
    collect_every(float(sys.argv[1]))
    sys.exit(cli.main(sys.argv[2:]))
