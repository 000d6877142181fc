"""The coordinator's configuration file."""

from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import BaseModel

from coordinator.config import FederationConfig
from coordinator.precision import Precision
from fedward.codec import CODECS
from fedward.errors import ConfigError
from fedward.messages import LocalOptimizer, Work
from fedward.settings import describe, load_settings

EXAMPLE = Path(__file__).parents[3] / "examples" / "federation.yaml"
LEAST: dict[str, Any] = {
    "federation": "ward",
    "sites": ["north"],
    "task": "tabular",
    "model": "initial.safetensors",
    "work": {"local_epochs": 1, "batch_size": 16, "local_lr": 0.1},
    "state_folder": "state",
    "broker": {"host": "localhost"},
}


def load(folder: Path, environment: dict[str, str] | None = None, **changes: object) -> FederationConfig:
    path = folder / "federation.yaml"
    path.write_text(yaml.safe_dump({**LEAST, **changes}))
    return load_settings(FederationConfig, path, environment or {})


def problems(folder: Path, **changes: object) -> str:
    with pytest.raises(ConfigError) as refusal:
        load(folder, None, **changes)
    return str(refusal.value)


def names(model: type[BaseModel], prefix: str = "") -> set[str]:
    """Every setting, by its dotted name."""
    found = set()
    for name, field in model.model_fields.items():
        inner = next(iter(get_args(field.annotation)), field.annotation)
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            found |= names(inner, f"{prefix}{name}.")
        else:
            found.add(f"{prefix}{name}")
    return found


def test_the_example_is_valid() -> None:
    config = load_settings(FederationConfig, EXAMPLE, {})
    assert config.sites == ["north", "south", "west"]
    assert (config.finish.metric, config.finish.value) == ("accuracy", 0.95)
    assert config.work.max_seconds == 3600


def test_the_least_file_has_the_defaults(tmp_path: Path) -> None:
    config = load(tmp_path)
    assert (config.codec, config.model_codec, config.http.port) == ("eden4", "uqz", None)
    assert config.codecs == ["q8", "eden4", "eden2", "eden1"]
    assert config.precision == Precision(1, None)
    assert config.finish.version is None
    assert (config.retention.versions, config.retention.records) == (100, 10_000)
    assert isinstance(config.work, Work)
    assert config.work.optimizer is LocalOptimizer.SGD


def test_a_model_is_sealed_to_enrolled_members_only(tmp_path: Path) -> None:
    assert "sealed_model: needs an identity" in problems(tmp_path, sealed_model=True)
    assert load(tmp_path, sealed_model=True, identity={"folder": "identity"}).sealed_model
    assert not load(tmp_path).sealed_model


def test_the_codec_may_be_left_to_the_size_of_the_model(tmp_path: Path) -> None:
    assert load(tmp_path, codec="auto").codec == "auto"


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    text = problems(
        tmp_path, federation="No Name", sites=[], sitess=["x"], codec="zip", gather_s=-1, broker={"port": 0}
    )
    for place in ("federation:", "sites:", "sitess:", "codec:", "gather_s:", "broker.host: missing", "broker.port:"):
        assert f"  - {place}" in text


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"codec": "zip"},
            "codec: Value error, unknown codec; known: f32, f32z, q8, eden4, eden2, eden1, uqz, got 'zip'",
        ),
        (
            {"codec": "uqz"},
            "codec: Value error, its error doesn't average out, so it can't carry updates; choose f32 or f32z or q8",
        ),
        ({"codecs": ["eden4", "zip"]}, "codecs.1: Value error, unknown codec"),
        (
            {"model_codec": "zip"},
            f"model_codec: Value error, unknown codec; known: {', '.join(CODECS)}, got 'zip'",
        ),
        (
            {"model_codec": "eden4"},
            "decoding differs between machines, so it can't carry a model; choose f32 or f32z or q8 or uqz",
        ),
        ({"finish": {"metric": "auc"}}, "metric and value go together"),
        ({"finish": {"value": 0.5}}, "metric and value go together"),
        ({"sites": ["North"]}, "sites.0:"),
        ({"sites": ["coordinator"]}, "sites.0: Value error, the names coordinator"),
        ({"sites": ["north", "coordinator-lungs"]}, "sites.1:"),
        ({"sites": ["enrol-0011"]}, "sites.0:"),
        ({"authority": {"folder": "ca", "command": ["kms"]}}, "authority: Value error, folder and command exclude"),
        ({"authority": {"days": 0.5}}, "authority.days:"),
        (
            {"installation": {"image": "r/a@sha256:00"}},
            "installation: Value error, image and image_signature go together",
        ),
        (
            {"installation": {"release_key": "KEY"}},
            "installation.release_key: Value error, the publisher's key: expected",
        ),
        ({"broker": {"host": "broker", "authorisation": "acl"}}, "broker.authorisation:"),
        ({"task": "a" * 65}, "task:"),
        ({"work": {**LEAST["work"], "local_epochs": 0}}, "work.local_epochs:"),
        ({"work": {**LEAST["work"], "epochs": 1}}, "work.epochs:"),
        ({"work": {**LEAST["work"], "optimizer": "lion"}}, "work.optimizer:"),
        ({"engine": {"preset": "nothing"}}, "engine.preset:"),
        ({"engine": {"preset": "fedavg", "buffer_size": 3}}, "barrier sets the buffer size"),
        ({"engine": {"optimizer": {"name": "sgd", "lr": 1}}}, "engine.optimizer.lr:"),
        ({"retention": {"versions": 0}}, "retention.versions:"),
        ({"retention": {"versions": 20}}, "retention: Value error, versions must be more than engine.max_staleness"),
        ({"engine": {"max_staleness": 100}}, "retention: Value error, versions must be more than engine.max_staleness"),
        ({"retention": {"versions": 50, "records": 49}}, "retention: Value error, records must be at least versions"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(tmp_path: Path, changes: dict[str, object], expected: str) -> None:
    assert expected in problems(tmp_path, **changes)


def test_the_environment_reaches_into_sections(tmp_path: Path) -> None:
    environment = {"FEDWARD_BROKER__PORT": "8883", "FEDWARD_WORK__LOCAL_EPOCHS": "3", "FEDWARD_SITES": "[a, b]"}
    config = load(tmp_path, environment)
    assert (config.broker.port, config.work.local_epochs, config.sites) == (8883, 3, ["a", "b"])


def test_help_describes_every_setting() -> None:
    lines = list(describe(FederationConfig))
    described = {line.split()[0] for line in lines}
    assert described == names(FederationConfig)
    assert {"broker.host", "engine.optimizer.beta1", "finish.metric", "http.port", "gather_s"} <= described
    assert not [line for line in lines if line.rstrip().endswith(":")], "a setting without an explanation"
