"""`fedward demo`: a whole federation on this machine, and what came out of it.

What a demo needs is imported when it runs: every other command loads this module too.
"""

import argparse
import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

from fedward.errors import ConfigError
from sandbox.interrupt import Interrupted, signals_raised

TASKS = ("breast-cancer", "heart-disease", "pneumonia")
PRESETS = ("default", "fedavg", "fedasync", "fedbuff", "ca2fl")
CODECS = {"q8": "q8", "eden4": "uqz", "eden2": "uqz", "eden1": "uqz", "f32": "f32"}
"""Codec of the updates -> codec of the models."""

METRICS = ("auc", "accuracy", "loss")


NEEDED = ("matplotlib", "rich", "sklearn", "sqlalchemy", "torch")
MAX_SITES = 16
DAY_S = 86_400


def add_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `demo` to the command line."""
    text = "broker, coordinator and hospitals as processes on this machine, training on real patients"
    demo = commands.add_parser("demo", help=text, description=text)
    demo.add_argument("--sites", type=int, default=4, metavar="N", help="number of hospitals; default: 4")
    demo.add_argument("--task", choices=TASKS, default=TASKS[0], help="what to learn; default: breast-cancer")
    demo.add_argument(
        "--data", type=Path, metavar="DIR", help="folder with the data sets of the other tasks; default: $FEDWARD_DATA"
    )
    demo.add_argument("--preset", choices=PRESETS, default="default", help="how updates are aggregated")
    demo.add_argument("--codec", choices=tuple(CODECS), default="eden4", help="how updates travel; f32: models too")
    demo.add_argument(
        "--slow",
        action="append",
        default=[],
        metavar="SITE=FACTOR",
        help="a hospital that trains FACTOR times slower, repeatable; default for breast-cancer: the last one, 10",
    )
    demo.add_argument("--seconds", type=float, metavar="S", help="how long to train; default: 20, for pneumonia 60")
    demo.add_argument("--target", metavar="METRIC=VALUE", help="end when the hospitals measure this, such as auc=0.99")
    demo.add_argument("--json", type=Path, metavar="FILE", help="write every figure of the summary there too")
    demo.add_argument(
        "--keep", type=Path, default=Path("fedward-demo"), metavar="DIR", help="where everything stays; replaced"
    )
    demo.add_argument("--screenshot", type=Path, help=argparse.SUPPRESS)
    demo.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    with signals_raised():
        try:
            _run_demo(arguments)
        except Interrupted as interrupted:
            print(f"fedward: {interrupted}: stopped, nothing is left running", file=sys.stderr)
            return interrupted.exit_code
    return 0


def _run_demo(arguments: argparse.Namespace) -> None:
    lacking = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if lacking:
        raise ConfigError(f"the demo needs {', '.join(lacking)}: `pip install 'fedward[agent,coordinator,sandbox]'`")
    given = checked(arguments, os.environ.get("FEDWARD_DATA"))
    from sandbox.demo import Options, run_demo  # noqa: PLC0415 - scikit-learn takes a second, for this command only

    run_demo(Options(**given))


def checked(arguments: argparse.Namespace, data: str | None) -> dict[str, Any]:
    """The demo's options by name. Raises ConfigError with every problem; `data` is the environment's data folder."""
    problems: list[str] = []
    if not 2 <= arguments.sites <= MAX_SITES:
        problems.append(f"--sites {arguments.sites}: expected 2 to {MAX_SITES}")
    if arguments.seconds is not None and not 1 <= arguments.seconds <= DAY_S:
        problems.append(f"--seconds {arguments.seconds:g}: expected 1 to {DAY_S}")
    for option in ("json", "screenshot"):
        path = getattr(arguments, option)
        if path and not path.resolve().parent.is_dir():
            problems.append(f"--{option} {path}: no such folder")
    given = {
        "task": arguments.task,
        "num_sites": arguments.sites,
        "data": arguments.data or (Path(data) if data else None),
        "preset": arguments.preset,
        "codec": arguments.codec,
        "model_codec": CODECS[arguments.codec],
        "slow": parse_slow(arguments.slow, problems),
        "seconds": arguments.seconds,
        "target": parse_target(arguments.target, problems) if arguments.target else None,
        "json": arguments.json,
        "folder": arguments.keep,
        "screenshot": arguments.screenshot,
    }
    if problems:
        raise ConfigError("; ".join(problems))
    return given


def parse_slow(given: list[str], problems: list[str]) -> dict[str, float]:
    """`SITE=FACTOR` of each; what can't be read goes to `problems`."""
    slow: dict[str, float] = {}
    for text in given:
        site, _, factor = text.partition("=")
        value = _number(factor)
        if not site or value is None or not 1 <= value <= 1000:
            problems.append(f"--slow {text}: expected SITE=FACTOR with a factor of 1 to 1000, as hospital-d=10")
        else:
            slow[site] = value
    return slow


def parse_target(given: str, problems: list[str]) -> tuple[str, float] | None:
    """`METRIC=VALUE`; what can't be read goes to `problems`."""
    metric, _, text = given.partition("=")
    value = _number(text)
    if metric in METRICS and value is not None and value >= 0 and (value <= 1 or metric == "loss"):
        return metric, value
    problems.append(f"--target {given}: expected METRIC=VALUE, as auc=0.99; metrics: {', '.join(METRICS)}")
    return None


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
