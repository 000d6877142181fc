"""`fedward coordinator adopt`: the coordinator's keys stay where something else keeps them, as Kubernetes does secrets.

The identity folder is written to, for the register is in it, and where keys are kept nobody writes. So the folder has
links to them: what is renewed there counts here, and no key is copied.
"""

import argparse
import os
from pathlib import Path

from coordinator.config import FederationConfig
from fedward.errors import ConfigError
from fedward.files import sync_folder
from fedward.identity.certificates import AUTHORITY_CERTIFICATE
from fedward.identity.folder import COORDINATOR_CERTIFICATE, COORDINATOR_KEY, SEALING_KEY
from fedward.settings import load_settings

ADOPTED = (AUTHORITY_CERTIFICATE, COORDINATOR_CERTIFICATE, COORDINATOR_KEY, SEALING_KEY)


def adopt(source: Path, folder: Path) -> None:
    """Make `folder` hold a link to each of the coordinator's files in `source`. Done again, it changes nothing.

    Raises ConfigError, before anything is changed, for what is missing in `source`, and where a file of another
    content is in the way: no key is ever replaced.
    """
    if missing := [name for name in ADOPTED if not (source / name).is_file()]:
        raise ConfigError(f"{source}: {', '.join(missing)} missing; `fedward coordinator identity` makes them")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name in ADOPTED:
        own = folder / name
        if own.exists() and not own.is_symlink() and own.read_bytes() != (source / name).read_bytes():
            raise ConfigError(
                f"{own}: a file is there, of another content than {source / name}; move it away if that one counts"
            )
    for name in ADOPTED:
        link = folder / f".{name}.{os.getpid()}.part"
        link.unlink(missing_ok=True)
        link.symlink_to(source / name)
        link.replace(folder / name)
    sync_folder(folder)


def add_command(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `adopt` to the coordinator's verbs."""
    text = "use the coordinator's keys and certificates where they are kept: the identity folder gets links to them"
    parser = verbs.add_parser("adopt", help=text, description=text)
    parser.add_argument("--config", type=Path, required=True, help="federation.yaml")
    parser.add_argument("--from", dest="source", type=Path, required=True, help=f"the folder of {', '.join(ADOPTED)}")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> None:
    config = load_settings(FederationConfig, arguments.config, os.environ)
    if config.identity is None:
        raise ConfigError("identity.folder: missing in the configuration")
    adopt(arguments.source.absolute(), config.identity.folder)
    print(f"{config.identity.folder}: {len(ADOPTED)} links to {arguments.source}")  # noqa: T201
