"""`fedward coordinator adopt`: keys that stay where they are kept."""

from pathlib import Path

import pytest

from coordinator.enrolment.adopting import ADOPTED, adopt
from fedward.errors import ConfigError


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """A folder as a secret is mounted: its files are links to those of a folder that is replaced as a whole."""
    folder = tmp_path / "secret"
    mount(folder, "1")
    return folder


def mount(folder: Path, generation: str) -> None:
    real = folder / f"..{generation}"
    real.mkdir(parents=True)
    for name in ADOPTED:
        (real / name).write_text(f"{name} {generation}")
        link = folder / name
        link.unlink(missing_ok=True)
        link.symlink_to(Path(real.name, name))


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir() if path.is_file()}


def test_the_identity_folder_holds_what_is_kept_and_follows_when_it_is_renewed(tmp_path: Path, kept: Path) -> None:
    adopt(kept, tmp_path / "identity")
    assert contents(tmp_path / "identity") == {name: f"{name} 1" for name in ADOPTED}
    mount(kept, "2")
    assert contents(tmp_path / "identity") == {name: f"{name} 2" for name in ADOPTED}


def test_no_key_is_copied(tmp_path: Path, kept: Path) -> None:
    adopt(kept, tmp_path / "identity")
    assert all(path.is_symlink() for path in (tmp_path / "identity").iterdir())
    assert (tmp_path / "identity").stat().st_mode & 0o077 == 0


def test_done_again_it_changes_nothing_and_the_register_stays(tmp_path: Path, kept: Path) -> None:
    adopt(kept, tmp_path / "identity")
    site = tmp_path / "identity" / "sites" / "north.crt"
    site.parent.mkdir()
    site.write_text("enrolled")
    before = contents(tmp_path / "identity")
    adopt(kept, tmp_path / "identity")
    assert contents(tmp_path / "identity") == before
    assert site.read_text() == "enrolled"


def test_links_to_another_place_are_replaced_even_where_they_lead_nowhere(tmp_path: Path, kept: Path) -> None:
    identity = tmp_path / "identity"
    identity.mkdir()
    (identity / ADOPTED[0]).symlink_to(tmp_path / "gone")
    adopt(kept, identity)
    assert contents(identity) == {name: f"{name} 1" for name in ADOPTED}


@pytest.mark.parametrize("name", ADOPTED)
def test_a_key_is_never_replaced_by_another_one(tmp_path: Path, kept: Path, name: str) -> None:
    identity = tmp_path / "identity"
    identity.mkdir()
    (identity / name).write_text("another")
    with pytest.raises(ConfigError, match="of another content"):
        adopt(kept, identity)
    assert contents(identity) == {name: "another"}


def test_a_copy_of_what_is_kept_becomes_a_link(tmp_path: Path, kept: Path) -> None:
    identity = tmp_path / "identity"
    identity.mkdir()
    (identity / ADOPTED[0]).write_text(f"{ADOPTED[0]} 1")
    adopt(kept, identity)
    assert (identity / ADOPTED[0]).is_symlink()


def test_what_is_missing_is_named_and_nothing_is_made(tmp_path: Path, kept: Path) -> None:
    (kept / ADOPTED[1]).unlink()
    with pytest.raises(ConfigError, match=ADOPTED[1]):
        adopt(kept, tmp_path / "identity")
    assert not (tmp_path / "identity").exists()
