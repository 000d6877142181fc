"""The register in a backup, and out of one into an identity folder that has none: a centre that lost its disk knows its
hospitals again.

Certificates and the notes on those that were revoked are in it: nothing that is secret. Keys stay where they are kept,
and invitations are made anew.
"""

import shutil
from pathlib import Path

from coordinator.enrolment.folder import ISSUED, REVOKED
from fedward.files import move_durably, sync_folder, write_durably
from fedward.identity.certificates import load_certificate
from fedward.identity.folder import REGISTER

SAVED = "register"
"""The register's folder in a backup."""

STAGED = ".register"
"""What is about to be put in place, whole; while it is there, a restore has not ended."""

ROOMS = (REVOKED, ISSUED, REGISTER)
"""In this order: a site that is revoked meanwhile is in the copy as revoked, or not at all, and never enrolled."""


def save_register(identity: Path, backup: Path) -> None:
    """Copy the register into the folder of a backup. Commands and the coordinator may change it meanwhile."""
    _copy(identity, backup / SAVED)


def restore_register(backup: Path, identity: Path) -> int | None:
    """Put a backup's register into an identity folder; the number of enrolled sites in it.

    None, and nothing is changed, where there is a register, which is newer, or the backup is of a release that saved
    none. A restore that died is ended by the next one. Raises ConfigError for a certificate that can't be read.
    """
    staged = identity / STAGED
    if not staged.exists():
        if not (backup / SAVED).is_dir() or any(any((identity / room).glob("*.crt")) for room in ROOMS):
            return None
        identity.mkdir(parents=True, exist_ok=True, mode=0o700)  # keys come into it, too
        part = identity / f"{STAGED}.part"
        shutil.rmtree(part, ignore_errors=True)
        _copy(backup / SAVED, part)
        move_durably(part, staged)
    for room in ROOMS:
        (identity / room).mkdir(parents=True, exist_ok=True)
        for path in sorted((staged / room).iterdir()):
            move_durably(path, identity / room / path.name)
    shutil.rmtree(staged)
    return len(list((identity / REGISTER).glob("*.crt")))


def _copy(source: Path, target: Path) -> None:
    """Every certificate in it can be read; one that is moved away meanwhile comes in another room, or not."""
    for room in ROOMS:
        (target / room).mkdir(parents=True)
        for path in sorted((source / room).glob("*.*")):
            try:
                content = path.read_bytes()
            except FileNotFoundError:
                continue
            copy = target / room / path.name
            write_durably(copy, content)
            if copy.suffix == ".crt":
                load_certificate(copy)
        sync_folder(target / room)
    revoked = {load_certificate(path).serial for path in (target / REVOKED).glob("*.crt")}
    for path in (target / REGISTER).glob("*.crt"):
        if load_certificate(path).serial in revoked:
            path.unlink()
