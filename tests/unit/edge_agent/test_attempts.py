"""Attempts at a training: counted until there is progress, and left alone after so many in vain."""

from pathlib import Path

import pytest

from edge_agent.attempts import MOST_ATTEMPTS, Attempts, AttemptsFile, training_name


def begun(times: int, training: str = "a", step: int = 0) -> Attempts:
    attempts = Attempts()
    for _ in range(times):
        attempts = attempts.begin(training, step)
    return attempts


def test_a_training_is_left_alone_after_the_most_attempts_and_not_before() -> None:
    assert not begun(MOST_ATTEMPTS - 1).in_vain("a", 0)
    assert begun(MOST_ATTEMPTS).in_vain("a", 0)


def test_an_attempt_that_begins_further_than_the_one_before_starts_the_count_anew() -> None:
    attempts = Attempts()
    for step in range(20):
        assert not attempts.in_vain("a", step)
        attempts = attempts.begin("a", step)
    assert attempts.begun == 1


@pytest.mark.parametrize("step", [0, 7])
def test_a_checkpoint_that_stands_still_or_is_lost_is_no_progress(step: int) -> None:
    assert begun(MOST_ATTEMPTS, step=7).in_vain("a", step)
    assert not begun(MOST_ATTEMPTS, step=7).in_vain("a", 8)


def test_an_attempt_that_begins_further_back_counts_progress_from_there() -> None:
    attempts = begun(MOST_ATTEMPTS, step=30).once_more().begin("a", 10)
    assert (attempts.begun, attempts.in_vain("a", 10), attempts.in_vain("a", 11)) == (MOST_ATTEMPTS, True, False)


def test_after_a_while_there_is_one_attempt_more_and_no_more() -> None:
    again = begun(MOST_ATTEMPTS).once_more()
    assert not again.in_vain("a", 0)
    assert again.begin("a", 0).in_vain("a", 0)
    assert begun(1).once_more().begun == 1


def test_another_training_has_a_count_of_its_own() -> None:
    attempts = begun(MOST_ATTEMPTS)
    assert not attempts.in_vain("b", 0)
    assert attempts.begin("b", 0) == begun(1, "b")


def test_an_exception_stays_counted_and_is_no_crash() -> None:
    attempts = begun(2)
    assert attempts.running
    assert (attempts.failed().begun, attempts.failed().running) == (2, False)


def test_whatever_may_decide_how_a_training_ends_is_in_its_name() -> None:
    names = {training_name(*parts) for parts in (("1", "2"), ("12", ""), ("", "12"), ("1", "3"))}
    assert len(names) == 4
    assert training_name("1", "2") == training_name("1", "2")


def test_attempts_outlive_the_process_until_they_are_forgotten(tmp_path: Path) -> None:
    file = AttemptsFile(tmp_path / "attempts.json")
    assert file.now == Attempts()
    file.change(begun(2))
    assert AttemptsFile(tmp_path / "attempts.json").now == begun(2)
    file.forget()
    assert file.now == AttemptsFile(tmp_path / "attempts.json").now == Attempts()


@pytest.mark.parametrize("content", ["", "[]", "{", '{"of_a_newer_release": 1}'])
def test_without_readable_attempts_none_was_made(tmp_path: Path, content: str) -> None:
    (tmp_path / "attempts.json").write_text(content)
    assert AttemptsFile(tmp_path / "attempts.json").now == Attempts()
