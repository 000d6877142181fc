"""The register of hospitals in a backup, and in an identity folder that has lost it."""

import shutil
from pathlib import Path

import pytest

from coordinator.enrolment.folder import Register
from coordinator.enrolment.saving import SAVED, STAGED, restore_register, save_register
from fedward.errors import ConfigError
from fedward.identity.certificates import Certificate, Role, load_certificate
from tests.support.authority import Authority


@pytest.fixture
def identity(tmp_path: Path) -> Path:
    """A register of north and south, enrolled, and of west, which was revoked; beside it a key and a token."""
    folder = tmp_path / "identity"
    register, authority = Register(folder), Authority(tmp_path / "authority")
    for site in ("north", "south", "west"):
        register.enter(certificate_of(authority, site))
    register.revoke("west", "its key was stolen", 100.0)
    (folder / "coordinator.key").write_text("secret")
    (folder / "invitations").mkdir()
    (folder / "invitations" / "east.json").write_text("secret")
    return folder


def certificate_of(authority: Authority, site: str) -> Certificate:
    return load_certificate(authority.party(site, Role.CLIENT).certificate_file)


def found_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.*")) if path.is_file()}


@pytest.fixture
def backup(identity: Path, tmp_path: Path) -> Path:
    save_register(identity, tmp_path / "backup")
    return tmp_path / "backup"


def test_a_lost_register_comes_back_as_it_was(identity: Path, backup: Path, tmp_path: Path) -> None:
    new = tmp_path / "new"
    assert restore_register(backup, new) == 2
    before, after = Register(identity), Register(new)
    assert after.sites() == before.sites()
    assert after.sites().keys() == {"north", "south"}
    assert [one.name for one in after.revoked()] == ["west"]
    assert (new / "revoked" / "west.json").read_bytes() == (identity / "revoked" / "west.json").read_bytes()
    assert not (new / STAGED).exists()
    assert new.stat().st_mode & 0o077 == 0, "keys come into it, too"


def test_no_secret_is_in_it(backup: Path) -> None:
    assert found_in(backup)
    assert not [name for name, content in found_in(backup).items() if b"secret" in content or name.endswith(".key")]


def test_a_register_that_is_there_is_newer_and_stays(identity: Path, backup: Path) -> None:
    Register(identity).revoke("north", "left", 200.0)
    before = found_in(identity)
    assert restore_register(backup, identity) is None
    assert found_in(identity) == before


def test_a_backup_of_an_older_release_has_none(tmp_path: Path) -> None:
    (tmp_path / "backup").mkdir()
    assert restore_register(tmp_path / "backup", tmp_path / "new") is None


@pytest.mark.parametrize("num_placed", [0, 1, 3])
def test_a_restore_that_died_is_ended_by_the_next(backup: Path, tmp_path: Path, num_placed: int) -> None:
    """As a kill leaves it: whole beside the rooms, with the first files in place already."""
    whole, new = tmp_path / "whole", tmp_path / "new"
    restore_register(backup, whole)
    Register(new)
    shutil.copytree(backup / SAVED, new / STAGED)
    files = [path for room in ("revoked", "issued", "sites") for path in sorted((new / STAGED / room).iterdir())]
    for path in files[:num_placed]:
        path.rename(new / path.parent.name / path.name)
    assert restore_register(backup, new) == 2
    assert found_in(new) == found_in(whole)


def test_who_is_revoked_in_the_copy_is_not_enrolled_in_it(identity: Path, tmp_path: Path) -> None:
    """A site that is revoked while the copy is made may be met in both rooms."""
    current = (identity / "sites" / "north.crt").read_bytes()
    serial = load_certificate(identity / "sites" / "north.crt").serial
    (identity / "revoked" / f"north-{serial:x}.crt").write_bytes(current)
    save_register(identity, tmp_path / "backup")
    restore_register(tmp_path / "backup", tmp_path / "new")
    assert Register(tmp_path / "new").sites().keys() == {"south"}


def test_a_certificate_that_cannot_be_read_is_told_and_nothing_is_restored(backup: Path, tmp_path: Path) -> None:
    (backup / SAVED / "sites" / "north.crt").write_text("-----BEGIN CERTIFICATE-----")
    with pytest.raises(ConfigError, match=r"north\.crt"):
        restore_register(backup, tmp_path / "new")
    assert Register(tmp_path / "new").sites() == {}
