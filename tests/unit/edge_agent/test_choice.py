"""Which codec an update comes in."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.choice import choose_codec, upload_bytes, upload_limit_s
from fedward.codec import codec
from fedward.layout import Layout, Tensor

WIDE = Layout.of([Tensor("weight", (1000, 1000))])
ALL = ("f32", "q8", "eden4", "eden2", "eden1")
SIZES = upload_bytes(ALL, WIDE)  # 4 MB, 1.02 MB, 0.5 MB, 0.25 MB, 0.13 MB

some_codecs = st.lists(st.sampled_from(ALL), min_size=1, unique=True)
any_rate = st.floats(min_value=1.0, max_value=1e9)


def chosen(allowed: Sequence[str], asked: str, bytes_s: float | None, limit_s: float = 60.0) -> str:
    return choose_codec({name: SIZES[name] for name in allowed}, asked, bytes_s, limit_s)


@pytest.mark.parametrize(
    ("bytes_s", "expected"),
    [(None, "eden4"), (1e6, "eden4"), (8400.0, "eden4"), (8300.0, "eden2"), (4100.0, "eden1"), (1.0, "eden1")],
)
def test_the_most_precise_codec_whose_upload_is_fast_enough_is_taken(bytes_s: float | None, expected: str) -> None:
    assert chosen(ALL, "eden4", bytes_s) == expected


def test_an_upload_beside_a_long_training_may_take_a_quarter_of_its_time() -> None:
    assert upload_limit_s(60.0, None) == 60.0
    assert upload_limit_s(60.0, 200.0) == 60.0
    assert upload_limit_s(60.0, 4000.0) == 1000.0
    assert chosen(ALL, "q8", 1100.0, limit_s=60.0) == "eden1"
    assert chosen(ALL, "q8", 1100.0, limit_s=1000.0) == "q8"


def test_where_only_more_precise_codecs_are_allowed_the_smallest_of_them_goes() -> None:
    assert chosen(("f32", "q8"), "eden2", None) == "q8"


def test_where_a_model_is_exact_in_every_codec_the_one_asked_for_is_taken() -> None:
    sizes = upload_bytes(ALL, Layout.of([Tensor("bias", (100,))]))
    assert choose_codec(sizes, "eden4", 1.0, 60.0) == "eden4"


@pytest.mark.parametrize("bytes_s", [None, 1e9, 1.0])
@pytest.mark.parametrize("asked", ["f32", "f32z"])
def test_of_two_equally_precise_codecs_the_one_asked_for_goes(asked: str, bytes_s: float | None) -> None:
    sizes = upload_bytes(("f32", "f32z"), WIDE)
    assert choose_codec(sizes, asked, bytes_s, 60.0) == asked


def test_in_place_of_a_codec_that_the_policy_forbids_an_equally_precise_one_goes() -> None:
    assert choose_codec(upload_bytes(("f32", "q8"), WIDE), "f32z", None, 60.0) == "f32"


@given(allowed=some_codecs, asked=st.sampled_from(ALL), bytes_s=st.none() | any_rate)
def test_the_choice_is_allowed_and_no_more_precise_than_asked_for(
    allowed: list[str], asked: str, bytes_s: float | None
) -> None:
    choice = chosen(allowed, asked, bytes_s)
    assert choice in allowed
    if any(codec(name).bits <= codec(asked).bits for name in allowed):
        assert codec(choice).bits <= codec(asked).bits


@given(allowed=some_codecs, asked=st.sampled_from(ALL), slow=any_rate, fast=any_rate)
def test_a_faster_link_never_gets_a_less_precise_codec(
    allowed: list[str], asked: str, slow: float, fast: float
) -> None:
    slow, fast = sorted((slow, fast))
    assert codec(chosen(allowed, asked, slow)).bits <= codec(chosen(allowed, asked, fast)).bits
