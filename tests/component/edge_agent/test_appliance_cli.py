"""`fedward appliance init`: from a token to files, as a hospital does it."""

import time
from pathlib import Path

import pytest

from fedward.cli import EXIT_CONFIG, main
from fedward.identity.token import write_token
from tests.support.enrolment import HOST, new_membership

pytest.importorskip("docker", reason="the SDK is not installed: pip install 'fedward[appliance]'")

INIT = ["appliance", "init", "--token-file", "token.txt", "--task", "breast-cancer", "--records", "/srv/export"]


@pytest.fixture
def token_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A token of a real coordinator, in the folder that the commands run in."""
    now_s = time.time()
    token = new_membership(tmp_path / "centre", now_s).invite("north", HOST, now_s + 86_400, automatic=False)
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "token.txt"
    path.touch(0o600)
    path.write_text(write_token(token))
    return path


def test_init_writes_files_that_fit_the_token_and_never_over_others(
    token_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*INIT, "--option", "train=records.csv", "--broker", "broker.example.org:443"]) == 0
    site = Path("config/site.yaml").read_text()
    assert 'site: "north"' in site
    assert 'host: "broker.example.org"\n  port: 443' in site
    assert 'train: "/data/records.csv"' in site
    assert "/srv/export" in Path("appliance.yaml").read_text()
    assert main(INIT) == EXIT_CONFIG
    assert "there already; nothing was written" in capsys.readouterr().err
    secret = token_file.read_text()
    assert not [path for path in Path().rglob("*.yaml") if secret[:40] in path.read_text()]


@pytest.mark.parametrize("option", ["train", "train=/srv/records.csv", "train=../records.csv", "a-b=c"])
def test_init_refuses_an_option_that_leads_out_of_the_records(token_file: Path, option: str) -> None:
    assert main([*INIT, "--option", option]) == EXIT_CONFIG
    assert not Path("appliance.yaml").exists()


def test_init_refuses_a_token_that_others_can_read(token_file: Path) -> None:
    token_file.chmod(0o644)
    assert main(INIT) == EXIT_CONFIG
