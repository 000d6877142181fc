"""The hospital's policy file: read again when it changed, and nothing is allowed while it can't be read."""

import os
from pathlib import Path

import pytest

from edge_agent.policy import NOTHING, PolicySettings
from edge_agent.policy_file import PolicyFile, load_policy
from fedward.errors import ConfigError


def test_without_a_file_the_defaults_hold() -> None:
    file = PolicyFile(None)
    assert not file.look()
    assert (file.policy, file.problem) == (PolicySettings(), None)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("min_examples: [", "expected YAML"),
        ("- a list", "key: value"),
        ("", "key: value"),
        ("min_example: 3", "unknown setting; known here:"),
        ("min_examples: many\ncompute_share: 2", "compute_share"),
        ("hours: {time_zone: Mars/Olympus, open: ['mon 08:00-17:00']}", "time zones"),
        ("hours: {time_zone: /etc/passwd, open: ['mon 08:00-17:00']}", "time zones"),
        ("hours: {time_zone: '', open: ['mon 08:00-17:00']}", "time zones"),
        ("hours: {time_zone: Europe, open: ['mon 08:00-17:00']}", "time zones"),
    ],
)
def test_a_file_that_can_not_be_used_allows_nothing_and_says_why(tmp_path: Path, content: str, problem: str) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(content)
    file = PolicyFile(path)
    assert file.policy == NOTHING
    assert problem in (file.problem or "")
    with pytest.raises(ConfigError):
        load_policy(path)


def test_a_file_that_is_not_there_or_no_text_allows_nothing(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    assert PolicyFile(path).policy == NOTHING
    path.write_bytes(b"\xff\xfe\x00")
    assert PolicyFile(path).policy == NOTHING


def test_every_change_of_the_file_is_seen_once(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text("min_examples: 1")
    file = PolicyFile(path)
    assert not file.look()
    path.write_text("min_examples: 12")
    assert file.look()
    assert not file.look()
    assert file.policy.min_examples == 12
    path.write_text("min_examples: twelve")
    assert file.look()
    assert (file.policy, file.problem is None) == (NOTHING, False)
    path.unlink()
    assert file.look()
    assert file.policy == NOTHING
    path.write_text("min_examples: 34")
    assert file.look()
    assert (file.policy.min_examples, file.problem) == (34, None)


def test_a_file_of_the_same_size_put_in_its_place_is_seen(tmp_path: Path) -> None:
    path, other = tmp_path / "policy.yaml", tmp_path / "other"
    path.write_text("min_examples: 1")
    file = PolicyFile(path)
    other.write_text("min_examples: 2")
    os.utime(other, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    other.replace(path)
    assert file.look()
    assert file.policy.min_examples == 2


def test_the_environment_changes_nothing_of_the_hospitals_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text("min_examples: 9")
    monkeypatch.setenv("FEDWARD_MIN_EXAMPLES", "1")
    assert load_policy(path).min_examples == 9
