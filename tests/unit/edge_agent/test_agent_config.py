"""The site's settings: the example is valid, and a mistake stops the start."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from edge_agent.config import SiteConfig
from fedward.settings import load_settings

EXAMPLE = Path(__file__).parents[3] / "examples" / "site.yaml"


def test_the_example_can_be_used_as_it_is() -> None:
    config = load_settings(SiteConfig, EXAMPLE, {})
    assert list(config.tasks) == ["breast-cancer"]
    assert config.policy_file is not None


def test_the_environment_overrides_the_example() -> None:
    assert load_settings(SiteConfig, EXAMPLE, {"FEDWARD_BROKER__PORT": "7"}).broker.port == 7


@pytest.mark.parametrize(
    "changes",
    [
        {"tasks": {}},
        {"tasks": {"Sepsis": {}}},
        {"site": "St. Anna"},
        {"site": "coordinator"},
        {"site": "coordinator-ward"},
        {"site": "enrol-0011"},
        {"federation": "a/b"},
        {"policy": {"compute_share": 0.5}},
        {"egress_log_mib": 1},
        {"telemetry_s": 0},
        {"threads": 0},
        {"checkpoint_s": -1},
        {"password": "secret"},
    ],
)
def test_a_value_out_of_its_bounds_or_an_unknown_one_is_refused(config: SiteConfig, changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        SiteConfig.model_validate({**config.model_dump(), **changes})


def test_settings_never_change_after_the_start(config: SiteConfig) -> None:
    with pytest.raises(ValidationError):
        config.site = "other"
