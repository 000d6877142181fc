"""A copy of the coordinator's state that it can go on from: the ledger as it was at one moment, and what it names."""

import hashlib
import json
import os
import shutil
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path

from coordinator.blobs import BlobFolder
from coordinator.damage import LEDGER_FILE, check_pages
from coordinator.enrolment.saving import save_register
from coordinator.ledger import Ledger
from fedward.errors import ConfigError, IntegrityError, TransientError
from fedward.files import move_durably, sync_folder, write_durably

ATTEMPTS = 20
"""Ledger copies until one needs no blob that the running coordinator has deleted meanwhile."""

BLOBS, MANIFEST = "blobs", "manifest.json"

PART = ".backup.part"
ABANDONED_S = 86_400.0
"""No backup takes as long."""

STAGING = ".restoring.part"
"""What a restore is about to put in place; a restore that died here changed nothing."""

RESTORING = ".restoring"
"""The same, whole and verified. While it is there, the state folder is half an old and half a new one."""

NEW, OLD = "new", "old"
REPLACED = "replaced-"


@dataclass(frozen=True, kw_only=True)
class BackupManifest:
    """What a backup is of. It is written last: a folder without it is no backup."""

    federation: str
    version: int
    chain_head: str
    ledger_digest: str
    num_blobs: int
    made_at_s: float

    @classmethod
    def load(cls, folder: Path) -> "BackupManifest":
        """Raises ConfigError."""
        try:
            return cls(**json.loads((folder / MANIFEST).read_text()))
        except (OSError, ValueError, TypeError):
            raise ConfigError(f"{folder}: not a backup, its {MANIFEST} is missing or unreadable") from None

    @classmethod
    def of(cls, folder: Path, federation: str) -> "BackupManifest":
        """Raises ConfigError, also for that of another federation."""
        manifest = cls.load(folder)
        if manifest.federation != federation:
            raise ConfigError(f"{folder}: of federation {manifest.federation}, the configuration says {federation}")
        return manifest


def back_up(live: Ledger, state_folder: Path, out: Path, now_s: float, identity: Path | None = None) -> BackupManifest:
    """Copy ledger, blobs and the register in `identity` into the new folder `out`.

    It appears when all of it is there and verified. What is unfinished goes when this fails.

    The copy of a ledger on a server is a SQLite file, too. Blobs are hard links where the file system allows it. The
    coordinator may run meanwhile. Raises ConfigError when `out` exists, IntegrityError for a damaged ledger, or a blob
    that is missing or damaged. A ledger that breaks its chain is saved as evidence, and told with IntegrityError then:
    no backup that can be restored may make place for it.
    """
    if out.exists():
        raise ConfigError(f"--out {out}: exists; a backup goes into a new folder")
    partial = out.with_name(f".{out.name}{PART}")
    _drop_abandoned(partial, now_s)
    partial.mkdir(parents=True)
    try:
        manifest, fault = _fill(live, state_folder, partial, now_s)
        if identity is not None:
            save_register(identity, partial)
        write_durably(partial / MANIFEST, json.dumps(asdict(manifest), indent=2).encode())
        move_durably(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    if fault is not None:
        raise IntegrityError(f"{out}: kept as evidence, nothing can be restored from it: {fault}")
    return manifest


def _fill(
    live: Ledger, state_folder: Path, partial: Path, now_s: float
) -> tuple[BackupManifest, IntegrityError | None]:
    """What `partial` has now, and where its ledger breaks the chain."""
    target = BlobFolder(partial / BLOBS)
    ledger = _copy_with_blobs(live, state_folder, partial)
    try:
        newest, named = ledger.newest_version(), ledger.blobs()
        if newest is None:
            raise ConfigError(f"{state_folder}: no version there yet; start `fedward coordinator run` first")
        for digest in target.digests() - named.keys():
            target.drop(digest)  # of a copy of the ledger that came too late for its blobs
        for digest, what in named.items():
            target.check(digest, what)
        head, federation, fault = ledger.newest_entry(), ledger.fact("federation"), _chain_fault(ledger)
    finally:
        ledger.close()
    sync_folder(partial / BLOBS)
    manifest = BackupManifest(
        federation=federation or "",
        version=newest.version,
        chain_head=str(head.mark) if head else "",
        ledger_digest=_file_digest(partial / LEDGER_FILE),
        num_blobs=len(named),
        made_at_s=now_s,
    )
    return manifest, fault


def _chain_fault(ledger: Ledger) -> IntegrityError | None:
    try:
        ledger.check_chain()
    except IntegrityError as fault:
        return fault
    return None


def _drop_abandoned(partial: Path, now_s: float) -> None:
    """What killed ones have left: it would fill the disk. Another one that is being made is younger."""
    for path in partial.parent.glob(f".*{PART}"):
        if path == partial or now_s - path.stat().st_mtime > ABANDONED_S:
            shutil.rmtree(path, ignore_errors=True)


def drop_older(newest: Path, federation: str, keep: int) -> list[Path]:
    """Delete this federation's backups beside `newest`, but for the `keep` newest of all; those that were deleted.

    `newest` stays, whatever the clock said when the others were made. So does what is no whole backup, or of another
    federation.
    """
    found = []
    for folder in newest.parent.iterdir():
        if folder == newest:
            continue
        try:
            manifest = BackupManifest.load(folder)
        except ConfigError:
            continue
        if manifest.federation == federation:
            found.append((manifest.made_at_s, folder))
    dropped = [folder for _, folder in sorted(found, reverse=True)[max(keep - 1, 0) :]]
    for folder in dropped:
        (folder / MANIFEST).unlink()  # first: a half is no backup
        sync_folder(folder)
        shutil.rmtree(folder)
    return dropped


def restore(source: Path, state_folder: Path, federation: str, now_s: float, *, force: bool) -> BackupManifest:
    """Make the state folder that of the backup, verified, and let it begin a new epoch (docs/adr/0004).

    The caller holds the folder's lock. What is in the folder is refused, or with `force` kept in a folder
    `replaced-...` inside it. A restore that died is finished by the next one of the same backup; until then
    `check_restored` keeps the coordinator away. Raises ConfigError; IntegrityError for a backup that is not as it was
    made, and then the state folder is as it was.
    """
    manifest = BackupManifest.of(source, federation)
    restoring = state_folder / RESTORING
    if restoring.exists():
        begun = BackupManifest.load(restoring)
        _put_in_place(state_folder, now_s)
        if begun == manifest:
            return manifest
    if _present(state_folder) and not force:
        raise ConfigError(f"{state_folder}: not empty; --force moves what is there aside, into a folder inside it")
    staging = state_folder / STAGING
    shutil.rmtree(staging, ignore_errors=True)
    try:
        _stage(source, staging / NEW, manifest, now_s)
        (staging / OLD).mkdir()
        write_durably(staging / MANIFEST, (source / MANIFEST).read_bytes())
        move_durably(staging, restoring)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    _put_in_place(state_folder, now_s)
    return manifest


def check_restored(state_folder: Path) -> None:
    """Raise ConfigError while a restore that died has left the folder half replaced."""
    if (state_folder / RESTORING).exists():
        raise ConfigError(
            f"{state_folder}: a restore was interrupted here; run `fedward coordinator restore` "
            "from the same backup again, which finishes it, and then start the coordinator"
        )


def _put_in_place(state_folder: Path, now_s: float) -> None:
    """Out with the old, in with the new. Each step is one rename, so that it goes on wherever it was interrupted."""
    restoring = state_folder / RESTORING
    old, new = restoring / OLD, restoring / NEW
    if old.exists():  # until it has left, whatever is in the folder is old
        for path in _present(state_folder):
            move_durably(path, old / path.name)
        if any(old.iterdir()):
            move_durably(old, _free_name(state_folder, now_s))
        else:
            old.rmdir()
    for path in sorted(new.iterdir()):
        move_durably(path, state_folder / path.name)
    move_durably(restoring, state_folder / STAGING)  # it counts no more, and can be deleted piece by piece
    shutil.rmtree(state_folder / STAGING)


def _free_name(state_folder: Path, now_s: float) -> Path:
    names = (state_folder / f"{REPLACED}{second}" for second in count(int(now_s)))
    return next(path for path in names if not path.exists())


def _present(state_folder: Path) -> list[Path]:
    """What a restore replaces: all but the lock, and what restores have made."""
    made = (".lock", STAGING, RESTORING)
    return [path for path in state_folder.iterdir() if path.name not in made and not path.name.startswith(REPLACED)]


def _copy_with_blobs(live: Ledger, state_folder: Path, partial: Path) -> Ledger:
    """A copy of the ledger, and of every blob that it needs, some of which the next version would delete."""
    source, target = BlobFolder(state_folder / BLOBS), BlobFolder(partial / BLOBS)
    if live.path:
        check_pages(live.path)  # a copy would take a damaged page along, unseen
    for _ in range(ATTEMPTS):
        (partial / LEDGER_FILE).unlink(missing_ok=True)
        live.copy_to(partial / LEDGER_FILE)
        copy = Ledger.in_folder(partial)
        try:
            for digest, what in copy.blobs().items():
                _link(source, target, digest, what)
        except IntegrityError:
            then = copy.newest_version(), copy.floor
            copy.close()
            if (live.newest_version(), live.floor) == then:
                raise
            continue  # a version was made in between, or the floor rose: the next copy needs other blobs
        return copy
    raise TransientError(f"{state_folder}: versions come too fast for a backup, {ATTEMPTS} times in a row")


def _link(source: BlobFolder, target: BlobFolder, digest: bytes, what: str) -> None:
    if target.path(digest).exists():
        return
    try:
        os.link(source.path(digest), target.path(digest))
    except FileNotFoundError:
        raise IntegrityError(f"{what}: blob {digest.hex()} is missing") from None
    except OSError:  # another file system, or one without hard links
        target.put(source.view(digest))


def _stage(source: Path, staging: Path, manifest: BackupManifest, now_s: float) -> None:
    """The whole of the new state folder, verified, its own bytes and not links."""
    saved, blobs = BlobFolder(source / BLOBS), BlobFolder(staging / BLOBS)
    write_durably(staging / LEDGER_FILE, (source / LEDGER_FILE).read_bytes())
    if _file_digest(staging / LEDGER_FILE) != manifest.ledger_digest:
        raise IntegrityError(f"{source}: its ledger is not the one that was backed up")
    ledger = Ledger.in_folder(staging)
    try:
        ledger.check_chain()
        for digest, what in ledger.blobs().items():
            saved.check(digest, what)
            blobs.put(saved.view(digest))
        _begin_epoch(ledger, now_s)
    finally:
        ledger.close()
    sync_folder(staging)


def _begin_epoch(ledger: Ledger, now_s: float) -> None:
    """Microseconds since 1970: above every sequence of an earlier life, which grew more slowly than time does."""
    at_s, latest = ledger.last_written()
    if at_s > now_s:
        raise ConfigError(f"this machine's clock is behind the one that wrote {latest} of the backup: set it first")
    ledger.begin_epoch(int(now_s * 1e6))


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
