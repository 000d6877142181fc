"""Versions up to one, or death at a step: `python -m tests.crash.make_versions FOLDER VERSION [STEP SIDE]`."""

import sys
from pathlib import Path

from coordinator.config import RetentionSettings
from sandbox.die import arm
from sandbox.steps import PRUNING_STEPS
from tests.support.version_line import VersionLine

SHORTEST = RetentionSettings(versions=3, records=6)


def main(folder: str, version: str, *death: str) -> None:
    if death:
        step, side = death
        arm(PRUNING_STEPS[step], side)
    line = VersionLine(Path(folder), retention=SHORTEST)
    line.make(int(version) - line.newest)
    line.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
