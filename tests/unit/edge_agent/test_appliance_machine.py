"""What the doctor says of the machine that a container is to run on, and of the container."""

import os
import struct
from dataclasses import replace
from pathlib import Path

import pytest

from edge_agent.appliance.machine import (
    Mounted,
    granted_by,
    judge_container,
    judge_mounts,
    judge_paths,
    judge_snapshots,
)
from edge_agent.appliance.state import as_lines, state_of
from edge_agent.appliance.steps import Change, Container, Deployment, Journal, Kind, Release
from fedward.doctor.check import Verdict

RECORDS = Mounted("/srv/export", owner=0, group=0, mode=0o755)
SECRET = Mounted("/srv/secrets/password", owner=10001, group=0, mode=0o400, is_folder=False, is_secret=True)
RELEASE = Release("sha256:1", "fedward-agent:1", "1")
CURRENT = Deployment(3, RELEASE, {})
UP = Container("0123456789abcdef", 3, "running", "healthy", running_s=61.4)


@pytest.mark.parametrize(
    ("mounted", "verdict", "words"),
    [
        (RECORDS, Verdict.OK, ""),
        (SECRET, Verdict.OK, ""),
        (replace(RECORDS, mode=None), Verdict.FAILED, "correct the paths"),
        (replace(RECORDS, mode=0o744), Verdict.FAILED, "chown -R 10001:10001 /srv/export"),
        (replace(RECORDS, mode=0o750), Verdict.FAILED, "chown"),
        (replace(RECORDS, mode=0o750, group=10001), Verdict.OK, ""),
        (replace(RECORDS, mode=0o750, granted=0o5), Verdict.OK, ""),
        (replace(RECORDS, mode=0o755, granted=0o4), Verdict.FAILED, "setfacl"),
        (replace(RECORDS, mode=0o050, granted=0o5, owner=10001), Verdict.FAILED, "chown"),
        (replace(RECORDS, mode=0o055, owner=10001), Verdict.FAILED, "chown"),
        (replace(SECRET, owner=0), Verdict.FAILED, "chown"),
        (replace(SECRET, mode=0o444), Verdict.WARNING, "chmod o= /srv/secrets/password"),
    ],
)
def test_what_is_mounted_is_there_and_readable_by_the_containers_user_alone(
    mounted: Mounted, verdict: Verdict, words: str
) -> None:
    check = judge_mounts([RECORDS, mounted])
    assert check.verdict is verdict
    assert words in check.remedy


ANYBODY = 0xFFFFFFFF


@pytest.mark.parametrize(
    ("named", "mask", "expected"),
    [((0x02, 5, 10001), 7, 0o5), ((0x02, 5, 10001), 4, 0o4), ((0x02, 5, 10002), 7, None), ((0x08, 5, 10001), 7, None)],
)
def test_rights_of_an_access_list_are_read_as_the_kernel_tells_them(
    tmp_path: Path, named: tuple[int, int, int], mask: int, expected: int | None
) -> None:
    """As of `setfacl -m u:10001:rX`."""
    entries = [(0x01, 7, ANYBODY), named, (0x04, 0, ANYBODY), (0x10, mask, ANYBODY), (0x20, 0, ANYBODY)]
    written = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in sorted(entries))
    os.setxattr(tmp_path, "system.posix_acl_access", written)
    assert granted_by(os.getxattr(tmp_path, "system.posix_acl_access")) == expected


def test_a_copy_of_the_state_has_to_fit() -> None:
    assert judge_snapshots("/var", 10_000_000, 5_000_000).verdict is Verdict.OK
    assert judge_snapshots("/var", 10_000_000, None).verdict is Verdict.OK
    assert judge_snapshots("/var", 5_000_000, 10_000_000).verdict is Verdict.WARNING


def test_paths_that_do_not_fit_are_all_told() -> None:
    assert judge_paths([]).verdict is Verdict.OK
    assert judge_paths(["one", "two"]).found == "one; two"


@pytest.mark.parametrize(
    ("journal", "containers", "state", "verdict"),
    [
        (Journal(), [], "absent", Verdict.SKIPPED),
        (Journal(current=CURRENT), [UP], "healthy", Verdict.OK),
        (Journal(current=CURRENT), [replace(UP, restarts=2)], "healthy", Verdict.WARNING),
        (Journal(current=CURRENT), [replace(UP, health="unhealthy")], "unhealthy", Verdict.FAILED),
        (Journal(current=CURRENT), [replace(UP, health="starting")], "starting", Verdict.OK),
        (Journal(current=CURRENT), [replace(UP, status="exited")], "stopped", Verdict.FAILED),
        (Journal(current=CURRENT), [replace(UP, generation=2)], "stopped", Verdict.FAILED),
        (Journal(current=CURRENT, change=Change(Kind.UPGRADE)), [UP], "changing", Verdict.WARNING),
    ],
)
def test_where_an_appliance_stands(journal: Journal, containers: list[Container], state: str, verdict: Verdict) -> None:
    told = state_of("fedward-agent", journal, containers)
    assert told["state"] == state
    assert judge_container(told).verdict is verdict
    assert any(line.startswith("state") and line.endswith(state) for line in as_lines(told))


def test_the_status_names_what_runs_and_what_failed() -> None:
    before = Deployment(2, Release("sha256:0", "fedward-agent:0", "0"), {})
    told = state_of("fedward-agent", Journal(3, CURRENT, before, None, "its health check fails"), [UP])
    assert (told["version"], told["before"], told["running_s"]) == ("1", "fedward-agent:0", 61)
    assert told["container"] == "0123456789ab"
    assert told["failure"] == "its health check fails"
