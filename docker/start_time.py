"""Measures how long containers take from their start until Docker calls them healthy, all of them started at once.

    python docker/start_time.py --times 5 fedward-evaluation-hospital-a-1

They must be there, as after `make compose-up`; each time they are stopped and started again.
"""

import argparse
import json
import statistics
import subprocess
import time
from datetime import datetime
from typing import Any

POLL_S = 0.1
LONGEST_S = 120.0


def docker(*arguments: str) -> str:
    return subprocess.run(["docker", *arguments], check=True, capture_output=True, text=True).stdout


def state_of(name: str) -> dict[str, Any]:
    """State of a container, as `docker inspect` has it."""
    state: dict[str, Any] = json.loads(docker("inspect", "--format", "{{json .State}}", name))
    return state


def healthy_after_s(state: dict[str, Any]) -> float | None:
    """Seconds from the start to the end of the first check that passed; None while none has."""
    began = datetime.fromisoformat(state["StartedAt"])
    ends = [datetime.fromisoformat(check["End"]) for check in state["Health"]["Log"] if check["ExitCode"] == 0]
    since = [(end - began).total_seconds() for end in ends if end > began]  # checks of earlier starts are there, too
    return min(since) if state["Health"]["Status"] == "healthy" and since else None


def started(names: list[str]) -> list[float]:
    """Stop them, start them at once, and return how long each took, in seconds."""
    docker("stop", *names)
    docker("start", *names)
    deadline_s = time.monotonic() + LONGEST_S
    while None in (took := [healthy_after_s(state_of(name)) for name in names]):
        if time.monotonic() > deadline_s:
            raise SystemExit(f"not healthy within {LONGEST_S:g} s: {dict(zip(names, took, strict=True))}")
        time.sleep(POLL_S)
    return [each for each in took if each is not None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", metavar="CONTAINER")
    parser.add_argument("--times", type=int, default=5, help="default: 5")
    arguments = parser.parse_args()
    found = []
    for _ in range(arguments.times):
        took = started(arguments.names)
        print(*(f"{each:.1f}" for each in took), "s", flush=True)
        found += took
    print(f"median {statistics.median(found):.1f} s, longest {max(found):.1f} s")


if __name__ == "__main__":
    main()
