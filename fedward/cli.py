"""`fedward`: the subcommands of whatever is installed here, a hospital's agent, the coordinator or the demo."""

import argparse
import os
import sys
from importlib.metadata import entry_points

from fedward import __version__
from fedward.errors import ConfigError, IntegrityError, TransientError

GROUP = "fedward.commands"

EXIT_CONFIG = 2
"""The operator has to act: settings, files or arguments can't be used."""

EXIT_UNAVAILABLE = 3
"""Something that is needed is away for now."""

EXIT_INTEGRITY = 4
"""What is stored is not what was written."""


def main(arguments: list[str] | None = None) -> int:
    """Run one subcommand and return the process's exit code."""
    # Before numpy is imported. The codecs multiply matrices of 64 x 64: a pool of threads, one for every core of a
    # machine that the container may use a part of, would wait for each other most of the time.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    parser = argparse.ArgumentParser(prog="fedward", description=__doc__)
    parser.add_argument("--version", action="version", version=f"fedward {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for entry_point in sorted(entry_points(group=GROUP), key=lambda found: found.name):
        try:
            add_command = entry_point.load()
        except ModuleNotFoundError:
            continue  # that side's packages are not installed here
        add_command(commands)
    given = parser.parse_args(arguments)
    try:
        return int(given.run(given) or 0)
    except ConfigError as error:
        print(f"fedward: {error}", file=sys.stderr)
        return EXIT_CONFIG
    except TransientError as error:
        print(f"fedward: {error}", file=sys.stderr)
        return EXIT_UNAVAILABLE
    except IntegrityError as error:
        print(f"fedward: {error}", file=sys.stderr)
        return EXIT_INTEGRITY


if __name__ == "__main__":
    sys.exit(main())
