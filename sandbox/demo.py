"""The demo from start to end: start, watch, finish, measure, tell."""

import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from fedward.errors import ConfigError
from sandbox.datasets import site_name
from sandbox.federation import WORK, Federation, Plan
from sandbox.view import view_for
from sandbox.watch import State, Watch

METRIC = "auc"
MARKER = ".fedward-demo"
"""A file in each folder that a demo made: only such a folder is ever replaced."""

TELEMETRY_S = 0.2
SECONDS = {"breast-cancer": 20.0, "heart-disease": 20.0, "pneumonia": 60.0}
"""How long to train unless the command line says so."""
QUICK_S = 60.0
"""A demo on tables is over by then, from start to summary, also where the machine has other work: it trains less."""
LEAST_S = 8.0
AFTER_S = 8.0
"""Time from the end of training to the summary, apart from as long as it took until training began."""

SLOWEST = 10.0
"""How many times slower the last hospital of breast-cancer is unless the command line says otherwise."""

SMALL_STEPS: Mapping[str, object] = {"local_epochs": 40, "batch_size": 8, "local_lr": 0.00015, "max_steps": 400}
"""Work for breast-cancer: with the usual rate so easy a problem is solved by the first version, without a climb."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the command line says."""

    task: str
    num_sites: int
    data: Path | None
    preset: str
    codec: str
    model_codec: str
    slow: Mapping[str, float]
    seconds: float | None
    target: tuple[str, float] | None  # a metric and what it has to reach
    json: Path | None
    folder: Path
    screenshot: Path | None


def run_demo(options: Options) -> None:
    """Run it all; whatever happens, nothing is left running.

    Raises ConfigError for options that can't be, TransientError when a process dies.
    """
    started_at_s, started_s = time.time(), time.monotonic()
    console = Console()
    prepare_folder(options.folder)
    console.print(f"starting a broker, a coordinator and {options.num_sites} hospitals", highlight=False)
    federation = Federation(plan_of(options))
    title = f"Fedward demo: {options.task}, {options.preset}, {options.codec}"
    try:
        with federation:
            watch = Watch(federation, view_for(console, options.screenshot), title, METRIC, started_s)
            by_itself, state = watch.run(lambda began_s: training_s(options, began_s))
    finally:
        federation.stop()  # a signal may have cut the first stop
    console.print("measuring every version on the pooled held-out records", highlight=False)
    conclude(federation, options, reason(options, by_itself=by_itself), state, started_at_s, console)


def plan_of(options: Options) -> Plan:
    """The federation that the options ask for."""
    slow = options.slow
    if not slow and options.task == "breast-cancer":
        slow = {site_name(options.num_sites - 1): SLOWEST}
    target = options.target
    return Plan(
        folder=options.folder.resolve(),
        task=options.task,
        num_sites=options.num_sites,
        data=options.data,
        engine={"preset": options.preset},
        codec=options.codec,
        model_codec=options.model_codec,
        slow=slow,
        finish={"metric": target[0], "value": target[1]} if target else {},
        work=SMALL_STEPS if options.task == "breast-cancer" else WORK[options.task],
        telemetry_s=TELEMETRY_S,
    )


def prepare_folder(folder: Path) -> None:
    """An empty folder with our marker, in place of one that an earlier demo left. Raises ConfigError for others."""
    try:
        if folder.is_dir() and any(folder.iterdir()):
            if not (folder / MARKER).is_file():
                raise ConfigError(f"--keep {folder}: not empty and not from a demo, so it stays; choose another folder")
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MARKER).write_text("Made by `fedward demo`, which replaces this folder at its next run.\n")
    except OSError as error:
        raise ConfigError(f"--keep {folder}: can't be used: {error.strerror}") from error


def training_s(options: Options, began_s: float) -> float:
    """How long to train when training began `began_s` after the start: a slow start tells that the rest is slow."""
    if options.seconds is not None or options.task == "pneumonia":
        return options.seconds or SECONDS[options.task]
    return max(LEAST_S, min(SECONDS[options.task], QUICK_S - AFTER_S - 2 * began_s))


def reason(options: Options, *, by_itself: bool) -> str:
    """Why training ended."""
    if by_itself and options.target:
        return f"the hospitals measured {options.target[0]} {options.target[1]:g}"
    return "the time for training was over"


def conclude(
    federation: Federation, options: Options, ended_by: str, state: State, started_at_s: float, console: Console
) -> None:
    """Export the model, measure every version, and write and print what came out."""
    # These import torch and matplotlib: seconds that the hospitals' start should not wait for.
    from sandbox.chart import write_chart  # noqa: PLC0415
    from sandbox.report import Run, build_report  # noqa: PLC0415
    from sandbox.summary import print_summary  # noqa: PLC0415

    folder = federation.plan.folder
    model = folder / "model.safetensors"
    config = federation.config_path("coordinator")
    federation.fedward("coordinator", "export", "--config", str(config), "--out", str(model))
    files = {
        "model": model,
        "model card": model.with_suffix(".md"),
        "chart": folder / "chart.png",
        "report": folder / "report.json",
        "logs": folder / "logs",
    }
    report = build_report(federation, Run(state, started_at_s, ended_by), files)
    write_chart(report, METRIC, files["chart"])
    for path in (files["report"], options.json):
        if path:
            path.write_text(report.to_json())
    print_summary(report, METRIC, console)
