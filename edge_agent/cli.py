"""`fedward agent`: run, status, doctor, what the hospital's people decide and look at, and a first model.

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

from edge_agent.approvals import ApprovalsFile, Decision, listed
from edge_agent.config import SiteConfig
from edge_agent.doctor import examine
from edge_agent.egress import EgressLink
from edge_agent.egress_log import EGRESS, EgressLog
from edge_agent.egress_report import document, report, time_of, verdict, verify
from edge_agent.enrolment.cli import add_verb as add_enrolment
from edge_agent.metrics import exposition
from edge_agent.models import ModelFolder
from edge_agent.outbox import Outbox
from edge_agent.permission import APPROVALS_FILE, told_verdict
from edge_agent.policy import PolicySettings
from edge_agent.progress import ProgressFile
from edge_agent.report import will_of
from edge_agent.voice import CounterFile, Voice
from fedward.doctor.check import as_json, as_text, exit_code
from fedward.doctor.deadline import Deadline
from fedward.errors import ConfigError
from fedward.http import HttpServer, pages_of
from fedward.identity.folder import SiteIdentity
from fedward.limits import MIB
from fedward.modelfile import SEED_KEY, TASK_KEY, checked_seed, save_model
from fedward.mqtt import MqttLink, MqttSettings
from fedward.ports import LinkInbox, Will
from fedward.process import SystemClock, claim_folder, log_to_stderr, only_process_in, stop_on_signals
from fedward.reach import proxy_for, tls_for
from fedward.settings import describe, load_settings

LOG = logging.getLogger(__name__)


SESSION_EXPIRY_S = 7 * 86_400
INBOX_EVENTS = 10_000
"""More than the broker may have in flight to us, so that only QoS 0 messages can ever be dropped."""


DOCTOR = (
    "check the way to the broker and this machine: a line for each, and what the IT desk must change; "
    "ends with 1 when a check failed. The agent may run meanwhile, or never have run."
)


def add_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `agent` to the command line."""
    parser = commands.add_parser("agent", help="train at one hospital")
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    settings = "settings of the configuration file:\n" + "\n".join(describe(SiteConfig))
    settings += "\n\nkeys of the policy file, see docs/policy.md:\n" + "\n".join(describe(PolicySettings))
    for verb, run, text in (
        ("run", _run, "run the agent until SIGTERM"),
        ("status", _status, "held version, outbox and counters, from the state folder"),
        ("doctor", _doctor, DOCTOR),
    ):
        command = verbs.add_parser(
            verb, help=text, description=text, epilog=settings, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        command.add_argument("--config", type=Path, required=True, help="site.yaml")
        command.set_defaults(run=run)
        if verb == "doctor":
            command.add_argument("--json", action="store_true", help="a JSON array instead of lines")
    _add_oversight(verbs)
    add_enrolment(verbs)
    initial = verbs.add_parser("init-model", help="write the initial model of a task, for the coordinator")
    initial.add_argument("--task", required=True, help="name of an installed task")
    initial.add_argument("--options", default="{}", help="the task's options, as YAML")
    initial.add_argument("--seed", type=int, default=0, help="seed of the initial weights")
    initial.add_argument("--out", type=Path, required=True, help="the safetensors file to write")
    initial.set_defaults(run=_init_model)


def _add_oversight(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """What the hospital's data protection officer needs."""
    pending = verbs.add_parser("pending", help="what waits for approval")
    pending.add_argument("--all", action="store_true", help="also what was decided")
    pending.set_defaults(run=_pending)
    for verb, decision in (("approve", Decision.APPROVED), ("deny", Decision.DENIED)):
        command = verbs.add_parser(verb, help=f"{verb} a federation, task or kind of work that is new here")
        command.add_argument("request", nargs="?", metavar="ID", help="from `pending`; without: the only one there")
        command.set_defaults(run=_decide, decision=decision)
    egress = verbs.add_parser("egress", help="every message that left this hospital")
    egress.add_argument("--since", default="", metavar="TIME", help="a date or time, of UTC where it does not say")
    egress.add_argument("--verify", action="store_true", help="look for any change, gap or move; ends with 4 for one")
    egress.add_argument("--head", metavar="DIGEST", help="with --verify: a digest that --verify printed earlier")
    egress.add_argument("--json", action="store_true", help="for scripts: totals and messages as one JSON object")
    egress.set_defaults(run=_egress)
    for command in (pending, egress, verbs.choices["approve"], verbs.choices["deny"]):
        command.add_argument("--config", type=Path, required=True, help="site.yaml")


def _run(arguments: argparse.Namespace) -> None:
    config = load_settings(SiteConfig, arguments.config, os.environ)
    log_to_stderr()
    with only_process_in(config.state_folder):
        claim_folder(config.state_folder, f"{config.federation} {config.site}")
        _serve(config)
    LOG.info("stopped")


def _serve(config: SiteConfig) -> None:
    stop = (
        stop_on_signals()
    )  # before torch, whose import takes seconds: the first process of a container ignores others
    import torch  # noqa: PLC0415 - seconds, which only `run` should pay

    from edge_agent.agent import Agent, Inbox  # noqa: PLC0415
    from edge_agent.compute import Compute  # noqa: PLC0415
    from edge_agent.training.capability import measure  # noqa: PLC0415
    from edge_agent.training.checkpoint import CheckpointFile  # noqa: PLC0415
    from edge_agent.training.task import installed, load_task  # noqa: PLC0415

    if config.threads:
        torch.set_num_threads(config.threads)
    capability = measure(config.device, config.precision)
    tasks = {name: load_task(name, options) for name, options in config.tasks.items()}
    clock, rng = SystemClock(), random.Random()  # noqa: S311 - jitter, not a secret
    inbox: Inbox = queue.Queue(INBOX_EVENTS)
    checkpoints = CheckpointFile(config.state_folder / "training", config.checkpoint_s)
    compute = Compute(tasks, {name: installed(name) for name in tasks}, capability, inbox.put, checkpoints)
    voice = voice_of(config, clock.now_s())
    will = will_of(config, voice.boot_id, voice.pack)
    log = EgressLog(config.state_folder / EGRESS, config.egress_log_mib * MIB, clock)
    link = EgressLink(MqttLink(mqtt_settings(config, will), cast(LinkInbox, inbox), rng), log, will)
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


def mqtt_settings(config: SiteConfig, will: Will | None = None) -> MqttSettings:
    """How this site connects. Raises ConfigError for a way that can't be taken, or would be in the clear."""
    return MqttSettings(
        host=config.broker.host,
        port=config.broker.port,
        tls=tls_for(config.broker, config.identity, config.site),
        proxy=proxy_for(config.broker, os.environ),
        transport=config.broker.transport,
        client_id=f"{config.federation}-{config.site}",
        username=config.broker.username,
        password=config.broker.password(),
        keepalive_s=config.broker.keepalive_s,
        session_expiry_s=SESSION_EXPIRY_S,
        reconnect_max_s=config.broker.reconnect_max_s,
        will=will,
    )


def _status(arguments: argparse.Namespace) -> None:
    config = _with_state(arguments)
    held = ModelFolder(config.state_folder / "model").label()
    entries = Outbox(config.state_folder / "outbox").entries()
    progress = ProgressFile(config.state_folder / "progress.json").load(entry.offer for entry in entries)
    lines: dict[str, Any] = {
        "site": config.site,
        "federation": config.federation,
        "tasks": ", ".join(config.tasks),
        "held version": held.get("version", "none"),
        "trained from": "none" if progress.trained_from is None else progress.trained_from,
        "policy": told_verdict(config.state_folder) or "nothing said yet",
        "updates": f"{progress.num_accepted} accepted, {progress.num_refused} refused, {len(entries)} in the outbox",
    }
    for name, value in lines.items():
        print(f"{name:14} {value}")


def _doctor(arguments: argparse.Namespace) -> int:
    config = load_settings(SiteConfig, arguments.config, os.environ)
    checks = examine(config, lambda: mqtt_settings(config), Deadline())
    print(as_json(checks) if arguments.json else as_text(checks))
    return exit_code(checks)


def _with_state(arguments: argparse.Namespace) -> SiteConfig:
    """The configuration of an agent that has run. Raises ConfigError for any other."""
    config = load_settings(SiteConfig, arguments.config, os.environ)
    if not config.state_folder.exists():
        raise ConfigError(f"{config.state_folder}: no state there yet; start `fedward agent run` first")
    return config


def _pending(arguments: argparse.Namespace) -> None:
    config = _with_state(arguments)
    approvals = ApprovalsFile(config.state_folder / APPROVALS_FILE).load()
    print("\n".join(listed(approvals, everything=arguments.all)) or "nothing waits for approval")


def _decide(arguments: argparse.Namespace) -> None:
    config = _with_state(arguments)
    approvals = ApprovalsFile(config.state_folder / APPROVALS_FILE)
    decided = approvals.decide(arguments.request, arguments.decision, SystemClock().now_s())
    print(f"{decided.decision} {decided.order.id}: {decided.order}")


def _egress(arguments: argparse.Namespace) -> None:
    """Raises IntegrityError for a log that was changed; what is there is not shown then."""
    folder = _with_state(arguments).state_folder / EGRESS
    since = time_of(arguments.since) if arguments.since else ""
    found = verify(folder, arguments.head) if arguments.verify or arguments.head else None
    if arguments.json:
        print(json.dumps(document(folder, since) | ({"verified": vars(found)} if found else {}), default=vars))
        return
    for line in report(folder, since):
        print(line)
    for line in verdict(found) if found else ():
        print(line)


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
