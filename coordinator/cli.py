"""`fedward coordinator`: run, doctor, replay, backup, restore, the operator's wishes; api/cli.py: those that ask."""

import argparse
import os
import sys
from contextlib import closing
from pathlib import Path

from coordinator import broker_config
from coordinator.api.cli import add_verbs as add_asking
from coordinator.backup import BackupManifest, back_up, drop_older, restore
from coordinator.blobs import BlobFolder
from coordinator.chain import Mark, anchor_of
from coordinator.config import FederationConfig
from coordinator.doctor import examine
from coordinator.enrolment import adopting
from coordinator.enrolment.cli import add_verbs as add_enrolment
from coordinator.enrolment.saving import restore_register
from coordinator.ledger import Ledger
from coordinator.making import Store
from coordinator.opening import engine_of, is_moved, move_ledger, open_begun
from coordinator.replay import check_ledger, pruned_since, replay, snapshot_of_ledger
from coordinator.replayed import noting
from coordinator.run import mqtt_settings, run_coordinator
from coordinator.schema import migrate
from coordinator.tables import ALL, Verdict
from fedward.doctor.check import as_json, as_text, exit_code
from fedward.doctor.deadline import Deadline
from fedward.errors import ConfigError, IntegrityError, TransientError
from fedward.layout import Layout
from fedward.messages import FederationState
from fedward.modelfile import load_model
from fedward.process import SystemClock, log_to_stderr, only_process_in, stop_on_signals, utc_text
from fedward.settings import describe, load_settings

REPLAY = (
    "prove where the model comes from: check the ledger's chain, make every version again and compare all digests; "
    "ends with 4 and the first difference if there is one. It begins at the oldest version whose payloads are kept; "
    "--from compares later ones only, and makes those since the last stored state before them without comparing."
)

DOCTOR = (
    "check the way to the broker and this machine: a line for each, and what must be changed; "
    "ends with 1 when a check failed. The coordinator may run meanwhile, or never have run."
)

WISHES = {
    "pause": FederationState.PAUSED,
    "resume": FederationState.RUNNING,
    "finish": FederationState.FINISHED,
}

VERDICTS = {"release": Verdict.RELEASED, "refuse": Verdict.REFUSED}


def add_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `coordinator` to the command line."""
    parser = commands.add_parser("coordinator", help="aggregate the updates of a federation")
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    settings = "settings of the configuration file:\n" + "\n".join(describe(FederationConfig))
    for verb, run, text in (
        ("run", _run, "run the coordinator until SIGTERM"),
        ("doctor", _doctor, DOCTOR),
        ("replay", _replay, REPLAY),
        ("backup", _back_up, "copy ledger, blobs and register into a new folder, while the coordinator runs"),
        ("restore", _restore, "make the state folder that of a backup, verified; the coordinator must be stopped"),
        ("move-ledger", _move_ledger, "copy the ledger in the state folder into the empty database of ledger.url"),
        ("migrate", _migrate, "bring the tables of a ledger on a server up to this release; a coordinator may run"),
        ("pause", _wish, "ask all sites, or one, to begin no new training"),
        ("resume", _wish, "undo pause, or finish"),
        ("finish", _wish, "end the federation: the current version is the last"),
        ("release", _give_verdict, "let a site out of quarantine: its next updates count"),
        ("refuse", _give_verdict, "let no update of a site count until it is released"),
    ):
        command = verbs.add_parser(
            verb, help=text, description=text, epilog=settings, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        command.add_argument("--config", type=Path, required=True, help="federation.yaml")
        command.set_defaults(run=run, verb=verb)
        if verb == "doctor":
            command.add_argument("--json", action="store_true", help="a JSON array instead of lines")
        if verb == "replay":
            command.add_argument("--from", dest="from_version", type=int, help="first version to compare")
            command.add_argument("--head", help="a head that the chain must have had, as a model card names it")
            command.add_argument("--verbose", action="store_true", help="a line for each version")
        if verb == "backup":
            command.add_argument("--out", type=Path, required=True, help="the folder to make")
            command.add_argument("--keep", type=int, help="delete all but so many of the newest backups beside it")
        if verb == "restore":
            command.add_argument("--from", dest="source", type=Path, required=True, help="the backup's folder")
            command.add_argument("--force", action="store_true", help="move aside what the state folder holds")
        if verb in VERDICTS:
            command.add_argument("site", help="the site")
        if verb in ("pause", "resume"):
            command.add_argument("--site", help="only this site; default: all")
    add_asking(verbs, settings)
    broker_config.add_command(verbs)
    add_enrolment(verbs)
    adopting.add_command(verbs)


def _run(arguments: argparse.Namespace) -> None:
    config = load_settings(FederationConfig, arguments.config, os.environ)
    log_to_stderr()
    run_coordinator(config, SystemClock(), stop_on_signals())


def _open(arguments: argparse.Namespace) -> tuple[FederationConfig, Ledger, Layout]:
    config = load_settings(FederationConfig, arguments.config, os.environ)
    layout, _ = load_model(config.model)
    return config, open_begun(config, layout), layout


def _doctor(arguments: argparse.Namespace) -> int:
    config = load_settings(FederationConfig, arguments.config, os.environ)
    checks = examine(config, lambda: mqtt_settings(config), Deadline())
    print(as_json(checks) if arguments.json else as_text(checks))
    return exit_code(checks)


def _replay(arguments: argparse.Namespace) -> None:
    known = _parse_head(arguments.head) if arguments.head else None
    config, live, layout = _open(arguments)
    noted = noting(config.state_folder, SystemClock(), whole=arguments.from_version is None)
    with closing(live), snapshot_of_ledger(live) as ledger, noted:
        check_ledger(ledger, known)
        chain, floor = ledger.chain(), ledger.floor
        from_version = floor if arguments.from_version is None else arguments.from_version
        try:
            _print_replay(Store(ledger, BlobFolder(config.state_folder / "blobs"), layout), from_version, arguments)
        except IntegrityError:
            pruned = pruned_since(live, ledger)
            if pruned:
                raise TransientError(pruned) from None
            raise
    anchor = anchor_of(chain)
    print(f"chain of {chain[-1].entry} entries, head {chain[-1].mark}")
    if anchor:
        print(f"entries up to {anchor.entry} were deleted with their rows, which were old (retention.records)")


def _print_replay(store: Store, from_version: int, arguments: argparse.Namespace) -> None:
    num_versions = num_updates = 0
    for done in replay(store, from_version):
        num_versions, num_updates = num_versions + 1, num_updates + done.num_updates
        if arguments.verbose:
            print(f"version {done.version}: {done.num_updates} updates, digest {done.model_digest.hex()}")
    print(f"{num_versions} versions made again of {num_updates} updates: every digest is as recorded")
    if store.ledger.floor and from_version == store.ledger.floor:
        print(f"begun with the stored state of version {from_version}, the oldest that is kept (retention.versions)")


def _parse_head(text: str) -> Mark:
    try:
        return Mark.parse(text)
    except ValueError as error:
        raise ConfigError(f"--head {text}: {error}") from None


def _back_up(arguments: argparse.Namespace) -> None:
    if arguments.keep is not None and arguments.keep < 1:
        raise ConfigError(f"--keep {arguments.keep}: expected 1 or more")
    config, ledger, _ = _open(arguments)
    with closing(ledger):
        identity = config.identity.folder if config.identity else None
        made = back_up(ledger, config.state_folder, arguments.out, SystemClock().now_s(), identity)
    print(f"version {made.version} with {made.num_blobs} blobs: {arguments.out}, chain head {made.chain_head}")
    if arguments.keep is not None:
        for folder in drop_older(arguments.out, config.federation, arguments.keep):
            print(f"deleted {folder}")


def _restore(arguments: argparse.Namespace) -> None:
    config = load_settings(FederationConfig, arguments.config, os.environ)
    now_s = SystemClock().now_s()
    with only_process_in(config.state_folder):
        done = BackupManifest.of(arguments.source, config.federation)  # before anything is touched
        moved = config.ledger.url is not None and is_moved(config)
        num_sites = restore_register(arguments.source, config.identity.folder) if config.identity else None
        if num_sites is not None:  # said at once: should the rest fail, the next one finds a register and is silent
            made_at = utc_text(done.made_at_s)
            print(f"register with {num_sites} enrolled sites: restored; whom you revoked after {made_at}, revoke again")
        if not moved:
            restore(arguments.source, config.state_folder, config.federation, now_s, force=arguments.force)
        if config.ledger.url is not None:
            move_ledger(config)
    print(f"version {done.version} with {done.num_blobs} blobs: restored, chain head {done.chain_head}")


def _move_ledger(arguments: argparse.Namespace) -> None:
    config = load_settings(FederationConfig, arguments.config, os.environ)
    with only_process_in(config.state_folder):
        head = move_ledger(config)
    print(f"moved to the database of ledger.url: chain head {head}")


def _migrate(arguments: argparse.Namespace) -> None:
    config = load_settings(FederationConfig, arguments.config, os.environ)
    print(f"the ledger's tables are of revision {migrate(engine_of(config))}")


def _wish(arguments: argparse.Namespace) -> None:
    config, ledger, _ = _open(arguments)
    target = getattr(arguments, "site", None) or ALL
    if target != ALL:
        _check_admitted(config, target)
    if arguments.verb == "pause" and ledger.wishes().get(ALL) is FederationState.FINISHED:
        raise ConfigError("the federation is finished; `resume` takes it up again")
    ledger.wish(target, WISHES[arguments.verb], SystemClock().now_s())
    ledger.close()
    print(f"{arguments.verb}: noted for {'all sites' if target == ALL else target}", file=sys.stderr)


def _give_verdict(arguments: argparse.Namespace) -> None:
    config, ledger, _ = _open(arguments)
    _check_admitted(config, arguments.site)
    ledger.give_verdict(arguments.site, VERDICTS[arguments.verb], SystemClock().now_s())
    ledger.close()
    print(f"{arguments.verb}: noted for {arguments.site}", file=sys.stderr)


def _check_admitted(config: FederationConfig, site: str) -> None:
    if site not in config.sites:
        raise ConfigError(f"site {site} is not admitted; admitted: {', '.join(config.sites)}")
