"""Who may ask the API: the rule."""

import pytest

from coordinator.api.access import ANYBODY, TOKEN, Access

SECRET = "t" * 64


def test_whoever_shows_the_token_is_let_in() -> None:
    assert Access(SECRET).of(f"Bearer {SECRET}".encode(), None) == TOKEN
    assert Access(SECRET).of(f"bearer  {SECRET}".encode(), None) == TOKEN


@pytest.mark.parametrize(
    "shown",
    [
        "",
        "Bearer",
        "Bearer ",
        SECRET,
        f"Basic {SECRET}",
        f"Bearer {SECRET[1:]}",
        f"Bearer {SECRET}t",
        f"Bearer x {SECRET}",
    ],
)
def test_nothing_else_is_taken_for_the_token(shown: str) -> None:
    assert Access(SECRET).of(shown.encode(), None) is None


def test_a_certificate_counts_for_listed_names_only() -> None:
    access = Access(None, frozenset({"dashboard"}))
    assert access.of(b"", "dashboard") == "dashboard"
    assert access.of(b"", "north") is None
    assert access.of(b"", None) is None
    assert access.of(b"Bearer None", None) is None


def test_a_certificate_that_does_not_count_leaves_the_token() -> None:
    access = Access(SECRET, frozenset({"dashboard"}))
    assert access.of(f"Bearer {SECRET}".encode(), "north") == TOKEN


def test_where_nobody_has_to_say_who_they_are_everybody_is_let_in() -> None:
    assert Access().of(b"", None) == ANYBODY


def test_the_token_is_not_shown_where_the_rule_is_printed() -> None:
    assert SECRET not in repr(Access(SECRET))
