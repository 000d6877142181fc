"""The first files of an appliance: they can be read by what reads them, and fit each other."""

from pathlib import Path
from typing import Any

import pytest

from edge_agent.appliance.config import ApplianceConfig
from edge_agent.appliance.plan import problems_of
from edge_agent.appliance.preparing.beginning import APPLIANCE, POLICY, SITE, Beginning, files_of
from edge_agent.config import SiteConfig
from edge_agent.policy import PolicySettings
from fedward.settings import load_settings

ROOT = Path(__file__).parents[3]

KEY = (
    "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEaxfR8uEsQkf4vOblY6RA8ncDfYEt6zOg9KE5RdiYwpZP40Li/hp/m47n60p8D54WK84zV2sxXs7Lt"
    "kBoN79R9Q=="
)
"""A public key: the base point of P-256."""

LEAST: dict[str, Any] = {
    "federation": "ward",
    "site": "north",
    "host": "broker.example.org",
    "task": "breast-cancer",
    "records": "/srv/export",
}


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"options": {"train": "records.csv", "held_out": "later/held out.csv"}, "port": 443},
        {
            "records": '/srv/it\'s: a "folder" # of ours',
            "proxy": "http://proxy:3128",
            "release_key_file": "/etc/release.pub",
        },
        {"release_key": KEY},
        {"image": "r/a@sha256:" + "ab" * 32, "image_signature": "MEUC", "approval": "automatic"},
    ],
    ids=str,
)
def test_the_first_files_can_be_read_and_fit_each_other(tmp_path: Path, more: dict[str, Any]) -> None:
    begin = Beginning(**LEAST | more)
    (tmp_path / "config").mkdir()
    for name, text in files_of(begin).items():
        (tmp_path / name).write_text(text)
    config = load_settings(ApplianceConfig, tmp_path / APPLIANCE, {}).resolved(tmp_path)
    site = load_settings(SiteConfig, tmp_path / SITE, {})
    policy = load_settings(PolicySettings, tmp_path / POLICY, {})
    assert problems_of(config, site) == []
    assert [str(path) for path in config.data.values()] == [begin.records]
    assert {name: str(value) for name, value in site.tasks[begin.task].items()} == {
        name: f"/data/{path}" for name, path in begin.options.items()
    }
    assert policy.federations == [begin.federation]
    assert policy.approval == begin.approval


def test_the_example_can_be_read() -> None:
    config = load_settings(ApplianceConfig, ROOT / "examples" / "appliance.yaml", {})
    assert config.config_folder
