"""`fedward agent doctor`: the way to the broker, and whether this hospital's machine can train."""

import os
import re
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from edge_agent.approvals import ApprovalsFile, pending
from edge_agent.config import SiteConfig
from edge_agent.devices import GPU, judge_gpu
from edge_agent.permission import APPROVALS_FILE
from edge_agent.policy import check_federation
from edge_agent.policy_file import load_policy
from fedward import topics
from fedward.doctor.check import Check, Verdict, failed, ok, skipped, warning
from fedward.doctor.deadline import Deadline
from fedward.doctor.examine import Examination, Needs, examine_identity, party_of
from fedward.doctor.measure import now_s
from fedward.doctor.session import NOBODY, Wanted
from fedward.errors import ConfigError
from fedward.identity.folder import SiteIdentity
from fedward.limits import MIB
from fedward.mqtt import MqttSettings
from fedward.topics import Up

TASKS, POLICY = "tasks", "policy"

TORCH_S, GPU_S = 20.0, 10.0
"""Longest time to import torch and build the tasks' models, and to ask the GPUs."""

DRIVER = Path("/proc/driver/nvidia/version")
DEVICES = Path("/dev")

UNKNOWN_MODEL_BYTES = 256 * MIB
"""A model as float32, where its size can't be told."""

# In models as float32. What the next step needs is what `Agent` asks for. In all: the held version and the one before,
# a download, an unsent update, and a checkpoint of two models and an optimizer's state.
NEXT_STEP, WHOLE = 4, 8

LEAST_MEMORY_BYTES = 512 * MIB
"""Of an agent with torch and no model."""

MODELS_IN_MEMORY = 6
"""Base, weights, gradients, an optimizer's state and the delta; records and activations come on top."""


def examine(config: SiteConfig, settings: Callable[[], MqttSettings], deadline: Deadline) -> list[Check]:
    """Every check of a hospital's agent. `settings` are those that it connects with; it may raise ConfigError."""
    user = config.broker.username
    who = f"site {config.site}" + (f" (user {user})" if user else "")
    wanted = wanted_by(config.federation, config.site)
    examination = Examination(party_of(who, wanted, config.state_folder, settings), deadline)
    checks = examination.way()
    checks += [_examine_identity(config), _examine_policy(config)]
    late = warning(TASKS, "no answer in time", "look at the disk that the program and the records are on")
    tasks, model_bytes = deadline.within(TORCH_S, lambda: _examine_tasks(config), (late, UNKNOWN_MODEL_BYTES))
    if tasks is late or find_spec("torch") is None:
        gpu = skipped(GPU, f"{TASKS} did not get as far as torch")
    else:
        silent = judge_gpu(config.device, None)
        gpu = deadline.within(GPU_S, lambda: _examine_gpu(config.device, config.precision), silent)
    needs = Needs(NEXT_STEP * model_bytes, WHOLE * model_bytes, LEAST_MEMORY_BYTES + MODELS_IN_MEMORY * model_bytes)
    return [*checks, *examination.disk_and_memory(needs), tasks, gpu, *examination.limits_and_clock()]


def wanted_by(federation: str, site: str) -> Wanted:
    """What a site needs of the broker."""
    chunks = topics.part_chunks(federation, NOBODY)
    announce, down = topics.announce(federation), topics.down_all(federation, site)
    below = topics.up(federation, site, Up.GET).rpartition("/")[0]
    return Wanted(
        filters={
            announce: f"subscribe to {announce}",
            down: f"subscribe to {down}",
        },
        passing={chunks: f"subscribe to {chunks.replace(NOBODY.hex(), '+')}"},
        topics={topics.update_chunk(federation, site, NOBODY, 0): f"publish to {below}/#"},
        retained=announce,
    )


def _examine_identity(config: SiteConfig) -> Check:
    folder = config.identity.folder if config.identity else None
    return examine_identity(
        folder, lambda: SiteIdentity.load(folder or Path(), config.federation, config.site, now_s())
    )


def _examine_policy(config: SiteConfig) -> Check:
    """Whether the hospital's own files let this site take part. What else they say is between them and its people."""
    try:
        policy = load_policy(config.policy_file) if config.policy_file else None
        waiting = pending(ApprovalsFile(config.state_folder / APPROVALS_FILE).load())
    except ConfigError as error:
        return failed(POLICY, str(error), "correct that file: nothing is allowed until it can be read")
    verdict = check_federation(config.federation, policy) if policy else None
    if verdict and not verdict.allowed:
        return warning(POLICY, verdict.detail, "add it there, if this hospital wants to take part")
    if waiting:
        remedy = (
            f"the data protection officer: `fedward agent pending`, then `approve` or `deny` {' or '.join(waiting)}"
        )
        return warning(POLICY, f"{len(waiting)} requests wait for a person: nothing is trained until then", remedy)
    return ok(POLICY, f"{config.policy_file or 'no file, so its defaults'}: this federation may ask for work")


def _examine_tasks(config: SiteConfig) -> tuple[Check, int]:
    """Whether each task can be built, and may read what its options name; and the largest model, as float32 bytes.

    No record is read: that may take long, and memory that a training has none left of.
    """
    try:
        from edge_agent.training.failures import TrainingFailed, failures_named  # noqa: PLC0415 - imports torch
        from edge_agent.training.module import layout_of  # noqa: PLC0415
        from edge_agent.training.task import load_task  # noqa: PLC0415
    except ModuleNotFoundError as error:
        return failed(TASKS, f"{error.name} is not installed", "install fedward[agent]"), UNKNOWN_MODEL_BYTES
    problems: list[str] = []
    sizes: list[int] = []
    for name, options in config.tasks.items():
        try:
            with failures_named():
                problems += _unreadable(name, options)
                sizes.append(4 * layout_of(load_task(name, options).model()).size)
        except TrainingFailed as error:
            problems.append(f"task {name}: its code fails ({error.exception_class or error.kind})")
        except ConfigError as error:
            problems.append(str(error) if name in str(error) else f"task {name}: {error}")
    if problems:
        remedy = "correct `tasks`, and let the user of this program read the records (a container: mount them)"
        return failed(TASKS, "; ".join(problems), remedy), max(sizes, default=UNKNOWN_MODEL_BYTES)
    return ok(TASKS, f"{', '.join(config.tasks)}: installed, the records may be read"), max(sizes)


def _unreadable(name: str, options: dict[str, Any]) -> list[str]:
    """Options that name a file or folder which is there and may not be read."""
    paths = {option: Path(value) for option, value in options.items() if isinstance(value, str) and "/" in value}
    return [
        f"task {name}: option {option}: this user may not read it"
        for option, path in paths.items()
        if os.access(path, os.F_OK) and not os.access(path, os.R_OK | (os.X_OK if path.is_dir() else 0))
    ]


def _examine_gpu(device: str, precision: str) -> Check:
    """The GPU, and whether the agent would start with these settings."""
    from edge_agent.training.capability import measure, see_gpus  # noqa: PLC0415 - imports torch

    check = judge_gpu(device, see_gpus(_driver(), _nodes()))
    try:
        measure(device, precision)
    except ConfigError as error:
        return check if check.verdict is Verdict.FAILED else failed(GPU, str(error), "correct device and precision")
    return check


def _driver() -> str | None:
    """Version of the loaded NVIDIA driver. /proc shows it inside containers too, also of one that may not use it."""
    try:
        text = DRIVER.read_text()
    except OSError:
        return None
    version = re.search(r"\b\d+\.\d+(\.\d+)?\b", text)
    return version[0] if version else "unknown"


def _nodes() -> tuple[str, ...]:
    return tuple(sorted(path.name for path in DEVICES.glob("nvidia[0-9]*")))
