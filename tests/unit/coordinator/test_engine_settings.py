"""Presets are the methods of the literature, and a setting that makes no sense stops the process."""

import pytest

from coordinator.engine.settings import PRESETS, EngineSettings, OptimizerSettings, engine_settings


def test_a_preset_named_anywhere_brings_its_own_settings() -> None:
    assert EngineSettings(preset="fedavg") == engine_settings("fedavg")
    assert engine_settings("fedavg").barrier
    assert engine_settings("fedavg").max_staleness == 0


def test_an_override_wins_over_the_preset() -> None:
    assert engine_settings("fedbuff").buffer_size == 10
    assert engine_settings("fedbuff", buffer_size=3).buffer_size == 3


def test_part_of_an_optimizer_keeps_the_rest_of_the_presets() -> None:
    assert engine_settings("fedasync", optimizer={"name": "momentum"}).optimizer.learning_rate == 0.6


def test_a_dump_reads_back_as_the_same_settings() -> None:
    settings = engine_settings("fedasync", buffer_size=2, optimizer={"server_lr": 0.3})
    assert EngineSettings.model_validate(settings.model_dump()) == settings


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_valid(preset: str) -> None:
    assert engine_settings(preset).preset == preset


@pytest.mark.parametrize("model", [EngineSettings, OptimizerSettings])
def test_every_setting_has_its_help(model: type[EngineSettings] | type[OptimizerSettings]) -> None:
    assert all(field.description for field in model.model_fields.values())


@pytest.mark.parametrize(
    ("preset", "overrides"),
    [
        ("fedprox", {}),
        ("default", {"buffersize": 3}),
        ("default", {"rate_cap": 0.5}),
        ("fedavg", {"buffer_size": 3}),
        ("fedavg", {"repeat_base": True}),
        ("ca2fl", {"pull": True}),
        ("ca2fl", {"normalisation": "weight"}),
        ("default", {"optimizer": {"name": "lion"}}),
    ],
)
def test_settings_that_make_no_sense_are_refused(preset: str, overrides: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        engine_settings(preset, **overrides)


def test_the_learning_rate_left_unset_is_the_optimizers_own() -> None:
    assert OptimizerSettings().learning_rate == 1.0
    assert OptimizerSettings(name="momentum", momentum=0.9).learning_rate == pytest.approx(0.1)
    assert OptimizerSettings(name="yogi").learning_rate == 0.01
    assert OptimizerSettings(name="yogi", server_lr=0.5).learning_rate == 0.5
