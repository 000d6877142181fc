"""`fedward appliance`: install, watch, upgrade and remove the agent's container, from the machine that it runs on."""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge_agent.appliance import orders
from edge_agent.appliance.changing import CheckFailedError, Enrolment, change_to, enrol, interrupted
from edge_agent.appliance.config import ApplianceConfig
from edge_agent.appliance.doctor import examine
from edge_agent.appliance.engine import EngineRefusedError, Errand
from edge_agent.appliance.install import SITE_CONFIG, Appliance, appliance_of, config_of
from edge_agent.appliance.journal import JournalFile
from edge_agent.appliance.plan import once_options
from edge_agent.appliance.preparing.cli import add_preparing
from edge_agent.appliance.preparing.publisher import from_bundle, from_registry, key_of
from edge_agent.appliance.snapshots import SnapshotError
from edge_agent.appliance.state import as_lines, state_of
from edge_agent.appliance.steps import Change, Journal, Kind, Release
from edge_agent.appliance.support import collect, write
from fedward.doctor.check import Check, as_json, as_text, exit_code
from fedward.errors import ConfigError
from fedward.settings import describe

EXIT_FAILED = 1
"""A check failed, or what was asked for was undone."""

DOCTOR = (
    "check this machine, its Docker Engine, and what the agent's own doctor checks in its container: a line for each, "
    "and what the IT desk must change; ends with 1 when a check failed"
)

EXIT_STOPPED = 130
"""Ctrl-C, as shells have it."""

Run = Callable[[argparse.Namespace], int]


def add_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `appliance` to the command line."""
    parser = commands.add_parser("appliance", help="run a hospital's agent as a container on this machine")
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    settings = "settings of the configuration file:\n" + "\n".join(describe(ApplianceConfig))

    def verb(name: str, run: Run, text: str) -> argparse.ArgumentParser:
        command = verbs.add_parser(
            name, help=text, description=text, epilog=settings, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        command.add_argument("--config", type=Path, default=Path("appliance.yaml"), help="default: appliance.yaml")
        command.set_defaults(run=run)
        return command

    install = verb("install", _install, "check this machine, get the image, enrol, start the agent")
    _add_image(install)
    install.add_argument("--token-file", type=Path, help="the token of the coordinator's operator, for enrolment")
    carried = install.add_mutually_exclusive_group()
    carried.add_argument("--request-out", type=Path, help="enrol without a network: write the request, and stop there")
    carried.add_argument(
        "--answer", type=Path, help="enrol without a network: take in the answer that was carried back"
    )
    _add_image(verb("upgrade", _upgrade, "go over to another image or other settings; back by itself if that fails"))
    rollback = verb("rollback", _rollback, "go back to the image and the settings before the last upgrade")
    rollback.add_argument("--with-state", action="store_true", help="put the copy of the state back, too")
    uninstall = verb("uninstall", _uninstall, "take the agent away")
    state = uninstall.add_mutually_exclusive_group()
    state.add_argument("--keep-state", action="store_true", help="leave key, unsent updates and log on this machine")
    state.add_argument("--delete-state", action="store_true", help="delete them: the hospital has to enrol again")
    verb("status", _status, "what runs here, and what to do").add_argument("--json", action="store_true")
    logs = verb("logs", _logs, "what the agent wrote")
    logs.add_argument("--tail", type=int, default=100, metavar="LINES", help="default: 100")
    logs.add_argument("--follow", action="store_true", help="go on until the agent ends")
    verb("doctor", _doctor, DOCTOR).add_argument("--json", action="store_true", help="a JSON array instead of lines")
    support = verb("support-bundle", _support_bundle, "a file for those who help: shown first, then written")
    support.add_argument("--out", type=Path, default=Path("fedward-support.tar.gz"), help="default: %(default)s")
    support.add_argument("--yes", action="store_true", help="write it without asking")
    agent = verb("agent", _agent, "`fedward agent ...` in the agent's container: pending, approve, egress, status, ...")
    agent.add_argument("arguments", nargs=argparse.REMAINDER, help="without --config")
    add_preparing(verbs)
    for command in verbs.choices.values():
        command.set_defaults(run=_ended(command.get_default("run")))


def _ended(run: Run) -> Run:
    """What is wrong with this machine, rather than with a setting, ends with a code of its own."""

    def ended(arguments: argparse.Namespace) -> int:
        try:
            return run(arguments)
        except (CheckFailedError, EngineRefusedError, SnapshotError) as error:
            print(f"fedward: {error}", file=sys.stderr)
            return EXIT_FAILED
        except KeyboardInterrupt:
            print("stopped; give the command again, and it goes on", file=sys.stderr)
            return EXIT_STOPPED

    return ended


def _add_image(command: argparse.ArgumentParser) -> None:
    command.add_argument("--bundle", type=Path, help="a release in one file, instead of `image` from a registry")
    command.add_argument("--key", type=Path, help="the publisher's public key, instead of release_key_file")
    command.add_argument("--force", action="store_true", help="go on although a check fails")


def _release(appliance: Appliance, arguments: argparse.Namespace) -> Release:
    """The image that is asked for, once it is known to be the publisher's."""
    key = key_of(appliance.config, arguments.key)
    if arguments.bundle is not None:
        return from_bundle(arguments.bundle, appliance.engine, key)
    return from_registry(appliance.config, appliance.engine, key)


def _install(arguments: argparse.Namespace) -> int:
    enrolment = _enrolment(arguments)
    with appliance_of(arguments.config) as appliance, appliance.carrier() as carrier:
        if ended := _end_of_interrupted(*interrupted(carrier)):
            return ended
        _look(appliance.check_machine(), arguments)
        release = _release(appliance, arguments)
        if enrolment and not enrol(appliance, appliance.options(release), enrolment, _pass_on):
            print(f"{enrolment.request_out}: carry it to the coordinator; then install again, with --answer")
            return 0
        return _end_of(change_to(appliance, carrier, Kind.INSTALL, release, _checked(appliance, arguments)))


def _upgrade(arguments: argparse.Namespace) -> int:
    with appliance_of(arguments.config) as appliance, appliance.carrier() as carrier:
        if ended := _end_of_interrupted(*interrupted(carrier)):
            return ended
        _look(appliance.check_machine(), arguments)
        release = _release(appliance, arguments)
        return _end_of(change_to(appliance, carrier, Kind.UPGRADE, release, _checked(appliance, arguments)))


def _rollback(arguments: argparse.Namespace) -> int:
    with appliance_of(arguments.config) as appliance, appliance.carrier() as carrier:
        change, journal = interrupted(carrier)
        if ended := _end_of_interrupted(change, journal):
            return ended  # it went back: to go back once more is not what was meant
        if change is not None and change.kind is Kind.ROLLBACK:
            return _end_of(journal)
        return _end_of(carrier.begin(orders.rollback(journal, with_state=arguments.with_state)))


def _uninstall(arguments: argparse.Namespace) -> int:
    with appliance_of(arguments.config) as appliance, appliance.carrier() as carrier:
        delete_state = arguments.delete_state or (not arguments.keep_state and _asked_to_delete())
        carrier.begin(orders.uninstall(carrier.journal, delete_state=delete_state))
    print("the agent is gone" + (" with all that it kept" if delete_state else "; its state is still here"))
    return 0


def _asked_to_delete() -> bool:
    if not sys.stdin.isatty():
        raise ConfigError("say what becomes of the state: --keep-state or --delete-state")
    print("The state holds this hospital's key, updates that were not sent yet, and the log of all that left.")
    return input("Delete it for ever? Type `delete`: ") == "delete"


def _status(arguments: argparse.Namespace) -> int:
    with appliance_of(arguments.config) as appliance:
        config = appliance.config
        journal = JournalFile(config.home / "journal.json").load()
        state = state_of(config.name, journal, appliance.engine.containers())
    print(json.dumps(state, indent=2) if arguments.json else "\n".join(as_lines(state)))
    return 0


def _logs(arguments: argparse.Namespace) -> int:
    with appliance_of(arguments.config) as appliance:
        found = [each for each in appliance.engine.containers() if each.generation is not None]
        if not found:
            raise ConfigError("no agent is installed here")
        newest = max(found, key=lambda each: each.generation or 0)
        for piece in appliance.engine.logs(newest, arguments.tail, follow=arguments.follow):
            _pass_on(piece)
    return 0


def _doctor(arguments: argparse.Namespace) -> int:
    checks = examine(config_of(arguments.config))
    print(as_json(checks) if arguments.json else as_text(checks))
    return exit_code(checks)


def _support_bundle(arguments: argparse.Namespace) -> int:
    with appliance_of(arguments.config) as appliance:
        files = collect(appliance)
    for name, text in files.items():
        print(f"== {name} ({len(text)} letters)\n{text}")
    print(f"That is all of it: {', '.join(files)}. Nothing else leaves, and nothing is sent.")
    if not arguments.yes and not (sys.stdin.isatty() and input(f"Write {arguments.out}? [y/N] ").lower() == "y"):
        print("nothing was written; --yes writes it without asking")
        return 0
    write(files, arguments.out)
    print(f"{arguments.out}: written")
    return 0


def _agent(arguments: argparse.Namespace) -> int:
    """In the running container, or in one like it where the agent does not run."""
    words = [word for word in arguments.arguments if word != "--"]
    command = ["agent", *words, "--config", SITE_CONFIG]
    with appliance_of(arguments.config) as appliance:
        if container := appliance.container():
            outcome = appliance.engine.execute(container, ["fedward", *command])
            sys.stdout.write(outcome.stdout)
            sys.stderr.write(outcome.stderr)
            return outcome.exit_code
        with appliance.carrier() as carrier:
            current = carrier.journal.current
            if current is None:
                raise ConfigError("no agent is installed here")
            errand = Errand(told=_pass_on)
            return appliance.engine.run_once(once_options(current.options, command), errand)[0].exit_code


def _enrolment(arguments: argparse.Namespace) -> Enrolment | None:
    if arguments.token_file is not None:
        return Enrolment(arguments.token_file, arguments.request_out, arguments.answer)
    if arguments.request_out is not None or arguments.answer is not None:
        raise ConfigError("--request-out and --answer go with --token-file")
    return None


def _checked(appliance: Appliance, arguments: argparse.Namespace) -> Callable[[dict[str, Any]], None]:
    """What has the agent's own doctor look, in a container like the new one, before that is made."""
    return lambda options: _look(appliance.check_agent(options), arguments)


def _look(checks: list[Check], arguments: argparse.Namespace) -> None:
    """Say what was found. Raises CheckFailedError where a check failed, unless that is to be passed over."""
    print(as_text(checks))
    if exit_code(checks) and not arguments.force:
        raise CheckFailedError("a check failed, see above: nothing was changed; --force goes on in spite of it")


def _pass_on(piece: bytes) -> None:
    sys.stdout.write(piece.decode(errors="replace"))
    sys.stdout.flush()


def _end_of_interrupted(change: Change | None, journal: Journal) -> int:
    """0 where the change that was interrupted is done; then what is asked for now is looked at."""
    return _end_of(journal) if change is not None and journal.failure else 0


def _end_of(journal: Journal) -> int:
    """Say how a change ended, and return the exit code."""
    running = journal.current.release.reference if journal.current else None
    if journal.failure:
        back = f"{running} runs as before" if running else "nothing is installed"
        print(f"failed: {journal.failure}; {back}", file=sys.stderr)
        return EXIT_FAILED
    print(f"{running} runs")
    return 0
