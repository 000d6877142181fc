"""`fedward agent`: run, status, and the initial model of a federation.

torch is imported by the verbs that need it, so that `status` answers at once.
"""

import argparse
import json
import logging
import os
import queue
import random
import secrets
from pathlib import Path
from typing import Any, cast

import yaml

from edge_agent.config import SiteConfig
from edge_agent.enrolment.cli import add_verb as add_enrolment
from edge_agent.metrics import exposition
from edge_agent.models import ModelFolder
from edge_agent.outbox import Outbox
from edge_agent.progress import ProgressFile
from edge_agent.report import will_of
from edge_agent.voice import CounterFile, Voice
from fedward.errors import ConfigError
from fedward.http import HttpServer, pages_of
from fedward.identity.folder import SiteIdentity
from fedward.modelfile import SEED_KEY, TASK_KEY, checked_seed, save_model
from fedward.mqtt import MqttLink, MqttSettings
from fedward.ports import LinkInbox, Will
from fedward.process import SystemClock, claim_folder, log_to_stderr, only_process_in, stop_on_signals
from fedward.settings import describe, load_settings

LOG = logging.getLogger(__name__)

SESSION_EXPIRY_S = 7 * 86_400
INBOX_EVENTS = 10_000
"""More than the broker may have in flight to us, so that only QoS 0 messages can ever be dropped."""


def add_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `agent` to the command line."""
    parser = commands.add_parser("agent", help="train at one hospital")
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    settings = "settings of the configuration file:\n" + "\n".join(describe(SiteConfig))
    for verb, run, text in (
        ("run", _run, "run the agent until SIGTERM"),
        ("status", _status, "held version, outbox and counters, from the state folder"),
    ):
        command = verbs.add_parser(
            verb, help=text, description=text, epilog=settings, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        command.add_argument("--config", type=Path, required=True, help="site.yaml")
        command.set_defaults(run=run)
    add_enrolment(verbs)
    initial = verbs.add_parser("init-model", help="write the initial model of a task, for the coordinator")
    initial.add_argument("--task", required=True, help="name of an installed task")
    initial.add_argument("--options", default="{}", help="the task's options, as YAML")
    initial.add_argument("--seed", type=int, default=0, help="seed of the initial weights")
    initial.add_argument("--out", type=Path, required=True, help="the safetensors file to write")
    initial.set_defaults(run=_init_model)


def _run(arguments: argparse.Namespace) -> None:
    config = load_settings(SiteConfig, arguments.config, os.environ)
    log_to_stderr()
    with only_process_in(config.state_folder):
        claim_folder(config.state_folder, f"{config.federation} {config.site}")
        _serve(config)
    LOG.info("stopped")


def _serve(config: SiteConfig) -> None:
    import torch  # noqa: PLC0415 - seconds, which only `run` should pay

    from edge_agent.agent import Agent, Inbox  # noqa: PLC0415
    from edge_agent.compute import Compute  # noqa: PLC0415
    from edge_agent.training.capability import measure  # noqa: PLC0415
    from edge_agent.training.checkpoint import CheckpointFile  # noqa: PLC0415
    from edge_agent.training.task import load_task, release_of  # noqa: PLC0415

    if config.threads:
        torch.set_num_threads(config.threads)
    capability = measure(config.device, config.precision)
    tasks = {name: load_task(name, options) for name, options in config.tasks.items()}
    clock, stop, rng = SystemClock(), stop_on_signals(), random.Random()  # noqa: S311 - jitter, not a secret
    inbox: Inbox = queue.Queue(INBOX_EVENTS)
    checkpoints = CheckpointFile(config.state_folder / "training", config.checkpoint_s)
    releases = {name: release_of(name) for name in tasks}
    compute = Compute(tasks, releases, capability, inbox.put, checkpoints)
    voice = voice_of(config, clock.now_s())
    link = MqttLink(mqtt_settings(config, will_of(config, voice.boot_id, voice.pack)), cast(LinkInbox, inbox), rng)
    agent = Agent(config, compute, link, clock, rng, voice)
    with HttpServer(config.http, pages_of(agent, exposition, clock)) as http:
        LOG.info("started", extra={"site": config.site, "device": capability.name, "http_port": http.port})
        agent.run(inbox, stop)


def voice_of(config: SiteConfig, now_s: float) -> Voice:
    """How a new process speaks. Raises ConfigError for an identity that can't be used."""
    boot_id = secrets.token_bytes(8)
    if config.identity is None:
        LOG.warning("unsigned", extra={"advice": "messages are neither signed nor sealed; for trying things out only"})
        return Voice(boot_id)
    identity = SiteIdentity.load(config.identity.folder, config.federation, config.site, now_s)
    return Voice.of(boot_id, identity, config, CounterFile(config.state_folder / "counter.json", now_s))


def mqtt_settings(config: SiteConfig, will: Will) -> MqttSettings:
    """How this site connects."""
    return MqttSettings(
        host=config.broker.host,
        port=config.broker.port,
        client_id=f"{config.federation}-{config.site}",
        username=config.broker.username,
        password=config.broker.password(),
        keepalive_s=config.broker.keepalive_s,
        session_expiry_s=SESSION_EXPIRY_S,
        reconnect_max_s=config.broker.reconnect_max_s,
        will=will,
    )


def _status(arguments: argparse.Namespace) -> None:
    config = load_settings(SiteConfig, arguments.config, os.environ)
    if not config.state_folder.exists():
        raise ConfigError(f"{config.state_folder}: no state there yet; start `fedward agent run` first")
    held = ModelFolder(config.state_folder / "model").label()
    entries = Outbox(config.state_folder / "outbox").entries()
    progress = ProgressFile(config.state_folder / "progress.json").load(entry.offer for entry in entries)
    lines: dict[str, Any] = {
        "site": config.site,
        "federation": config.federation,
        "tasks": ", ".join(config.tasks),
        "held version": held.get("version", "none"),
        "trained from": "none" if progress.trained_from is None else progress.trained_from,
        "updates": f"{progress.num_accepted} accepted, {progress.num_refused} refused, {len(entries)} in the outbox",
    }
    for name, value in lines.items():
        print(f"{name:14} {value}")


def _init_model(arguments: argparse.Namespace) -> None:
    from edge_agent.training.module import initial_model  # noqa: PLC0415 - imports torch
    from edge_agent.training.task import load_task  # noqa: PLC0415

    try:
        options = yaml.safe_load(arguments.options)
    except yaml.YAMLError as error:
        raise ConfigError(f"--options: expected YAML, got: {error}") from error
    if not isinstance(options, dict):
        raise ConfigError(f"--options: expected `{{key: value}}`, got {type(options).__name__}")
    try:
        seed = checked_seed(arguments.seed)
    except ValueError as error:
        raise ConfigError(f"--seed: {error}") from None
    layout, vector_P = initial_model(load_task(arguments.task, options), seed)
    metadata = {
        TASK_KEY: arguments.task,
        "fedward.options": json.dumps(options),
        SEED_KEY: str(seed),  # so that a site may make this model itself
    }
    save_model(arguments.out, layout, vector_P, metadata)
    print(f"{arguments.out}: {layout.size} parameters, layout digest {layout.digest.hex()}")
