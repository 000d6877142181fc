"""Which codec a version asks for, and its delta travels in."""

import pytest

from coordinator.precision import FEW_PARAMETERS, Precision, UpdateCodecs

LISTED = ("q8", "eden4", "eden2", "eden1")


def asked(precision: Precision, usual: str = "eden4", listed: tuple[str, ...] = LISTED) -> list[str]:
    """For each of the versions 0 to 9."""
    codecs = UpdateCodecs.of(usual, listed, precision, FEW_PARAMETERS)
    return [codecs.asked(version) for version in range(10)]


@pytest.mark.parametrize(("usual", "finer"), [("eden4", "q8"), ("eden2", "eden4"), ("eden1", "eden2")])
def test_the_first_versions_and_the_last_ones_ask_for_updates_one_step_more_precise(usual: str, finer: str) -> None:
    assert asked(Precision(2, last_version=10), usual) == [finer] * 2 + [usual] * 6 + [finer] * 2


def test_without_a_last_version_only_the_first_ones_do() -> None:
    assert asked(Precision(3)) == ["q8"] * 3 + ["eden4"] * 7


def test_one_step_is_to_the_next_codec_that_is_allowed_whatever_is_listed_first() -> None:
    assert asked(Precision(1), "eden1", ("q8", "eden4"))[:2] == ["eden4", "eden1"]
    assert asked(Precision(1), "eden1", ("eden4", "q8"))[:2] == ["eden4", "eden1"]


def test_no_step_goes_above_8_bits() -> None:
    assert asked(Precision(3), "eden4", ("f32", "f32z", "eden2")) == ["eden4"] * 10


def test_a_federation_with_no_precise_versions_asks_for_the_same_always() -> None:
    assert asked(Precision(0, last_version=5)) == ["eden4"] * 10


@pytest.mark.parametrize("usual", ["f32", "q8"])
def test_a_codec_that_is_precise_itself_stays(usual: str) -> None:
    assert asked(Precision(3), usual) == [usual] * 10


def test_a_finer_codec_that_is_not_allowed_is_not_asked_for() -> None:
    assert asked(Precision(3), listed=("eden2", "eden1")) == ["eden4"] * 10


@pytest.mark.parametrize(("usual", "last"), [("uqz", "q8"), ("q8", "q8"), ("f32", "f32")])
def test_of_the_deltas_only_the_last_ones_travel_precisely_for_what_others_lose_the_next_one_carries(
    usual: str, last: str
) -> None:
    precision = Precision(2, last_version=6)
    assert [precision.delta_codec(usual, version) for version in range(6)] == [usual] * 4 + [last] * 2
    assert [Precision(2).delta_codec(usual, version) for version in range(6)] == [usual] * 6


def test_the_usual_codec_is_allowed_whatever_is_listed_and_the_most_precise_stands_first() -> None:
    assert UpdateCodecs.of("eden2", ("eden1", "f32"), Precision(), 7).allowed == ("f32", "eden2", "eden1")
    assert UpdateCodecs.of("eden2", (), Precision(), 7).allowed == ("eden2",)


@pytest.mark.parametrize(("num_parameters", "usual"), [(FEW_PARAMETERS - 1, "q8"), (FEW_PARAMETERS, "eden4")])
def test_auto_takes_the_codec_that_suits_the_models_size(num_parameters: int, usual: str) -> None:
    codecs = UpdateCodecs.of("auto", ("eden1",), Precision(), num_parameters)
    assert (codecs.asked(5), codecs.allowed) == (usual, (usual, "eden1"))
