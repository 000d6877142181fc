"""The `fedward` command itself."""

import os
import subprocess
import sys

COUNT_THREADS = """
import sys, fedward.cli
assert "numpy" not in sys.modules, "too late to say how many threads it may have"
try:
    fedward.cli.main(["--version"])
except SystemExit:
    import numpy, threadpoolctl
    print([pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["internal_api"] == "openblas"])
"""


def test_numpy_multiplies_in_one_thread_unless_the_operator_says_otherwise():
    ours = {name: value for name, value in os.environ.items() if not name.endswith("NUM_THREADS")}
    for given, threads in ({}, 1), ({"OPENBLAS_NUM_THREADS": "2"}, 2):
        done = subprocess.run(
            [sys.executable, "-c", COUNT_THREADS], env=ours | given, capture_output=True, text=True, check=True
        )
        assert done.stdout.splitlines()[-1] == str([threads])
