"""`fedward appliance init`: from an invitation to files, by the commands that the coordinator's operator is shown."""

import shlex
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from fedward.cli import EXIT_CONFIG, main
from fedward.identity.release import read_release_key, release_key_line
from tests.support.coordinator_bench import write_config

pytest.importorskip("docker", reason="the SDK is not installed: pip install 'fedward[appliance]'")

RELEASE = {
    "release_key": "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEaxfR8uEsQkf4vOblY6RA8ncDfYEt6zOg9KE5RdiYwpZP40Li/hp/m47n60p8D54"
    "WK84zV2sxXs7LtkBoN79R9Q==",
    "image": "registry.example.org/fedward/agent@sha256:" + "ab" * 32,
    "image_signature": "MEUC",
}
"""What hospitals install, as the operator has it from the publisher."""

INIT = ["appliance", "init", "--token-file", "token.txt", "--task", "breast-cancer", "--records", "/srv/export"]


@dataclass(frozen=True)
class Invitation:
    """A token's file, and the commands that were shown with it."""

    token_file: Path
    commands: list[list[str]]


@pytest.fixture
def release() -> dict[str, str]:
    """What the operator has set of it."""
    return RELEASE


@pytest.fixture
def invitation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], release: dict[str, str]
) -> Invitation:
    """Of a real coordinator; the hospital's folder is the one that commands run in."""
    config = write_config(tmp_path)
    settings = yaml.safe_load(config.read_text())
    folders = {"identity": {"folder": str(tmp_path / "identity")}, "authority": {"folder": str(tmp_path / "ca")}}
    config.write_text(yaml.safe_dump(settings | folders | {"installation": release}))
    assert main(["coordinator", "ca", "--out", str(tmp_path / "ca")]) == 0
    assert main(["coordinator", "identity", "--config", str(config)]) == 0
    capsys.readouterr()
    assert main(["coordinator", "invite", "north", "--config", str(config)]) == 0
    shown = capsys.readouterr()
    hospital = tmp_path / "hospital"
    hospital.mkdir()
    monkeypatch.chdir(hospital)
    token_file = hospital / "token.txt"
    token_file.touch(0o600)
    token_file.write_text(shown.out)
    return Invitation(token_file, [shlex.split(line) for line in shown.err.splitlines() if line.startswith("  ")])


def test_three_commands_lead_from_nothing_to_a_training_agent_and_are_shown_with_the_token(
    invitation: Invitation,
) -> None:
    pip, init, install = invitation.commands
    assert pip == ["pip", "install", "fedward[appliance]"]
    filled = [{"FOLDER": "/srv/export", "NAME=FILE": "train=records.csv"}.get(word, word) for word in init]
    assert main(filled[1:]) == 0
    assert yaml.safe_load(Path("config/site.yaml").read_text())["site"] == "north"
    appliance = yaml.safe_load(Path("appliance.yaml").read_text())
    assert {name: appliance[name] for name in RELEASE} == RELEASE
    assert install == ["fedward", "appliance", "install", "--token-file", "token.txt"]
    assert (
        main([*install[1:], "--config", "none.yaml"]) == EXIT_CONFIG
    )  # every argument is known; the file is not there


@pytest.mark.parametrize("release", [{}])
def test_without_a_release_in_the_settings_the_commands_have_places_for_it(invitation: Invitation) -> None:
    _, init, install = invitation.commands
    assert init[init.index("--release-key") + 1] == "KEY"
    assert "--image" not in init
    assert install[-2:] == ["--bundle", "FILE"]
    assert main([*install[1:], "--config", "none.yaml"]) == EXIT_CONFIG  # its arguments are known; the file isn't there


def test_init_writes_files_that_fit_the_token_and_never_over_others(
    invitation: Invitation, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*INIT, "--option", "train=records.csv", "--broker", "broker.example.org:443"]) == 0
    site = yaml.safe_load(Path("config/site.yaml").read_text())
    assert site["broker"] == {"host": "broker.example.org", "port": 443}
    assert site["tasks"] == {"breast-cancer": {"train": "/data/records.csv"}}
    assert yaml.safe_load(Path("appliance.yaml").read_text())["data"] == {"/data": "/srv/export"}
    assert main(INIT) == EXIT_CONFIG
    assert "there already; nothing was written" in capsys.readouterr().err
    secret = invitation.token_file.read_text()
    assert not [path for path in Path().rglob("*.yaml") if secret[:40] in path.read_text()]


@pytest.mark.parametrize("option", ["train", "train=/srv/records.csv", "train=../records.csv", "a-b=c"])
def test_init_refuses_an_option_that_leads_out_of_the_records(invitation: Invitation, option: str) -> None:
    assert main([*INIT, "--option", option]) == EXIT_CONFIG
    assert not Path("appliance.yaml").exists()


def test_init_refuses_a_token_that_others_can_read(invitation: Invitation) -> None:
    invitation.token_file.chmod(0o644)
    assert main(INIT) == EXIT_CONFIG


def test_a_publisher_makes_keys_and_is_told_what_settings_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    make = ["appliance", "release-key", "--out", "release.key"]
    assert main(make) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    public = Path("release.pub").read_bytes()
    assert release_key_line(read_release_key(public)) == line
    assert main(make) == EXIT_CONFIG
    assert Path("release.pub").read_bytes() == public


@pytest.mark.usefixtures("invitation")
def test_init_refuses_what_is_no_publishers_key(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*INIT, "--release-key", "KEY"]) == EXIT_CONFIG
    assert "--release-key: the publisher's key: expected a P-256 public key" in capsys.readouterr().err
    assert not Path("appliance.yaml").exists()
