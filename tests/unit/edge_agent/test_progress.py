"""The counters that survive a restart, and how the outbox corrects them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge_agent.progress import Progress, ProgressFile, SavedProgress
from fedward.messages import Outcome, Receipt

SAVED = Progress(sequence=5, trained_from=8, num_accepted=3, num_refused=1)


def test_progress_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    ProgressFile(tmp_path / "progress.json").save(SAVED)
    assert ProgressFile(tmp_path / "progress.json").load([]) == SAVED


def test_an_update_saved_after_the_progress_moves_it_on(tmp_path: Path, new_offer: Any) -> None:
    file = ProgressFile(tmp_path / "progress.json")
    file.save(SAVED)
    corrected = file.load([new_offer(sequence=5, base_version=9)])
    assert corrected == Progress(sequence=6, trained_from=9, num_accepted=3, num_refused=1, work_s=0.5)


def test_an_update_that_was_counted_already_changes_nothing(tmp_path: Path, new_offer: Any) -> None:
    file = ProgressFile(tmp_path / "progress.json")
    file.save(SAVED)
    assert file.load([new_offer(sequence=4, base_version=2)]) == SAVED


@pytest.mark.parametrize("content", [None, "", "[]", "null", "{"])
def test_without_readable_progress_the_outbox_alone_decides(
    tmp_path: Path, new_offer: Any, content: str | None
) -> None:
    path = tmp_path / "progress.json"
    if content is not None:
        path.write_text(content)
    progress = ProgressFile(path).load([new_offer(sequence=2, base_version=1), new_offer(sequence=3, base_version=4)])
    assert progress == Progress(sequence=4, trained_from=4, work_s=0.5)


def test_after_a_rollback_all_counts_but_what_the_newer_release_wrote_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "progress.json"
    path.write_text('{"sequence": 5, "num_accepted": 3, "of_a_newer_release": 2}')
    assert ProgressFile(path).load([]) == Progress(sequence=5, num_accepted=3)


def receipt(outcome: Outcome, update: int = 1) -> Receipt:
    return Receipt(update_id=bytes([update] * 32), outcome=outcome)


def test_a_receipt_keeps_the_rate_of_the_link_and_later_counts_nothing() -> None:
    later = SAVED.receipted(receipt(Outcome.LATER), 1e6)
    assert later == replace(SAVED, uplink_bytes_s=1e6)
    accepted = later.receipted(receipt(Outcome.ACCEPTED), 2e6)
    assert accepted == replace(SAVED, num_accepted=4, uplink_bytes_s=2e6, receipted_update="01" * 32)


@pytest.mark.parametrize(("outcome", "accepted", "refused"), [(Outcome.ACCEPTED, 4, 1), (Outcome.REFUSED, 3, 2)])
def test_a_receipt_that_comes_again_after_a_crash_counts_once(outcome: Outcome, accepted: int, refused: int) -> None:
    once = SAVED.receipted(receipt(outcome), None)
    assert (once.num_accepted, once.num_refused) == (accepted, refused)
    assert once.receipted(receipt(outcome), None) == once
    assert once.receipted(receipt(outcome, update=2), None).receipted_update == "02" * 32


def test_a_start_that_has_nothing_to_correct_writes_nothing(tmp_path: Path, new_offer: Any) -> None:
    file = ProgressFile(tmp_path / "progress.json")
    SavedProgress(file, [])
    assert list(tmp_path.iterdir()) == []
    saved = SavedProgress(file, [new_offer(sequence=3)]).now
    assert file.load(()) == saved
    before = (tmp_path / "progress.json").stat().st_ino
    SavedProgress(file, [new_offer(sequence=3)])
    assert (tmp_path / "progress.json").stat().st_ino == before  # a write would be another file
