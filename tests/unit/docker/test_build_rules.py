"""What the images are built of: files that stay, locks that pin everything, versions that agree."""

import re
import tomllib
from pathlib import Path

import pytest
from images import IMAGES
from rootfs import FILES, SYSTEMS, USER_ID, stays

from fedward import __version__

ROOT = Path(__file__).parents[3]
LOCKS = sorted((ROOT / "docker" / "locks").glob("*.txt"))
REQUIREMENT = re.compile(r"^([a-z0-9-]+)==([^\s;]+) \\$", re.MULTILINE)


UNNEEDED = (
    "bin/sh", "usr/bin/perl", "usr/bin/dpkg", "usr/sbin/adduser", "etc/apt/sources.list", "usr/share/man/man1/x.gz",
    "usr/share/doc/tar/README", "var/lib/apt/lists/lock",
)  # fmt: skip
NEEDED = (
    "usr/bin/python3.11", "usr/share/doc/tar/copyright", "lib/x86_64-linux-gnu/libc.so.6",
    "usr/share/zoneinfo/Europe/Vienna", "usr/lib/python3.11/os.py",
)  # fmt: skip


@pytest.mark.parametrize("path", UNNEEDED)
def test_what_no_program_needs_is_left_out(path: str) -> None:
    assert not stays(path, ["usr/bin/python3.11"])


@pytest.mark.parametrize("path", NEEDED)
def test_what_programs_and_licences_need_stays(path: str) -> None:
    assert stays(path, ["usr/bin/python3.11"])


def test_the_user_of_all_images_is_one() -> None:
    assert f"fedward:x:{USER_ID}:{USER_ID}:" in FILES["etc/passwd"]
    dockerfiles = {image.dockerfile for image in IMAGES.values()}
    for name in dockerfiles:
        assert (
            re.findall(r"^USER (\S+)$", (ROOT / "docker" / name).read_text(), re.MULTILINE)[-1]
            == f"{USER_ID}:{USER_ID}"
        )
    for name, system in SYSTEMS.items():
        assert name == "python" or f"USER {USER_ID}:{USER_ID}" in system.changes


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.stem)
def test_every_package_of_a_lock_is_pinned_with_hashes(lock: Path) -> None:
    text = lock.read_text()
    entries = [entry for entry in re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE) if re.match(r"[a-z0-9]", entry)]
    assert entries
    assert all(REQUIREMENT.match(entry) and "--hash=sha256:" in entry for entry in entries)
    assert "://" not in text


@pytest.mark.parametrize("lock", ["agent-cpu", "agent-cuda", "coordinator", "evaluation"])
def test_a_lock_has_the_versions_that_the_tests_run_with(lock: str) -> None:
    tested = dict(re.findall(r"^(\S+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    tested = {normal(name): version for name, version in tested.items()}
    locked = dict(REQUIREMENT.findall((ROOT / "docker" / "locks" / f"{lock}.txt").read_text()))
    shared = locked.keys() & tested.keys()
    assert len(shared) > 5
    assert {name: locked[name].partition("+")[0] for name in shared} == {name: tested[name] for name in shared}


@pytest.mark.parametrize(
    ("lock", "side"), [("agent-cpu", "agent"), ("agent-cuda", "agent"), ("coordinator", "coordinator")]
)
def test_a_lock_has_all_that_a_side_asks_for(lock: str, side: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = {
        normal(re.split(r"[>=<\[]", one)[0])
        for one in [*project["dependencies"], *project["optional-dependencies"][side]]
    }
    locked = dict(REQUIREMENT.findall((ROOT / "docker" / "locks" / f"{lock}.txt").read_text()))
    assert asked <= locked.keys()
    assert ("torch" in locked) == (side == "agent")


def test_compose_runs_the_images_of_this_version() -> None:
    tags = re.findall(r"image: (\S+)$", (ROOT / "docker" / "compose.yaml").read_text(), re.MULTILINE)
    ours = [tag for tag in tags if not tag.startswith("${GRAFANA_IMAGE:-")]
    assert (len(ours), len(tags)) == (6, 7)
    assert all(f"${{FEDWARD_VERSION:-{__version__}}}" in tag for tag in ours)


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
